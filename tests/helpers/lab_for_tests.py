"""What the published tables of `lab` say, for the tests that compare sentences with them."""

from functools import cache

import pandas as pd
import pytest

from gracelib.evidence.choices import choice_cells, temperature_choices
from gracelib.experiment import tables
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths

SHORT, SECOND, LONG = "short task, first student", "short task, second student", "long task, first student"
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")


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


@cache
def picks_better(score: str) -> int:
    """In how many of the settings a score's pick among a teacher's temperatures loses fewer points than GRACE's, both as
    means over teachers. In all of them both must lose fewer than a random one."""
    scores, count = ("grace", score), 0
    for (_, _, who), own in settings().items():
        lost = temperature_choices(choice_cells(own, who, scores), scores).groupby("score").regret_points.mean()
        assert lost[[*scores]].max() < lost["random"]
        count += lost[score] < lost["grace"]
    return count
