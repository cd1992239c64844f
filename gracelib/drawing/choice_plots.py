"""Panels of the figures about constrained choice: `ax` first, as in `plots`, numbers from `evidence.choices`.

Scores are greys with marks of their own, because colours and the other marks belong to the families.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gracelib.drawing.marks import BAR, PAPER_MARK, accuracy_label
from gracelib.drawing.style import DOUBLE, EDGE, GREY, SMALL, family, frame
from gracelib.evidence.choices import label, scaled_up
from gracelib.paper.reported import PaperValue

#: Marker, face and line of a score; further scores take the rest in turn.
LOOKS = {
    "grace": ("H", "#222222", "-"),
    "g_norm": ("8", "#a0a0a0", (0, (4, 1.5))),
    "g_vendi": ("h", "white", (0, (1, 1.2))),
}
SPARE = (("H", "#666666", (0, (6, 2))), ("8", "#dddddd", (0, (3, 1, 1, 1))))
ENOUGH_FOR_A_VIOLIN = 10  #: below, a smooth outline would claim more than the marks show
BAND = "#e9e9e9"


def look(score: str, scores: Sequence[str]) -> tuple:
    """Marker, face and line of one of `scores`."""
    others = [s for s in scores if s not in LOOKS]
    return LOOKS[score] if score in LOOKS else SPARE[others.index(score) % len(SPARE)]


def two_by_two(top: float, bottom: float, legend: Sequence, note: str) -> tuple[Figure, np.ndarray]:
    """A `style.frame` two columns wide with two rows of two axes, `top` and `bottom` inches high."""
    fig, (ax,) = frame(DOUBLE, top + bottom, legend, note)
    ax.remove()
    fig.get_layout_engine().set(wspace=0.06, hspace=0.05)
    return fig, fig.subfigs[0].subplots(2, 2, height_ratios=[top, bottom])


def curves(
    ax: Axes, rows: pd.DataFrame, picks: pd.DataFrame, scores: Sequence[str], k: int, right: bool
) -> pd.DataFrame:
    """One teacher's scaled scores (left scale) and accuracy (right scale) against temperature; the numbers drawn.

    `rows` and `picks`: the teacher's cells and its rows of `temperature_choices`.
    """
    own, picks = rows.sort_values("temperature"), picks.set_index("score")
    teacher, of = own["teacher"].iloc[0], family(own["manner"].iloc[0])
    t, made = own["temperature"].to_numpy(float), own[["teacher", "temperature"]].copy()
    best = picks["best"].iloc[0]
    if len(t) > 1:
        ax.axvline(best, color=of.color, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1.5, gid="best")
    for score in scores:
        scaled, (mark, face, dash) = scaled_up(own[score].to_numpy(float), score), look(score, scores)
        made[f"{score}_scaled"] = scaled
        ax.plot(
            t,
            scaled,
            color=EDGE if face == "white" else face,
            linestyle=dash,
            linewidth=1.1,
            marker=mark,
            markersize=4.6,
            markerfacecolor=face,
            markeredgecolor=EDGE,
            markeredgewidth=0.6,
            zorder=3,
        )
        at = (t == picks.loc[score, "picked"]) & np.isfinite(scaled)
        ax.scatter(
            t[at],
            scaled[at],
            s=110,
            marker="^",
            facecolors="none",
            edgecolors="black",
            linewidths=1.0,
            zorder=4,
            gid=f"picked-{score}",
        )
    twin, y = ax.twinx(), 100 * own["average_at_k"].to_numpy(float)
    twin.errorbar(
        t,
        y,
        100 * own["average_se"],
        color=of.color,
        marker=of.marker,
        markersize=5.5,
        markeredgecolor=EDGE,
        markeredgewidth=0.5,
        linewidth=1.8,
        elinewidth=0.9,
    )
    ax.grid(visible=False)  # it would lie upon the accuracy's line
    twin.grid(visible=True, axis="x")
    twin.grid(visible=False, axis="y")
    twin.spines["right"].set_visible(True)
    twin.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    twin.margins(0.06, 0.12)
    ax.set_zorder(twin.get_zorder() + 1)  # the scores' marks lie upon the accuracy's line
    ax.patch.set_visible(False)
    ax.set_ylim(-0.12, 1.22)
    ax.set_yticks([0, 0.5, 1])
    ax.set_xlabel("Temperature ($T$)")
    if len(t) == 1:
        ax.text(0.03, 0.88, "one temperature", fontsize=SMALL, color=GREY, transform=ax.transAxes)
        ax.set_xticks(t)
    ax.set_title(f"{teacher} (coloured: accuracy ± one SE)", fontsize=SMALL, pad=4)
    if right:
        twin.set_ylabel(accuracy_label("average_at_k", k).removeprefix("Student "))
    else:
        ax.set_ylabel("Score (scaled, 0 to 1)")
    return made.assign(average_at_k=own["average_at_k"], average_se=own["average_se"])


def picks(
    ax: Axes, choices: pd.DataFrame, teachers: Sequence[str], scores: Sequence[str], column: str, name: str
) -> None:
    """A column of `temperature_choices`, one row a teacher, one lane a score; with "picked", the best ones behind."""
    for y, teacher in enumerate(teachers):
        own = choices[choices["teacher"] == teacher].set_index("score")
        if y % 2:
            ax.axhspan(y - 0.5, y + 0.5, color="#f6f6f6", zorder=-1)
        if column == "picked":
            of = family(own["manner"].iloc[0])
            ax.scatter(
                own["best"].iloc[0],
                y,
                s=60 * of.area,
                c=of.color,
                marker=of.marker,
                edgecolors=EDGE,
                linewidths=0.5,
                zorder=2,
            )
        for i, score in enumerate(scores):
            mark, face, _ = look(score, scores)
            lane = y + 0.84 * ((i + 0.5) / len(scores) - 0.5)
            ax.scatter(
                own.loc[score, column],
                lane,
                s=26 if score == "grace" else 17,
                marker=mark,
                c=face,
                linewidths=0.6,
                zorder=4,
                clip_on=False,
                edgecolors="white" if score == "grace" else EDGE,
            )
    ax.set_yticks(range(len(teachers)), teachers)
    ax.set_ylim(len(teachers) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(name)


def violins(ax: Axes, choices: pd.DataFrame, means: pd.DataFrame, paper: Mapping[str, PaperValue]) -> None:
    """Left of figure 7: per score a violin of its teachers' correlations, their family marks, the mean, the paper's."""
    scores = list(means["score"])
    for x, row in enumerate(means.to_dict("records")):
        own = choices[(choices["score"] == row["score"]) & choices["spearman"].notna()].sort_values(
            ["spearman", "teacher"]
        )
        values = own["spearman"].to_numpy(float)
        if not len(values):
            ax.text(x, 0.06, "undefined", ha="center", fontsize=SMALL, color=GREY)
            continue
        if len(values) >= ENOUGH_FOR_A_VIOLIN and np.ptp(values) > 0:
            for body in ax.violinplot(values, [x], widths=0.72, showextrema=False)["bodies"]:
                body.set(facecolor=BAR, alpha=0.35, edgecolor=EDGE, linewidth=0.5, zorder=1.5)
        for offset, point in zip(_beside(values), own.to_dict("records"), strict=True):
            of = family(point["manner"])
            ax.scatter(
                x + offset,
                point["spearman"],
                s=20 * of.area,
                c=of.color,
                marker=of.marker,
                edgecolors=EDGE,
                linewidths=0.5,
                zorder=3,
            )
        points(ax, np.array([x + 0.37]), [row["mean"]], [row["low"]], [row["high"]], row["score"], scores)
        if row["score"] in paper:
            paper_mark(ax, paper[row["score"]], x + 0.47, row["score"])
    ax.set_xticks(range(len(scores)), means["label"])
    ax.set_xlim(-0.5, len(scores) - 0.4)
    ax.set_xlabel("Score (correlation over one teacher's temperatures)")


def _beside(values: np.ndarray, near: float = 0.07, step: float = 0.085) -> np.ndarray:
    """Offsets that lay marks of nearly equal values (sorted) side by side."""
    group = np.cumsum(np.diff(values, prepend=values[0]) > near)
    place = np.arange(len(values)) - np.searchsorted(group, group)
    size = np.bincount(group)[group]
    return np.minimum(step, 0.62 / size) * (place - (size - 1) / 2)


def points(
    ax: Axes, x: np.ndarray, value: Sequence, low: Sequence, high: Sequence, score: str, scores: Sequence[str]
) -> None:
    """Marks of one score with vertical intervals; what is undefined is left out."""
    mark, face, _ = look(score, scores)
    ax.vlines(x, low, high, color=EDGE, linewidth=1.1, zorder=3.5)
    ax.scatter(x, value, s=30, marker=mark, c=face, edgecolors=EDGE, linewidths=0.7, zorder=4, gid=f"ours-{score}")


def band(ax: Axes, noise: float) -> None:
    """The grey band of regrets that the test problems alone can make."""
    if np.isfinite(noise):
        ax.axvspan(0, noise, color=BAND, zorder=0)


def paper_mark(ax: Axes, value: PaperValue, x: float, score: str) -> None:
    """The paper's value on a vertical axis: open diamonds at its ends, for a bound triangles that point on."""
    ends = sorted({value.low, value.high})
    ax.plot([x] * len(ends), ends, linewidth=0.8, zorder=4.5, gid=f"paper-{score}", **_paper_look(value.bound))


def _paper_look(bound: str) -> dict:
    return {
        "color": PAPER_MARK,
        "marker": {"at least": "^", "at most": "v"}.get(bound, "D"),
        "markersize": 4.8,
        "markerfacecolor": "white",
        "markeredgewidth": 1.1,
    }


# --- legend entries ------------------------------------------------------------------------------------------


def line_handle(score: str, scores: Sequence[str], lines: bool = True) -> Line2D:
    """A score's mark, with its line or without."""
    mark, face, dash = look(score, scores)
    return Line2D(
        [],
        [],
        color=EDGE if face == "white" else face,
        linestyle=dash if lines else "none",
        linewidth=1.1,
        marker=mark,
        markersize=5,
        markerfacecolor=face,
        markeredgecolor=EDGE,
        markeredgewidth=0.6,
        label=label(score),
    )


def pick_handles() -> list[Artist]:
    """The triangle of the selected and the line of the best temperature."""
    return [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="^",
            markerfacecolor="none",
            markeredgecolor="black",
            markersize=7.5,
            label="picked by the score",
        ),
        Line2D([], [], color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), label="best temperature"),
    ]


def band_handle() -> Patch:
    """The band of noise."""
    return Patch(facecolor=BAND, label="one SE of a difference")


def bar_handles(name: str) -> list[Artist]:
    """Bars of regret, their interval and the band of noise."""
    return [
        Patch(facecolor=BAR, edgecolor=EDGE, linewidth=0.5, label=name),
        Line2D([], [], color=EDGE, linewidth=1.1, marker="|", markersize=5, label="95% interval"),
        band_handle(),
    ]


def interval_handle() -> Line2D:
    """A vertical interval."""
    return Line2D([], [], color=EDGE, linewidth=1.1, label="95% interval")


def paper_handles(values: Sequence[PaperValue], setting: str) -> list[Artist]:
    """The paper's marks that are drawn: numbers, bounds of either kind."""
    kinds = {"" if value.bound == "about" else value.bound for value in values}
    return [
        Line2D([], [], linestyle="none", label=f"paper, {setting}, |ρ|{', ' * bool(kind)}{kind}", **_paper_look(kind))
        for kind in ("", "at least", "at most")
        if kind in kinds
    ]
