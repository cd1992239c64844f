"""What the second world was made to have, measured on its tables: in which regime a score is judged must be known first.

The demands were fixed with the world's settings, before a score was computed on it. They concern teachers and students
alone. A small run of it cannot judge all of them; which it cannot is said with the number that it found.
"""

import numpy as np
import pandas as pd

from gracelib.evidence.cells import KEY

MET, MISSED, OPEN = "met", "not met", "cannot be judged"
COPY = 0.95  #: cosine between the gradients of two responses to a prompt, from which on they are near-copies


def near_copies(g: np.ndarray, m: int) -> float:
    """The share of responses that have a near-copy among the other responses to their prompt (`COPY`).

    g (n m, d): gradients, the m responses of a prompt in a row. A gradient that is zero is no copy.
    """
    norm = np.linalg.norm(g, axis=1, keepdims=True)
    unit = np.divide(g, norm, out=np.zeros(g.shape), where=norm > 0).reshape(-1, m, g.shape[1])
    cosine = unit @ unit.transpose(0, 2, 1) - 2 * np.eye(m)  # (n, m, m)
    return float((cosine.max(2) >= COPY).mean())


def demands(cells: pd.DataFrame, checks: pd.DataFrame) -> pd.DataFrame:
    """One row a demand on a world in which it counts what a teacher covers.

    cells: of its first student (`tables.cells`); checks: the table of that name. Columns: demand, needed, found (words),
    value, verdict (`MET`, `MISSED`, `OPEN`: too few teachers, cells or training seeds to judge).
    """
    both = checks.merge(cells[[*KEY, "average_at_k", "average_se"]], on=KEY, suffixes=("", "_usual"))
    moved, train = both[both.what == "twice"], both[both.what == "train"]
    still = (moved.average - moved.average_at_k).abs() <= 2 * np.hypot(moved.average_se, moved.average_se_usual)
    gap = 100 * (train.average - train.average_at_k).mean()
    seeds = pd.concat([cells.rename(columns={"average_at_k": "average"}), both[both.what.str.startswith("again")]])
    own = seeds.groupby(["teacher", "temperature"]).agg(
        average=("average", "mean"), se=("average_se", "mean"), sd=("average", "std"), n=("average", "size")
    )
    # Of all cells: two seeds of one tell next to nothing.
    sd = np.sqrt(own.sd.pow(2).mean()) if own.n.max() > 1 else 0.0
    own["se"] = np.hypot(own.se, sd / np.sqrt(own.n))  # the problems are the same for every seed
    counts = cells.groupby("teacher").temperature.nunique()
    curves = list(counts[counts > counts.min()].index) or list(counts.index)
    above = {teacher: _interior(own.loc[teacher].sort_index()) for teacher in curves}
    cold = cells[cells.teacher.isin(curves) & (cells.temperature == cells.temperature.min())].distinct.max()
    able = cells[cells.teacher_accuracy >= 0.95]
    spread, strong = 100 * np.ptp(able.average_at_k) if len(able) else 0.0, able.teacher.nunique()
    inner, repeated = sum(x >= 3 for x in above.values()), len(curves) >= 4 and own.n.min() > 1
    up = ", ".join(f"{name}: {value:+.1f} SE" for name, value in above.items())
    # demand, what is needed, what was found, its value, whether it can be judged, whether it is met
    rows = [
        ("saturation", "8 against 4 epochs within 2 SE in all of at least 10 cells",
         f"{still.sum()} of {len(still)} cells", still.mean(), len(still) >= 10, still.all()),
        ("a gap", "training minus test accuracy at least 15 points on average",
         f"{gap:.1f} points", gap, True, gap >= 15),
        ("near-copies", "share of different responses below .7 for every curve's coldest temperature",
         f"{cold:.2f}", cold, True, cold < 0.7),
        ("an inverted U", "best temperature inside, by 3 SE or more, for 2 of 4 curves",
         up, inner, repeated, inner >= 2),
        ("strong teachers differ", "at least 10 teachers at .95 or more, students over 20 points",
         f"{strong} teachers, {spread:.0f} points", spread, strong >= 10, spread >= 20),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["demand", "needed", "found", "value", "judged", "met"])
    verdict = np.where(table.pop("judged"), np.where(table.pop("met"), MET, MISSED), OPEN)
    return table.assign(verdict=verdict)


def _interior(curve: pd.DataFrame) -> float:
    """How many standard errors the best inner temperature lies above the better end (average and se by temperature)."""
    inner, ends = curve.iloc[1:-1], curve.iloc[[0, -1]]
    best, end = (part.loc[part.average.idxmax()] for part in (inner, ends))
    return float((best.average - end.average) / np.hypot(best.se, end.se))
