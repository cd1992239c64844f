"""Choices under a constraint: one teacher's temperatures, one family, a size budget; the numbers behind figures 6 to 25.

Why apart from `cells`: there every cell is a candidate. A practitioner often has fewer: the teacher is given and only
its temperature is free, or the teacher must be small, or of one family. Each function here restricts the candidates
first and then asks the same two questions, how well a score orders them and what its first choice costs. Random choice
stands beside the scores everywhere, because regrets shrink with the candidates, whoever chooses.

Intervals resample teachers, as everywhere.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence import cells as tables
from gracelib.evidence.ranks import interval, mean_many, regret_many, spearman_known

RANDOM = "random"  #: in the place of a score: a candidate drawn at random, its expected regret
#: The paper's budget in whose place a width stands; at the paper's scale the column holds the budgets themselves.
PAPER_BUDGETS = {40: "3B", 64: "10B", 96: "30B", 3: "3B", 10: "10B", 30: "30B"}
_ACCURACY = "average_at_k"


def choice_cells(cells: pd.DataFrame, student: str, scores: Sequence[str]) -> pd.DataFrame:
    """`cells.select` with the teacher's width. ValueError naming what is missing."""
    if "width" not in cells:
        raise ValueError("the table of cells lacks the column width: use the table that tables.cells(scale) returns")
    rows = tables.select(cells, student, scores)
    return rows.assign(width=rows["teacher"].map(cells.drop_duplicates("teacher").set_index("teacher")["width"]))


def label(score: str) -> str:
    """The score's label; random choice has one too."""
    return "Random choice" if score == RANDOM else SCORES[score].label


def regrets(rows: pd.DataFrame, score: str, counts: np.ndarray | None = None) -> np.ndarray:
    """Regret in points of a score, or `RANDOM`, in resamples of the cells; `counts` (resamples, cells), None: as they are.

    A cell where the score is undefined cannot be selected, and still counts as what could have been had. `RANDOM` selects
    every cell, so that its regret is the expected one.
    """
    value, direction = np.zeros(len(rows)), "lower"
    if score != RANDOM:
        value, direction = rows[score].to_numpy(float), SCORES[score].direction
    return regret_many(
        value, rows[_ACCURACY].to_numpy(float), direction, np.ones((1, len(rows))) if counts is None else counts
    )


def _selected(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """The cells that a score ranks first; none for random choice."""
    return rows[:0] if score == RANDOM else tables.selected(rows, score)


# --- one teacher's temperatures ------------------------------------------------------------------------------


def two_teachers(cells: pd.DataFrame, student: str) -> list[str]:
    """The least accurate teacher that has a relative, and the most accurate of its family: figure 6's two.

    The paper shows a small and a larger model of one family; here accuracy (mean over temperatures) decides, which no
    student has a part in. Where no family has two teachers: the least and the most accurate of all; one if there is one.
    """
    mean = (
        cells[cells["student"] == student]
        .groupby(["teacher", "manner"], sort=True)["teacher_accuracy"]
        .mean()
        .reset_index()
    )
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
            chosen, rho, note = _selected(own, score), np.nan, ""
            if chosen.empty and score != RANDOM:
                note = "the score is undefined in every cell"
            elif score != RANDOM:
                rho, reason = spearman_known(own[score], y, SCORES[score].direction)
                note = f"Spearman undefined: {reason}" if reason else ""
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
                    "regret_points": regrets(own, score)[0],
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
        own = own.sort_values("teacher")
        values, low, high = own[column].to_numpy(float), np.nan, np.nan
        defined = values[np.isfinite(values)]
        if len(defined) > 1:
            low, high = interval(partial(mean_many, values), own["teacher"])
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
        low, high = interval(partial(regrets, inside, RANDOM), inside["teacher"])
        blind = {
            "score": RANDOM,
            "label": label(RANDOM),
            "regret_points": regrets(inside, RANDOM)[0],
            "regret_low": low,
            "regret_high": high,
            "selected": "",
            "cells": len(inside),
            "teachers": inside["teacher"].nunique(),
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
    made, everyone = [], np.ones((1, len(rows)))
    families = {name: (rows["manner"] == name).to_numpy() for name in dict.fromkeys(rows["manner"])}
    for score in (*scores, RANDOM):
        for name, member in families.items():
            own = rows[member]
            picked = _selected(own, score)
            made.append(
                {
                    "family": name,
                    "score": score,
                    "label": label(score),
                    "regret_points": regrets(own, score)[0],
                    "regret_se_points": tables.regret_se(own, picked),
                    "selected": "; ".join(f"{r.teacher} at T={r.temperature:g}" for r in picked.itertuples()),
                    "cells": len(own),
                    "teachers": own["teacher"].nunique(),
                }
            )

    def mean(score: str, counts: np.ndarray) -> np.ndarray:
        inside = np.stack(
            [regrets(rows, score, counts * member) for member in families.values()]
        )  # (families, resamples)
        n = np.isfinite(inside).sum(0)
        return np.where(n, np.nansum(inside, axis=0) / np.maximum(n, 1), np.nan)

    def minus(score: str, counts: np.ndarray) -> np.ndarray:
        return mean(scores[0], counts) - mean(score, counts)

    for score in (*scores, RANDOM):
        low, high = interval(partial(mean, score), rows["teacher"])
        minus_low, minus_high = interval(partial(minus, score), rows["teacher"])
        made.append(
            {
                "family": "mean",
                "score": score,
                "label": label(score),
                "regret_points": float(mean(score, everyone)[0]),
                "regret_low": low,
                "regret_high": high,
                "first_minus_this": float(minus(score, everyone)[0]),
                "minus_low": minus_low,
                "minus_high": minus_high,
                "cells": len(rows),
                "teachers": rows["teacher"].nunique(),
                "note": f"{len(families)} families",
            }
        )
    return pd.DataFrame(made)
