"""Does the built-in world do its job? The statements that were fixed before any score was computed, with numbers.

Those of kind "world" concern the teachers and the students alone and are tested; those of kind "reported" concern
the scores or the order of teachers and are printed as they come out, whatever that is: the world is never tuned on
them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

DIRECT = ("terse",)  # manners without a chain of thought: no student is required to learn from them


def world_report(
    cells: pd.DataFrame, base: pd.DataFrame, max_directions: int, temperature: float = 0.6
) -> pd.DataFrame:
    """One row a statement about one task: kind, statement, measured, holds.

    `cells` as `tables.cells` (all students of the task), `base` as `tables.base_students`, `max_directions` =
    min(d, n m), `temperature` the one at which teachers are compared. Students may have been taught at different
    temperatures: each one's hottest is compared with its coldest. Raises ValueError for cells of several tasks, a student
    without a row in `base`, or if that temperature or the column average_se is not in the cells.
    """
    if cells["task"].nunique() != 1:
        raise ValueError(f"cells of the tasks {', '.join(sorted(set(cells['task'])))}: the report is about one task")
    before = base[base["task"] == cells["task"].iloc[0]].set_index("student")["average"]
    if lost := sorted(set(cells["student"]) - set(before.index)):
        raise ValueError(f"no accuracy of the untaught student(s) {', '.join(lost)} on task {cells['task'].iloc[0]}")
    if "average_se" not in cells:
        raise ValueError(
            "the cells lack the column average_se: run `make figures` again, results/students.csv is older "
            "than the code"
        )
    at = cells[np.isclose(cells.temperature, temperature)]
    if at.empty:
        raise ValueError(f"no cells at temperature {temperature}; the cells have {sorted(set(cells.temperature))}")
    teachers = at.drop_duplicates("teacher")
    low, high, strong = (
        teachers.teacher_accuracy.min(),
        teachers.teacher_accuracy.max(),
        (teachers.teacher_accuracy > 0.85).mean(),
    )
    rows = [
        (
            "world",
            f"teachers' accuracy at T={temperature:g} spans at least 0.50 to 0.95",
            f"{low:.3f} to {high:.3f}",
            low <= 0.5 and high >= 0.95,
        ),
        ("world", f"at least half of the teachers are above 0.85 at T={temperature:g}", f"{strong:.2f}", strong >= 0.5),
    ]
    for student, own in cells.groupby("student"):
        start = float(before[student])
        after = own[~own.manner.isin(DIRECT)].average_at_k.max()
        rows.append(("world", f"base student {student} is at 0.05 to 0.30", f"{start:.3f}", 0.05 <= start <= 0.30))
        rows.append(
            (
                "world",
                f"a good teacher lifts student {student} by at least 15 points",
                f"{100 * (after - start):+.1f} points",
                after - start >= 0.15,
            )
        )
    of_student = cells.groupby("student").temperature
    hottest, coldest = (cells[cells.temperature == of_student.transform(end)] for end in ("max", "min"))
    change = hottest.merge(coldest, on=["student", "teacher"], suffixes=("_hot", "_cold"), validate="1:1")
    change = change[
        change.temperature_hot > change.temperature_cold
    ]  # a student with one temperature has nothing to compare
    hot, cold = cells.temperature.max(), cells.temperature.min()
    widest = change[(change.temperature_hot == hot) & (change.temperature_cold == cold)].drop_duplicates("teacher")
    fell = widest.teacher_accuracy_hot < widest.teacher_accuracy_cold
    rows.append(
        (
            "world",
            f"T={hot:g} lowers the teachers' accuracy against T={cold:g}",
            f"{fell.sum()} of {len(fell)}",
            bool(len(fell) and fell.all()),
        )
    )
    for score, label in (("g_norm", "G-Norm"), ("g_vendi", "G-Vendi")):
        rose = change[f"{score}_hot"] > change[f"{score}_cold"]
        rows.append(
            (
                "reported",
                f"the hottest temperature raises {label} against the coldest",
                f"{rose.sum()} of {len(rose)} teachers and students",
                bool(len(rose) and rose.all()),
            )
        )
    differ, gaps = [], []
    for student, own in cells.groupby("student"):
        best, strongest = own.loc[own.average_at_k.idxmax()], own.loc[own.teacher_accuracy.idxmax()]
        theirs = own[own.teacher == strongest.teacher]
        theirs = theirs.loc[theirs.average_at_k.idxmax()]
        gaps.append(100 * (best.average_at_k - theirs.average_at_k))
        if best.teacher == strongest.teacher:
            differ.append(f"{student}: {best.teacher} is strongest and teaches best")
            continue
        error = 100 * np.hypot(best.average_se, theirs.average_se)
        noise = " (within noise)" if gaps[-1] < 2 * error else ""
        differ.append(
            f"{student}: {strongest.teacher} is strongest, {best.teacher} teaches best by {gaps[-1]:.1f} points, "
            f"SE {error:.1f}{noise}"
        )
    rows.append(
        (
            "reported",
            "the strongest teacher is not the best teacher for at least one student",
            "; ".join(differ),
            bool(max(gaps) > 0),
        )
    )
    filled = np.exp(cells.g_vendi) / max_directions
    rows.append(
        (
            "reported",
            "exp(G-Vendi) / min(d, n m) is above 0.1 in every cell",
            f"{filled.min():.2f} to {filled.max():.2f}",
            bool((filled > 0.1).all()),
        )
    )
    return pd.DataFrame(rows, columns=["kind", "statement", "measured", "holds"])
