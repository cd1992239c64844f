"""The paper's figures of scores against accuracy, each composed from `plots` in one call: cells in, picture, numbers,
caption and alt text out.

Why not in the notebooks: a notebook should show `figure1(cells, student, scale)` and discuss what it says,
and a test must be able to draw the same picture. Captions are written from the numbers drawn, so that none is
typed in. The figures follow the final version of the paper where versions differ: G-Norm beside G-Vendi in
figures 2 and 5. `longer` is the table of cells of the second task, where a figure shows both.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from gracelib.baselines import SCORES
from gracelib.drawing import captions, setups
from gracelib.drawing import marks as plots
from gracelib.drawing.saving import Drawn
from gracelib.drawing.setups import Side
from gracelib.drawing.style import DOUBLE, SINGLE, frame, styled
from gracelib.evidence.cells import PAPER_REGRET, PAPER_SETTING, main_table, select
from gracelib.paper.reported import setting_values

HEADLINE = ("student_loss", "teacher_accuracy", "g_vendi", "grace")
THREE = ("grace", "g_vendi", "g_norm")
REGRET = ("grace", "grace_variance", "g_norm", "g_var", "g_vendi", "student_loss", "teacher_accuracy")
#: What figure 2 is called in the paper where it is drawn for another accuracy.
ITEMS = {"average_at_k": "figure 2", "greedy": "figure 11", "best_of": "figure 12"}
_LEFT_OUT = (
    "Regret intervals hold the measured accuracies fixed: the noise of the test problems and of the seed of the "
    "students' training is not in them. regret_se_points is the first of the two: the standard error of the accuracy "
    "difference between the selected cell and the best other one, as if they were tested on different problems "
    "(conservative: they answer the same ones)."
)


def figure1(cells: pd.DataFrame, student: str, scale: str, *, longer: pd.DataFrame | None = None, k: int = 16) -> Drawn:
    """Figure 1: bars of signed Spearman for four scores, both tasks; GRACE against student accuracy on the first. Two
    columns wide.
    """
    sides = setups.sides_of(cells, longer, student, HEADLINE, "figure 1")
    short = sides[0]
    legend = [_bar_legend(sides), *captions.handles(short.rows)]
    with styled():
        fig, axes = frame(
            DOUBLE, 2.3, legend, setups.note(scale, sides), (1,) * len(sides) + (1.35 if longer is not None else 1,)
        )
        _bar_panels(axes[:-1], sides, [side.table for side in sides], narrow=len(sides) > 1)
        plots.scatter(axes[-1], short.rows, "grace", _row(short.table, "grace"), k=k)
    which = f"on {captions.and_list([f'the {side.task} task' for side in sides])}"
    caption = (
        f"{'Left' if longer is None else 'Left and middle'}: signed Spearman correlation of four scores with "
        f"{captions.accuracy_words(k=k)} {which} (good is positive). Right: GRACE against the same accuracy on the "
        f"{short.task} task. {setups.beside(sides)} {setups.cells_sentence(scale, sides)}"
    )
    table = pd.concat(
        [
            captions.with_paper(short.table.assign(task=short.task), short.reported, short.rows),
            *(captions.with_paper(s.table, s.reported).assign(panel="middle", task=s.task) for s in sides[1:]),
        ],
        ignore_index=True,
    )
    alt = f"Bars and a scatter plot. {setups.listing(sides)}"
    return Drawn(fig, table, caption, alt, setups.ours(sides), setups.papers(sides))


def figure2(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    k: int = 16,
    scores: Sequence[str] = THREE,
    accuracy: str = "average_at_k",
    item: str | None = None,
    extra: str = "",
) -> Drawn:
    """Figure 2: GRACE, G-Vendi and G-Norm against student accuracy, all temperatures. Two columns wide.

    Also figures 3 (`student`), 8 (cells of the longer task), 9 and 10 (cells at another d, see `slices.at_d`), 11 and 12
    (`accuracy` "greedy", "best_of") and 24 (cells of `slices.leave_out_teacher`). `item` names the figure whose numbers
    of the paper are quoted (None: by the accuracy), `extra` is a sentence for the caption.
    """
    side = Side(cells, student, scores, item or ITEMS[accuracy], accuracy=accuracy)
    fig = _scatters(side, captions.note(scale, side.rows), k)
    caption = (
        f"{captions.names(scores)} against {captions.accuracy_words(accuracy, k)}; each point is a student taught by one "
        f"teacher at one temperature. {extra + ' ' * bool(extra)}{side.beside} {setups.cells_sentence(scale, [side])}"
    )
    alt = f"{_panels(scores)}. {setups.listing([side])}"
    return Drawn(fig, side.rows, caption, alt, setups.ours([side]), setups.papers([side]))


def figure4(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    longer: pd.DataFrame | None = None,
    k: int = 16,
    scores: Sequence[str] | None = None,
) -> Drawn:
    """Figure 4: bars of signed Spearman for every score the cells have, best first; one panel a task, same order.

    One column wide for one task, two for two. `scores` None: all of `baselines.SCORES` that are columns of
    `cells`, without the response length (not a score of the paper's list).
    """
    given = [s for s in SCORES if s in cells and s != "mean_length"] if scores is None else list(scores)
    sides = setups.sides_of(cells, longer, student, given, "figure 4")
    order = list(sides[0].table.sort_values("spearman", ascending=False, kind="stable", na_position="last")["score"])
    tables = [side.ordered(order) for side in sides]
    bars = _bar_legend(sides)
    width, legend = (SINGLE, [bars[:2], bars[2:]]) if longer is None else (DOUBLE, [bars])
    with styled():
        fig, axes = frame(width, 0.7 + 0.2 * len(order), legend, setups.note(scale, sides), (1,) * len(sides))
        _bar_panels(axes, sides, tables)
    caption = (
        f"Signed Spearman correlation of {len(order)} scores with {captions.accuracy_words(k=k)} (good is positive), in the "
        f"order of the {sides[0].task} task.{captions.defined_in(*tables) if longer is not None else ''} {setups.beside(sides)} "
        f"{setups.cells_sentence(scale, sides)}"
    )
    table = pd.concat(
        [captions.with_paper(t, s.reported).assign(task=s.task) for t, s in zip(tables, sides, strict=True)],
        ignore_index=True,
    )
    alt = f"Horizontal bars, best score first. {setups.listing(sides)}"
    return Drawn(fig, table, caption, alt, setups.ours(sides), setups.papers(sides))


def figure5(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    temperature: float = 0.6,
    k: int = 16,
    scores: Sequence[str] = THREE,
) -> Drawn:
    """Figure 5: scores against accuracy at one temperature, the selected teacher and its regret marked."""
    side = Side(cells, student, scores, "figure 5", temperature=temperature)
    fig = _scatters(side, captions.note(scale, side.rows, f" at T = {temperature:g}"), k, selection=True)
    picks = "; ".join(
        f"{r.label} selects {r.selected}, regret {r.regret_points:.1f} points" for r in side.table.itertuples()
    )
    caption = (
        f"{captions.names(scores)} against {captions.accuracy_words(k=k)} at temperature {temperature:g}. Triangles: the "
        f"teacher each score selects; the vertical line is its regret, the distance to the best student. {picks}. "
        f"{side.beside} {setups.cells_sentence(scale, [side])}"
    )
    regrets = setting_values("figure 5", "regret_points", side.task, student)
    known = {"spearman": setups.papers([side]), "regret_points": captions.papers(regrets)}
    return Drawn(
        fig, side.rows, caption, f"{_panels(scores)}. {setups.listing([side])} {picks}.", setups.ours([side]), known
    )


def regret_bars(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    longer: pd.DataFrame | None = None,
    k: int = 16,
    scores: Sequence[str] = REGRET,
) -> Drawn:
    """The final version's regret bars: what following each score costs, in points, one panel a task. Two columns wide."""
    item = "final version: regret bars"
    sides = setups.sides_of(cells, longer, student, scores, item, quantity="regret_points")
    order = list(sides[0].table.sort_values("regret_points", kind="stable")["score"])
    tables = [side.ordered(order) for side in sides]
    marks = [value for side in sides for value in side.reported.values()]
    legend = [[*plots.bar_handles(False, "this run"), *plots.paper_handles(marks, "paper's regret")]]
    with styled():
        fig, axes = frame(
            DOUBLE if longer is not None else SINGLE,
            0.7 + 0.2 * len(order),
            legend,
            setups.note(scale, sides),
            (1,) * len(sides),
        )
        ends = pd.concat([t[["regret_points", "regret_high"]] for t in tables]).max().max()
        for i, (ax, side, table) in enumerate(zip(axes, sides, tables, strict=True)):
            plots.regret_bars(ax, table, side.reported, at_most=max([ends, *(v.high for v in marks)]), labels=i == 0)
            ax.set_title(side.title, fontsize=plots.SMALL, pad=4)
    costs = " ".join(_least(side, table) for side, table in zip(sides, tables, strict=True))
    caption = (
        f"Regret of {len(order)} scores: points of {captions.accuracy_words(k=k)} lost by following the score instead of "
        f"taking the best cell of all teachers and temperatures; 0 is a perfect choice. {costs} {setups.cells_sentence(scale, sides)} "
        f"{_LEFT_OUT}"
    )
    table = pd.concat(
        [
            t.assign(task=s.task, **{PAPER_REGRET: [s.reported[n].text if n in s.reported else "" for n in t["score"]]})
            for t, s in zip(tables, sides, strict=True)
        ],
        ignore_index=True,
    )
    numbers = "; ".join(
        f"{s.task} task, {r.label}: {r.regret_points:.1f} points"
        for s, t in zip(sides, tables, strict=True)
        for r in t.itertuples()
    )
    return Drawn(
        fig,
        table,
        caption,
        f"Horizontal bars, least regret first. {numbers}.",
        setups.ours(sides),
        setups.papers(sides),
    )


def table_main(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    others: Sequence[tuple[pd.DataFrame, str]] = (),
    leave_out: str | None = "terse",
    k: int = 16,
) -> Drawn:
    """The main table, and below it the same without one family (column `cells_used` says which).

    `others` are more settings as (cells, student): each is a block of its own, named in the column `setting`. A setting
    that the family makes up alone has no block without it, and the caption says so.
    """
    blocks, known, whole, alone = {}, {}, [], []
    for part, who in ((cells, student), *others):
        rows = select(part, who, ())
        name, task = captions.setting(rows), rows["task"].iloc[0]
        whole.append(rows)
        blocks[name, "all families"] = main_table(part, who)
        if leave_out is not None and set(rows["manner"]) == {leave_out}:
            alone.append(name)
        elif leave_out is not None:
            blocks[name, f"without {leave_out}"] = main_table(part, who, leave_out=leave_out)
        known[name] = {
            q: captions.papers(setting_values("main table", q, task, who)) for q in ("spearman_abs", "regret_points")
        }
    table = pd.concat(
        [block.assign(setting=name, cells_used=used) for (name, used), block in blocks.items()], ignore_index=True
    )
    table = table[["setting", "cells_used", *(c for c in table if c not in ("setting", "cells_used"))]]
    lonely = f" No teacher is left without {leave_out} in: {', '.join(alone)}." if alone else ""
    caption = (
        f"Signed Spearman correlation with {captions.accuracy_words(k=k)} and regret in points of each score; the paper's "
        f"numbers are those of the setting in the column '{PAPER_SETTING}'. "
        f"{captions.cells_sentence(scale, *whole)}{lonely} {_LEFT_OUT}"
    )
    made = {f"{name}, {used}": captions.ours(block) for (name, used), block in blocks.items()}
    return Drawn(None, table, caption, "", made, known)


def _bar_panels(axes: Sequence, sides: Sequence[Side], tables: Sequence[pd.DataFrame], narrow: bool = False) -> None:
    for i, (ax, side, table) in enumerate(zip(axes, sides, tables, strict=True)):
        plots.correlation_bars(ax, table, side.reported, labels=i == 0, star=len(sides) > 1, narrow=narrow)
        if len(sides) > 1:
            ax.set_title(side.title, fontsize=plots.SMALL, pad=4)


def _bar_legend(sides: Sequence[Side]) -> list:
    """One panel names the paper's setting in the legend; of two, each has its setting in its title."""
    where = f", {sides[0].where.replace(', ', '/')}" if len(sides) == 1 else ""
    marks = [value for side in sides for value in side.reported.values()]
    return [*plots.bar_handles(False), *plots.paper_handles(marks, f"paper{where}, |ρ|")]


def _scatters(side: Side, note: str, k: int, selection: bool = False):
    """One scatter a row of the table, side by side, with one y axis."""
    legend = [*captions.handles(side.rows), *([plots.selected_handles()] if selection else [])]
    with styled():
        fig, axes = frame(DOUBLE, 2.25, legend, note, [1] * len(side.table), sharey=True)
        for ax, row in zip(axes, side.table.to_dict("records"), strict=True):
            plots.scatter(ax, side.rows, row["score"], row, accuracy=side.accuracy, k=k)
            if selection and row["selected"]:
                plots.selected_and_regret(ax, side.rows, row["score"], row, accuracy=side.accuracy)
            ax.label_outer()
    return fig


def _row(table: pd.DataFrame, score: str) -> dict:
    return table[table["score"] == score].iloc[0].to_dict()


def _least(side: Side, table: pd.DataFrame) -> str:
    """What the cheapest and the dearest score cost on a task."""
    known = table.dropna(subset=["regret_points"])
    if known.empty:
        return f"On the {side.task} task no regret is defined."
    low, high = known["regret_points"].min(), known["regret_points"].max()
    if low == high:
        return f"On the {side.task} task every score costs {low:.1f} points."
    best = captions.and_list(list(known.loc[known["regret_points"] == low, "label"]))
    return f"On the {side.task} task regrets run from {low:.1f} ({best}) to {high:.1f} points."


def _panels(scores: Sequence[str]) -> str:
    return f"{len(scores)} scatter plots side by side"
