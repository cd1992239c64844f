"""Marks and axes of which the figures are composed: `ax` first, what is drawn apart from where it stands.

Why `ax` first: a reader who wants another panel in their own figure calls the same function as the paper's figures do.
Look and sizes come from `style`, names and directions from `baselines.SCORES`, every number from a table of `evidence`;
nothing is computed here that a table would have to compute again. Accuracies come in as fractions and are drawn in
percent, regrets in points. Where several scores or settings share an axis they are greys with marks of their own: colours
and the other marks belong to the families of teachers.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from gracelib.baselines import SCORES
from gracelib.drawing.captions import counted
from gracelib.drawing.style import (
    DOUBLE,
    EDGE,
    GREY,
    SMALL,
    entry,
    family,
    family_handles,
    frame,
    temperature_area,
    temperature_handles,
)
from gracelib.evidence.cells import ACCURACIES, UNTRAINED
from gracelib.paper.reported import STUDENT, TASK, PaperValue

FEW = 10  #: students that a picture of correlations needs: among fewer, an interval reaches from end to end
BAR, GRACE_BAR, PALE_BAR, PAPER_MARK, SHADE = "#a9bccb", "#5b8cbd", "#d8e1e8", "#a03000", "#e9e9e9"
DASHED = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (4, 2))}  #: the line of a default or of a best value
UNTRAINED_LINE = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (1, 1.5))}
#: Marker, face and line of the scores or settings that share an axis, in their order.
LOOKS = (
    ("H", "#222222", "-"),
    ("8", "#a0a0a0", (0, (4, 1.5))),
    ("h", "#e0e0e0", (0, (1, 1.2))),
    ("H", "#666666", (0, (6, 2))),
    ("8", "#d0d0d0", (0, (3, 1, 1, 1))),
)
_PALE, _PALE_LINE = ("#e0e0e0", "#d0d0d0"), "#707070"  #: faces too pale to draw a line with, and its colour

# --- words ---------------------------------------------------------------------------------------------------


def number(value: float, form: str = "+.2f") -> str:
    """A correlation as printed: two decimals, always a sign, a true minus."""
    return f"{round(value, 2) + 0.0:{form}}".replace("-", "−")  # + 0.0: what rounds to zero has no minus


def with_interval(value: float, low: float, high: float, form: str = "+.2f") -> str:
    """ "+0.61 [+0.40, +0.83]"; the value alone where it has no interval."""
    text = number(value, form)
    return text if np.isnan(low) else f"{text} [{number(low, form)}, {number(high, form)}]"


def score_label(name: str) -> str:
    """Axis label of a score with its direction."""
    percent = "%, " if name == "teacher_accuracy" else ""
    return f"{SCORES[name].label} ({percent}{SCORES[name].direction} is better)"


def accuracy_label(accuracy: str = "average_at_k", k: int = 16) -> str:
    """Axis label of a student accuracy, in percent."""
    return f"Student {ACCURACIES[accuracy].format(k=k)} (%)"


def score_values(rows: pd.DataFrame, name: str) -> np.ndarray:
    """A score's column as drawn: teacher accuracy in percent, the others as they are."""
    return rows[name].to_numpy(float) * (100 if name == "teacher_accuracy" else 1)


def say(ax: Axes, text: str, x: float = 0.5, y: float = 0.5, transform=None) -> None:
    """Grey words in the middle of the axes, or where `x` and `y` say (a fraction of the axes, or as `transform`)."""
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=SMALL,
        color=GREY,
        transform=ax.transAxes if transform is None else transform,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},  # under text that a line would cross
    )


def not_drawn(rows: pd.DataFrame, table: pd.DataFrame, note: str) -> Figure:
    """In place of a picture of fewer than `FEW` students: why there is none, with the correlation in the table's first row."""
    fig, (ax,) = frame(DOUBLE, 0.5, [], note)
    ax.set_axis_off()
    first, here = table.iloc[0], f"{counted(len(rows), 'student')} of {counted(rows['teacher'].nunique(), 'teacher')}"
    rho = (
        "undefined"
        if np.isnan(first["spearman"])
        else f"{with_interval(*first[['spearman', 'low', 'high']])}, which excludes little"
    )
    say(ax, f"Not drawn: {here} cannot show an order.\n{first['label']}: {rho}. See a larger scale.")
    return fig


# --- marks ---------------------------------------------------------------------------------------------------


def family_marks(ax: Axes, x, y, manner: Sequence[str], area=20.0, names: Sequence[str] = (), **more) -> None:
    """One mark for each (x, y) in the look of its family; `area` in square points, `more` as in `Axes.scatter`.

    `names`: what each mark is. They go where matplotlib has links, the one text that it keeps for each mark of an SVG, and
    `saving` makes them what a pointer that rests on the mark is told.
    """
    x, y, area = np.broadcast_arrays(x, y, area)
    for name in dict.fromkeys(manner):
        look, of = family(name), np.asarray(manner) == name
        usual = {"c": look.color, "marker": look.marker, "edgecolors": EDGE, "linewidths": 0.5, "zorder": 3}
        if len(names):
            usual["urls"] = list(np.asarray(names)[of])
        ax.scatter(x[of], y[of], s=look.area * area[of], **(usual | {"label": name} | more))


def family_line(ax: Axes, x, y, name: str, error=None, **more) -> None:
    """A line in the look of a family, with error bars where given; `more` as in `Axes.errorbar`."""
    look = family(name)
    usual = {"markersize": 5.5, "markeredgecolor": EDGE, "markeredgewidth": 0.5, "linewidth": 1.2, "elinewidth": 0.9}
    ax.errorbar(x, y, error, color=look.color, marker=look.marker, **(usual | more))


def line_look(look: tuple, line: bool = True) -> dict:
    """One of `LOOKS` as properties of a line with marks (`line` False: the marks alone)."""
    mark, face, dash = look
    return {
        "color": _PALE_LINE if face in _PALE else face,
        "linestyle": dash if line else "none",
        "linewidth": 1.1,
        "marker": mark,
        "markersize": 5,
        "markerfacecolor": face,
        "markeredgecolor": EDGE,
        "markeredgewidth": 0.6,
    }


def points(ax: Axes, x, y, low, high, look: tuple, *, upright: bool = True, **more) -> None:
    """Marks of one look with their intervals, vertical or horizontal; what is undefined is left out."""
    interval = {"color": line_look(look)["color"], "linewidth": 1, "zorder": 2.5}
    if upright:
        ax.vlines(x, low, high, **interval)
    else:
        ax.hlines(y, low, high, **interval)
    usual = {"s": 26, "c": look[1], "marker": look[0], "edgecolors": EDGE, "linewidths": 0.7, "zorder": 4}
    ax.scatter(x, y, **(usual | more))


def paper_mark(ax: Axes, value: PaperValue, at: float, name: str, upright: bool = False) -> None:
    """The paper's value in the row `at` (in the column, if `upright`): open diamonds at its ends, for a bound a triangle
    that points to where the value is."""
    ends = sorted({value.low, value.high})
    where = ([at] * len(ends), ends) if upright else (ends, [at] * len(ends))
    ax.plot(*where, **_paper_look(value.bound, upright), linewidth=0.8, zorder=4.5, clip_on=False, gid=f"paper-{name}")


def _paper_look(bound: str, upright: bool) -> dict:
    more, less = "^v" if upright else "><"
    return {
        "color": PAPER_MARK,
        "marker": {"at least": more, "at most": less}.get(bound, "D"),
        "markersize": 4.8,
        "markerfacecolor": "white",
        "markeredgecolor": PAPER_MARK,
        "markeredgewidth": 1.1,
    }


def scatter(
    ax: Axes,
    rows: pd.DataFrame,
    score: str,
    row: Mapping,
    *,
    accuracy: str = "average_at_k",
    k: int = 16,
    paper: PaperValue | None = None,
) -> None:
    """A score against student accuracy: one marker and colour per family, a line from a teacher's coldest cell to its
    hottest (the largest mark), a dashed line at the student before any training where the rows say how good it is.

    `rows` from `cells.select`, `row` the score's row of `cells.score_rows`, printed above the axes with the paper's value.
    The x axis is logarithmic where positive values span more than a decade. One size is used when all cells have
    one temperature.
    """
    x, y = score_values(rows, score), 100 * rows[accuracy].to_numpy(float)
    one = rows["temperature"].nunique() == 1
    area = [40.0 if one else temperature_area(t) for t in rows["temperature"]]
    for _, own in rows.reset_index().groupby("teacher"):
        ax.plot(x[own.index], y[own.index], color=family(own["manner"].iloc[0]).color, linewidth=0.8, zorder=2)
    cells = zip(rows["teacher"], rows["temperature"], y, strict=True)
    names = [f"{teacher}, T = {t:g}: student {percent:.1f}%" for teacher, t, percent in cells]
    family_marks(ax, x, y, rows["manner"], area, names, alpha=0.9)
    if UNTRAINED in rows:
        ax.axhline(100 * rows[UNTRAINED].iloc[0], **UNTRAINED_LINE, zorder=1.5)
    x_axis(ax, x)
    ax.margins(0.07, 0.08)
    if np.ptp(y) == 0:  # one accuracy leaves nothing to scale the axis by
        ax.set_ylim(y[0] - 5, y[0] + 5)
    said = "undefined" if np.isnan(row["spearman"]) else with_interval(row["spearman"], row["low"], row["high"])
    said += f"\npaper: {paper.text}" if paper else ""
    ax.set(xlabel=score_label(score), ylabel=accuracy_label(accuracy, k), title=f"Spearman {said}")


def selected_and_regret(
    ax: Axes,
    rows: pd.DataFrame,
    score: str,
    row: Mapping,
    *,
    accuracy: str = "average_at_k",
    paper: PaperValue | None = None,
) -> None:
    """Upon a `scatter`: a triangle around what the score selects, its name, and its distance to the best student.

    The regret printed is the row's, the paper's stands behind its correlation. Tied first places each get a triangle.
    """
    x, y = score_values(rows, score), 100 * rows[accuracy].to_numpy(float)
    chosen = np.flatnonzero(x == (np.nanmin(x) if SCORES[score].direction == "lower" else np.nanmax(x)))
    ax.axhline(y.max(), **DASHED, zorder=1.5)
    ax.vlines(x[chosen], y[chosen], y.max(), color="black", linewidth=1.4, zorder=2)
    chosen_mark(ax, x[chosen], y[chosen], f"selected-{score}", s=190)
    ax.margins(0.1, 0.12)
    names, said = " and ".join(rows["teacher"].iloc[chosen]), f", regret {paper.text}" if paper else ""
    ax.set_title(f"{ax.get_title(loc='left')}{said}\n{names}: regret {row['regret_points']:.1f} points")


def chosen_mark(ax: Axes, x, y, gid: str, s: float = 110.0) -> None:
    """An open triangle around what a score chooses."""
    ax.scatter(x, y, s=s, marker="^", facecolors="none", edgecolors="black", linewidths=1.2, zorder=4, gid=gid)


def correlation_bars(
    ax: Axes,
    table: pd.DataFrame,
    paper: Mapping[str, PaperValue],
    *,
    labels: bool = True,
    star: bool = False,
    narrow: bool = False,
) -> None:
    """Bars of signed Spearman with 95% intervals; the paper's value is an open diamond of its own.

    `table` from `cells.score_rows`, drawn from top to bottom in its order; our value is printed at the
    right. `paper`: magnitudes by score name. An undefined correlation has no bar and says so. A score that some cells
    lack says on how many it stands, or gets a star (`star`; for panels that share their names, which `labels` prints).
    `narrow`: a short axis label.
    """
    _bars(ax, table, ("spearman", "low", "high"), number, paper, labels, star)
    correlation_axis(ax, label="Spearman (good is +)" if narrow else "Signed Spearman (good is positive)")


def regret_bars(
    ax: Axes, table: pd.DataFrame, paper: Mapping[str, PaperValue], *, at_most: float, labels: bool = True
) -> None:
    """Bars of regret in points with 95% intervals, from 0 to a little over `at_most`; marks as `correlation_bars`."""
    _bars(ax, table, ("regret_points", "regret_low", "regret_high"), "{:.1f}".format, paper, labels)
    ax.set(xlim=(0, 1.05 * max(at_most, 1.0)), xlabel="Regret (points)")


def _bars(ax: Axes, table: pd.DataFrame, columns, text, paper: Mapping, labels: bool, star: bool = False) -> None:
    names, whole = [], table["cells"].max()
    for y, row in enumerate(table.to_dict("records")):
        value, low, high = (row[c] for c in columns)
        everywhere = row["cells"] == whole
        names.append(row["label"] if everywhere or star else f"{row['label']} ({row['cells']} cells)")
        if row["score"] in paper:
            paper_mark(
                ax, paper[row["score"]], y + 0.31, row["score"]
            )  # on the bar's edge: the interval stays in sight
        if np.isnan(value):
            say(ax, "undefined", 0.25, y, ax.get_yaxis_transform())
            continue
        color = GRACE_BAR if row["score"] == "grace" else BAR
        ax.barh(y, value, height=0.62, color=color, edgecolor=EDGE, linewidth=0.5, zorder=2)
        if not np.isnan(low):
            ax.plot([low, high], [y, y], color=EDGE, linewidth=1.1, marker="|", markersize=5, zorder=3)
        ax.annotate(
            text(value) + "*" * (star and not everywhere),
            (1, y),
            (3, 0),
            ax.get_yaxis_transform(),
            "offset points",
            va="center",
            fontsize=SMALL,
        )
    rows_axis(ax, names if labels else [""] * len(names))


# --- axes ----------------------------------------------------------------------------------------------------


def rows_axis(ax: Axes, names: Sequence[str], striped: bool = False) -> None:
    """Named rows from top to bottom; `striped` shades every second one, so that marks can be followed to their name."""
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5), ylabel="")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    for y in range(1, len(names), 2) if striped else ():
        ax.axhspan(y - 0.5, y + 0.5, color="#f6f6f6", zorder=-1)


def correlation_axis(ax: Axes, axis: str = "x", label: str = "Signed Spearman (good is positive)") -> None:
    """An axis from -1 to 1 with a line at zero."""
    line = ax.axvline if axis == "x" else ax.axhline
    line(0, color=EDGE, linewidth=0.7, zorder=1)
    shown = {"lim": (-1.05, 1.05), "ticks": [-1, -0.5, 0, 0.5, 1], "ticklabels": ["−1", "−0.5", "0", "0.5", "1"]}
    ax.set(**{f"{axis}{name}": value for name, value in (shown | {"label": label}).items()})


def x_axis(ax: Axes, values: np.ndarray) -> None:
    """Logarithmic with plain labels where positive values span more than a decade, else linear with few
    ticks.
    """
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > 10:
        ax.set_xscale("log")
        plain_log(ax.xaxis, values.min(), values.max())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))


def plain_log(axis: Axis, low: float, high: float) -> None:
    """Plain labels on a logarithmic axis from `low` to `high`, fewer where that spans decades."""
    steps = {3: (1,), 2: (1, 3), 1: (1, 2, 5), 0.5: (1, 1.5, 2, 3, 5, 7), 0: (1, 1.25, 1.5, 2, 3, 4, 5, 6, 8)}
    subs = next(subs for least, subs in steps.items() if np.log10(high / low) >= least)
    # In a narrow one there are few of the round numbers of any decade.
    axis.set_major_locator(LogLocator(subs=subs) if high / low > 1.5 else MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def log_ticks(ax: Axes, values: Iterable[float], base: int = 2) -> None:
    """A logarithmic x axis with a tick at each value that occurs and nowhere else."""
    values = sorted(set(values))
    ax.set_xscale("log", base=base)
    ax.set_xticks(values, [f"{v:g}" for v in values])
    ax.xaxis.set_minor_locator(NullLocator())


# --- legend entries ------------------------------------------------------------------------------------------


def cell_handles(rows: pd.DataFrame) -> list[list]:
    """Legend groups of a scatter: families, and temperatures where there are several."""
    several = rows["temperature"].nunique() > 1
    line = [entry("untrained student", **UNTRAINED_LINE)] if UNTRAINED in rows else []
    return [[*family_handles(rows["manner"]), *line], temperature_handles(rows["temperature"]) if several else []]


def chosen_handles(what: str, best: str) -> list[Artist]:
    """The triangle around what a score chooses, and the dashed line of the best."""
    return [
        entry(what, marker="^", markerfacecolor="none", markeredgecolor="black", markersize=8),
        entry(best, **DASHED),
    ]


def bar_handles(label: str = "this run, signed") -> list[Artist]:
    """Bars and their intervals."""
    return [
        Patch(facecolor=BAR, edgecolor=EDGE, linewidth=0.5, label=label),
        entry("95% interval", linestyle="-", color=EDGE, linewidth=1.1, marker="|", markeredgecolor=EDGE),
    ]


def paper_handles(
    values: Iterable[PaperValue], label: str = f"paper, {STUDENT}/{TASK}, |ρ|", upright: bool = False
) -> list[Artist]:
    """Legend entries of the paper's marks that are drawn: numbers, and bounds of either kind; none if there are none."""
    kinds = {"" if value.bound == "about" else value.bound for value in values}
    return [
        entry(f"{label}{', ' * bool(kind)}{kind}", **_paper_look(kind, upright))
        for kind in ("", "at least", "at most")
        if kind in kinds
    ]
