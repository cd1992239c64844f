"""Choices under a constraint: one teacher's temperatures, one family, a size budget; the numbers behind figures 6 to 25.

Why apart from `cells`: there every cell is a candidate. A practitioner often has fewer: the teacher is given and only
its temperature is free, or the teacher must be small, or of one family. Each function here restricts the candidates
first and then asks the same two questions, how well a score orders them and what its first choice costs. Random choice
stands beside the scores everywhere, because regrets shrink with the candidates, whoever chooses.

Intervals of regrets hold the noise of the test problems (`ranks.regret_interval`, `ranks.mean_regret`); other intervals
resample teachers, as everywhere.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence import cells as tables
from gracelib.evidence.ranks import (
    interval,
    mean_interval,
    mean_many,
    mean_regret,
    regret_interval,
    regret_many,
    spearman_known,
)

REGRET = ["regret_points", "regret_low", "regret_high"]
RANDOM = "random"  #: in place of a score: a candidate drawn at random, its expected regret
#: The paper's budget in whose place a width stands; at the paper's scale the column holds the budgets themselves.
PAPER_BUDGETS = {40: "3B", 64: "10B", 96: "30B", 3: "3B", 10: "10B", 30: "30B"}
_ACCURACY = "average_at_k"


def choice_cells(cells: pd.DataFrame, student: str, scores: Sequence[str]) -> pd.DataFrame:
    """`cells.select` with the teacher's width."""
    rows = tables.select(cells, student, scores)
    return rows.assign(width=rows["teacher"].map(cells.drop_duplicates("teacher").set_index("teacher")["width"]))


def label(score: str) -> str:
    """The score's label; random choice has one too."""
    return "Random choice" if score == RANDOM else SCORES[score].label


def regrets(rows: pd.DataFrame, score: str) -> dict[str, float]:
    """Regret in points of a score, or `RANDOM`: regret_points, and regret_low and regret_high from the test problems.

    A cell where the score is undefined cannot be selected, and still counts as what could have been had. `RANDOM` selects
    every cell, so that its regret is the expected one.
    """
    value, direction = np.zeros(len(rows)), "lower"
    if score != RANDOM:
        value, direction = rows[score].to_numpy(float), SCORES[score].direction
    y = rows[_ACCURACY].to_numpy(float)
    points = regret_many(value, y, direction, np.ones((1, len(y))))[0]
    return dict(zip(REGRET, (points, *regret_interval(value, y, rows["average_se"], direction)), strict=True))


def _selected(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """The cells that a score ranks first; none for random choice."""
    return rows[:0] if score == RANDOM else tables.selected(rows, score)


# --- one teacher's temperatures ------------------------------------------------------------------------------


def two_teachers(cells: pd.DataFrame, student: str) -> list[str]:
    """The least accurate teacher that has a relative, and the most accurate of its family: figure 6's two.

    The paper shows a small and a larger model of one family; here accuracy (mean over temperatures) decides, which no
    student has a part in, among the teachers with the most temperatures. Where no family has two of these: the least and the
    most accurate of all; one if there is one.
    """
    own = cells[cells["student"] == student].groupby(["teacher", "manner"], sort=True)["teacher_accuracy"]
    mean = own.agg(["size", "mean"]).query("size == size.max()")["mean"].rename("teacher_accuracy").reset_index()
    size = mean.groupby("manner")["teacher"].transform("size")
    pool = mean[size > 1] if (size > 1).any() else mean
    least = pool.loc[pool["teacher_accuracy"].idxmin()]
    relatives = pool[pool["manner"] == least["manner"]] if (size > 1).any() else pool
    return list(dict.fromkeys([least["teacher"], relatives.loc[relatives["teacher_accuracy"].idxmax(), "teacher"]]))


def temperature_choices(rows: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """One row a (teacher, score): the temperature it picks, the true best, the regret, Spearman over temperatures.

    `rows` from `choice_cells`. Columns: teacher, manner, width, score, label, picked, best (the coldest where several
    tie), those of `regrets` (mean over ties), coldest and hottest (whether the pick is an end), spearman, temperatures, note.
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
                    **regrets(own, score),
                    "coldest": bool(ends and picked == t.min()),
                    "hottest": bool(ends and picked == t.max()),
                    "spearman": rho,
                    "temperatures": len(t),
                    "note": note,
                }
            )
    return pd.DataFrame(made)


def over_teachers(choices: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over teachers of a column of `temperature_choices` (NaN left out) with its interval, one row per score.

    Columns: score, label, mean, low, high, teachers (where it is defined), positive (of those, how many are above zero).
    """
    made = []
    for score, own in choices.groupby("score", sort=False):
        own = own.sort_values("teacher")
        values, low, high = own[column].to_numpy(float), np.nan, np.nan
        defined = values[np.isfinite(values)]
        if column == "regret_points":
            _, low, high = mean_regret(own[REGRET].to_numpy())
        elif len(defined) > 1:
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


def scatter(rows: pd.DataFrame, accuracy: str) -> float:
    """Standard deviation of an accuracy about a parabola in temperature, one per teacher with four temperatures or more;
    0 without such a teacher. The noise of training and of the test problems is in it, and what no parabola follows."""
    squares, free = 0.0, 0
    for _, own in rows.groupby("teacher"):
        if len(own) > 3:
            rest = own[accuracy] - np.polyval(np.polyfit(own["temperature"], own[accuracy], 2), own["temperature"])
            squares, free = squares + float(rest @ rest), free + len(own) - 3
    return float(np.sqrt(squares / free)) if free else 0.0


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
        blind = {
            "score": RANDOM,
            "label": label(RANDOM),
            **regrets(inside, RANDOM),
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

    `rows` from `choice_cells`. The rows of family "mean" hold the mean over families, and `first_minus_this` with a
    Student's t interval over families: the mean regret of the first score minus this one's, negative when the first costs
    less (the best of a family cancels: it is a difference of accuracies).
    """
    made, families = [], list(dict.fromkeys(rows["manner"]))
    for score in (*scores, RANDOM):
        for name in families:
            own = rows[rows["manner"] == name]
            picked = _selected(own, score)
            made.append(
                {
                    "family": name,
                    "score": score,
                    "label": label(score),
                    **regrets(own, score),
                    "regret_se_points": tables.regret_se(own, picked),
                    "selected": "; ".join(f"{r.teacher} at T={r.temperature:g}" for r in picked.itertuples()),
                    "cells": len(own),
                    "teachers": own["teacher"].nunique(),
                }
            )
    each = pd.DataFrame(made)
    points = each.pivot(index="family", columns="score", values="regret_points")
    for score in (*scores, RANDOM):
        minus = points[scores[0]] - points[score]
        low, high = mean_interval(minus)
        made.append(
            {
                "family": "mean",
                "score": score,
                "label": label(score),
                **dict(zip(REGRET, mean_regret(each.loc[each.score == score, REGRET].to_numpy()), strict=True)),
                "first_minus_this": minus.mean(),
                "minus_low": low,
                "minus_high": high,
                "cells": len(rows),
                "teachers": rows["teacher"].nunique(),
                "note": f"{len(families)} families",
            }
        )
    return pd.DataFrame(made)
