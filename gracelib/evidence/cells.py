"""How well each score picks teachers, as a table: the numbers that the figures draw and the notebooks print.

Why apart from the plots: a number shown in a figure, in its caption and in the main table is computed once,
here, so that the three cannot differ. Each row says how many cells and teachers it stands on; where a
correlation is undefined (two cells, a constant column) the row says why instead of holding a number.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES, check_score
from gracelib.evidence.ranks import (
    FEW_CLUSTERS,
    DegenerateError,
    bootstrap,
    regret_interval,
    regret_many,
    spearman,
    spearman_many,
)
from gracelib.paper.reported import setting_name, setting_values
from gracelib.scale import Scale

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
TRAINING_SD = "training_sd"  #: the column with the sd of Average@k over training seeds, where these were repeated
UNTRAINED = "untrained"  #: the column with the accuracy of the student before any training, where it is known
KEY = ["task", "student", "teacher", "temperature"]  #: of a cell
_KEYS = ("task", "student", "teacher", "manner", "temperature")
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
PAPER_SETTING, PAPER_SPEARMAN, PAPER_REGRET = "paper setting", "paper spearman |rho|", "paper regret (points)"


def select(
    cells: pd.DataFrame,
    student: str,
    scores: Sequence[str],
    *,
    temperature: float | None = None,
    leave_out: Sequence[str] = (),
    accuracy: str = "average_at_k",
) -> pd.DataFrame:
    """The cells of one student on one task, checked and sorted by teacher and temperature, with the columns that
    are needed. Where training was repeated, its noise is in the standard error of the accuracies.

    `cells` as `tables.cells` gives it; `temperature` keeps one; `leave_out` drops families (one
    that is not there drops nothing). ValueError naming what is missing or unknown.
    """
    for name in scores:
        check_score(name)
    noise = [ACCURACY_SE[accuracy]] if accuracy in ACCURACY_SE else []
    missing = [c for c in (*_KEYS, accuracy, *noise, *scores) if c not in cells]
    if missing:
        raise ValueError(
            f"the table of cells lacks the column(s) {', '.join(missing)}: use the table that "
            "tables.cells(scale) returns, and run `make figures` again if results/students.csv is older than the code"
        )
    rows = cells[cells["student"] == student]
    if rows.empty:
        raise ValueError(f"no cell of student {student!r}: choose one of {', '.join(sorted(set(cells['student'])))}")
    if rows["task"].nunique() > 1:
        raise ValueError(
            f"cells of several tasks ({', '.join(sorted(set(rows['task'])))}): keep one, as tables.cells does"
        )
    rows = rows[~rows["manner"].isin(leave_out)]
    if rows.empty:
        raise ValueError(f"student {student!r} has no cell left without the families {', '.join(leave_out)}")
    if temperature is not None:
        there = sorted(set(rows["temperature"]))
        rows = rows[np.isclose(rows["temperature"], temperature)]
        if rows.empty:
            raise ValueError(f"no cell at temperature {temperature}: choose one of {', '.join(map(str, there))}")
    rows = rows.rename(columns={f"{UNTRAINED}_{accuracy}": UNTRAINED})
    if TRAINING_SD in rows:
        rows = rows.assign(**{column: np.hypot(rows[column], rows[TRAINING_SD]) for column in noise})
    columns = [*_KEYS, accuracy, *noise, *(c for c in (UNTRAINED, TRAINING_SD) if c in rows), *scores]
    return rows.sort_values(["teacher", "temperature"])[columns].reset_index(drop=True)


def score_rows(rows: pd.DataFrame, scores: Sequence[str], accuracy: str = "average_at_k") -> pd.DataFrame:
    """One row per score: signed Spearman with a 95% interval over teachers, regret with one from the noise of the test
    problems (`ranks.regret_interval`), and what the score selects.

    `rows` from `select`. Columns: score, label, direction, spearman, low, high, regret_points, regret_low,
    regret_high, regret_se_points, selected, cells, teachers, note. A score that is undefined in some cells (NaN)
    is correlated over the others and cannot select them; `cells` and `note` say so. An undefined statistic is NaN
    with the reason in `note`. `regret_se_points` is the noise of the test problems, see `regret_se`; both it and the
    regret's interval are NaN for an accuracy without a standard error (`ACCURACY_SE`).
    """
    made = []
    for name in scores:
        score = SCORES[name]
        value, y = rows[name].to_numpy(float), rows[accuracy].to_numpy(float)
        rho = difference((value, y, score.direction), None, rows["teacher"])
        noise = rows[ACCURACY_SE[accuracy]] if accuracy in ACCURACY_SE else np.full(len(rows), np.nan)
        low, high = regret_interval(value, y, noise, score.direction)
        picked = selected(rows, name)
        made.append(
            {
                "score": name,
                "label": score.label,
                "direction": score.direction,
                "spearman": rho["spearman"],
                "low": rho["low"],
                "high": rho["high"],
                "regret_points": regret_many(value, y, score.direction, np.ones((1, len(y))))[0],
                "regret_low": low,
                "regret_high": high,
                "regret_se_points": regret_se(rows, picked, accuracy),
                "selected": "; ".join(f"{r.teacher} at T={r.temperature:g}" for r in picked.itertuples()),
                "cells": rho["cells"],
                "teachers": rho["teachers"],
                "note": _note(rho, len(rows)),
            }
        )
    return pd.DataFrame(made)


def _note(rho: dict, cells: int) -> str:
    """How many cells and teachers a row of `score_rows` stands on, where they are few, and why a number is missing."""
    said = [f"defined in {rho['cells']} of {cells} cells"] if rho["cells"] < cells else []
    if not rho["cells"]:
        return "; ".join([*said, "the score is undefined in every cell"])
    if rho["teachers"] == 1:
        said.append("one teacher: no interval")
    elif rho["teachers"] <= FEW_CLUSTERS:
        said.append(f"{rho['teachers']} teachers: intervals are too narrow, read them as ranges")
    if np.isnan(rho["spearman"]):
        said.append(f"Spearman {rho['note']}")
    elif rho["note"] and rho["teachers"] > 1:
        said.append(rho["note"])
    return "; ".join(said)


def selected(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """The cells that a score ranks first: all that tie, none where it is never defined."""
    best = rows[score].min() if SCORES[score].direction == "lower" else rows[score].max()
    return rows[rows[score] == best]


def training_sd(cells: pd.DataFrame, again: pd.DataFrame, accuracy: str = "average_at_k") -> float:
    """Standard deviation of an accuracy over seeds of training, pooled over the cells that were trained `again` (a row per
    cell and seed; `cells` holds one seed of each). The noise of sampling answers is in it, that of which problems are asked
    is not: they are the same for all seeds."""
    both = pd.concat([cells.merge(again[KEY].drop_duplicates(), on=KEY), again])
    return float(np.sqrt(both.groupby(KEY)[accuracy].var().mean()))


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


def difference(first: tuple, second: tuple | None, teacher) -> dict:
    """Signed Spearman of the second (score, accuracy, direction) minus the first's, on the same resamples of teachers.

    Keys: spearman, low, high, cells, teachers, note. Over the cells where both are defined; `second` None: the first
    one's correlation alone.
    """
    triples = [triple for triple in (first, second) if triple is not None]
    pairs = [[np.asarray(column, float) for column in triple[:2]] for triple in triples]
    there = ~np.isnan([column for pair in pairs for column in pair]).any(0)
    teacher = np.asarray(teacher, str)[there]
    row = {"spearman": np.nan, "low": np.nan, "high": np.nan}
    row |= {"cells": int(there.sum()), "teachers": len(set(teacher)), "note": ""}

    def value(correlate, *counts):
        found = [
            correlate(x[there], y[there], triple[2], *counts) for (x, y), triple in zip(pairs, triples, strict=True)
        ]
        return found[0] if second is None else found[1] - found[0]

    try:
        row["spearman"] = value(spearman)
        if row["teachers"] < 2:
            return row | {"note": "one teacher: no interval"}
        row["low"], row["high"] = bootstrap(lambda counts: value(spearman_many, counts), teacher)
    except DegenerateError as error:
        row["note"] = f"{'no interval' if np.isfinite(row['spearman']) else 'undefined'}: {error}"
    return row


def main_table(
    cells: pd.DataFrame, student: str, *, leave_out: Sequence[str] = (), scores: Sequence[str] = MAIN_SCORES
) -> pd.DataFrame:
    """The main table: `score_rows` for the scores of the paper's main table, with the paper's numbers beside
    ours.

    `leave_out` names families to do without (whose students learn nothing: they decide much of a correlation). The
    paper's columns are text, as reported: its setting that ours stands for, magnitudes and regrets, empty where it
    prints none; they belong to all its teachers, so they stay empty when a family is left out.
    """
    rows = select(cells, student, scores, leave_out=leave_out)
    table, task = score_rows(rows, scores), rows["task"].iloc[0]
    table[PAPER_SETTING] = "" if leave_out else setting_name(task, student)
    for column, quantity in ((PAPER_SPEARMAN, "spearman_abs"), (PAPER_REGRET, "regret_points")):
        known = {} if leave_out else setting_values("main table", quantity, task, student)
        table[column] = [known[s].text if s in known else "" for s in table["score"]]
    return table


# --- the cells of a setting, seen otherwise: what changes is the table that goes in -------------------------------


def default_setting(config: Scale) -> dict[str, float]:
    """A scale's own setting of everything that the ablation grid varies."""
    return {
        "n": config.n_prompts,
        "m": config.m,
        "d": config.d,
        "n_folds": config.n_folds,
        "nu": config.nu,
        "power": 1.0,
    }


def at_setting(grid: pd.DataFrame, fixed: Mapping[str, float]) -> pd.DataFrame:
    """Rows of the table `grid` with those values of the columns of `default_setting`, whatever the others are."""
    keep = np.ones(len(grid), bool)
    for column, value in fixed.items():
        keep &= np.isclose(grid[column], value, rtol=1e-9)
    return grid[keep]


def rescored(cells: pd.DataFrame, grid: pd.DataFrame, setting: Mapping[str, float]) -> pd.DataFrame:
    """The cells that the grid has at a setting, in their order, with the scores and `nu_decides` it has there.

    Accuracies stay; scores that the grid does not have are dropped.
    """
    names = {there: here for here, there in GRID_SCORES.items()} | {"nu_decides": "nu_decides"}
    here = at_setting(grid, setting)[[*KEY, *names]].drop_duplicates(KEY).rename(columns=names)
    kept = [c for c in cells if c in _FREE_OF_D or not (c in SCORES or c in names.values())]
    return cells[kept].merge(here, on=KEY)


def at_d(cells: pd.DataFrame, grid: pd.DataFrame, setting: Mapping[str, float], d: int) -> pd.DataFrame:
    """The cells with their scores taken at `d` projection rows from the ablation grid, all else at the scale's setting.

    `cells` from `tables.cells`, `grid` the table of that name, `setting` the scale's (`default_setting`). As `rescored`;
    students that the grid was not computed for are dropped. ValueError if the grid has no such d, or lacks a cell.
    """
    scored = rescored(cells, grid, {**setting, "d": d})
    if scored.empty:
        there = at_setting(grid, {name: value for name, value in setting.items() if name != "d"})["d"]
        raise ValueError(f"the grid has no row with d = {d} for these cells: it has d = {sorted(set(there))}")
    expected = cells["student"].isin(scored["student"]).sum()
    if len(scored) != expected:
        raise ValueError(
            f"the grid has {len(scored)} of {expected} cells at d = {d}: run `make figures` again, it is older"
        )
    return scored


def most_familiar(cells: pd.DataFrame, student: str) -> str:
    """The teacher with the lowest student loss, mean over its temperatures. ValueError without cells of the student."""
    return str(select(cells, student, ["student_loss"]).groupby("teacher")["student_loss"].mean().idxmin())


def leave_out_teacher(cells: pd.DataFrame, student: str) -> tuple[pd.DataFrame, str]:
    """The cells without the teacher most familiar to the student (figures 24 and 25), and a caption's sentence on it.

    The paper leaves out Qwen2.5-1.5B-Instruct, a teacher that exists here under no name, so the choice follows a rule
    that uses no accuracy. A single teacher is kept: without it nothing would be drawn, and the sentence says so.
    """
    name = most_familiar(cells, student)
    if cells.loc[cells["student"] == student, "teacher"].nunique() == 1:
        return cells, f"{name} is the only teacher: nothing was left out."
    return cells[cells["teacher"] != name].reset_index(drop=True), (
        f"Left out: {name}, the teacher whose responses this student finds most familiar (lowest student loss, mean over "
        "temperatures); the paper leaves out Qwen2.5-1.5B-Instruct."
    )
