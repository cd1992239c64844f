"""What the published tables of `lab` say, for the tests that compare sentences with them."""

from collections.abc import Iterable
from functools import cache

import nbformat
import pandas as pd
import pytest

from gracelib.baselines import SCORES
from gracelib.evidence.cells import KEY, difference
from gracelib.evidence.choices import choice_cells, temperature_choices
from gracelib.evidence.ranks import mean_interval
from gracelib.evidence.reasons import between_and_within
from gracelib.experiment import tables
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths

SHORT, SECOND, LONG = "short task, first student", "short task, second student", "long task, first student"
WORDS = (
    "none",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
)


#: The paper's scores that are compared everywhere, with the end that is better.
RULES = {name: SCORES[name].direction for name in ("grace", "g_norm", "student_loss", "g_vendi", "teacher_accuracy")}
LIMIT = 0.25  # of near-copies, from which on `gracelib score` warns
#: A row with its interval, in words.
WITH_ENDS = "{spearman:+.2f} ({low:+.2f} to {high:+.2f})"


def unsaid(notebook: str, sentences: Iterable[str]) -> list[str]:
    """Those of the sentences that a notebook does not have, however its lines are broken."""
    book = nbformat.read(paths.NOTEBOOKS / f"{notebook}.ipynb", as_version=4)
    prose = " ".join(" ".join(cell.source.split()) for cell in book.cells if cell.cell_type == "markdown")
    return [said for said in sentences if " ".join(said.split()) not in prose]


def main_table(cells_used: str = "all families") -> pd.DataFrame:
    """The main table by (setting, score)."""
    main = pd.read_csv(paths.published("lab") / "table_main.csv")
    return main[main.cells_used == cells_used].set_index(["setting", "score"])


@cache
def settings() -> dict[tuple, pd.DataFrame]:
    """Cells by (scale, task, student), of lab and its other world seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACELIB_FIGURES", str(paths.published("")))
        return {
            (name, task.name, who): own
            for name in ("lab", "lab-world1", "lab-world2")
            for task in get_scale(name).tasks
            for who, own in tables.cells(name, task.name).groupby("student", sort=False)
        }


def seeds() -> dict[str, pd.DataFrame]:
    """Cells by scale, of the first student's short task: lab and its two other seeds."""
    return {name: own for (name, task, who), own in settings().items() if (task, who) == ("short", "first")}


@cache
def second_world() -> pd.DataFrame:
    """Cells of coverage-lab's first student, with near_copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACELIB_FIGURES", str(paths.published("")))
        copies = tables.table("coverage-lab", "features", recompute=False)[[*KEY, "near_copies"]]
        return tables.cells("coverage-lab").query("student == 'first'").merge(copies, on=KEY, validate="1:1")


def signed(cells: pd.DataFrame) -> pd.DataFrame:
    """Signed correlations of the paper's scores over cells, with intervals over teachers, by score."""
    return between_and_within(cells, RULES).query("level == 'all'").set_index("part")


def minus(cells: pd.DataFrame, score: str) -> dict:
    """GRACE's correlation minus a score's over cells, with its interval over teachers."""
    other, grace = ((cells[name], cells.average_at_k, RULES[name]) for name in (score, "grace"))
    return difference(other, grace, cells.teacher)


@cache
def ahead(score: str) -> dict[tuple, dict]:
    """`minus` by setting."""
    return {key: minus(own, score) for key, own in settings().items()}


def told_apart() -> dict[tuple, bool]:
    """Settings in which GRACE is clearly ahead of both the norm and the loss (True), or clearly behind both (False)."""
    norm, loss = ahead("g_norm"), ahead("student_loss")
    return {
        key: norm[key]["spearman"] > 0
        for key in norm
        if min(norm[key]["low"], loss[key]["low"]) > 0 or max(norm[key]["high"], loss[key]["high"]) < 0
    }


@cache
def dearer(other: str) -> dict[tuple, tuple[float, float, float]]:
    """Points that GRACE's pick among a teacher's temperatures loses beyond that of another score ("random": a blind one): mean
    over teachers and its interval, by setting."""
    scores, found = ["grace"] + [other] * (other != "random"), {}
    for key, own in settings().items():
        picks = temperature_choices(choice_cells(own, key[2], scores), scores)
        lost = picks.pivot(index="teacher", columns="score", values="regret_points")
        more = (lost.grace - lost[other]).to_numpy()
        found[key] = float(more.mean()), *mean_interval(more)
    return found
