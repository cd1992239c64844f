"""The paper's figures, each composed from `plots` in one call: cells in, picture, numbers, caption and alt
text out.

Why not in the notebooks: a notebook should show `figure1(cells, student, scale)` and discuss what it says,
and a test must be able to draw the same picture. Captions are written from the numbers drawn, so that none is
typed in. The figures follow the final version of the paper where versions differ: G-Norm beside G-Vendi in
figures 2 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from gracelib import plots
from gracelib.baselines import SCORES
from gracelib.figures import Drawn
from gracelib.paper import STUDENT, TASK, paper_values
from gracelib.style import DOUBLE, SINGLE, family_handles, frame, scale_note, styled, temperature_handles
from gracelib.tables import PAPER_SPEARMAN, main_table, score_rows, select

HEADLINE = ("student_loss", "teacher_accuracy", "g_vendi", "grace")
THREE = ("grace", "g_vendi", "g_norm")
_INTERVAL = "95% intervals come from a bootstrap over teachers"
_LEFT_OUT = (
    "Regret intervals hold the measured accuracies fixed: the noise of the test problems and of the seed of the "
    "students' training is not in them. regret_se_points is the first of the two: the standard error of the accuracy "
    "difference between the selected cell and the best other one, as if they were tested on different problems "
    "(conservative: they answer the same ones)."
)


def figure1(cells: pd.DataFrame, student: str, scale: str, *, k: int = 16) -> Drawn:
    """Figure 1: bars of signed Spearman for four scores; GRACE against student accuracy. Two columns wide."""
    rows = select(cells, student, HEADLINE)
    table, paper = score_rows(rows, HEADLINE), paper_values("figure 1", "spearman_abs")
    with styled():
        fig, (left, right) = frame(
            DOUBLE, 2.3, [plots.bar_handles(), *_handles(rows)], _note(scale, rows), (1, 1)
        )
        plots.correlation_bars(left, table, paper)
        plots.scatter(right, rows, "grace", _row(table, "grace"), k=k)
    caption = (
        f"Left: signed Spearman correlation of four scores with {_accuracy(k)}, beside the magnitudes "
        f"the paper reports for {STUDENT} on {TASK}. Right: GRACE against the same accuracy. "
        f"{_cells(scale, student, rows)}"
    )
    alt = f"Bars and a scatter plot. {_listing(table)}"
    return Drawn(fig, _with_paper(table, paper, rows), caption, alt, _ours(table), _paper(paper))


def figure2(
    cells: pd.DataFrame,
    student: str,
    scale: str,
    *,
    k: int = 16,
    scores: Sequence[str] = THREE,
    item: str = "figure 2",
) -> Drawn:
    """Figure 2: GRACE, G-Vendi and G-Norm against student accuracy, all temperatures. Two columns wide."""
    rows = select(cells, student, scores)
    table, paper = score_rows(rows, scores), paper_values(item, "spearman_abs")
    fig = _scatters(rows, table, _note(scale, rows), k)
    caption = (
        f"{_names(scores)} against {_accuracy(k)}; each point is a student taught by one teacher at one "
        f"temperature. {_cells(scale, student, rows)}"
    )
    return Drawn(
        fig,
        rows,
        caption,
        f"{len(scores)} scatter plots side by side. {_listing(table)}",
        _ours(table),
        _paper(paper),
    )


def figure4(
    cells: pd.DataFrame, student: str, scale: str, *, k: int = 16, scores: Sequence[str] | None = None
) -> Drawn:
    """Figure 4: bars of signed Spearman for every score the cells have, best first. One column wide.

    `scores` None: all of `baselines.SCORES` that are columns of `cells`, without the response length (not a
    score of the paper's list).
    """
    names = [s for s in SCORES if s in cells and s != "mean_length"] if scores is None else list(scores)
    rows = select(cells, student, names)
    table, paper = score_rows(rows, names), paper_values("figure 4", "spearman_abs")
    table = table.sort_values("spearman", ascending=False, kind="stable", na_position="last").reset_index(
        drop=True
    )
    with styled():
        bars = plots.bar_handles()
        fig, (ax,) = frame(SINGLE, 0.55 + 0.2 * len(table), [bars[:2], bars[2:]], _note(scale, rows))
        plots.correlation_bars(ax, table, paper)
    caption = (
        f"Signed Spearman correlation of {len(table)} scores with {_accuracy(k)} (good is positive), beside "
        f"the magnitudes the paper reports for {STUDENT} on {TASK}. {_cells(scale, student, rows)}"
    )
    return Drawn(
        fig,
        _with_paper(table, paper),
        caption,
        f"Horizontal bars, best score first. {_listing(table)}",
        _ours(table),
        _paper(paper),
    )


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
    rows = select(cells, student, scores, temperature=temperature)
    table, paper = score_rows(rows, scores), paper_values("figure 5", "spearman_abs")
    fig = _scatters(rows, table, _note(scale, rows, f" at T = {temperature:g}"), k, selection=True)
    picks = "; ".join(
        f"{r.label} selects {r.selected}, regret {r.regret_points:.1f} points" for r in table.itertuples()
    )
    caption = (
        f"{_names(scores)} against {_accuracy(k)} at temperature {temperature:g}. Triangles: the teacher "
        f"each score selects; the vertical line is its regret, the distance to the best student. {picks}. "
        f"{_cells(scale, student, rows)}"
    )
    known = {"spearman": _paper(paper), "regret_points": _paper(paper_values("figure 5", "regret_points"))}
    return Drawn(
        fig,
        rows,
        caption,
        f"{len(scores)} scatter plots side by side. {_listing(table)} {picks}.",
        _ours(table),
        known,
    )


def table_main(
    cells: pd.DataFrame, student: str, scale: str, *, leave_out: str | None = "terse", k: int = 16
) -> Drawn:
    """The main table, and below it the same without one family (column `cells_used` says which)."""
    parts = {"all families": main_table(cells, student)}
    if leave_out is not None:
        parts[f"without {leave_out}"] = main_table(cells, student, leave_out=leave_out)
    table = pd.concat([part.assign(cells_used=name) for name, part in parts.items()], ignore_index=True)
    table.insert(0, "cells_used", table.pop("cells_used"))
    rows = select(cells, student, ())
    caption = (
        f"Signed Spearman correlation with {_accuracy(k)} and regret in points of each score; the paper's "
        f"numbers are those for {STUDENT} on {TASK}. {_cells(scale, student, rows)} {_LEFT_OUT}"
    )
    known = {q: _paper(paper_values("main table", q)) for q in ("spearman_abs", "regret_points")}
    return Drawn(None, table, caption, "", {name: _ours(part) for name, part in parts.items()}, known)


def _scatters(rows: pd.DataFrame, table: pd.DataFrame, note: str, k: int, selection: bool = False):
    """One scatter a row of `table`, side by side, with one y axis."""
    legend = [*_handles(rows), *([plots.selected_handles()] if selection else [])]
    with styled():
        fig, axes = frame(DOUBLE, 2.25, legend, note, [1] * len(table), sharey=True)
        for ax, row in zip(axes, table.to_dict("records"), strict=True):
            plots.scatter(ax, rows, row["score"], row, k=k)
            if selection and row["selected"]:
                plots.selected_and_regret(ax, rows, row["score"], row)
            ax.label_outer()
    return fig


def _handles(rows: pd.DataFrame) -> list[list]:
    temperatures = set(rows["temperature"])
    return [
        family_handles(rows["manner"]),
        temperature_handles(temperatures) if len(temperatures) > 1 else [],
    ]


def _row(table: pd.DataFrame, score: str) -> dict:
    return table[table["score"] == score].iloc[0].to_dict()


def _note(scale: str, rows: pd.DataFrame, extra: str = "") -> str:
    return scale_note(scale, len(rows), rows["teacher"].nunique(), extra)


def _cells(scale: str, student: str, rows: pd.DataFrame) -> str:
    cells, teachers = len(rows), rows["teacher"].nunique()
    of = f"{cells} cell{'s' * (cells > 1)} of {teachers} teacher{'s' * (teachers > 1)}"
    return f"Scale {scale}, student {student}: {of}; {_INTERVAL}."


def _accuracy(k: int) -> str:
    return plots.accuracy_label("average_at_k", k).removesuffix(" (%)").replace("Student", "the student's")


def _names(scores: Sequence[str]) -> str:
    labels = [SCORES[s].label for s in scores]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _listing(table: pd.DataFrame) -> str:
    return "; ".join(f"{row['label']}: {plots.spearman_text(row)}" for row in table.to_dict("records")) + "."


def _ours(table: pd.DataFrame) -> dict:
    keep = (
        "spearman",
        "low",
        "high",
        "regret_points",
        "regret_low",
        "regret_high",
        "regret_se_points",
        "selected",
        "cells",
        "teachers",
        "note",
    )
    return {row["score"]: {column: row[column] for column in keep} for row in table.to_dict("records")}


def _paper(values: dict) -> dict:
    return {score: {"value": v.text, "source": v.source} for score, v in values.items()}


def _with_paper(table: pd.DataFrame, paper: dict, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """The bars' table with the paper's value as text; below it, where given, the cells of the scatter
    beside them.
    """
    bars = table.assign(**{PAPER_SPEARMAN: [paper[s].text if s in paper else "" for s in table["score"]]})
    return (
        bars
        if rows is None
        else pd.concat([bars.assign(panel="left"), rows.assign(panel="right")], ignore_index=True)
    )
