"""The paper's figures of scores against accuracy, each composed from `marks` in one call: cells in, picture, numbers,
caption and alt text out.

Why not in the notebooks: a notebook should show `figure1(cells, student, scale)` and discuss what it says,
and a test must be able to draw the same picture. The figures follow the final version of the paper where versions
differ: G-Norm beside G-Vendi in figures 2 and 5. `longer` is the table of cells of the second task, where a figure shows
both.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from gracelib.baselines import SCORES
from gracelib.drawing import captions, findings, marks
from gracelib.drawing.captions import Side
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, SINGLE, frame, styled
from gracelib.evidence.cells import PAPER_REGRET, PAPER_SETTING, main_table, select
from gracelib.paper.reported import PaperValue, setting_values
from gracelib.paper.settings import changes
from gracelib.scale import PaperScale

HEADLINE = ("student_loss", "teacher_accuracy", "g_vendi", "g_norm", "grace")  #: the paper's four, and the norm
THREE = ("grace", "g_vendi", "g_norm")
REGRET = ("grace", "grace_variance", "g_norm", "g_var", "g_vendi", "student_loss", "teacher_accuracy")
#: What figure 2 is called in the paper where it is drawn for another accuracy.
ITEMS = {"average_at_k": "figure 2", "greedy": "figure 11", "best_of": "figure 12"}
_LEFT_OUT = (
    "regret_se_points: the standard error of the accuracy difference between the selected cell and "
    "the best other one, as if they were tested on different problems (conservative: they answer the same ones)."
)


@styled()
def figure1(cells: pd.DataFrame, student: str, scale: str, *, longer: pd.DataFrame | None = None, k: int = 16) -> Drawn:
    """Figure 1: bars of signed Spearman for five scores, both tasks; GRACE against student accuracy on the first. Two
    columns wide.
    """
    sides = [Side(part, student, HEADLINE, "figure 1") for part in (cells, longer) if part is not None]
    short, rows, two = sides[0], [side.rows for side in sides], len(sides) > 1
    fig, axes = frame(
        DOUBLE,
        2.3,
        [_bar_legend(sides), *marks.cell_handles(short.rows)],
        captions.note(scale, *rows),
        [1] * len(sides) + [1.35 if two else 1],
    )
    _bar_panels(axes[:-1], sides, [side.table for side in sides], narrow=two)
    row, paper = short.table.set_index("score").loc["grace"], short.reported.get("grace")
    marks.scatter(axes[-1], short.rows, "grace", row, k=k, paper=paper)
    return Drawn(
        fig,
        pd.concat(
            [
                short.with_paper(short.table.assign(task=short.task)).assign(panel="left"),
                short.rows.assign(panel="right"),
                *(side.with_paper(side.table).assign(task=side.task, panel="middle") for side in sides[1:]),
            ],
            ignore_index=True,
        ),
        (
            f"{_orders(sides)} {'Left and middle' if two else 'Left'}: signed Spearman correlation of five scores (the paper's four, and the norm) with "
            f"{captions.accuracy_words(k=k)}, {'one panel per task' if two else f'{short.task} task'} (good is positive). Right: "
            f"GRACE against the same accuracy on the {short.task} task. {captions.cells_sentence(scale, *rows)}"
        ),
        "Bars with intervals, one per score, and a scatter plot; open marks are the paper's values.",
        *captions.both(sides),
    )


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

    Also figures 3 (`student`), 8 (cells of the longer task), 9 and 10 (cells at another d, see `cells.at_d`), 11 and 12
    (`accuracy` "greedy", "best_of") and 24 (cells of `cells.leave_out_teacher`). `item` names the figure whose numbers
    of the paper are recorded (None: by the accuracy), `extra` is a sentence for the caption.
    """
    side = Side(cells, student, scores, item or ITEMS[accuracy], accuracy=accuracy)
    return Drawn(
        _scatters(side, captions.note(scale, side.rows), k),
        side.rows,
        (
            f"{_orders([side])} {captions.names(scores)} against {captions.accuracy_words(accuracy, k)}; each point is a student taught by one "
            f"teacher at one temperature. {extra + ' ' * bool(extra)}{captions.cells_sentence(scale, side.rows)}"
        ),
        _panels(scores) if len(side.rows) >= marks.FEW else "No picture, but why there is none: too few students",
        *captions.both([side]),
    )


@styled()
def figure4(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    longer: pd.DataFrame | None = None,
    k: int = 16,
    scores: Sequence[str] | None = None,
) -> Drawn:
    """Figure 4: bars of signed Spearman for every score the cells have, best first; one panel per task, same order.

    One column wide for one task, two for two. `scores` None: `all_scores`.
    """
    given = all_scores(cells) if scores is None else list(scores)
    sides = [Side(part, student, given, "figure 4") for part in (cells, longer) if part is not None]
    order = sides[0].table.sort_values("spearman", ascending=False, kind="stable", na_position="last")["score"]
    tables, rows, bars = [side.ordered(order) for side in sides], [side.rows for side in sides], _bar_legend(sides)
    width, legend = (SINGLE, [bars[:2], bars[2:]]) if longer is None else (DOUBLE, [bars])
    fig, axes = frame(width, 0.7 + 0.2 * len(order), legend, captions.note(scale, *rows), [1] * len(sides))
    _bar_panels(axes, sides, tables)
    return Drawn(
        fig,
        pd.concat(
            [side.with_paper(t).assign(task=side.task) for t, side in zip(tables, sides, strict=True)],
            ignore_index=True,
        ),
        (
            f"{_orders(sides)} Signed Spearman correlation of {len(order)} scores with {captions.accuracy_words(k=k)}, in the "
            f"order of the {sides[0].task} task. A score that is not defined in every cell is starred, or says in how many it "
            f"is. {captions.cells_sentence(scale, *rows)}"
        ),
        "Horizontal bars with intervals, one per score, best first; open marks are the paper's values.",
        *captions.both(sides),
    )


def all_scores(cells: pd.DataFrame) -> list[str]:
    """The scores of `baselines.SCORES` that the cells have, without the response length (not a score of the paper's list)."""
    return [s for s in SCORES if s in cells and s != "mean_length"]


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
    ours, known = captions.both([side])
    regrets = setting_values("figure 5", "regret_points", side.task, student)
    return Drawn(
        _scatters(side, captions.note(scale, side.rows, extra=f" at T = {temperature:g}"), k, regrets),
        side.rows,
        caption=(
            f"{findings.picks(side.table)} {captions.names(scores)} against {captions.accuracy_words(k=k)} at temperature {temperature:g}. Triangles: the "
            f"teacher each score selects; the vertical line is its regret, the distance to the best student. "
            f"{captions.cells_sentence(scale, side.rows)}"
        ),
        alt=f"{_panels(scores)}; a triangle marks what each score selects.",
        ours=ours,
        paper={"spearman": known, "regret_points": captions.papers(regrets)},
    )


@styled()
def regret_bars(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    longer: pd.DataFrame | None = None,
    k: int = 16,
    scores: Sequence[str] = REGRET,
) -> Drawn:
    """The final version's regret bars: what following each score costs, in points, one panel per task. Two columns wide."""
    given = student, scores, "final version: regret bars"
    sides = [Side(part, *given, quantity="regret_points") for part in (cells, longer) if part is not None]
    order = sides[0].table.sort_values("regret_points", kind="stable")["score"]
    tables, rows = [side.ordered(order) for side in sides], [side.rows for side in sides]
    known = [value for side in sides for value in side.reported.values()]
    fig, axes = frame(
        SINGLE if longer is None else DOUBLE,
        0.7 + 0.2 * len(order),
        [[*marks.bar_handles("this run"), *marks.paper_handles(known, "paper's regret")]],
        captions.note(scale, *rows),
        [1] * len(sides),
    )
    ends = pd.concat([t[["regret_points", "regret_high"]] for t in tables]).max().max()
    at_most = max([ends, *(v.high for v in known)])
    for ax, side, table in zip(axes, sides, tables, strict=True):
        marks.regret_bars(ax, table, side.reported, at_most=at_most, labels=ax is axes[0])
        ax.set_title(side.title)
    return Drawn(
        fig,
        pd.concat(
            [
                side.with_paper(table.assign(task=side.task), PAPER_REGRET)
                for side, table in zip(sides, tables, strict=True)
            ],
            ignore_index=True,
        ),
        (
            f"{' '.join(findings.picks(s.table, where=_task(s, sides)) for s in sides)} Regret of {len(order)} scores: points of {captions.accuracy_words(k=k)} lost by following the score instead of "
            f"taking the best cell of all teachers and temperatures; 0 is a perfect choice. "
            f"{captions.cells_sentence(scale, *rows)} {captions.regret_ends(rows[0])} {_LEFT_OUT}"
        ),
        "Horizontal bars with intervals, one per score, least regret first; open marks are the paper's values.",
        *captions.both(sides),
    )


def table_main(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    others: Sequence[tuple[pd.DataFrame, str]] = (),
    leave_out: Sequence[Sequence[str]] = (("terse",), ("terse", "reversed")),
    k: int = 16,
) -> Drawn:
    """The main table, and below it the same without some families (column `cells_used` says which).

    `others` are more settings as (cells, student): each is a block of its own, named in the column `setting`. A setting
    that lacks one of the families, or has no other, has no block without them.
    """
    blocks, known, whole = {}, {}, []
    for part, who in ((cells, student), *others):
        rows = select(part, who, ())
        name, task = captions.setting(rows), rows["task"].iloc[0]
        whole.append(rows)
        blocks[name, "all families"] = main_table(part, who)
        for families in leave_out:
            if set(rows["manner"]) > set(families):
                blocks[name, f"without {' and '.join(families)}"] = main_table(part, who, leave_out=families)
        known[name] = {
            q: captions.papers(setting_values("main table", q, task, who)) for q in ("spearman_abs", "regret_points")
        }
    return Drawn(
        None,
        pd.concat(blocks, names=["setting", "cells_used"]).reset_index([0, 1]).reset_index(drop=True),
        caption=(
            f"{findings.order(next(iter(blocks.values())), setting_values('main table', 'spearman_abs', cells['task'].iloc[0], student))} "
            f"Signed Spearman correlation with {captions.accuracy_words(k=k)} and regret in points of each score; the paper's "
            f"numbers are those of the setting in the column '{PAPER_SETTING}'. {captions.cells_sentence(scale, *whole)} "
            f"{captions.regret_ends(whole[0])} {_LEFT_OUT}"
        ),
        alt="",
        ours={f"{name}, {used}": captions.records(block) for (name, used), block in blocks.items()},
        paper=known,
    )


def from_cells_alone(scale: PaperScale, named: Mapping[str, pd.DataFrame], at: float) -> list[Path]:
    """Write the figures of notebook 05 that need nothing but cells, for a scale without other tables (`paper`); the files.

    `named`: the cells of each task by its name; `at`: the temperature of figure 5.
    """
    name, k, student = scale.name, scale.k, scale.student
    first, longer = named[scale.tasks[0].name], named.get("long") if len(named) > 1 else None
    drawn = {
        "fig01_correlations": figure1(first, student, name, longer=longer, k=k),
        "fig02_scatter": figure2(first, student, name, k=k),
        "fig04_all_scores": figure4(first, student, name, longer=longer, k=k),
        "fig05_one_temperature": figure5(first, student, name, k=k, temperature=at),
        "fig11_greedy": figure2(first, student, name, k=k, accuracy="greedy"),
        "fig12_best_of_k": figure2(first, student, name, k=k, accuracy="best_of"),
        "regret_bars": regret_bars(first, student, name, longer=longer, k=k),
    }
    others = [(first, role) for role in dict.fromkeys(first["student"]) if role != student]
    if "second" in set(first["student"]) - {student}:
        drawn["fig03_second_student"] = figure2(first, "second", name, k=k, item="figure 3")
    if longer is not None:
        drawn["fig08_long_task"] = figure2(longer, student, name, k=k, item="figure 8")
        others.append((longer, student))
    drawn["table_main"] = table_main(first, student, name, others=others, leave_out=(), k=k)
    about = {
        "inputs": ["scores", "students", "teachers"],
        "seed": scale.seed,
        "parameters": {"scale": name, "student": student, "not the paper's": changes(scale)},
    }
    return [path for figure, one in drawn.items() for path in one.save(name, figure, **about)]


def _bar_panels(axes: Sequence, sides: Sequence[Side], tables: Sequence[pd.DataFrame], narrow: bool = False) -> None:
    two = len(sides) > 1
    for ax, side, table in zip(axes, sides, tables, strict=True):
        marks.correlation_bars(ax, table, side.reported, labels=ax is axes[0], star=two, narrow=narrow)
        if two:
            ax.set_title(side.title)


def _bar_legend(sides: Sequence[Side]) -> list:
    """One panel names the paper's setting in the legend; of two, each has its setting in its title."""
    where = f", {sides[0].where.replace(', ', '/')}" if len(sides) == 1 else ""
    return [
        *marks.bar_handles(),
        *marks.paper_handles([value for side in sides for value in side.reported.values()], f"paper{where}, |ρ|"),
    ]


@styled()
def _scatters(side: Side, note: str, k: int, regrets: Mapping[str, PaperValue] | None = None) -> Figure:
    """One scatter per row of the table, side by side, with one y axis; with the paper's `regrets`, what each selects."""
    if regrets is None and len(side.rows) < marks.FEW:
        return marks.not_drawn(side.rows, side.table, note)
    legend = marks.cell_handles(side.rows)
    if regrets is not None:
        legend.append(
            [
                *marks.chosen_handles("selected by the score", "best student"),
                marks.entry("regret", linestyle="-", color="black", linewidth=1.4),
            ]
        )
    fig, axes = frame(DOUBLE, 2.25, legend, note, [1] * len(side.table), sharey=True)
    for ax, row in zip(axes, side.table.to_dict("records"), strict=True):
        paper = side.reported.get(row["score"])
        marks.scatter(ax, side.rows, row["score"], row, accuracy=side.accuracy, k=k, paper=paper)
        if regrets is not None and row["selected"]:
            paper = regrets.get(row["score"])
            marks.selected_and_regret(ax, side.rows, row["score"], row, accuracy=side.accuracy, paper=paper)
        ax.label_outer()
    return fig


def _orders(sides: Sequence[Side]) -> str:
    return " ".join(findings.order(side.table, side.reported, _task(side, sides)) for side in sides)


def _task(side: Side, sides: Sequence[Side]) -> str:
    return f" on the {side.task} task" * (len(sides) > 1)


def _panels(scores: Sequence[str]) -> str:
    return f"{len(scores)} scatter plots side by side, one per score, with its correlation printed above"
