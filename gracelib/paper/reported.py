"""The paper's own numbers, for the columns and marks that are labelled as the paper's.

Why a file: a number typed into a notebook has no source and cannot be told from a result. Here each has one,
and a number the paper gives as a range or a bound, or that two sources give differently, stays text: it is
never averaged. All correlations are magnitudes, as the paper prints them; ours are signed. The plots
themselves could not be read off, so a score without a printed number is simply absent.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from gracelib.checks import check_choice
from gracelib.paper.figures import FIGURES

STUDENT, TASK = "Llama-3.2-1B", "GSM8K"  #: the setting the paper reports in most detail
#: Which of the paper's settings (student, task) a setting of ours (task, student) stands for.
SETTINGS = {
    ("short", "first"): (STUDENT, TASK),
    ("short", "second"): ("OLMo-2-1B", "GSM8K"),
    ("long", "first"): ("Llama-3.2-3B", "MATH"),
}
#: Quantity -> what is reported. Points are points of accuracy.
QUANTITIES = {
    "spearman_abs": "magnitude of the Spearman correlation with student accuracy",
    "spearman_within_abs": "the same over the temperatures of one teacher, mean over teachers",
    "spearman_budget_abs": "the same among the teachers of a size budget, every budget",
    "regret_points": "best student minus the one whose teacher the score selects",
    "regret_family_points": "the same within a family, mean over families",
    "regret_budget_points": "the same within a size budget, every budget",
    "temperature_picked": "the temperature a score selects for a teacher (case)",
    "temperature_best": "the temperature of that teacher's best student",
    "best_n_over_d": "the n / d at which a score correlates best",
    "flat_from_folds": "folds from which on a score's correlation does not change",
    "norm_log_power": "p where gradient norms fall as 1 / (log length)^p",
    "feature_minutes": "minutes to compute one teacher's gradient features",
    "score_seconds": "seconds to compute a score from features",
    "storage_mb": "megabytes of one teacher's features",
    "gain_over_strongest_points": "student of the selected teacher minus student of the strongest teacher",
    "strongest_teacher_accuracy": "student of the strongest teacher, percent",
    "best_teacher_accuracy": "best student, percent",
    "self_distillation_accuracy": "student that taught itself, percent",
    "self_distillation_value": "a score's value for a student that teaches itself",
    "stability_ratio": "stability term of the CMI bound over its gradient term",
}
_NUMBER = r"(~|[<>]=?)?(\d+(?:\.\d+)?)"
_TEXT = re.compile(rf"{_NUMBER}(?:(?:-| or ){_NUMBER})?")


@dataclass(frozen=True)
class PaperValue:
    """A number as reported: `text` is what a table prints, `low` and `high` its ends (equal when it is one number).

    `bound` is "" for a number, "at least" or "at most" where the paper gives a bound, "about" for a rounded one; the
    ends are then those of the bound.
    """

    text: str
    low: float
    high: float
    source: str
    bound: str = ""

    def __str__(self) -> str:
        return self.text


@cache
def rows() -> tuple[dict[str, str], ...]:
    """The file's rows as text, by column."""
    text = resources.files("gracelib.paper").joinpath("paper_values.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def paper_values(
    item: str, quantity: str, student: str = STUDENT, task: str = TASK, case: str = ""
) -> dict[str, PaperValue]:
    """What the paper reports in an item ("figure 1", "main table", "table 1", "settings", "claims"), by score name.

    `quantity` is one of `QUANTITIES`; `case` tells apart several values of one item ("m = 2", "d = 1024",
    "length power 2", "Qwen2.5-3B"). What does not belong to a score is filed under "". What is not reported is
    absent. ValueError for an item, student, task, quantity or case that nothing is filed under.
    """
    wanted = {"item": item, "quantity": quantity, "student": student, "task": task, "case": case}
    # items that are drawn and not the paper's are asked for by their registered name
    drawn = [name if item.paper_item.startswith("(") else item.paper_item for name, item in FIGURES.items()]
    for column, value in wanted.items():
        known = drawn if column == "item" else dict.fromkeys(row[column] for row in rows())
        check_choice(f"{column} (of paper_values.csv)", value, list(known))
    return {row["score"]: value_of(row) for row in rows() if all(row[k] == v for k, v in wanted.items())}


def setting_values(item: str, quantity: str, task: str, student: str, case: str = "") -> dict[str, PaperValue]:
    """`paper_values` for the paper's setting that our task and student stand for; empty where they stand for none."""
    setting = SETTINGS.get((task, student))
    return {} if setting is None else paper_values(item, quantity, *setting, case)


def setting_name(task: str, student: str) -> str:
    """The paper's setting that ours stands for, as printed: "Llama-3.2-1B, GSM8K"; "" where it stands for none."""
    return ", ".join(SETTINGS.get((task, student), ()))


def value_of(row: dict[str, str]) -> PaperValue:
    """The number of a row. ValueError, naming the row, for text that is none."""
    match = _TEXT.fullmatch(row["value"])
    if match is None:
        raise ValueError(
            f"paper_values.csv: value {row['value']!r} ({row['item']}, {row['score']}) is neither a number "
            "nor 'low-high' nor 'a or b', each perhaps with ~, <, <=, > or >= before it"
        )
    sign, first, _, second = match.groups()
    ends = sorted((float(first), float(second or first)))
    bound = {None: "", "~": "about", "<": "at most", ">": "at least"}[sign and sign[0]]
    return PaperValue(row["value"], *ends, row["source"], bound)
