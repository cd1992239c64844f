"""Choices under a constraint: one teacher's temperatures, one family, a size budget; the numbers behind figures 6 to 25.

Why apart from `tables`: there every cell is a candidate. A practitioner often has fewer: the teacher is given and only
its temperature is free, or the teacher must be small, or of one family. Each function here restricts the candidates
first and then asks the same two questions, how well a score orders them and what its first choice costs. Random choice
stands beside the scores everywhere, because regrets shrink with the candidates, whoever chooses.

Intervals resample teachers, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence import cells as tables
from gracelib.evidence.ranks import DegenerateError, regret, spearman
from gracelib.evidence.resample import teacher_interval

RANDOM = "random"  #: in the place of a score: a candidate drawn at random, its expected regret
#: The paper's budget in whose place a width stands; at the paper's scale the column holds the budgets themselves.
PAPER_BUDGETS = {40: "3B", 64: "10B", 96: "30B", 3: "3B", 10: "10B", 30: "30B"}
_ACCURACY = "average_at_k"
_NAN = float("nan")


def choice_cells(cells: pd.DataFrame, student: str, scores: Sequence[str]) -> pd.DataFrame:
    """`cells.select` with the teacher's width. ValueError naming what is missing."""
    if "width" not in cells:
        raise ValueError("the table of cells lacks the column width: use the table that pipeline.cells(scale) returns")
    rows = tables.select(cells, student, scores)
    return rows.assign(width=rows["teacher"].map(cells.drop_duplicates("teacher").set_index("teacher")["width"]))


def label(score: str) -> str:
    """The score's label; random choice has one too."""
    return "Random choice" if score == RANDOM else SCORES[score].label


Statistic = Callable[
    [np.ndarray], np.ndarray
]  #: how often each teacher is drawn (B, teachers) -> (B,), NaN where undefined


def interval(statistic: Statistic, n_teachers: int) -> tuple[float, float]:
    """95% interval over resampled teachers; NaN, NaN for fewer than two, or when nearly every resample is undefined."""
    if n_teachers < 2:
        return _NAN, _NAN
    try:
        return teacher_interval(statistic, np.arange(n_teachers), tables.N_BOOT, tables.SEED)
    except DegenerateError:
        return _NAN, _NAN


def mean_of(values: np.ndarray) -> Statistic:
    """The mean over drawn teachers of one value each, `values` (teachers,), over those where it is defined."""
    defined = np.isfinite(values)

    def statistic(counts: np.ndarray) -> np.ndarray:
        n = counts @ defined
        return np.where(n, counts @ np.where(defined, values, 0.0) / np.maximum(n, 1), np.nan)

    return statistic


@dataclass(frozen=True)
class Firsts:
    """Per teacher: the best value of a score, the accuracies of the cells that have it, the best accuracy of all."""

    top: np.ndarray
    accuracy: np.ndarray  #: summed over the cells with the top value
    n: np.ndarray  #: how many have it
    best: np.ndarray

    def regret(self, counts: np.ndarray, member: np.ndarray | None = None) -> np.ndarray:
        """Regret in points among the teachers drawn (B, teachers) that are `member` (teachers,); NaN where none is."""
        inside = (counts > 0) if member is None else (counts > 0) & member
        top = np.where(inside, self.top, -np.inf)
        first = counts * ((top == top.max(1, keepdims=True)) & np.isfinite(top))
        n = first @ self.n
        got = first @ self.accuracy / np.maximum(n, 1)
        best = np.where(inside, self.best, -np.inf).max(1)
        return np.where(n > 0, 100 * np.maximum(0.0, np.where(n > 0, best, got) - got), np.nan)

    def all(self, member: np.ndarray | None = None) -> float:
        """The regret among all teachers, or all that are `member`."""
        return float(self.regret(np.ones((1, len(self.top))), member)[0])


def firsts(rows: pd.DataFrame, score: str) -> Firsts:
    """What regrets of a score over any set of whole teachers need; teachers in the order of their names.

    A cell where the score is undefined cannot be selected, and still counts as what could have been had. `RANDOM`
    selects every cell, so that its regret is the expected one.
    """
    y = rows[_ACCURACY].to_numpy(float)
    value = np.zeros(len(rows))
    if score != RANDOM:
        value = rows[score].to_numpy(float) * (-1 if SCORES[score].direction == "lower" else 1)
        value = np.where(np.isnan(value), -np.inf, value)
    names, code = np.unique(rows["teacher"].to_numpy(str), return_inverse=True)
    top, best = np.full((2, len(names)), -np.inf)
    np.maximum.at(top, code, value)
    np.maximum.at(best, code, y)
    at = (value == top[code]).astype(float)
    return Firsts(top, np.bincount(code, at * y), np.bincount(code, at), best)


def _selected(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """The cells that a score ranks first (all that tie; none for random choice or a score that is never defined)."""
    if score == RANDOM or rows[score].isna().all():
        return rows[:0]
    value = rows[score]
    return rows[value == (value.min() if SCORES[score].direction == "lower" else value.max())]


# --- one teacher's temperatures ------------------------------------------------------------------------------


def two_teachers(cells: pd.DataFrame, student: str) -> list[str]:
    """The least accurate teacher that has a relative, and the most accurate of its family: figure 6's two.

    The paper shows a small and a larger model of one family; here accuracy (mean over temperatures) decides, which no
    student has a part in. Where no family has two teachers: the least and the most accurate of all; one if there is one.
    """
    rows = cells[cells["student"] == student]
    mean = rows.groupby(["teacher", "manner"], sort=True)["teacher_accuracy"].mean().reset_index()
    size = mean.groupby("manner")["teacher"].transform("size")
    pool = mean[size > 1] if (size > 1).any() else mean
    least = pool.loc[pool["teacher_accuracy"].idxmin()]
    relatives = pool[pool["manner"] == least["manner"]] if (size > 1).any() else pool
    return list(dict.fromkeys([least["teacher"], relatives.loc[relatives["teacher_accuracy"].idxmax(), "teacher"]]))


def temperature_choices(rows: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """One row a (teacher, score): the temperature it picks, the true best, the regret, Spearman over temperatures.

    `rows` from `choice_cells`. Columns: teacher, manner, width, score, label, picked, best (the coldest where several
    tie), regret_points (mean over ties), coldest and hottest (whether the pick is an end), spearman, temperatures, note.
    Random choice has a regret only. Undefined numbers are NaN with the reason in `note`.
    """
    made = []
    for (teacher, manner, width), own in rows.groupby(["teacher", "manner", "width"], sort=True):
        own = own.reset_index(drop=True)
        t, y = own["temperature"].to_numpy(float), own[_ACCURACY].to_numpy(float)
        for score in (*scores, RANDOM):
            chosen, note, rho = _selected(own, score), "", np.nan
            if score == RANDOM:
                points = 100 * (y.max() - y.mean())
            elif chosen.empty:
                points, note = np.nan, "the score is undefined in every cell"
            else:
                there, direction = own[score].notna().to_numpy(), SCORES[score].direction
                lost = 100 * (y.max() - y[there].max())  # cells the score cannot select
                points = regret(own[score][there], y[there], direction).points + lost
                try:
                    rho = spearman(own[score][there], y[there], direction)
                except DegenerateError as error:
                    note = f"Spearman undefined: {error}"
            picked = float(chosen["temperature"].min()) if len(chosen) else np.nan
            ends = len(t) > 1
            made.append(
                {
                    "teacher": teacher,
                    "manner": manner,
                    "width": width,
                    "score": score,
                    "label": label(score),
                    "picked": picked,
                    "best": float(t[y == y.max()].min()),
                    "regret_points": points,
                    "coldest": bool(ends and picked == t.min()),
                    "hottest": bool(ends and picked == t.max()),
                    "spearman": rho,
                    "temperatures": len(t),
                    "note": note,
                }
            )
    return pd.DataFrame(made)


def over_teachers(choices: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over teachers of a column of `temperature_choices` (NaN left out) with its interval, one row a score.

    Columns: score, label, mean, low, high, teachers (where it is defined), positive (of those, how many are above zero).
    """
    made = []
    for score, own in choices.groupby("score", sort=False):
        values = own.sort_values("teacher")[column].to_numpy(float)
        defined = values[np.isfinite(values)]
        low, high = interval(mean_of(values), len(values)) if len(defined) > 1 else (np.nan, np.nan)
        made.append(
            {
                "score": score,
                "label": label(score),
                "mean": defined.mean() if len(defined) else np.nan,
                "low": low,
                "high": high,
                "teachers": len(defined),
                "positive": int((defined > 0).sum()),
            }
        )
    return pd.DataFrame(made)


def scaled_up(values: np.ndarray, score: str) -> np.ndarray:
    """A score scaled to 0..1 over these cells, 1 where it is best; NaN where all values are equal or there is one."""
    up = -values if SCORES[score].direction == "lower" else values
    there = up[np.isfinite(up)]
    if len(there) < 2 or np.ptp(there) == 0:
        return np.full(len(values), np.nan)
    return (up - there.min()) / np.ptp(there)


def noise_points(rows: pd.DataFrame) -> float:
    """Standard error, in points, of the difference of two typical students: sqrt(2) times the median of `average_se`."""
    return float(100 * np.sqrt(2) * rows["average_se"].median())


# --- families and budgets ------------------------------------------------------------------------------------


def budget_rows(rows: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """`cells.score_rows` for each size budget, and random choice: correlation and regret with intervals over teachers.

    `rows` from `choice_cells`. A budget is a width that occurs: its candidates are all teachers of at most that width.
    Columns before those of `score_rows`: budget, paper_budget (the paper's in whose place it stands, or empty).
    """
    made = []
    for width in sorted(set(rows["width"])):
        inside = rows[rows["width"] <= width].reset_index(drop=True)
        first, n = firsts(inside, RANDOM), inside["teacher"].nunique()
        low, high = interval(first.regret, n)
        blind = {
            "score": RANDOM,
            "label": label(RANDOM),
            "regret_points": first.all(),
            "regret_low": low,
            "regret_high": high,
            "selected": "",
            "cells": len(inside),
            "teachers": n,
            "note": "",
        }
        table = pd.concat([tables.score_rows(inside, scores), pd.DataFrame([blind])], ignore_index=True)
        table.insert(0, "budget", width)
        table.insert(1, "paper_budget", PAPER_BUDGETS.get(int(width), ""))
        made.append(table)
    return pd.concat(made, ignore_index=True)


def family_rows(rows: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """One row a (family, score) and random choice: the regret when that family is all there is; last, their means.

    `rows` from `choice_cells`. The rows of family "mean" hold the mean over families (`regret_points`) with an interval
    that resamples teachers (families not drawn are left out of a resample's mean), and `first_minus_this` with its
    interval: the mean regret of the first score minus this one's on the same resamples, negative when the first costs
    less. A single family gets no interval: its teachers are too few to resample.
    """
    made, teachers = [], rows.drop_duplicates("teacher").sort_values("teacher")
    families = list(dict.fromkeys(rows["manner"]))
    members = [(teachers["manner"] == f).to_numpy() for f in families]
    n, everyone, statistics = len(teachers), np.ones((1, len(teachers))), {}
    for score in (*scores, RANDOM):
        first = firsts(rows, score)
        for name, member in zip(families, members, strict=True):
            own = rows[rows["manner"] == name]
            picked = _selected(own, score)
            made.append(
                {
                    "family": name,
                    "score": score,
                    "label": label(score),
                    "regret_points": first.all(member),
                    "regret_se_points": tables.regret_se(own, picked),
                    "selected": "; ".join(f"{r.teacher} at T={r.temperature:g}" for r in picked.itertuples()),
                    "cells": len(own),
                    "teachers": own["teacher"].nunique(),
                }
            )

        def mean(counts: np.ndarray, first=first) -> np.ndarray:
            regrets = np.stack([first.regret(counts, member) for member in members])  # (families, B)
            defined = np.isfinite(regrets)
            n_defined = defined.sum(0)
            return np.where(n_defined, np.where(defined, regrets, 0).sum(0) / np.maximum(n_defined, 1), np.nan)

        statistics[score] = mean
    for score, mean in statistics.items():

        def minus(counts: np.ndarray, mean=mean) -> np.ndarray:
            return statistics[scores[0]](counts) - mean(counts)

        low, high = interval(mean, n)
        minus_low, minus_high = interval(minus, n)
        made.append(
            {
                "family": "mean",
                "score": score,
                "label": label(score),
                "regret_points": float(mean(everyone)[0]),
                "regret_low": low,
                "regret_high": high,
                "first_minus_this": float(minus(everyone)[0]),
                "minus_low": minus_low,
                "minus_high": minus_high,
                "cells": len(rows),
                "teachers": n,
                "note": f"{len(families)} families",
            }
        )
    return pd.DataFrame(made)
