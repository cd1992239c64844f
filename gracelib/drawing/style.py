"""One look for every figure: what colour and marker a family has, how big text is, where the legend goes.

Why one place: a reader who has learnt in figure 1 that a blue circle is "equations" must never meet a blue
circle that is something else. So a family's look is fixed here by name, whichever families a figure happens
to show, and colour never stands alone: each family has its own marker too, for readers who see few colours
and for grey prints. Temperature is shown by size, which leaves both channels to the family. Text is sized for
a figure printed 3.3 inches wide (one column) or 6.75 (two), and the legend has its own strip below the axes,
so that it cannot cover a point.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gracelib.checks import check_choice

SINGLE, DOUBLE = 3.3, 6.75  #: figure widths in inches
TEXT, SMALL = 8.0, 7.0  #: points; nothing printed is smaller than SMALL
EDGE = "#333333"  #: thin dark edges keep pale colours visible
GREY = "#595959"  #: small grey text, contrast 7:1 on white
LEGEND_ROW = 0.15  #: inches
NOTE_ROW = 0.125

RC = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": SMALL,
    "axes.titlepad": 4,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "figure.dpi": 150,
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Family:
    """How a family of teachers is drawn. `area` evens out markers that look smaller than they are."""

    color: str
    marker: str
    area: float = 1.0


# The palette's yellow is left out: on white nobody sees it as a line or a star.
_HEX = [*sns.color_palette("colorblind").as_hex(), "#222222"]  # ten colours and black: eleven manners
# No family has the upward triangle: it marks the teacher a score selects (figure 5).
FAMILIES: dict[str, Family] = {
    "equations": Family(_HEX[0], "o"),
    "algebra": Family(_HEX[1], "s", 0.9),
    "narration": Family(_HEX[2], "D", 0.8),
    "check": Family(_HEX[5], "v"),
    "table": Family(_HEX[4], "P", 1.25),
    "polish": Family(_HEX[7], "d"),
    "digressing": Family(_HEX[9], "<"),
    "gains_first": Family(_HEX[6], ">"),
    "reversed": Family("#7a4b1e", "*", 1.8),
    "terse": Family(_HEX[3], "X", 1.25),
    "counting": Family(_HEX[10], "p", 1.1),
    # The paper's families: never in one figure with the built-in world's, so the looks are used again.
    "Llama": Family(_HEX[0], "o"),
    "Qwen": Family(_HEX[1], "s", 0.9),
    "Gemma": Family(_HEX[2], "D", 0.8),
    "OLMo": Family(_HEX[4], "P", 1.25),
    "Phi": Family("#7a4b1e", "*", 1.8),
}


def family(name: str) -> Family:
    """The look of a family. ValueError for one that has none: it must not get another's by accident."""
    check_choice("family", name, FAMILIES)
    return FAMILIES[name]


def temperature_area(temperature: float) -> float:
    """Marker area in square points: hotter is larger. The same in every figure (not relative to those
    drawn).
    """
    return float(12 + 44 * np.clip((temperature - 0.3) / 0.7, -0.15, 1.3))


def entry(label: str, **look) -> Line2D:
    """A legend entry: a mark with a dark edge and no line, where `look` (properties of a `Line2D`) says nothing else."""
    usual = {"linestyle": "none", "markeredgecolor": EDGE, "markeredgewidth": 0.6, "markersize": 5}
    return Line2D([], [], label=label, **(usual | look))


def family_handles(names: Iterable[str]) -> list[Line2D]:
    """Legend entries of families, in the order of `FAMILIES` whatever the order of the rows drawn."""
    looks = {name: family(name) for name in names}
    return [
        entry(name.replace("_", " "), color=look.color, marker=look.marker, markersize=(30 * look.area) ** 0.5)
        for name, look in FAMILIES.items()
        if name in looks
    ]


def temperature_handles(temperatures: Iterable[float]) -> list[Line2D]:
    """Legend entries of at most four temperatures (coldest and hottest among them), as grey circles."""
    values = sorted(set(temperatures))
    shown = sorted({values[round(i)] for i in np.linspace(0, len(values) - 1, min(4, len(values)))})
    return [
        entry(
            f"T = {max(f'{t:.1f}', f'{t:g}', key=len)}",
            color="#bbbbbb",
            marker="o",
            markersize=temperature_area(t) ** 0.5,
        )
        for t in shown
    ]


def frame(
    width: float,
    axes_height: float,
    legend: Sequence[Sequence[Artist]],
    note: str,
    ratios: Sequence[float] = (1,),
    sharey: bool = False,
    legend_columns: int | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure of `len(ratios)` axes side by side, above a strip with the legend and the note on scale.

    `width` and `axes_height` in inches; the strip's height is added. `legend` is a list of groups of handles;
    each group is a legend of its own, `legend_columns` wide (3 in one column, 6 in two; one more where that
    spares a row for a single entry). Draw under `styled`. The figure is closed for pyplot: a
    notebook shows it once, where it is the last line of a cell.
    """
    most = legend_columns or (3 if width < 5 else 6)
    groups = [_by_column(list(group), len(group) if len(group) <= most + 1 else most) for group in legend if len(group)]
    lines = textwrap.wrap(note, int(width * 72 / (0.52 * SMALL)))
    strip = 0.12 + sum(LEGEND_ROW * rows for _, _, rows in groups) + NOTE_ROW * len(lines)
    fig = plt.figure(figsize=(width, axes_height + strip), layout="constrained")
    fig.get_layout_engine().set(wspace=0.04)
    top, bottom = fig.subfigures(2, 1, height_ratios=[axes_height, strip])
    axes = top.subplots(1, len(ratios), sharey=sharey, squeeze=False, width_ratios=list(ratios))[0]
    for ax in axes:
        ax.locator_params(nbins=6)  # few ticks: panels are small
    used = 0.02
    # One legend a group, stacked: the columns of one group do not stretch another's.
    for handles, columns, rows in groups:
        box = bottom.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, 1 - used / strip),
            ncols=columns,
            frameon=False,
            borderaxespad=0,
            handletextpad=0.3,
            columnspacing=1.2,
            labelspacing=0.3,
            borderpad=0,
        )
        box.set_in_layout(False)  # the strip is its place already
        used += LEGEND_ROW * rows
    bottom.text(
        0.5,
        0.03 / strip,
        "\n".join(lines),
        ha="center",
        va="bottom",
        fontsize=SMALL,
        color=GREY,
        linespacing=1.1,
        gid="scale-note",
    )
    plt.close(fig)
    return fig, list(axes)


def _by_column(group: list[Artist], columns: int) -> tuple[list[Artist], int, int]:
    """Handles to be read row by row, in the column order matplotlib wants; and the numbers of columns and
    rows.
    """
    gap = -len(group) % columns
    padded = group + [Line2D([], [], linestyle="none", label=" ") for _ in range(gap)]
    return [handle for i in range(columns) for handle in padded[i::columns]], columns, len(padded) // columns


def styled():
    """The look of every figure, as a decorator or a context: `@styled()`, `with styled(): ...` (settings outside are left as
    they were)."""
    return mpl.rc_context(RC)
