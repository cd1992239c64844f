"""Plots that take an `ax`: what is drawn, apart from where it stands and how it is saved.

Why `ax` first: a reader who wants another panel in their own figure calls the same function as the paper's
figures do. Look and sizes come from `style`, names and directions from `baselines.SCORES`, every correlation
from `tables`; nothing is computed here that a table would have to compute again. Accuracies come in as
fractions and are drawn in percent, regrets in points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gracelib.baselines import SCORES
from gracelib.drawing.style import EDGE, GREY, SMALL, family, temperature_area
from gracelib.evidence.cells import ACCURACIES
from gracelib.paper.reported import STUDENT, TASK, PaperValue

BAR, PAPER_MARK = "#8fa9bf", "#a03000"
PAPER_LABEL = f"paper, {STUDENT}/{TASK}, |ρ|"
_ONE_SIZE = 40.0  #: marker area where all cells have one temperature


def number(value: float) -> str:
    """A correlation as printed: two decimals, always a sign, a true minus."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0: what rounds to zero has no minus


def spearman_text(row: Mapping) -> str:
    """A row of `cells.score_rows` as "Spearman +0.84 [+0.61, +0.93]"; says so where it is undefined."""
    if np.isnan(row["spearman"]):
        return "Spearman undefined"
    text = f"Spearman {number(row['spearman'])}"
    return text if np.isnan(row["low"]) else f"{text} [{number(row['low'])}, {number(row['high'])}]"


def score_label(name: str) -> str:
    """Axis label of a score with its direction."""
    score = SCORES[name]
    percent = "%, " if name == "teacher_accuracy" else ""
    return f"{score.label} ({percent}{score.direction} is better)"


def accuracy_label(accuracy: str = "average_at_k", k: int = 16) -> str:
    """Axis label of a student accuracy, in percent."""
    return f"Student {ACCURACIES[accuracy].format(k=k)} (%)"


def score_values(rows: pd.DataFrame, name: str) -> np.ndarray:
    """A score's column as drawn: teacher accuracy in percent, the others as they are."""
    return rows[name].to_numpy(float) * (100 if name == "teacher_accuracy" else 1)


def scatter(
    ax: Axes, rows: pd.DataFrame, score: str, row: Mapping, *, accuracy: str = "average_at_k", k: int = 16
) -> None:
    """A score against student accuracy: one marker and colour a family, size for temperature.

    `rows` from `cells.select`, `row` the score's row of `cells.score_rows`, printed above the axes. The x
    axis is logarithmic where positive values span more than a decade. One size is used when all cells have
    one temperature.
    """
    x, y = score_values(rows, score), 100 * rows[accuracy].to_numpy(float)
    one = rows["temperature"].nunique() == 1
    area = np.array([_ONE_SIZE if one else temperature_area(t) for t in rows["temperature"]])
    for name in dict.fromkeys(rows["manner"]):
        look, of = family(name), (rows["manner"] == name).to_numpy()
        ax.scatter(
            x[of],
            y[of],
            s=area[of] * look.area,
            c=look.color,
            marker=look.marker,
            edgecolors=EDGE,
            linewidths=0.5,
            alpha=0.9,
            zorder=3,
            label=name,
        )
    x_axis(ax, x)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.margins(0.07, 0.08)
    if np.ptp(y) == 0:  # one accuracy leaves nothing to scale the axis by
        ax.set_ylim(y[0] - 5, y[0] + 5)
    ax.set_xlabel(score_label(score))
    ax.set_ylabel(accuracy_label(accuracy, k))
    ax.set_title(spearman_text(row), fontsize=SMALL, pad=4)


def x_axis(ax: Axes, values: np.ndarray) -> None:
    """Logarithmic with plain labels where positive values span more than a decade, else linear with few
    ticks.
    """
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > 10:
        decades = np.log10(values.max() / values.min())
        ax.set_xscale("log")
        subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0, 3.0) if decades < 3 else (1.0,)
        ax.xaxis.set_major_locator(LogLocator(subs=subs))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))


def selected_and_regret(
    ax: Axes, rows: pd.DataFrame, score: str, row: Mapping, *, accuracy: str = "average_at_k"
) -> None:
    """Upon a `scatter`: a triangle around what the score selects, and its distance to the best student.

    The regret printed is the row's. Tied first places each get a triangle.
    """
    x, y = score_values(rows, score), 100 * rows[accuracy].to_numpy(float)
    first = np.nanmin(x) if SCORES[score].direction == "lower" else np.nanmax(x)
    chosen = np.flatnonzero(x == first)
    best = y.max()
    ax.axhline(best, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)
    ax.vlines(x[chosen], y[chosen], best, color="black", linewidth=1.4, zorder=2)
    ax.scatter(
        x[chosen],
        y[chosen],
        s=190,
        marker="^",
        facecolors="none",
        edgecolors="black",
        linewidths=1.3,
        zorder=4,
        gid=f"selected-{score}",
    )
    ax.margins(0.1, 0.12)
    ax.set_title(f"{ax.get_title(loc='left')}\nregret {row['regret_points']:.1f} points", fontsize=SMALL, pad=4)


def selected_handles() -> list[Artist]:
    """Legend entries of `selected_and_regret`."""
    return [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="^",
            markerfacecolor="none",
            markeredgecolor="black",
            markeredgewidth=1.2,
            markersize=8.5,
            label="selected by the score",
        ),
        Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), label="best student"),
        Line2D([], [], color="black", linewidth=1.4, label="regret"),
    ]


def correlation_bars(
    ax: Axes,
    table: pd.DataFrame,
    paper: Mapping[str, PaperValue] | None = None,
    *,
    labels: bool = True,
    star: bool = False,
    narrow: bool = False,
) -> None:
    """Bars of signed Spearman with 95% intervals; the paper's value is an open diamond of its own.

    `table` from `cells.score_rows`, drawn from top to bottom in its order; our value is printed at the
    right. `paper`: magnitudes by score name; one that is reported as a range gets a diamond at both ends, a bound a
    triangle. An undefined correlation has no bar and says so. A score that some cells lack says on how many it stands,
    or gets a star (`star`; for panels that share their names, which `labels` prints). `narrow`: a short axis label.
    """
    whole = table["cells"].max()
    for y, row in enumerate(table.to_dict("records")):
        value = row["spearman"]
        if np.isnan(value):
            ax.text(-0.04, y, "undefined", ha="right", va="center", fontsize=SMALL, color=GREY)
            continue
        _bar(ax, y, value, (row["low"], row["high"]), number(value) + ("*" if star and row["cells"] < whole else ""))
    _paper_marks(ax, table, paper)
    ax.axvline(0, color=EDGE, linewidth=0.7, zorder=2.5)
    ax.set_xlim(-1, 1)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
    _score_axis(ax, table, labels, counts=not star)
    ax.set_xlabel("Spearman (good is +)" if narrow else "Signed Spearman (good is positive)")


def regret_bars(
    ax: Axes, table: pd.DataFrame, paper: Mapping[str, PaperValue] | None = None, *, at_most: float, labels: bool = True
) -> None:
    """Bars of regret in points with 95% intervals, from 0 to a little over `at_most`; marks as `correlation_bars`."""
    for y, row in enumerate(table.to_dict("records")):
        value = row["regret_points"]
        if np.isnan(value):
            ax.text(0.5, y, "undefined", ha="left", va="center", fontsize=SMALL, color=GREY)
            continue
        _bar(ax, y, value, (row["regret_low"], row["regret_high"]), f"{value:.1f}")
    _paper_marks(ax, table, paper)
    ax.set_xlim(0, 1.05 * max(at_most, 1.0))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    _score_axis(ax, table, labels)
    ax.set_xlabel("Regret (points)")


def _bar(ax: Axes, y: int, value: float, interval: tuple[float, float], text: str) -> None:
    """A horizontal bar with its interval, and its value at the right edge of the axes."""
    ax.barh(y, value, height=0.62, color=BAR, edgecolor=EDGE, linewidth=0.5, zorder=2)
    if not np.isnan(interval[0]):
        ax.plot(interval, [y, y], color=EDGE, linewidth=1.1, marker="|", markersize=5, zorder=3)
    ax.annotate(
        text,
        (1, y),
        xycoords=ax.get_yaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
    )


def _score_axis(ax: Axes, table: pd.DataFrame, labels: bool, counts: bool = True) -> None:
    """The scores from top to bottom; one that some cells do not have says on how many it stands."""
    whole = table["cells"].max()
    names = [r.label if r.cells == whole or not counts else f"{r.label} ({r.cells} cells)" for r in table.itertuples()]
    ax.set_yticks(range(len(table)), names if labels else [""] * len(table))
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    if labels:
        ax.set_ylabel("Score")


def _paper_marks(ax: Axes, table: pd.DataFrame, paper: Mapping[str, PaperValue] | None) -> None:
    for y, name in enumerate(table["score"]):
        if paper and name in paper:
            ends = sorted({paper[name].low, paper[name].high})
            ax.plot(
                ends,
                [y] * len(ends),
                **_mark(paper[name].bound),
                linewidth=0.8,
                zorder=4,
                clip_on=False,
                gid=f"paper-{name}",
            )


def _mark(bound: str = "") -> dict:
    """The look of a value of the paper: an open diamond; of a bound, an open triangle that points where the value is."""
    return {
        "color": PAPER_MARK,
        "marker": {"at least": ">", "at most": "<"}.get(bound, "D"),
        "markersize": 4.6 if bound in ("", "about") else 5.2,
        "markerfacecolor": "white",
        "markeredgewidth": 1.1,
    }


def paper_handles(values: Iterable[PaperValue], label: str = PAPER_LABEL) -> list[Artist]:
    """Legend entries of the paper's marks that are drawn: numbers, and bounds of either kind; none if there are none."""
    kinds = {"" if value.bound == "about" else value.bound for value in values}
    return [
        Line2D([], [], linestyle="none", **_mark(kind), label=f"{label}{', ' * bool(kind)}{kind}")
        for kind in ("", "at least", "at most")
        if kind in kinds
    ]


def bar_handles(paper: bool = True, label: str = "this run, signed") -> list[Artist]:
    """Legend entries of `correlation_bars`."""
    ours = [
        Patch(facecolor=BAR, edgecolor=EDGE, linewidth=0.5, label=label),
        Line2D([], [], color=EDGE, linewidth=1.1, marker="|", markersize=5, label="95% interval"),
    ]
    return [*ours, Line2D([], [], linestyle="none", **_mark(), label=PAPER_LABEL)] if paper else ours
