"""Figure 23: is a correlation carried by a few cells? Violins over random subsets, in both readings of "60%".

The paper's text draws 60% of the teachers, the caption of its figure 60% of the combinations of teacher and temperature.
The second keeps every teacher in nearly every subset, so it looks more stable than a different choice of teachers would
be: both are drawn side by side, for every score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gracelib.baselines import SCORES
from gracelib.drawing import captions, marks
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, GREY, SMALL, frame, styled
from gracelib.evidence.ablations import READINGS, subset_correlations, subset_summary
from gracelib.evidence.cells import select


def figure23(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    scores: Sequence[str] | None = None,
    n_sets: int = 100,
    share: float = 0.6,
    seed: int = 0,
) -> Drawn:
    """Figure 23: violins of each score's correlation over random subsets, of cells and of teachers. Two columns wide.

    `scores` None: all that `cells` has but the response length, as in figure 4.
    """
    names = [s for s in SCORES if s in cells and s != "mean_length"] if scores is None else list(scores)
    rows = select(cells, student, names)
    subsets = subset_correlations(rows, names, share=share, n_sets=n_sets, seed=seed)
    table = subset_summary(subsets, rows, names)
    order = table[table["reading"] == "cells"]["score"].tolist()
    legend = [
        [
            Patch(facecolor=marks.BAR, edgecolor=EDGE, linewidth=0.5, label=f"{n_sets} random subsets"),
            Line2D(
                [], [], linestyle="none", marker="|", color="black", markersize=6, markeredgewidth=1.2, label="median"
            ),
            Line2D(
                [],
                [],
                linestyle="none",
                marker="H",
                markerfacecolor="white",
                markeredgecolor=EDGE,
                markersize=4.5,
                label="all cells",
            ),
        ]
    ]
    with styled():
        fig, axes = frame(DOUBLE, 0.75 + 0.2 * len(order), legend, captions.note(scale, rows), (1, 1), sharey=True)
        for ax, (reading, what) in zip(axes, READINGS.items(), strict=True):
            own, found = subsets[subsets["reading"] == reading], table[table["reading"] == reading].set_index("score")
            by_score = {score: values.dropna().to_numpy() for score, values in own.groupby("score")["spearman"]}
            _violins(ax, [by_score[score] for score in order], found.loc[order])
            sizes = int(own["cells"].min()), int(own["cells"].max())
            distinct = int(own["distinct"].iloc[0])
            few_sets = f"; {distinct} different subset{'s' * (distinct > 1)}" if distinct < n_sets else ""
            ax.set_title(
                f"{what} ({' to '.join(map(str, dict.fromkeys(sizes)))} cell{'s' * (sizes[1] > 1)}{few_sets})",
                fontsize=SMALL,
                pad=4,
            )
            ax.axvline(0, color=EDGE, linewidth=0.7, zorder=1)
            ax.set_xlim(-1.05, 1.05)
            ax.set_xlabel("Signed Spearman (good is positive)")
            ax.grid(visible=False, axis="y")
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(order)), [SCORES[s].label for s in order])
        axes[0].set_ylim(len(order) - 0.4, -0.6)
        axes[0].set_ylabel("Score")
    said, ours = _robust_sentence(table)
    caption = (
        f"Signed Spearman correlation of {len(order)} scores with the students' accuracy over {n_sets} random subsets drawn "
        f"without replacement: {share:.0%} of the cells (the caption of the paper's figure) and {share:.0%} of the teachers "
        f"with all their temperatures (its text). {said} {captions.cells_sentence(scale, rows).split('; 95%')[0]}; the spread "
        f"over subsets is no confidence interval: subsets overlap."
    )
    return Drawn(
        fig,
        table,
        caption,
        f"Two panels of horizontal violins. {said}",
        ours,
        {"direction": {"value": "GRACE consistently strong", "source": "submission, figure 23"}},
    )


def _violins(ax: Axes, values: Sequence[np.ndarray], found: pd.DataFrame) -> None:
    """One row a score: a violin of its values over subsets (dots where there are but a few), median, value on all cells."""
    wide = [y for y, v in enumerate(values) if len(np.unique(v.round(9))) > 3]
    if wide:
        for body in ax.violinplot(
            [values[y] for y in wide], wide, orientation="horizontal", widths=0.85, showextrema=False
        )["bodies"]:
            body.set(facecolor=marks.BAR, edgecolor=EDGE, linewidth=0.5, alpha=1)
            outline = body.get_paths()[0].vertices
            outline[:, 0] = np.clip(outline[:, 0], -1, 1)  # no correlation lies beyond
    for y, v in enumerate(values):
        if not len(v):
            ax.text(
                0,
                y,
                "undefined",
                ha="center",
                va="center",
                fontsize=SMALL,
                color=GREY,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )
        elif y not in wide:
            ax.scatter(v, np.full(len(v), y), s=8, c=marks.BAR, edgecolors=EDGE, linewidths=0.4)
    at = np.arange(len(values))
    ax.scatter(found["median"], at, s=45, marker="|", c="black", linewidths=1.2, zorder=3)
    ax.scatter(found["spearman"], at, s=16, marker="H", c="white", edgecolors=EDGE, linewidths=0.7, zorder=4)


def _robust_sentence(table: pd.DataFrame) -> tuple[str, dict]:
    parts, ours = [], {}
    for reading, own in table.groupby("reading", sort=False):
        ours[reading] = {
            r.score: {"median": r.median, "low": r.low, "high": r.high, "best_share": r.best_share}
            for r in own.itertuples()
        }
        known = own.dropna(subset=["median"])
        if known.empty:
            parts.append(f"Subsets of {reading}: no correlation is defined")
            continue
        grace, best = known[known["score"] == "grace"], known.loc[known["median"].idxmax()]
        text = f"Subsets of {reading}: "
        if len(grace):
            g = grace.iloc[0]
            low, high, lowest = (marks.number(g[column]) for column in ("low", "high", "lowest"))
            text += (
                f"GRACE {low} to {high} in 95 of 100 (lowest {lowest}), not beaten in {100 * g['best_share']:.0f}%; "
            )
        parts.append(text + f"highest median {best['label']}, {marks.number(best['median'])}")
    return ". ".join(parts) + ".", ours
