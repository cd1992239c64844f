"""The cells of a setting, seen otherwise: scored at another projection dimension, or without one teacher.

Why here and not in the figures that need it: figures 9, 10, 24 and 25 are figures 2, 3 and 13 of other cells. What
changes is the table that goes in, so it can be looked at by itself and given to any other figure.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.drawing.marks import number
from gracelib.evidence.cells import N_BOOT, SEED, select
from gracelib.evidence.ranks import DegenerateError, spearman
from gracelib.evidence.resample import spearman_many, teacher_interval
from gracelib.scale import Scale

#: Column of the cells -> column of the table `grid`. Other scores are not in the grid and are dropped at another d.
GRID_SCORES = {
    "grace": "grace",
    "grace_variance": "variance",
    "grace_bias": "bias",
    "grace_cross": "cross",
    "g_vendi": "g_vendi",
    "g_norm": "g_norm",
    "g_var": "g_var",
}
_FREE_OF_D = ("student_loss", "teacher_accuracy", "mean_length")
_KEY = ["task", "student", "teacher", "temperature"]
_RULE = "the teacher whose responses this student finds most familiar (lowest student loss, mean over temperatures)"


def at_d(cells: pd.DataFrame, grid: pd.DataFrame, config: Scale, d: int) -> pd.DataFrame:
    """The cells with their scores taken at `d` projection rows from the ablation grid, all else at the scale's setting.

    `cells` from `tables.cells`, `grid` from `measures.grid`. Accuracies stay; the scores the grid does not have are
    dropped, and so are students it was not computed for. ValueError if the grid has no such d, or lacks a cell.
    """
    setting = {"n": config.n_prompts, "m": config.m, "n_folds": config.n_folds, "nu": config.nu, "power": 1.0}
    rows = grid
    for column, value in setting.items():
        rows = rows[rows[column] == value]
    here = rows[rows["d"] == d].drop_duplicates(_KEY)
    scored = cells.merge(
        here[[*_KEY, *GRID_SCORES.values()]].rename(columns={v: k for k, v in GRID_SCORES.items()}),
        on=_KEY,
        suffixes=("_default", ""),
    )
    if scored.empty:
        raise ValueError(f"the grid has no row with d = {d} for these cells: it has d = {sorted(set(rows['d']))}")
    expected = cells["student"].isin(scored["student"]).sum()
    if len(scored) != expected:
        raise ValueError(
            f"the grid has {len(scored)} of {expected} cells at d = {d}: run `make figures` again, it is older"
        )
    stale = {c for c in cells if c in SCORES and c not in GRID_SCORES and c not in _FREE_OF_D}
    return scored[[c for c in cells if c not in stale]]


def change_at_d(cells: pd.DataFrame, other: pd.DataFrame, student: str, score: str = "grace") -> str:
    """A sentence: how much a score's signed Spearman changes from `cells` to `other` (`at_d`), with an interval.

    Both see the same resamples of teachers. Says why where there is no correlation or no interval.
    """
    before, after = (select(part, student, (score,)) for part in (cells, other))
    label, direction, y = SCORES[score].label, SCORES[score].direction, before["average_at_k"].to_numpy(float)
    x = [rows[score].to_numpy(float) for rows in (before, after)]

    def difference(counts: np.ndarray) -> np.ndarray:
        first, second = (spearman_many(column, y, direction, counts) for column in x)
        return second - first

    try:
        rho = [spearman(column, y, direction) for column in x]
        low, high = teacher_interval(difference, before["teacher"].to_numpy(str), N_BOOT, SEED)
    except (DegenerateError, ValueError) as error:
        return f"{label}: the change cannot be told ({error})."
    verdict = (
        "the larger d orders the students better"
        if low > 0
        else "the larger d orders them worse"
        if high < 0
        else ("these data cannot tell whether the larger d is better")
    )
    return (
        f"{label}: signed Spearman {number(rho[0])} before, {number(rho[1])} after, change {number(rho[1] - rho[0])}, "
        f"95% interval over teachers [{number(low)}, {number(high)}]: {verdict}."
    )


def most_familiar(cells: pd.DataFrame, student: str) -> str:
    """The teacher with the lowest student loss, mean over its temperatures. ValueError without cells of the student."""
    own = cells[cells["student"] == student]
    if own.empty:
        raise ValueError(f"no cell of student {student!r}: choose one of {', '.join(sorted(set(cells['student'])))}")
    return str(own.groupby("teacher")["student_loss"].mean().idxmin())


def leave_out_teacher(cells: pd.DataFrame, student: str) -> tuple[pd.DataFrame, str]:
    """The cells without the teacher most familiar to the student (figures 24 and 25), and a caption's sentence on it.

    The paper leaves out Qwen2.5-1.5B-Instruct, a teacher that exists here under no name, so the choice follows a rule
    that uses no accuracy. A single teacher is kept: without it nothing would be drawn, and the sentence says so.
    """
    name = most_familiar(cells, student)
    if cells.loc[cells["student"] == student, "teacher"].nunique() == 1:
        return cells, f"{name} is the only teacher: nothing was left out."
    return cells[cells["teacher"] != name].reset_index(drop=True), (
        f"Left out: {name}, {_RULE}; the paper leaves out Qwen2.5-1.5B-Instruct."
    )
