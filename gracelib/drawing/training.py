"""Figures 15 to 18: what becomes of a student that is trained otherwise, and of the scores' correlation with it.

Filtered responses, other numbers of epochs, other numbers of responses per prompt: each run differs from a cell of the
grid in that one thing, so every figure draws pairs. The paper reports a direction for each ("filtering makes students
worse", "no over-optimisation"): the table beside the figure says which direction was measured here.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.drawing import captions, findings, marks
from gracelib.drawing.correlations import all_scores
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import (
    DOUBLE,
    EDGE,
    GREY,
    SMALL,
    entry,
    family,
    family_handles,
    frame,
    styled,
    temperature_area,
    temperature_handles,
)
from gracelib.evidence.ablations import PAIRINGS, filtered_correlations, filtered_pairs
from gracelib.evidence.cells import KEY
from gracelib.evidence.ranks import bootstrap, mean_many

LOOKS = dict(zip(("filtered", "rescored", "unfiltered"), marks.LOOKS, strict=False))
CLEAR = 2.0  #: standard errors from which a difference is called one


@styled()
def figure15(cells: pd.DataFrame, filtered: pd.DataFrame, scale: str, *, k: int = 16) -> Drawn:
    """Figure 15: accuracy of students of filtered and of unfiltered responses, and the change against what was dropped."""
    pairs = filtered_pairs(cells, filtered)
    order = pairs.groupby("teacher")["unfiltered"].mean().sort_values(ascending=False, kind="stable").index.tolist()
    pairs = pairs.sort_values(
        ["teacher", "temperature"], key=lambda c: c.map(order.index) if c.name == "teacher" else c
    ).reset_index(drop=True)
    temperatures, manner = sorted(set(pairs["temperature"])), pairs["manner"]
    fig, (left, right) = frame(
        DOUBLE,
        max(1.9, 0.6 + len(order) * (0.16 + 0.075 * len(temperatures))),
        [
            [
                entry("unfiltered", marker="o", color="white"),
                entry("filtered", marker="o", color=GREY),
                *temperature_handles(temperatures),
            ],
            family_handles(manner),
        ],
        captions.note(scale, pairs),
        (1.35, 1),
    )
    lane = pairs["temperature"].map(temperatures.index) - (len(temperatures) - 1) / 2
    y = pairs["teacher"].map(order.index) + 0.8 / len(temperatures) * lane
    area, colors = 0.6 * pairs["temperature"].map(temperature_area), [family(m).color for m in manner]
    before, after, kept = (100 * pairs[c] for c in ("unfiltered", "filtered", "kept_share"))
    moved, noise = pairs["change_points"], pairs["change_se"]
    marks.rows_axis(left, order, striped=True)
    left.hlines(y, before, after, colors=colors, linewidth=1.1, zorder=2)
    marks.family_marks(left, before, y, manner, area, c="white")
    marks.family_marks(left, after, y, manner, area)
    right.vlines(kept, moved - noise, moved + noise, colors=colors, linewidth=0.8, zorder=2)
    marks.family_marks(right, kept, moved, manner, area)
    right.axhline(0, color=EDGE, linewidth=0.7)
    for i in np.flatnonzero(pairs["filtered"].isna()):
        left.annotate(
            "no right response",
            (before[i], y[i]),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=GREY,
        )
    if after.isna().all():
        marks.say(right, "no right response\nto train on")
    left.margins(x=0.06)
    right.margins(0.08)
    left.set_xlabel(marks.accuracy_label("average_at_k", k))
    right.set(
        xlabel="Right responses of the teacher (%)", ylabel=f"Change{' by filtering' * (len(order) > 4)} (points)"
    )
    change = mean_change(pairs)
    return Drawn(
        fig,
        pairs,
        caption=(
            f"{findings.filtering(change, len(pairs))} Left: {captions.accuracy_words(k=k)} when taught all responses of a teacher (open) and only its right ones, "
            f"resampled with replacement to the same number (filled). Right: the change, with one standard error of the "
            f"difference, against the share of responses that was right. {captions.cells_sentence(scale, pairs)} Standard "
            f"errors count the held-out problems, not the seed of training."
        ),
        alt="Pairs of points joined by lines, one row per teacher, and a scatter plot of the change.",
        ours=change,
        paper={"direction": {"value": "filtered students are worse", "source": "submission, figure 15"}},
    )


def mean_change(pairs: pd.DataFrame) -> dict:
    """How filtering changes accuracy: the mean over cells in points, its 95% interval over teachers (None for one teacher
    or without a filtered student), and in how many cells the change is larger than `CLEAR` standard errors."""
    own = pairs.dropna(subset=["change_points"])
    change, noise, interval = own["change_points"].to_numpy(), CLEAR * own["change_se"].to_numpy(), (None, None)
    if own["teacher"].nunique() > 1:
        interval = bootstrap(partial(mean_many, change), own["teacher"])
    return {
        "mean_change_points": float(change.mean()) if len(own) else None,
        "low": interval[0],
        "high": interval[1],
        "clearly_worse": int((change < -noise).sum()),
        "clearly_better": int((change > noise).sum()),
        "cells": len(own),
    }


@styled()
def figure16(cells: pd.DataFrame, filtered: pd.DataFrame, scale: str, *, scores: Sequence[str] | None = None) -> Drawn:
    """Figure 16: each score's correlation with unfiltered and with filtered students of the same cells.

    `scores` None: `correlations.all_scores`.
    """
    table = filtered_correlations(cells, filtered, all_scores(cells) if scores is None else list(scores))
    first = table[table["pairing"] == "unfiltered"].set_index("score")["spearman"]
    first = first.sort_values(ascending=False, kind="stable", na_position="last")
    rows = filtered_pairs(cells, filtered)
    fig, (left, right) = frame(
        DOUBLE,
        0.6 + 0.27 * len(first),
        [[entry(text, **marks.line_look(LOOKS[p], line=False)) for p, text in PAIRINGS.items()]],
        captions.note(scale, rows),
        (1.25, 1),
        sharey=True,
    )
    marks.correlation_axis(left)
    for ax in (right, left):
        marks.rows_axis(ax, [SCORES[s].label for s in first.index], striped=True)
    for i, pairing in enumerate(PAIRINGS):
        own = table[table["pairing"] == pairing].set_index("score").loc[first.index]
        drawn = {"upright": False, "s": 20, "gid": f"points-{pairing}"}
        y = np.arange(len(own)) + 0.24 * (i - 1)
        marks.points(left, own["spearman"], y, own["low"], own["high"], LOOKS[pairing], **drawn)
        if pairing != "unfiltered":
            marks.points(right, own["change"], y, own["change_low"], own["change_high"], LOOKS[pairing], **drawn)
    for y in np.flatnonzero(first.isna()):
        marks.say(left, "undefined", 0, y, left.transData)
    reach = table[["change", "change_low", "change_high"]].abs().max(axis=None)
    reach = min(1.05, 1.1 * reach) if reach > 0 else 1.05
    right.axvline(0, color=EDGE, linewidth=0.7, zorder=1)
    right.set(xlim=(-reach, reach), xlabel="Change by filtering")
    own = table[table["pairing"] == "filtered"]
    return Drawn(
        fig if len(rows) >= marks.FEW else marks.not_drawn(rows, own, captions.note(scale, rows)),
        table,
        caption=(
            f"{findings.when_filtered(table)} Signed Spearman correlation of {len(first)} scores with the students of the cells of figure 15: unfiltered ones, "
            f"filtered ones (same scores), and filtered ones against the scores of the filtered responses themselves, which are "
            f"what somebody who filters would compute. Right: change against unfiltered, on the same resamples (cut at ±1). "
            f"{captions.cells_sentence(scale, rows)}"
        ),
        alt="Points with intervals, one row per score: correlations on the left, their change on the right."
        if len(rows) >= marks.FEW
        else "No picture, but why there is none: too few students",
        ours=captions.records(own, ("pairing", "spearman", "change", "change_low", "change_high")),
        paper={"direction": {"value": "correlations slightly higher when filtered", "source": "submission, figure 16"}},
    )


@styled()
def figure17(
    runs: pd.DataFrame, manner: Mapping[str, str], scale: str, *, axis: str = "epochs", k: int = 16, train_k: int = 4
) -> Drawn:
    """Figure 17: accuracy on held-out problems and on the training prompts against epochs.

    Also figure 18, with `axis` "generations": against responses per prompt (M). `runs` is the table `training_runs`,
    `manner` the family of each teacher.
    """
    item, name = {"epochs": ("figure 17", "Epochs"), "generations": ("figure 18", "Responses per prompt")}[axis]
    own = runs[runs["axis"] == axis].sort_values([*KEY, "value"]).reset_index(drop=True)
    teachers, usual, t = (
        own.groupby("teacher", sort=False),
        own.loc[own["usual"], "value"].iloc[0],
        own["temperature"][0],
    )
    looks = {teacher: family(manner[teacher]) for teacher in teachers.groups}
    legend = [entry(n, color=look.color, marker=look.marker, linestyle="-", linewidth=1.2) for n, look in looks.items()]
    legend.append(entry(f"default: {usual:g}", **marks.DASHED))
    fig, axes = frame(
        DOUBLE,
        1.9,
        [legend],
        captions.note(scale, own, extra=f", T = {t:g}").replace(" cell", " run"),
        (1, 1),
        sharey=True,
    )
    for ax, column, title in (
        (axes[0], "test", f"held-out problems, Average@{k}"),
        (axes[1], "train", f"training prompts, Average@{train_k}"),
    ):
        for teacher, rows in teachers:
            marks.family_line(ax, rows["value"], 100 * rows[column], manner[teacher], 100 * rows[f"{column}_se"])
        ax.axvline(usual, **marks.DASHED, zorder=1.5)
        marks.log_ticks(ax, own["value"])
        ax.margins(0.07, 0.1)
        ax.set(xlabel=name, title=title)
    axes[0].set_ylabel("Student accuracy (%)")
    return Drawn(
        fig,
        own,
        caption=(
            f"{findings.from_to(own, name.lower())} Accuracy of students against {name.lower()}, all else as in the grid, for the teacher built to be the "
            f"strongest and the tersest one, with one standard error over problems. Scale {scale}, {captions.setting(own)}, "
            f"T = {t:g}: {len(own)} runs of {captions.counted(len(looks), 'teacher')}, too few for a correlation."
        ),
        alt=f"Two panels, one line per teacher with error bars: accuracy against {name.lower()}.",
        ours={},
        paper={"direction": {"value": "both accuracies rise, no over-optimisation", "source": f"submission, {item}"}},
    )
