"""One setting of a figure: its rows, the statistics of its scores, what the paper reports for it.

Why an object: a figure of two tasks says everything twice (panel, caption, sidecar, table), and the two must not get
mixed. The functions take one or two sides and say what belongs to which.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from gracelib.drawing import captions
from gracelib.evidence.cells import score_rows, select
from gracelib.paper.reported import setting_name, setting_values


class Side:
    """One setting in a figure: its rows, the statistics of the scores and what the paper reports for it."""

    def __init__(
        self,
        cells: pd.DataFrame,
        student: str,
        scores: Sequence[str],
        item: str,
        *,
        accuracy: str = "average_at_k",
        temperature: float | None = None,
        quantity: str = "spearman_abs",
    ):
        self.rows = select(cells, student, scores, accuracy=accuracy, temperature=temperature)
        self.task, self.accuracy = self.rows["task"].iloc[0], accuracy
        self.table = score_rows(self.rows, scores, accuracy)
        self.reported = setting_values(item, quantity, self.task, student)
        self.where = setting_name(self.task, student)

    def ordered(self, order: Sequence[str]) -> pd.DataFrame:
        """The table in that order of scores."""
        return self.table.set_index("score", drop=False).loc[list(order)].reset_index(drop=True)

    @property
    def title(self) -> str:
        return f"{self.task} task" + (f"\npaper: {self.where}" if self.where else "")

    @property
    def beside(self) -> str:
        return captions.beside_the_paper(self.table, self.reported, self.rows)


def sides_of(
    cells: pd.DataFrame, longer: pd.DataFrame | None, student: str, scores: Sequence[str], item: str, **more
) -> list[Side]:
    return [Side(part, student, scores, item, **more) for part in (cells, longer) if part is not None]


def note(scale: str, sides: Sequence[Side]) -> str:
    return captions.note_two(scale, sides[0].rows, sides[1].rows if len(sides) > 1 else None)


def cells_sentence(scale: str, sides: Sequence[Side]) -> str:
    return captions.cells_sentence(scale, *(side.rows for side in sides))


def beside(sides: Sequence[Side]) -> str:
    return " ".join(side.beside for side in sides)


def listing(sides: Sequence[Side]) -> str:
    if len(sides) == 1:
        return captions.listing(sides[0].table)
    return " ".join(f"On the {side.task} task: {captions.listing(side.table)}" for side in sides)


def ours(sides: Sequence[Side]) -> dict:
    """By score; those of a second task with its name before it."""
    return {
        name: row
        for i, side in enumerate(sides)
        for name, row in captions.ours(side.table, f"{side.task} task: " if i else "").items()
    }


def papers(sides: Sequence[Side]) -> dict:
    return {
        name: row
        for i, side in enumerate(sides)
        for name, row in captions.papers(side.reported, f"{side.task} task: " if i else "").items()
    }
