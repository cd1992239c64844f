"""The paper's own numbers, for the columns and marks that are labelled as the paper's.

Why a file: a number typed into a notebook has no source and cannot be told from a result. Here each has one,
and a number the paper gives as a range, or that two sources give differently, stays text: it is never
averaged. All correlations are magnitudes, as the paper prints them; ours are signed. The plots themselves
could not be read off, so a score without a printed number is simply absent.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

STUDENT, TASK = "Llama-3.2-1B", "GSM8K"  #: the setting the paper reports in most detail
QUANTITIES = ("spearman_abs", "regret_points")
_RANGE = re.compile(r"(\d+(?:\.\d+)?)(?:(?:-| or )(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class PaperValue:
    """A number as reported: `text` is what a table prints, `low` and `high` its ends (equal when it is one
    number).
    """

    text: str
    low: float
    high: float
    source: str


@cache
def _rows() -> tuple[dict[str, str], ...]:
    text = resources.files("gracelib").joinpath("paper_values.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def paper_values(item: str, quantity: str, student: str = STUDENT, task: str = TASK) -> dict[str, PaperValue]:
    """What the paper reports in an item ("figure 1", "main table"), by score name.

    `quantity` is "spearman_abs" or "regret_points". Scores without a reported number are absent. ValueError
    for an item, student, task or quantity the file does not have.
    """
    for column, value in (("item", item), ("quantity", quantity), ("student", student), ("task", task)):
        known = sorted({row[column] for row in _rows()})
        if value not in known:
            raise ValueError(
                f"{column} {value!r} is not in paper_values.csv: choose one of {', '.join(known)}"
            )
    wanted = {"item": item, "quantity": quantity, "student": student, "task": task}
    return {row["score"]: _value(row) for row in _rows() if all(row[k] == v for k, v in wanted.items())}


def _value(row: dict[str, str]) -> PaperValue:
    match = _RANGE.fullmatch(row["value"])
    if match is None:
        raise ValueError(
            f"paper_values.csv: value {row['value']!r} ({row['item']}, {row['score']}) is neither a number "
            "nor 'low-high' nor 'a or b'"
        )
    low = float(match[1])
    return PaperValue(row["value"], low, float(match[2]) if match[2] else low, row["source"])
