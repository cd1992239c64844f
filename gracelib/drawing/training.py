"""Figures 15 to 18: what becomes of a student that is trained otherwise, and of the scores' correlation with it.

Filtered responses, other numbers of epochs, other numbers of responses a prompt: each run differs from a cell of the
grid in that one thing, so every figure draws pairs. The paper reports a direction for each ("filtering makes students
worse", "no over-optimisation"); the captions say which direction was measured here, and with what interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from gracelib.baselines import SCORES
from gracelib.drawing import captions, marks
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import (
    DOUBLE,
    EDGE,
    GREY,
    SMALL,
    family,
    family_handles,
    frame,
    styled,
    temperature_area,
    temperature_handles,
)
from gracelib.evidence.ablations import PAIRINGS, few, filtered_correlations, filtered_pairs
from gracelib.evidence.cells import KEY
from gracelib.evidence.ranks import FEWEST, bootstrap, mean_many

# Greys, and marks that no family has.
LOOKS = {"unfiltered": ("H", "white"), "filtered": ("H", "#222222"), "rescored": ("8", "#a0a0a0")}
UNDER = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  #: under text that a line would cross
CLEAR = 2.0  #: standard errors from which a difference is called one


def figure15(cells: pd.DataFrame, filtered: pd.DataFrame, scale: str, *, k: int = 16) -> Drawn:
    """Figure 15: accuracy of students of filtered and of unfiltered responses, and the change against what was dropped."""
    pairs = filtered_pairs(cells, filtered)
    order = pairs.groupby("teacher")["unfiltered"].mean().sort_values(ascending=False, kind="stable").index.tolist()
    pairs = pairs.sort_values(
        ["teacher", "temperature"], key=lambda c: c.map(order.index) if c.name == "teacher" else c
    ).reset_index(drop=True)
    temperatures = sorted(set(pairs["temperature"]))
    shapes = [_mark("o", "white", "unfiltered"), _mark("o", "#444444", "filtered")]
    legend = [[*shapes, *temperature_handles(temperatures)], family_handles(pairs["manner"])]
    note = captions.note(scale, pairs)
    lane = 0.8 / len(temperatures)
    with styled():
        height = max(1.9, 0.6 + len(order) * (0.16 + 0.075 * len(temperatures)))
        fig, (left, right) = frame(DOUBLE, height, legend, note, (1.35, 1))
        middle = (len(temperatures) - 1) / 2
        y = np.array(
            [order.index(r.teacher) + lane * (temperatures.index(r.temperature) - middle) for r in pairs.itertuples()]
        )
        area = np.array([0.6 * temperature_area(t) for t in pairs["temperature"]])
        for name in dict.fromkeys(pairs["manner"]):
            look, of = family(name), (pairs["manner"] == name).to_numpy()
            own, size = pairs[of], look.area * area[of]
            style = {"marker": look.marker, "s": size, "edgecolors": EDGE, "linewidths": 0.6, "zorder": 3}
            left.hlines(
                y[of], 100 * own["unfiltered"], 100 * own["filtered"], color=look.color, linewidth=1.1, zorder=2
            )
            left.scatter(100 * own["unfiltered"], y[of], c="white", **style)
            left.scatter(100 * own["filtered"], y[of], c=look.color, **style)
            low, high = own["change_points"] - own["change_se"], own["change_points"] + own["change_se"]
            right.vlines(100 * own["kept_share"], low, high, color=look.color, linewidth=0.8, zorder=2)
            right.scatter(100 * own["kept_share"], own["change_points"], c=look.color, **style)
        for at, value in zip(y, pairs["unfiltered"].where(pairs["filtered"].isna()), strict=True):
            if np.isfinite(value):
                left.annotate(
                    "no right response",
                    (100 * value, at),
                    (6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=SMALL,
                    color=GREY,
                )
        _stripes(left, len(order))
        left.set_yticks(range(len(order)), order)
        left.set_ylim(len(order) - 0.5, -0.5)
        left.grid(visible=False, axis="y")
        left.tick_params(axis="y", length=0)
        left.set_xlabel(marks.accuracy_label("average_at_k", k))
        right.axhline(0, color=EDGE, linewidth=0.7)
        right.set_xlabel("Right responses of the teacher (%)")
        right.set_ylabel("Change by filtering (points)" if len(order) > 4 else "Change (points)")
        for axis in (left.xaxis, right.xaxis, right.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        left.margins(x=0.06)
        right.margins(0.08)
        if pairs["filtered"].isna().all():
            _say(right, "no right response\nto train on")
    said, ours = _change_sentence(pairs)
    caption = (
        f"Left: {_accuracy(k)} of students taught all responses of a teacher (open) and only its right ones, resampled with "
        f"replacement to the same number (filled). Right: the change, with one standard error of the difference, against "
        f"the share of responses that was right. {said} {captions.cells_sentence(scale, pairs)}{few(pairs)} Standard errors "
        f"count the held-out problems, not the seed of training."
    )
    alt = f"Pairs of points joined by lines, one row a teacher, and a scatter plot. {said}"
    return Drawn(
        fig,
        pairs,
        caption,
        alt,
        ours,
        {"direction": {"value": "filtered students are worse", "source": "submission, figure 15"}},
    )


def _change_sentence(pairs: pd.DataFrame) -> tuple[str, dict]:
    """How filtering changes accuracy on average and in how many cells clearly, against the paper's statement."""
    own = pairs.dropna(subset=["change_points"])
    if own.empty:
        return "No teacher has a right response, so there is no filtered student.", {"cells": 0}
    change, se = own["change_points"].to_numpy(), own["change_se"].to_numpy()
    mean, (low, high) = float(change.mean()), (np.nan, np.nan)
    n = own["teacher"].nunique()
    if n > 1:
        low, high = bootstrap(partial(mean_many, change), own["teacher"])
    worse, better = int((change < -CLEAR * se).sum()), int((change > CLEAR * se).sum())
    verdict = (
        f"{_count(n, 'teacher')} {'is' if n == 1 else 'are'} too few to tell whether filtering makes students worse, "
        "as the paper reports"
        if n < FEWEST
        else "filtering makes students worse here, as the paper reports"
        if high < 0
        else "filtering makes students better here, unlike in the paper"
        if low > 0
        else "these data cannot tell whether filtering makes students worse, as the paper reports"
    )
    interval = f" [{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else " (one teacher: no interval)"
    shares = dict.fromkeys(f"{100 * share:.0f}" for share in (own["kept_share"].min(), own["kept_share"].max()))
    said = (
        f"{' to '.join(shares)}% of responses are right; filtering "
        f"changes accuracy by {mean:+.1f}{interval} points on average, by more than {CLEAR:g} standard errors down in "
        f"{worse} and up in {better} of {_count(len(own), 'cell')}: {verdict}."
    )
    return said, {
        "mean_change_points": mean,
        "low": low,
        "high": high,
        "clearly_worse": worse,
        "clearly_better": better,
        "cells": len(own),
    }


def figure16(cells: pd.DataFrame, filtered: pd.DataFrame, scale: str, *, scores: Sequence[str] | None = None) -> Drawn:
    """Figure 16: each score's correlation with unfiltered and with filtered students of the same cells.

    `scores` None: all that `cells` has but the response length, as in figure 4.
    """
    names = [s for s in SCORES if s in cells and s != "mean_length"] if scores is None else list(scores)
    table = filtered_correlations(cells, filtered, names)
    first = table[table["pairing"] == "unfiltered"].set_index("score")["spearman"]
    order = first.sort_values(ascending=False, kind="stable", na_position="last").index.tolist()
    pairs = filtered_pairs(cells, filtered)
    with styled():
        legend = [[_mark(*LOOKS[p], text) for p, text in PAIRINGS.items()]]
        fig, (left, right) = frame(
            DOUBLE, 0.6 + 0.27 * len(order), legend, captions.note(scale, pairs), (1.25, 1), sharey=True
        )
        for i, pairing in enumerate(PAIRINGS):
            own = table[table["pairing"] == pairing].set_index("score").loc[order]
            at = np.arange(len(order)) + 0.24 * (i - 1)
            _points(left, own["spearman"], own["low"], own["high"], at, pairing)
            if pairing != "unfiltered":
                _points(right, own["change"], own["change_low"], own["change_high"], at, pairing)
        for y in np.flatnonzero(first.loc[order].isna()):
            left.text(0, y, "undefined", ha="center", va="center", fontsize=SMALL, color=GREY, bbox=UNDER)
        for ax in (left, right):
            _stripes(ax, len(order))
        left.set_yticks(range(len(order)), [SCORES[s].label for s in order])
        left.set_ylim(len(order) - 0.5, -0.5)
        left.set_xlim(-1.05, 1.05)
        left.set_xlabel("Signed Spearman (good is positive)")
        left.set_ylabel("Score")
        right.set_xlabel("Change by filtering")
        for ax in (left, right):
            ax.axvline(0, color=EDGE, linewidth=0.7, zorder=1)
            ax.grid(visible=False, axis="y")
            ax.tick_params(axis="y", length=0)
        right.xaxis.set_major_locator(MaxNLocator(5))
        reach = table[["change", "change_low", "change_high"]].abs().max(axis=None)
        right.set_xlim(*(np.array([-1, 1]) * (min(1.05, 1.1 * reach) if reach > 0 else 1.05)))
    said, ours = _filter_sentence(table)
    caption = (
        f"Signed Spearman correlation of {len(order)} scores with the students of the cells of figure 15: unfiltered ones, "
        f"filtered ones (same scores), and filtered ones against the scores of the filtered responses themselves, which are "
        f"what somebody who filters would compute. Right: change against unfiltered, on the same resamples (cut at ±1). "
        f"{said} {captions.cells_sentence(scale, pairs)}{few(pairs)}"
    )
    return Drawn(
        fig,
        table,
        caption,
        f"Points with intervals, one row a score. {said}",
        ours,
        {"direction": {"value": "correlations slightly higher when filtered", "source": "submission, figure 16"}},
    )


def _filter_sentence(table: pd.DataFrame) -> tuple[str, dict]:
    own = table[(table["pairing"] == "filtered")].dropna(subset=["change"])
    if own.empty:
        return "No correlation can be computed on these cells.", {}
    up, apart = int((own["change"] > 0).sum()), int(((own["change_low"] > 0) | (own["change_high"] < 0)).sum())
    ours = {
        r.score: {
            "pairing": r.pairing,
            "spearman": r.spearman,
            "change": r.change,
            "low": r.change_low,
            "high": r.change_high,
        }
        for r in table[table["pairing"] == "filtered"].itertuples()
    }
    text = (
        f"With filtered students the correlation is higher for {up} of {_count(len(own), 'score')} (median change "
        f"{own['change'].median():+.2f}; the paper: slightly higher), and the interval of the change excludes zero for "
        f"{apart}."
    )
    grace = own[own["score"] == "grace"]
    if len(grace):
        row = grace.iloc[0]
        text += f" GRACE: {row['spearman'] - row['change']:+.2f} unfiltered, {row['spearman']:+.2f} filtered."
    return text, ours


def figure17(runs: pd.DataFrame, manner: Mapping[str, str], scale: str, *, k: int = 16, train_k: int = 4) -> Drawn:
    """Figure 17: accuracy on held-out problems and on the training prompts against epochs.

    `runs` from `extras.training_runs`, `manner` the family of each teacher.
    """
    return _training(runs, manner, scale, "epochs", "Epochs", "figure 17", k, train_k)


def figure18(runs: pd.DataFrame, manner: Mapping[str, str], scale: str, *, k: int = 16, train_k: int = 4) -> Drawn:
    """Figure 18: the same against responses a prompt (M)."""
    return _training(runs, manner, scale, "generations", "Responses a prompt", "figure 18", k, train_k)


def _training(runs, manner, scale, axis, name, item, k, train_k) -> Drawn:
    own = runs[runs["axis"] == axis].sort_values([*KEY, "value"]).reset_index(drop=True)
    if own.empty:
        raise ValueError(f"the table of training runs has no run along {axis!r}: it has {sorted(set(runs['axis']))}")
    teachers, usual = list(dict.fromkeys(own["teacher"])), own.loc[own["usual"], "value"].iloc[0]
    handles = [
        Line2D(
            [],
            [],
            color=family(manner[t]).color,
            marker=family(manner[t]).marker,
            markeredgecolor=EDGE,
            markeredgewidth=0.5,
            markersize=6,
            linewidth=1.2,
            label=t,
        )
        for t in teachers
    ]
    handles.append(
        Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), label=f"the scale's own: {usual:g}")
    )
    t = own["temperature"].iloc[0]
    note = captions.note(scale, own, f", T = {t:g}").replace(" cell", " run")
    with styled():
        fig, axes = frame(DOUBLE, 1.9, [handles], note, (1, 1), sharey=True)
        for ax, column, title in zip(
            axes,
            ("test", "train"),
            (f"held-out problems, Average@{k}", f"training prompts, Average@{train_k}"),
            strict=True,
        ):
            for teacher in teachers:
                rows, look = own[own["teacher"] == teacher], family(manner[teacher])
                ax.errorbar(
                    rows["value"],
                    100 * rows[column],
                    100 * rows[f"{column}_se"],
                    color=look.color,
                    marker=look.marker,
                    markersize=6,
                    markeredgecolor=EDGE,
                    markeredgewidth=0.5,
                    linewidth=1.2,
                    elinewidth=0.9,
                )
            ax.axvline(usual, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)
            ax.set_xscale("log", base=2)
            values = sorted(set(own["value"]))
            ax.set_xticks(values, [f"{v:g}" for v in values])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_xlabel(name)
            ax.set_title(title, fontsize=SMALL, pad=4)
            ax.yaxis.set_major_locator(MaxNLocator(5))
            ax.margins(0.07, 0.1)
        axes[0].set_ylabel("Student accuracy (%)")
    said, ours = _rise_sentence(own, usual)
    caption = (
        f"Accuracy of students against {name.lower()}, all else as in the grid, for the teacher built to be the "
        f"strongest and the tersest one, with one standard error over problems. {said} Scale {scale}, "
        f"{captions.setting(own)}, T = {t:g}: {len(own)} runs of {_count(len(teachers), 'teacher')}, too few for a "
        f"correlation."
    )
    return Drawn(
        fig,
        own,
        caption,
        f"Two panels with one line a teacher. {said}",
        ours,
        {"direction": {"value": "both accuracies rise, no over-optimisation", "source": f"submission, {item}"}},
    )


def _rise_sentence(own: pd.DataFrame, usual: float) -> tuple[str, dict]:
    """For each teacher the rise along the axis and the fall from its peak; whether the teachers change places."""
    parts, ours = [], {}
    for teacher, rows in own.groupby("teacher", sort=False):
        rows = rows.set_index("value").sort_index()
        first, last = rows.iloc[0], rows.iloc[-1]
        peak = rows.loc[rows["test"].idxmax()]
        rise, fall = 100 * (last["test"] - first["test"]), 100 * (peak["test"] - last["test"])
        noise = 100 * np.hypot(peak["test_se"], last["test_se"])
        down = (
            f"falls {fall:.1f} points behind its peak (standard error {noise:.1f})"
            if fall > CLEAR * noise
            else "does not clearly fall behind its peak"
        )
        learnt = 100 * (last["train"] - first["train"])
        parts.append(
            f"{teacher}: held-out accuracy {rise:+.1f} points, accuracy on training prompts {learnt:+.1f} from "
            f"{rows.index[0]:g} to {rows.index[-1]:g}; on held-out problems it {down}"
        )
        ours[teacher] = {
            "rise_points": rise,
            "fall_from_peak_points": fall,
            "se_points": noise,
            "usual_test": float(rows.loc[usual, "test"]),
        }
    wide = own.pivot(index="value", columns="teacher", values="test")
    said = ". ".join(parts) + "."
    if wide.shape[1] == 2:
        ahead = set(np.sign(wide.iloc[:, 0] - wide.iloc[:, 1])) - {0.0}
        said += (
            " The same teacher is ahead throughout."
            if len(ahead) == 1
            else " The two teachers change places along the axis."
            if ahead
            else " The two teachers are level throughout."
        )
    return said, ours


def _points(ax, value, low, high, y: np.ndarray, pairing: str) -> None:
    mark, face = LOOKS[pairing]
    ax.hlines(y, low, high, color=EDGE, linewidth=0.8, zorder=2)
    ax.scatter(value, y, s=20, marker=mark, c=face, edgecolors=EDGE, linewidths=0.6, zorder=3, gid=f"points-{pairing}")


def _stripes(ax, n: int) -> None:
    """Every second row shaded, so that marks can be followed to their label."""
    for y in range(1, n, 2):
        ax.axhspan(y - 0.5, y + 0.5, color="#f6f6f6", zorder=-1)


def _mark(marker: str, face: str, label: str) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=marker,
        markerfacecolor=face,
        markeredgecolor=EDGE,
        markeredgewidth=0.6,
        markersize=5,
        label=label,
    )


def _say(ax, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=SMALL, color=GREY, transform=ax.transAxes)


def _accuracy(k: int) -> str:
    return marks.accuracy_label("average_at_k", k).removesuffix(" (%)").removeprefix("Student ")


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
