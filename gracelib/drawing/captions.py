"""The sentences under a figure, its legend entries and the numbers of its sidecar: what every figure says alike.

Why one place: scale, task, student, number of cells and where the paper stands must be said by every figure in the same
words, and a caption may hold no number that is not in the table drawn. So captions are put together here from tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.drawing import marks
from gracelib.drawing.style import family_handles, scale_note, temperature_handles
from gracelib.evidence.cells import PAPER_SPEARMAN
from gracelib.paper.reported import PaperValue, setting_name

INTERVAL = "95% intervals come from a bootstrap over teachers"
_RECORD = (
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


def handles(rows: pd.DataFrame) -> list[list]:
    """Legend groups of a scatter: families, and temperatures where there are several."""
    temperatures = set(rows["temperature"])
    return [family_handles(rows["manner"]), temperature_handles(temperatures) if len(temperatures) > 1 else []]


def note(scale: str, rows: pd.DataFrame, extra: str = "") -> str:
    """The grey line below a figure: scale, task, student, cells and teachers."""
    return scale_note(scale, len(rows), rows["teacher"].nunique(), f", {setting(rows)}{extra}")


def note_two(scale: str, first: pd.DataFrame, second: pd.DataFrame | None) -> str:
    """`note` for a figure of one student on two tasks."""
    if second is None:
        return note(scale, first)
    cells, teachers = len(second), second["teacher"].nunique()
    both = f", {first['task'].iloc[0]} task; {cells} of {teachers}, {setting(second)}"
    return scale_note(scale, len(first), first["teacher"].nunique(), both)


def setting(rows: pd.DataFrame) -> str:
    """Which of our settings the rows belong to: "short task, first student"."""
    return f"{rows['task'].iloc[0]} task, {rows['student'].iloc[0]} student"


def cells_sentence(scale: str, *parts: pd.DataFrame) -> str:
    """Scale, task, student, cells and teachers of one or several settings; and what the intervals are."""
    named = []
    for rows in parts:
        cells, teachers = len(rows), rows["teacher"].nunique()
        named.append(f"{setting(rows)}: {cells} cell{'s' * (cells > 1)} of {teachers} teacher{'s' * (teachers > 1)}")
    return f"Scale {scale}, {'; '.join(named)}; {INTERVAL}."


def accuracy_words(accuracy: str = "average_at_k", k: int = 16) -> str:
    """ "the student's Average@16"."""
    return marks.accuracy_label(accuracy, k).removesuffix(" (%)").replace("Student", "the student's")


def and_list(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def names(scores: Sequence[str]) -> str:
    """Labels of scores as a list."""
    return and_list([SCORES[s].label for s in scores])


def listing(table: pd.DataFrame) -> str:
    """Every score's correlation, for alt texts."""
    return "; ".join(f"{row['label']}: {marks.spearman_text(row)}" for row in table.to_dict("records")) + "."


def beside_the_paper(table: pd.DataFrame, reported: Mapping[str, PaperValue], rows: pd.DataFrame) -> str:
    """What the paper reports for the setting that ours stands for, and whether our intervals contain it.

    The paper prints magnitudes; one is compared as if its sign were the good one. Scores without an interval of ours,
    and bounds, are listed and not compared.
    """
    where = setting_name(rows["task"].iloc[0], rows["student"].iloc[0])
    if not reported:
        return (
            f"The paper prints no such number for {where}."
            if where
            else "No setting of the paper stands beside this one."
        )
    said = and_list([f"{value.text} for {SCORES[s].label}" for s, value in reported.items()])
    inside, outside = [], []
    for row in table.to_dict("records"):
        value = reported.get(row["score"])
        if value is not None and not value.bound and not np.isnan(row["low"]):
            (inside if row["low"] <= value.high and value.low <= row["high"] else outside).append(row["label"])
    said = f"The paper's |ρ| ({where}): {said}."
    if inside:
        said += f" Our interval contains it for {and_list(inside)}" + (
            f", not for {and_list(outside)}." if outside else "."
        )
    elif outside:
        said += f" Our interval does not contain it for {and_list(outside)}."
    return said


def defined_in(*tables: pd.DataFrame) -> str:
    """A sentence on the scores that some cells lack, "" if there are none."""
    found = [
        f"{r.label} in {r.cells} of {table['cells'].max()}"
        for table in tables
        for r in table.itertuples()
        if r.cells < table["cells"].max()
    ]
    return f" Starred scores are not defined everywhere: {'; '.join(found)} cells." if found else ""


def ours(table: pd.DataFrame, prefix: str = "") -> dict:
    """Our numbers for a sidecar, by score."""
    return {prefix + row["score"]: {column: row[column] for column in _RECORD} for row in table.to_dict("records")}


def papers(values: Mapping[str, PaperValue], prefix: str = "") -> dict:
    """The paper's numbers for a sidecar, by score, each with its source."""
    return {prefix + score: {"value": v.text, "source": v.source} for score, v in values.items()}


def with_paper(
    table: pd.DataFrame, reported: Mapping[str, PaperValue], rows: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The bars' table with the paper's value as text; below it, where given, the cells of the scatter beside them."""
    bars = table.assign(**{PAPER_SPEARMAN: [reported[s].text if s in reported else "" for s in table["score"]]})
    if rows is None:
        return bars
    return pd.concat([bars.assign(panel="left"), rows.assign(panel="right")], ignore_index=True)
