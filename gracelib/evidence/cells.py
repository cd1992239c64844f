"""How well each score picks teachers, as a table: the numbers that the figures draw and the notebooks print.

Why apart from the plots: a number shown in a figure, in its caption and in the main table is computed once,
here, so that the three cannot differ. Each row says how many cells and teachers it stands on; where a
correlation is undefined (two cells, a constant column) the row says why instead of holding a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.drawing.style import family
from gracelib.evidence.ranks import FEW_CLUSTERS, DegenerateError, regret, spearman
from gracelib.evidence.resample import Statistic, regret_many, spearman_many, teacher_interval
from gracelib.paper.reported import setting_name, setting_values

MAIN_SCORES = (
    "grace",
    "grace_variance",
    "grace_bias",
    "g_vendi",
    "g_var",
    "g_norm",
    "student_loss",
    "teacher_accuracy",
)
ACCURACIES = {"average_at_k": "Average@{k}", "best_of": "best-of-{k}", "greedy": "greedy accuracy"}
ACCURACY_SE = {"average_at_k": "average_se"}  #: the column with the standard error of an accuracy, where there is one
N_BOOT, SEED = 1000, 0
_KEYS = ("task", "student", "teacher", "manner", "temperature")
PAPER_SETTING, PAPER_SPEARMAN, PAPER_REGRET = "paper setting", "paper spearman |rho|", "paper regret (points)"


def select(
    cells: pd.DataFrame,
    student: str,
    scores: Sequence[str],
    *,
    temperature: float | None = None,
    leave_out: str | None = None,
    accuracy: str = "average_at_k",
) -> pd.DataFrame:
    """The cells of one student on one task, checked and sorted by teacher and temperature, with the columns that
    are needed.

    `cells` as `tables.cells` gives it; `temperature` keeps one; `leave_out` drops a family (a known family
    that is not there drops nothing). ValueError naming what is missing, unknown or out of range.
    """
    for name in scores:
        if name not in SCORES:
            raise ValueError(f"unknown score {name!r}: choose from {', '.join(SCORES)}")
    noise = [ACCURACY_SE[accuracy]] if accuracy in ACCURACY_SE else []
    missing = [c for c in (*_KEYS, accuracy, *noise, *scores) if c not in cells]
    if missing:
        raise ValueError(
            f"the table of cells lacks the column(s) {', '.join(missing)}: use the table that "
            "pipeline.cells(scale) returns, and run `make figures` again if results/students.csv is older than the code"
        )
    for name in (*dict.fromkeys(cells["manner"]), *([leave_out] if leave_out is not None else [])):
        family(name)
    rows = cells[cells["student"] == student]
    if rows.empty:
        raise ValueError(f"no cell of student {student!r}: choose one of {', '.join(sorted(set(cells['student'])))}")
    if rows["task"].nunique() > 1:
        raise ValueError(
            f"cells of several tasks ({', '.join(sorted(set(rows['task'])))}): keep one, as pipeline.cells does"
        )
    if leave_out is not None:
        rows = rows[rows["manner"] != leave_out]
        if rows.empty:
            raise ValueError(f"student {student!r} has no cell left without the family {leave_out!r}")
    if temperature is not None:
        there = sorted(set(rows["temperature"]))
        rows = rows[np.isclose(rows["temperature"], temperature)]
        if rows.empty:
            raise ValueError(f"no cell at temperature {temperature}: choose one of {', '.join(map(str, there))}")
    twice = rows.duplicated(["teacher", "temperature"])
    if twice.any():
        first = rows[twice].iloc[0]
        raise ValueError(
            f"{first['teacher']} at T={first['temperature']:g} is there twice for student {student!r}: "
            "one row a cell is expected"
        )
    bad = rows[~rows[accuracy].between(0, 1)]
    if len(bad):
        raise ValueError(
            f"{accuracy} = {bad[accuracy].iloc[0]} of {bad['teacher'].iloc[0]}: accuracies are fractions in [0, 1]"
        )
    return rows.sort_values(["teacher", "temperature"])[[*_KEYS, accuracy, *noise, *scores]].reset_index(drop=True)


def score_rows(rows: pd.DataFrame, scores: Sequence[str], accuracy: str = "average_at_k") -> pd.DataFrame:
    """One row a score: signed Spearman and regret with 95% intervals over teachers, and what the score
    selects.

    `rows` from `select`. Columns: score, label, direction, spearman, low, high, regret_points, regret_low,
    regret_high, regret_se_points, selected, cells, teachers, note. A score that is undefined in some cells (NaN)
    is correlated over the others and cannot select them; `cells` and `note` say so. An undefined statistic is NaN
    with the reason in `note`. `regret_se_points` is the noise of the test problems, see `regret_se`; NaN for an
    accuracy without a standard error (`ACCURACY_SE`).
    """
    made = []
    for name in scores:
        score = SCORES[name]
        value, y = rows[name].to_numpy(float), rows[accuracy].to_numpy(float)
        if np.isinf(value).any():
            at = rows.iloc[int(np.flatnonzero(np.isinf(value))[0])]
            raise ValueError(
                f"{name} of {at['teacher']} at T={at['temperature']:g} is infinite: look at how it was made"
            )
        there = ~np.isnan(value)
        notes = [] if there.all() else [f"defined in {there.sum()} of {len(there)} cells"]
        teachers = rows["teacher"].to_numpy(str)[there]
        rho, points, reasons = _statistics(
            tuple(value[there]), tuple(y[there]), tuple(teachers), score.direction, N_BOOT
        )
        lost = 100 * float(y.max() - y[there].max()) if there.any() else np.nan  # cells the score cannot select
        picked = rows[there].iloc[list(points[3])] if there.any() else rows[:0]
        made.append(
            {
                "score": name,
                "label": score.label,
                "direction": score.direction,
                "spearman": rho[0],
                "low": rho[1],
                "high": rho[2],
                "regret_points": points[0] + lost,
                "regret_low": points[1] + lost,
                "regret_high": points[2] + lost,
                "regret_se_points": regret_se(rows, picked, accuracy),
                "selected": "; ".join(f"{r.teacher} at T={r.temperature:g}" for r in picked.itertuples()),
                "cells": int(there.sum()),
                "teachers": len(set(teachers)),
                "note": "; ".join([*notes, *reasons]),
            }
        )
    return pd.DataFrame(made)


def regret_se(rows: pd.DataFrame, selected: pd.DataFrame, accuracy: str = "average_at_k") -> float:
    """Standard error, in points, of the accuracy difference between a selected cell and the best of the others.

    100 sqrt(se_selected^2 + se_other^2) with the standard errors over held-out problems; the largest of the selected
    where several tie. Conservative: both cells answer the same problems, and what these share cancels in the
    difference. The best of the *others*, so that the regret of a selection that happens to be the best cell (zero)
    does not look exact. NaN without a selection, without another cell, or for an accuracy without standard errors.
    """
    others = rows[~rows.index.isin(selected.index)]
    if selected.empty or others.empty or accuracy not in ACCURACY_SE:
        return np.nan
    noise = ACCURACY_SE[accuracy]
    return 100 * float(np.hypot(selected[noise].max(), others.loc[others[accuracy].idxmax(), noise]))


@lru_cache(maxsize=512)  # the same correlation stands in several figures and in the main table
def _statistics(score: tuple, y: tuple, teacher: tuple, direction: str, n_boot: int) -> tuple[tuple, tuple, list[str]]:
    """(spearman, low, high), (regret, low, high, selected rows), reasons for what is undefined."""
    nan, reasons = (np.nan, np.nan), []
    if not score:
        return (np.nan, *nan), (np.nan, *nan, ()), ["the score is undefined in every cell"]
    found, spread = regret(score, y, direction), len(set(teacher)) > 1
    x, accuracy = np.array(score), np.array(y)

    def interval(many) -> tuple[float, float]:
        if not spread:
            return nan
        try:
            return _interval(lambda counts: many(x, accuracy, direction, counts), teacher, n_boot)
        except DegenerateError as error:
            reasons.append(f"no interval: {error}")
            return nan

    if not spread:
        reasons.append("one teacher: no interval")
    elif len(set(teacher)) <= FEW_CLUSTERS:
        reasons.append(f"{len(set(teacher))} teachers: intervals are too narrow, read them as ranges")
    rho = (np.nan, *nan)
    try:
        value = spearman(score, y, direction)
        rho = (value, *interval(spearman_many))
    except DegenerateError as error:
        reasons.append(f"Spearman undefined: {error}")
    points = (found.points, *interval(regret_many), found.selected)
    return rho, points, reasons


def _interval(statistic: Statistic, teacher: Sequence, n_boot: int) -> tuple[float, float]:
    """The bootstrap interval over teachers; that they are few is said in a note or caption."""
    return teacher_interval(statistic, teacher, n_boot, SEED)


@dataclass(frozen=True)
class PairedSpearman:
    """Two scores on the same cells: how alike they order them, and which one orders the students better."""

    a: str
    b: str
    agreement: float  #: Spearman of the two scores over cells, each oriented by its direction
    spearman_a: float  #: signed, with accuracy
    spearman_b: float
    difference: float  #: spearman_a - spearman_b
    low: float  #: 95% interval of the difference, both scores on the same resample of teachers
    high: float
    cells: int  #: in which both scores are defined
    teachers: int
    note: str = ""  #: why the numbers are NaN, where they are

    @property
    def apart(self) -> bool:
        """The interval of the difference excludes zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        a, b = SCORES[self.a].label, SCORES[self.b].label
        if self.note:
            return f"{a} and {b} cannot be compared on these cells: {self.note}."
        verdict = (
            f"{a if self.difference > 0 else b} orders the students better here"
            if self.apart
            else "these data cannot tell which one orders the students better"
        )
        return (
            f"{a} and {b} order the cells with rank agreement {self.agreement:.2f} ({self.cells} cells of "
            f"{self.teachers} teachers). Signed Spearman with accuracy: {a} {self.spearman_a:+.2f}, {b} "
            f"{self.spearman_b:+.2f}; difference {self.difference:+.2f}, 95% interval over teachers "
            f"[{self.low:+.2f}, {self.high:+.2f}]: {verdict}."
        )


def paired_spearman_difference(
    cells: pd.DataFrame, student: str, a: str, b: str, *, leave_out: str | None = None, n_boot: int | None = None
) -> PairedSpearman:
    """Signed Spearman of score `a` minus that of `b` with Average@k, with an interval that resamples teachers.

    Both scores see the same resample, so what a resample does to both cancels. Over the cells where both are defined.
    `n_boot` None: as in the tables. NaN with the reason in `note` where a correlation is undefined or there is one
    teacher only.
    """
    rows = select(cells, student, (a, b), leave_out=leave_out).dropna(subset=[a, b])
    teachers = rows["teacher"].to_numpy(str)
    size, undefined = (len(rows), len(set(teachers))), (np.nan,) * 6
    if size[1] < 2:
        return PairedSpearman(a, b, *undefined, *size, f"{size[1]} teacher(s), nothing to resample")
    columns = [rows[name].to_numpy(float) for name in (a, b, "average_at_k")]
    x, y, accuracy = columns

    def difference(counts: np.ndarray) -> np.ndarray:
        in_a, in_b = (spearman_many(s, accuracy, SCORES[name].direction, counts) for s, name in ((x, a), (y, b)))
        return in_a - in_b

    same = 1 if SCORES[a].direction == SCORES[b].direction else -1
    try:
        rho = [spearman(s, accuracy, SCORES[name].direction) for s, name in ((x, a), (y, b))]
        interval = _interval(difference, teachers, N_BOOT if n_boot is None else n_boot)
        return PairedSpearman(a, b, same * spearman(x, y, "higher"), *rho, rho[0] - rho[1], *interval, *size)
    except DegenerateError as error:
        return PairedSpearman(a, b, *undefined, *size, str(error))


def main_table(
    cells: pd.DataFrame, student: str, *, leave_out: str | None = None, scores: Sequence[str] = MAIN_SCORES
) -> pd.DataFrame:
    """The main table: `score_rows` for the scores of the paper's main table, with the paper's numbers beside
    ours.

    `leave_out` names a family to do without (the terse one decides much of a correlation by itself). The
    paper's columns are text, as reported: its setting that ours stands for, magnitudes and regrets, empty where it
    prints none; they belong to all its teachers, so they stay empty when a family is left out.
    """
    rows = select(cells, student, scores, leave_out=leave_out)
    table, task = score_rows(rows, scores), rows["task"].iloc[0]
    table[PAPER_SETTING] = "" if leave_out is not None else setting_name(task, student)
    for column, quantity in ((PAPER_SPEARMAN, "spearman_abs"), (PAPER_REGRET, "regret_points")):
        known = {} if leave_out is not None else setting_values("main table", quantity, task, student)
        table[column] = [known[s].text if s in known else "" for s in table["score"]]
    return table
