"""Figures 6, 7, 13, 14 and 25: what a score is worth to somebody who cannot choose freely.

Which temperature for this teacher, which teacher of this family, which teacher under this size: each figure restricts
the candidates as `evidence.choices` does and draws the numbers of that table. Random choice is drawn beside the scores,
and a grey band shows how far two equally good students may measure apart, because a small regret needs both to be read.
Scores are greys with marks of their own: colours and the other marks belong to the families, here as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gracelib.drawing import captions
from gracelib.drawing import choice_plots as cp
from gracelib.drawing import choice_text as text
from gracelib.drawing import marks as plots
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, GREY, SMALL, family, family_handles, frame, styled
from gracelib.evidence.choices import (
    RANDOM,
    budget_rows,
    choice_cells,
    family_rows,
    noise_points,
    over_teachers,
    temperature_choices,
    two_teachers,
)
from gracelib.evidence.ranks import FEW_CLUSTERS
from gracelib.paper.reported import STUDENT, TASK, PaperValue, paper_values, setting_name, setting_values

THREE = ("grace", "g_norm", "g_vendi")
FIVE = (*THREE, "student_loss", "teacher_accuracy")
_BUDGETS = (
    "the paper's budgets in parentheses are those in whose place they stand (its last leaves out its 70B teacher, "
    "ours leaves out none)"
)


def figure6(cells: pd.DataFrame, student: str, scale: str, *, k: int = 16, scores: Sequence[str] = THREE) -> Drawn:
    """Figure 6: scaled scores and accuracy against temperature for two teachers; the choice for every teacher below.

    The two are `choices.two_teachers`: decided by the teachers' accuracies, not the students'.
    """
    rows = choice_cells(cells, student, scores)
    two, choices = two_teachers(cells, student), temperature_choices(rows, scores)
    noise, teachers = noise_points(rows), _ordered(rows)
    handles = [
        [*(cp.line_handle(s, scores) for s in scores), *cp.pick_handles()],
        [*family_handles(rows["manner"]), cp.band_handle()],
    ]
    with styled():
        fig, axes = cp.two_by_two(1.8, 0.55 + 0.22 * len(teachers), handles, captions.note(scale, rows))
        lines = [
            cp.curves(ax, rows[rows["teacher"] == name], choices[choices["teacher"] == name], scores, k, right)
            for ax, name, right in zip(axes[0], two, (len(two) < 2, True), strict=False)
        ]
        for ax in axes[0][len(two) :]:
            ax.set_axis_off()
            ax.text(0.5, 0.5, "one teacher only", ha="center", fontsize=SMALL, color=GREY, transform=ax.transAxes)
        cp.picks(axes[1][0], choices, teachers, scores, "picked", "Temperature picked ($T$)")
        cp.band(axes[1][1], noise)
        cp.picks(axes[1][1], choices, teachers, scores, "regret_points", "Regret of that pick (points)")
        axes[1][1].set_xlim(left=-0.04 * max(axes[1][1].get_xlim()[1], 1))
        axes[1][1].tick_params(labelleft=False)
    sentence = text.temperature_sentence(choices, noise)
    caption = (
        f"Top: scores scaled to 0..1 over the temperatures of one teacher, up is good, and {captions.accuracy_words(k=k)} with "
        f"one standard error, for two teachers chosen by their own accuracy: {_two_named(rows, two)}. Triangles: the temperature a score "
        f"picks; dashed: the best one. Bottom: the pick for every teacher and what it costs against that teacher's best "
        f"temperature; filled family marks are the best temperatures. {sentence} {_cells(scale, rows)}"
    )
    table = pd.concat([*(c.assign(panel="top") for c in lines), choices.assign(panel="bottom")], ignore_index=True)
    named = choices[choices["teacher"].isin(two)]
    ours = {
        "regret_points": _records(over_teachers(choices, "regret_points")),
        "picked": {f"{r.teacher}, {r.score}": r.picked for r in named.itertuples() if r.score != RANDOM},
        "best": dict(zip(named["teacher"], named["best"], strict=True)),
    }
    alt = f"Two panels of lines over temperature, and two of marks, one row a teacher. {sentence}"
    return Drawn(fig, table, caption, alt, ours, _paper_temperatures(rows))


def figure7(cells: pd.DataFrame, student: str, scale: str, *, scores: Sequence[str] = THREE) -> Drawn:
    """Figure 7: left, each teacher's Spearman over its temperatures; right, Spearman over all cells of a size budget."""
    rows = choice_cells(cells, student, scores)
    choices = temperature_choices(rows, scores)
    choices = choices[choices["score"] != RANDOM]
    within, budgets = over_teachers(choices, "spearman"), budget_rows(rows, scores)
    budgets = budgets[budgets["score"] != RANDOM]
    paper = {q: _paper(rows, "figure 7", q) for q in ("spearman_within_abs", "spearman_budget_abs")}
    marks = [cp.line_handle(s, scores, lines=False) for s in scores] + [cp.interval_handle()]
    theirs = [v for values in paper.values() for v in values.values()]
    handles = [marks, cp.paper_handles(theirs, _setting(rows)), family_handles(rows["manner"])]
    with styled():
        fig, (left, right) = frame(DOUBLE, 2.6, handles, captions.note(scale, rows), (1, 1.15), sharey=True)
        cp.violins(left, choices, within, paper["spearman_within_abs"])
        names = sorted(set(budgets["budget"]))
        for i, score in enumerate(scores):
            own = budgets[budgets["score"] == score]
            x = np.arange(len(names)) + 0.24 * (i - (len(scores) - 1) / 2)
            cp.points(right, x, own["spearman"], own["low"], own["high"], score, scores)
            if score in paper["spearman_budget_abs"]:
                for at in x:
                    cp.paper_mark(right, paper["spearman_budget_abs"][score], at + 0.09, score)
        right.set_xticks(range(len(names)), [text.budget_name(budgets, w) for w in names])
        pad = 0.6 + 0.5 * max(0, 3 - len(names))  # few budgets do not stand farther apart
        right.set_xlim(-pad, len(names) - 1 + pad)
        right.set_xlabel("Size budget (width)")
        for ax in (left, right):
            ax.axhline(0, color=EDGE, linewidth=0.7, zorder=1)
            ax.grid(visible=False, axis="x")
            ax.set_ylim(-1.08, 1.08)
            ax.set_yticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
        left.set_ylabel("Signed Spearman (good is positive)")
        right.tick_params(labelleft=False)
        if budgets["spearman"].isna().all():
            right.text(sum(right.get_xlim()) / 2, 0.06, "undefined", ha="center", fontsize=SMALL, color=GREY)
    counts = " or ".join(map(str, sorted(set(rows.groupby("teacher").size()))))
    sentence = f"{text.within_sentence(within, choices)} {text.budget_sentence(budgets, 'spearman')}"
    said = (
        " ".join(
            text.paper_sentence(v, _setting(rows), what, "|ρ|")
            for v, what in (
                (paper["spearman_within_abs"], "within a teacher, mean"),
                (paper["spearman_budget_abs"], "every budget"),
            )
        )
        or ""
    )
    caption = (
        f"Left: signed Spearman of score and accuracy over one teacher's temperatures ({counts}), a mark a "
        f"teacher (so few temperatures allow few values), a violin where {cp.ENOUGH_FOR_A_VIOLIN} or more are defined, and "
        f"their mean. Right: over all cells of the teachers up to a width; {_BUDGETS}. {sentence} {said} "
        f"{_cells(scale, rows)}"
    )
    table = pd.concat(
        [choices.assign(panel="left"), within.assign(panel="left, mean"), budgets.assign(panel="right")],
        ignore_index=True,
    )
    ours = {"within": _records(within), "budgets": {str(w): _records(b) for w, b in budgets.groupby("budget")}}
    alt = f"Violins with one mark a teacher, and correlations with intervals for each size budget. {sentence}"
    return Drawn(fig, table, caption, alt, ours, {q: captions.papers(v) for q, v in paper.items()})


def figure13(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    k: int = 16,
    scores: Sequence[str] = FIVE,
    item: str = "figure 13",
    extra: str = "",
) -> Drawn:
    """Figure 13: the regret of each score when the candidates are one family; mean over families.

    Also figure 25, with the cells and the sentence (`extra`) of `slices.leave_out_teacher`. `item` is where the paper's
    numbers are filed.
    """
    rows = choice_cells(cells, student, scores)
    table, noise, paper = family_rows(rows, scores), noise_points(rows), _paper(rows, item, "regret_family_points")
    families = [h.get_label().replace(" ", "_") for h in family_handles(rows["manner"])]
    mean = table[table["family"] == "mean"].reset_index(drop=True)
    theirs = plots.paper_handles(paper.values(), f"paper's mean, {_setting(rows)}")
    handles = [family_handles(rows["manner"]), cp.bar_handles("mean over families"), theirs]
    lane = 0.8 / max(len(families), 1)
    with styled():
        fig, (ax,) = frame(
            DOUBLE, 0.5 + len(mean) * max(0.26, 0.09 * len(families)), handles, captions.note(scale, rows)
        )
        cp.band(ax, noise)
        widest = [*table["regret_points"], *mean["regret_high"], *(v.high for v in paper.values())]
        plots.regret_bars(ax, mean, paper, at_most=np.nanmax(widest))
        for j, name in enumerate(families):
            look, own = family(name), table[table["family"] == name].set_index("score")["regret_points"]
            ax.scatter(
                own[mean["score"]],
                mean.index - 0.4 + lane * (j + 0.5),
                s=22 * look.area,
                c=look.color,
                marker=look.marker,
                edgecolors=EDGE,
                linewidths=0.5,
                zorder=3.5,
                label=name,
                clip_on=False,
            )
        ax.set_xlabel("Regret within a family (points)")
    sizes = rows.drop_duplicates("teacher")["manner"].value_counts()
    sentence, said = (
        text.family_sentence(table),
        text.paper_sentence(paper, _setting(rows), "mean over families", "points"),
    )
    caption = (
        f"Regret of each score, in points of {captions.accuracy_words(k=k)}, when the candidates are the teachers of one "
        f"family at all their temperatures; bars and the numbers at the right are means over families. {extra + ' ' * bool(extra)}"
        f"Teachers a family: {', '.join(f'{f} {sizes[f]}' for f in families)} (with one, only its temperature is chosen). "
        f"{_band(noise)} {sentence} {said} {_cells(scale, rows)}"
    )
    alt = f"Horizontal bars, one a score, with a mark for each family. {sentence}"
    return Drawn(fig, table, caption, alt, _records(mean), captions.papers(paper))


def figure14(cells: pd.DataFrame, student: str, scale: str, *, k: int = 16, scores: Sequence[str] = FIVE) -> Drawn:
    """Figure 14: the regret of each score when only teachers up to a width are candidates, one panel a budget."""
    rows = choice_cells(cells, student, scores)
    table, noise, paper = (
        budget_rows(rows, scores),
        noise_points(rows),
        _paper(rows, "figure 14", "regret_budget_points"),
    )
    budgets = sorted(set(table["budget"]))
    widest = np.nanmax([*table["regret_points"], *table["regret_high"], *(v.high for v in paper.values())])
    handles = [cp.bar_handles("this run"), plots.paper_handles(paper.values(), f"paper, {_setting(rows)}")]
    with styled():
        fig, axes = frame(
            DOUBLE, 0.75 + 0.22 * (len(scores) + 1), handles, captions.note(scale, rows), [1] * len(budgets)
        )
        for i, (ax, width) in enumerate(zip(axes, budgets, strict=True)):
            own = table[table["budget"] == width].reset_index(drop=True)
            cp.band(ax, noise)
            plots.regret_bars(ax, own, paper, at_most=widest, labels=i == 0)
            ax.set_title(text.budget_name(table, width).replace("\n", ", "), fontsize=SMALL, pad=4)
    sentence = text.budget_sentence(table, "regret_points")
    said = text.paper_sentence(paper, _setting(rows), "every budget", "points")
    caption = (
        f"Regret of each score, in points of {captions.accuracy_words(k=k)}, among the teachers up to a width at all "
        f"temperatures; {_BUDGETS}. {_band(noise)} {sentence} {said} {_cells(scale, rows)}"
    )
    ours = {str(w): _records(own) for w, own in table.groupby("budget")}
    return Drawn(fig, table, caption, f"Horizontal bars, one panel a budget. {sentence}", ours, captions.papers(paper))


# --- shared by the figures -----------------------------------------------------------------------------------


def _cells(scale: str, rows: pd.DataFrame) -> str:
    few = ""
    if 1 < rows["teacher"].nunique() <= FEW_CLUSTERS:
        few = " With so few teachers they are too narrow: read them as ranges."
    return captions.cells_sentence(scale, rows) + few


def _band(noise: float) -> str:
    return (
        f"Grey: one standard error of the difference of two students, {noise:.1f} points, from the test problems alone."
    )


def _ordered(rows: pd.DataFrame) -> list[str]:
    """Teachers by family (in the order of the legend) and width."""
    rank = {h.get_label().replace(" ", "_"): i for i, h in enumerate(family_handles(rows["manner"]))}
    one = rows.drop_duplicates("teacher")
    return list(one.assign(rank=one["manner"].map(rank)).sort_values(["rank", "width", "teacher"])["teacher"])


def _two_named(rows: pd.DataFrame, two: Sequence[str]) -> str:
    if len(two) < 2:
        return f"{two[0]} (there is no other)"
    same = rows[rows["teacher"].isin(two)]["manner"].nunique() == 1
    return (
        f"{two[0]}, the least accurate teacher that has a relative, and {two[1]}, the most accurate of its family"
        if same
        else f"{two[0]} and {two[1]}, the least and the most accurate teacher (no family has two)"
    )


def _setting(rows: pd.DataFrame) -> str:
    return setting_name(rows["task"].iloc[0], rows["student"].iloc[0]).replace(", ", "/")


def _paper(rows: pd.DataFrame, item: str, quantity: str) -> dict[str, PaperValue]:
    return setting_values(item, quantity, rows["task"].iloc[0], rows["student"].iloc[0])


def _paper_temperatures(rows: pd.DataFrame) -> dict:
    """The paper's two teachers: the best temperature and the one GRACE picks; empty for a setting without figure 6."""
    if _setting(rows) != f"{STUDENT}/{TASK}":
        return {}
    return {
        f"{q}, {case}": captions.papers(paper_values("figure 6", q, case=case))
        for case in ("Qwen2.5-1.5B", "Qwen2.5-3B")
        for q in ("temperature_best", "temperature_picked")
    }


def _records(table: pd.DataFrame) -> dict:
    """One entry a score, without the columns that say nothing of it."""
    return {
        row.pop("score"): row for row in table.drop(columns=["label", "family"], errors="ignore").to_dict("records")
    }
