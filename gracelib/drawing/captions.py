"""What figures say of themselves in the same words: which cells they show, what of the paper stands beside them.

A caption begins with what came out (`findings`); the rest is a fixed text with the setting filled in (scale, task, student,
temperature, k, n, d). `Side` is one setting in a figure; a figure of two tasks has two, and all that belongs to one stays together.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence.cells import ACCURACIES, PAPER_SPEARMAN, TRAINING_SD, score_rows, select
from gracelib.evidence.ranks import FEW_CLUSTERS
from gracelib.paper.reported import PaperValue, setting_name, setting_values

#: What a sidecar holds of a score's row in `cells.score_rows`.
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


def regret_ends(rows: pd.DataFrame) -> str:
    """What the interval of a regret is, see `ranks.regret_interval`."""
    known = TRAINING_SD in rows
    training = "" if known else "the noise of the students' training is not in it, and "
    return (
        f"The 95% interval of a regret is another one: how far the noise of {noise(rows)} moves it, among these teachers; "
        f"{training}nothing is said of other teachers (a resample of teachers cannot see beyond the best of them, so that such "
        "intervals are far too narrow)."
    )


def noise(rows: pd.DataFrame) -> str:
    """What the standard errors of accuracies hold."""
    return "the test problems" + " and of training (other seeds of it)" * (TRAINING_SD in rows)


class Side:
    """One setting in a figure: its cells (`rows`), the statistics of the scores (`table`), what the paper reports for it
    in `item` (`reported`, by score) and which of the paper's settings that is (`where`, "" for none)."""

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
        self.table = score_rows(self.rows, scores, accuracy)
        self.task, self.accuracy = self.rows["task"].iloc[0], accuracy
        self.reported = setting_values(item, quantity, self.task, student)
        self.where = setting_name(self.task, student)

    def ordered(self, order: Sequence[str]) -> pd.DataFrame:
        """The table in that order of scores."""
        return self.table.set_index("score", drop=False).loc[list(order)].reset_index(drop=True)

    @property
    def title(self) -> str:
        return f"{self.task} task" + (f"\npaper: {self.where}" if self.where else "")

    def with_paper(self, table: pd.DataFrame, column: str = PAPER_SPEARMAN) -> pd.DataFrame:
        """A table of this side's scores with the paper's numbers as printed, "" where there is none."""
        return table.assign(**{column: [self.reported[s].text if s in self.reported else "" for s in table["score"]]})


def scale_note(scale: str, n_cells: int, n_teachers: int, extra: str = "") -> str:
    """What every figure says about itself: which scale, how many cells, and that it is not the paper's
    world.
    """
    what = "" if scale == "paper" else "; built-in world, not the paper's numbers"
    return f"scale: {scale}; {counted(n_cells, 'cell')} of {counted(n_teachers, 'teacher')}{extra}{what}"


def note(scale: str, first: pd.DataFrame, second: pd.DataFrame | None = None, extra: str = "") -> str:
    """The grey line below a figure: scale, task, student, cells and teachers, of one setting or of a student's two."""
    said = f", {setting(first)}{extra}"
    if second is not None:
        cells, teachers = len(second), second["teacher"].nunique()
        said = f", {first['task'].iloc[0]} task; {cells} of {teachers}, {setting(second)}"
    return scale_note(scale, len(first), first["teacher"].nunique(), said)


def setting(rows: pd.DataFrame) -> str:
    """Which of our settings the rows belong to: "short task, first student"."""
    return f"{rows['task'].iloc[0]} task, {rows['student'].iloc[0]} student"


def cells_sentence(scale: str, *parts: pd.DataFrame) -> str:
    """Scale, task, student, cells and teachers of one or several settings, and the paper's that each stands for."""
    named = []
    for rows in parts:
        where = setting_name(rows["task"].iloc[0], rows["student"].iloc[0])
        said = f"{setting(rows)}: {counted(len(rows), 'cell')} of {counted(rows['teacher'].nunique(), 'teacher')}"
        named.append(said + (f" (in the paper: {where})" if where else ""))
    few = any(rows["teacher"].nunique() <= FEW_CLUSTERS for rows in parts)
    warning = f" (of {FEW_CLUSTERS} or fewer they are too narrow: read them as ranges)" * few
    return f"Scale {scale}, {'; '.join(named)}; 95% intervals come from a bootstrap over teachers{warning}."


def counted(n: int, thing: str) -> str:
    """ "1 teacher", "5 teachers"."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def accuracy_words(accuracy: str = "average_at_k", k: int = 16) -> str:
    """ "the student's Average@16"."""
    return f"the student's {ACCURACIES[accuracy].format(k=k)}"


def names(scores: Sequence[str]) -> str:
    """Labels of scores as a list."""
    return ", ".join(SCORES[s].label for s in scores)


def records(table: pd.DataFrame, columns: Sequence[str] = _RECORD) -> dict:
    """Our numbers for a sidecar, by score."""
    return {row["score"]: {c: row[c] for c in columns} for row in table.to_dict("records")}


def papers(values: Mapping[str, PaperValue]) -> dict:
    """The paper's numbers for a sidecar, by score, each with its source."""
    return {score: {"value": v.text, "source": v.source} for score, v in values.items()}


def both(sides: Sequence[Side]) -> tuple[dict, dict]:
    """Our numbers and the paper's by score; those of a second task with its name before it."""
    ours, known = {}, {}
    for i, side in enumerate(sides):
        before = f"{side.task} task: " if i else ""
        ours |= {before + score: row for score, row in records(side.table).items()}
        known |= {before + score: row for score, row in papers(side.reported).items()}
    return ours, known
