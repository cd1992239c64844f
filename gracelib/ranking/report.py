"""A ranking of teachers to be read: the table as text, what it can and cannot tell, and a picture.

Why apart from `ranking`: these are functions of two small tables, so they need no student and no torch; a test can
feed them tables made up for the purpose, and a reader can draw again from the files that a run wrote.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gracelib.baselines import SCORES
from gracelib.drawing import marks
from gracelib.drawing.saving import picture_writers
from gracelib.drawing.style import DOUBLE, EDGE, entry, frame, styled
from gracelib.jobs.store import write_atomically

PICTURES = ("svg", "png", "pdf")
POINT, TIE = "#0173b2", "#de8f05"
#: Columns of the printed table: heading, and how a row fills it.
_COLUMNS = {
    "rank": lambda r: str(r["rank"]),
    "teacher": lambda r: r["teacher"],
    "GRACE": lambda r: f"{r['grace']:.4g}",
    "95% interval": lambda r: f"{r['grace_low']:.4g} to {r['grace_high']:.4g}",
    "G-Norm": lambda r: f"{r['g_norm']:.4g}",
    "G-Vendi": lambda r: f"{r['g_vendi']:.3f}",
    "length": lambda r: f"{r['mean_length']:.1f}",
    "loss": lambda r: f"{r['student_loss']:.3f}",
}


def table_text(table: pd.DataFrame) -> str:
    """The ranking as aligned text. Columns: rank, teacher, GRACE, its interval, G-Norm, G-Vendi, mean length, loss."""
    rows = [list(_COLUMNS), *([cell(row) for cell in _COLUMNS.values()] for _, row in table.iterrows())]
    width = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = []
    for row in rows:  # names to the left, numbers to the right
        cells = [text.ljust(w) if i == 1 else text.rjust(w) for i, (text, w) in enumerate(zip(row, width, strict=True))]
        lines.append("  ".join(cells).rstrip())
    ends = ", ".join(f"{SCORES[s].label} {SCORES[s].direction}" for s in ("grace", "g_norm", "g_vendi", "student_loss"))
    return "\n".join([*lines, f"Better is: {ends}. Length in tokens, loss in nats per token."])


def neighbours_sentence(neighbours: pd.DataFrame) -> str:
    """Which neighbours in the ranking the common prompts cannot tell apart, in a sentence.

    `neighbours` has columns better, worse, p_better, apart; empty with one teacher.
    """
    if neighbours.empty:
        return "One teacher: there is nothing to compare it with."
    close, total = neighbours[~neighbours["apart"]], len(neighbours)
    if close.empty:
        return "All neighbours in the ranking are told apart." if total > 1 else "The two teachers are told apart."
    if len(close) == total > 1:
        low, high = close["p_better"].min(), close["p_better"].max()
        return (
            f"The data cannot tell apart any of the {total} pairs of neighbours: {low:.0%} to {high:.0%} of "
            "resamples keep their order."
        )
    follows = close["better"] == close["worse"].shift()  # such pairs are named as one row of teachers
    runs = [_run(pairs) for _, pairs in close.groupby((~follows).cumsum())]
    count = f"{len(close)} of {total} pair{'s' * (total > 1)} of neighbours"
    return f"The data cannot tell apart {count}: {'; '.join(runs)}."


def _run(pairs: pd.DataFrame) -> str:
    names, kept = [pairs["better"].iloc[0], *pairs["worse"]], pairs["p_better"]
    if len(pairs) == 1:
        return f"{_and(names)} ({kept.iloc[0]:.0%} of resamples keep this order)"
    return f"{_and(names)} ({min(kept):.0%} to {max(kept):.0%} of resamples keep two neighbours in this order)"


def first_sentence(first: pd.DataFrame) -> str:
    """Who else may be the best: the teachers not told apart from the first. `first` as `neighbours`, each against the
    first; empty with one teacher."""
    if first.empty:
        return ""
    best, rivals = first["better"].iloc[0], list(first.loc[~first["apart"], "worse"])
    if not rivals:
        return f"{best} comes first, and is told apart from every other teacher."
    others = _and(rivals)
    if len(rivals) == len(first) > 1:
        others = "any other teacher"
    elif len(rivals) > 2 and rivals == list(first["worse"][: len(rivals)]):
        others = f"those ranked 2 to {len(rivals) + 1}"
    return f"{best} comes first, but is not told apart from {others}."


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def ranking_figure(table: pd.DataFrame, neighbours: pd.DataFrame, note: str) -> Figure:
    """GRACE of each teacher with its interval, best on top; a bar in the left margin joins neighbours not told apart.

    The axis is logarithmic where the scores span more than a factor of five and no interval reaches zero. `note` says
    below it what was compared.
    """
    handles = [
        entry("GRACE with its 95% interval over prompts", color=POINT, marker="o"),
        entry("neighbours not told apart (paired, same prompts)", color=TIE, linestyle="-", linewidth=3),
    ]
    value, low, high = (table[c].to_numpy(float) for c in ("grace", "grace_low", "grace_high"))
    y, at = np.arange(len(table)), {name: i for i, name in enumerate(table["teacher"])}
    with styled():
        fig, (ax,) = frame(DOUBLE, 0.7 + 0.24 * len(table), [handles], note)
        ax.hlines(y, low, high, color=EDGE, linewidth=1.1, zorder=2)
        ax.plot(low, y, "|", high, y, "|", color=EDGE, markersize=5, zorder=2)
        ax.plot(value, y, "o", color=POINT, markeredgecolor=EDGE, markeredgewidth=0.5, markersize=5.5, zorder=3)
        if low.min() > 0 and value.max() > 5 * value.min():
            ax.set_xscale("log")
            marks.plain_log(ax.xaxis, low.min(), high.max())
        for pair in neighbours[~neighbours["apart"]].itertuples() if len(neighbours) else ():
            ax.plot(
                [0.012] * 2,
                [at[pair.better] + 0.06, at[pair.worse] - 0.06],
                color=TIE,
                linewidth=3,
                solid_capstyle="butt",
                transform=ax.get_yaxis_transform(),
                gid=f"tie-{at[pair.better]}",
                zorder=4,
            )
        marks.rows_axis(ax, [f"{r.teacher}  {r.rank}" for r in table.itertuples()])
        ax.set_xlabel("GRACE (lower is better)")
    return fig


def save_picture(fig: Figure, path: Path) -> None:
    """Write the figure as its ending says (svg, png or pdf); the same ranking gives the same bytes."""
    ending = path.suffix.lower()
    write_atomically(path, picture_writers(fig, "ranking", "Teachers ranked by GRACE", [ending])[ending])


def check_outputs(out: Path | None, plot: Path | None) -> None:
    """Refuse, before hours are spent, a place that cannot be written to or a kind of picture that is not known."""
    for path, endings in ((out, ("csv",)), (plot, PICTURES)):
        if path is None:
            continue
        if path.suffix.lstrip(".").lower() not in endings:
            raise ValueError(f"{path}: the name must end in {' or '.join('.' + e for e in endings)}")
        if path.is_dir():
            raise ValueError(f"{path} is a folder: give the name of a file to write")
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: the folder {path.absolute().parent} is not there; make it first")
