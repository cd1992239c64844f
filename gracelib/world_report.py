"""Does the built-in world do its job? The statements that were fixed before any score was computed, with numbers.

Those of kind "world" concern the teachers and the students alone and are tested; those of kind "reported" concern
the scores or the order of teachers and are printed as they come out, whatever that is: the world is never tuned on
them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

DIRECT = ("terse",)  # manners without a chain of thought: no student is required to learn from them


def world_report(cells: pd.DataFrame, base: pd.DataFrame, max_directions: int, temperature: float = 0.6) -> pd.DataFrame:
    """One row a statement: kind, statement, measured, holds.

    `cells` as `pipeline.cells`, `base` as `pipeline.base_students`, `max_directions` = min(d, n m), `temperature` the one
    at which teachers are compared. Raises ValueError if that temperature or the column average_se is not in the cells.
    """
    if "average_se" not in cells:
        raise ValueError("the cells lack the column average_se: run `make figures` again, results/students.csv is older "
                         "than the code")
    at = cells[np.isclose(cells.temperature, temperature)]
    if at.empty:
        raise ValueError(f"no cells at temperature {temperature}; the cells have {sorted(set(cells.temperature))}")
    teachers = at.drop_duplicates("teacher")
    low, high, strong = teachers.teacher_accuracy.min(), teachers.teacher_accuracy.max(), (teachers.teacher_accuracy > 0.85).mean()
    rows = [
        ("world", f"teachers' accuracy at T={temperature:g} spans at least 0.50 to 0.95", f"{low:.3f} to {high:.3f}",
         low <= 0.5 and high >= 0.95),
        ("world", f"at least half of the teachers are above 0.85 at T={temperature:g}", f"{strong:.2f}", strong >= 0.5)]
    for student, own in cells.groupby("student"):
        before = float(base.set_index("student").loc[student, "average"])
        after = own[~own.manner.isin(DIRECT)].average_at_k.max()
        rows.append(("world", f"base student {student} is at 0.05 to 0.30", f"{before:.3f}", 0.05 <= before <= 0.30))
        rows.append(("world", f"a good teacher lifts student {student} by at least 15 points",
                     f"{100 * (after - before):+.1f} points", after - before >= 0.15))
    hot, cold = cells.temperature.max(), cells.temperature.min()
    change = cells[cells.temperature == hot].merge(cells[cells.temperature == cold], on=["student", "teacher"],
                                                   suffixes=("_hot", "_cold"))
    fell = change.drop_duplicates("teacher").eval("teacher_accuracy_hot < teacher_accuracy_cold")
    rows.append(("world", f"T={hot:g} lowers the teachers' accuracy against T={cold:g}", f"{fell.sum()} of {len(fell)}",
                 bool(fell.all())))
    for score, label in (("g_norm", "G-Norm"), ("g_vendi", "G-Vendi")):
        rose = change[f"{score}_hot"] > change[f"{score}_cold"]
        rows.append(("reported", f"T={hot:g} raises {label} against T={cold:g}", f"{rose.sum()} of {len(rose)}", bool(rose.all())))
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
        differ.append(f"{student}: {strongest.teacher} is strongest, {best.teacher} teaches best by {gaps[-1]:.1f} points, "
                      f"SE {error:.1f}{noise}")
    rows.append(("reported", "the strongest teacher is not the best teacher for at least one student", "; ".join(differ),
                 bool(max(gaps) > 0)))
    filled = np.exp(cells.g_vendi) / max_directions
    rows.append(("reported", "exp(G-Vendi) / min(d, n m) is above 0.1 in every cell", f"{filled.min():.2f} to {filled.max():.2f}",
                 bool((filled > 0.1).all())))
    return pd.DataFrame(rows, columns=["kind", "statement", "measured", "holds"])
