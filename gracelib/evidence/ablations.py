"""The numbers behind the ablation figures: one correlation after another, each from cells that were scored once.

Why apart from the drawing: a value printed in a picture, its caption and its table is computed here, once. Every
correlation is signed Spearman (good is positive) with the bootstrap over teachers of `ranks`; where one is undefined
the row is NaN and `note` says why.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence.cells import KEY, at_setting, difference, rescored
from gracelib.evidence.ranks import spearman_known, spearman_many

SETTING = ("n", "m", "d", "n_folds", "nu", "power")
READINGS = {"cells": "60% of the cells", "teachers": "60% of the teachers"}
#: Which scores are set against which students in figure 16.
PAIRINGS = {
    "unfiltered": "unfiltered students",
    "filtered": "filtered students, same scores",
    "rescored": "filtered students, scores of filtered responses",
}


# --- filtered responses --------------------------------------------------------------------------------------


def filtered_pairs(cells: pd.DataFrame, filtered: pd.DataFrame) -> pd.DataFrame:
    """The cells that have a filtered student too, one row each, coldest first within a teacher.

    `cells` from `tables.cells`, `filtered` from the table `filtered`. Columns: key, manner, kept_share, prompts,
    prompts_kept, unfiltered, unfiltered_se, filtered, filtered_se, change_points, change_se (as if the two students had
    answered different problems: conservative, they answer the same). ValueError for a filtered cell that `cells` lacks.
    """
    columns = {"average": "filtered", "average_se": "filtered_se"}
    own = filtered[[*KEY, "kept_share", "prompts", "prompts_kept", *columns]].rename(columns=columns)
    both = own.merge(
        cells[[*KEY, "manner", "average_at_k", "average_se"]].rename(
            columns={"average_at_k": "unfiltered", "average_se": "unfiltered_se"}
        ),
        on=KEY,
        how="left",
        validate="1:1",
    )
    if both["unfiltered"].isna().any():
        lost = both[both["unfiltered"].isna()].iloc[0]
        raise ValueError(
            f"{lost['teacher']} at T={lost['temperature']:g} was filtered and is not in the table of cells: "
            "run `make figures` again, one of the two is older"
        )
    return both.assign(
        change_points=100 * (both["filtered"] - both["unfiltered"]),
        change_se=100 * np.hypot(both["filtered_se"], both["unfiltered_se"]),
    )


def filtered_correlations(cells: pd.DataFrame, filtered: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """Correlation of each score with unfiltered and with filtered students on the same cells, and the differences.

    One row a (score, pairing): the keys of `PAIRINGS` as printed there; `change`, `change_low`, `change_high` are minus
    the unfiltered one. A score of filtered responses is NaN where `filtered` has none (there are no wrong responses).
    """
    pairs = filtered_pairs(cells, filtered)
    pairs = pairs.merge(cells[[*KEY, *scores]], on=KEY).merge(
        filtered[[*KEY, *(s for s in scores if s in filtered)]], on=KEY, suffixes=("", "_again")
    )
    made, teacher = [], pairs["teacher"]
    for score in scores:
        rule, again = SCORES[score].direction, pairs.get(f"{score}_again", pairs[score])
        old, new = (pairs[score], pairs["unfiltered"], rule), (pairs[score], pairs["filtered"], rule)
        for pairing, own in {"unfiltered": old, "filtered": new, "rescored": (again, pairs["filtered"], rule)}.items():
            moved = {"spearman": 0.0, "low": 0.0, "high": 0.0}
            if pairing != "unfiltered":
                moved = difference(old, own, teacher)
            made.append(
                {"score": score, "label": SCORES[score].label, "pairing": pairing}
                | difference(own, None, teacher)
                | {"change": moved["spearman"], "change_low": moved["low"], "change_high": moved["high"]}
            )
    return pd.DataFrame(made)


# --- settings of the score -----------------------------------------------------------------------------------


def grid_correlations(
    grid: pd.DataFrame, cells: pd.DataFrame, student: str, default: Mapping[str, float], free: Sequence[str]
) -> pd.DataFrame:
    """GRACE's correlation at each setting of the columns `free`, all others at `default`; sorted by them.

    `cells` of one task. Columns: `SETTING`, then those of `difference`, nu_decides (fewer gradients in the second
    moment than dimensions) and nu_share (mean over cells of the part of GRACE that the smoothing decides). ValueError if
    the grid lacks a cell at a setting, or has no such setting.
    """
    own = cells[cells["student"] == student]
    rows = at_setting(grid, {k: v for k, v in default.items() if k not in free})
    rows = rows[(rows["student"] == student) & rows["task"].isin(own["task"])]
    if rows.empty:
        raise ValueError(f"the grid has no row of student {student!r} with {dict(default)} but for {list(free)}")
    made = []
    joined = rows.merge(own[[*KEY, "average_at_k"]], on=KEY, validate="m:1")
    for setting, cell in joined.groupby(list(SETTING), sort=True):
        if len(cell) != len(own):
            raise ValueError(
                f"the grid has {len(cell)} of {len(own)} cells at {dict(zip(SETTING, setting, strict=True))}: "
                "run `make figures` again, it is older than the table of cells"
            )
        made.append(
            dict(zip(SETTING, setting, strict=True))
            | difference((cell["grace"], cell["average_at_k"], "lower"), None, cell["teacher"])
            | {"nu_decides": bool(cell["nu_decides"].any()), "nu_share": cell["nu_share"].mean()}
        )
    return pd.DataFrame(made).sort_values(list(free), kind="stable").reset_index(drop=True)


def setting_change(
    grid: pd.DataFrame, cells: pd.DataFrame, student: str, old: Mapping[str, float], new: Mapping[str, float]
) -> dict | None:
    """GRACE's correlation at one setting minus that at another, as `difference`; None if one of them lacks a cell."""
    own = cells[cells["student"] == student]
    pair = [rescored(own, grid, setting) for setting in (old, new)]
    if min(map(len, pair)) < len(own):
        return None
    return difference(*((part["grace"], part["average_at_k"], "lower") for part in pair), own["teacher"])


# --- random subsets ------------------------------------------------------------------------------------------


def subset_correlations(
    rows: pd.DataFrame, scores: Sequence[str], *, share: float = 0.6, n_sets: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Correlations over random subsets without replacement, one row a (reading, score, subset).

    `rows` from `cells.select`. The paper's text draws 60% of the *teachers*, the caption of its figure 60% of the
    *combinations* of teacher and temperature (cells); `reading` tells which. The same subsets for every score. Columns:
    reading, score, subset, spearman (NaN where undefined), cells (in the subset), distinct (subsets in the reading).
    """
    y, made = rows["average_at_k"].to_numpy(float), []
    names, code = np.unique(rows["teacher"].to_numpy(str), return_inverse=True)
    for reading, drawn in _subsets(code, len(names), share, n_sets, seed).items():
        distinct = len(np.unique(drawn, axis=0))
        for score in scores:
            values = spearman_many(rows[score], y, SCORES[score].direction, drawn)
            made.append(
                pd.DataFrame(
                    {
                        "reading": reading,
                        "score": score,
                        "subset": np.arange(n_sets),
                        "spearman": values,
                        "cells": drawn.sum(1),
                        "distinct": distinct,
                    }
                )
            )
    return pd.concat(made, ignore_index=True)


def _subsets(code: np.ndarray, n_teachers: int, share: float, n_sets: int, seed: int) -> dict[str, np.ndarray]:
    """(n_sets, cells) membership by reading; at least one cell or teacher in each."""

    def draw(size: int, rng) -> np.ndarray:
        return rng.random((n_sets, size)).argsort(1).argsort(1) < max(1, round(share * size))

    rngs = [np.random.default_rng([seed, i]) for i in range(2)]
    return {"cells": draw(len(code), rngs[0]), "teachers": draw(n_teachers, rngs[1])[:, code]}


def subset_summary(subsets: pd.DataFrame, rows: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """One row a (reading, score), best first: spearman (all cells), and over subsets median, low, high (2.5% and 97.5%),
    lowest, subsets (where defined), best_share (of the subsets, those in which no score is ahead of it)."""
    made = []
    for reading, own in subsets.groupby("reading", sort=False):
        wide = own.pivot(index="subset", columns="score", values="spearman")
        top = wide.max(axis=1)
        for score in scores:
            values = wide[score].dropna().to_numpy()
            low, median, high, lowest = np.quantile(values, (0.025, 0.5, 0.975, 0)) if len(values) else (np.nan,) * 4
            whole, reason = spearman_known(rows[score], rows["average_at_k"], SCORES[score].direction)
            ahead = (wide[score] >= top - 1e-12)[top.notna()]
            made.append(
                {
                    "reading": reading,
                    "score": score,
                    "label": SCORES[score].label,
                    "spearman": whole,
                    "median": median,
                    "low": low,
                    "high": high,
                    "lowest": lowest,
                    "subsets": len(values),
                    "best_share": float(ahead.mean()) if len(ahead) else np.nan,
                    "note": f"undefined: {reason}" if reason else "",
                }
            )
    return (
        pd.DataFrame(made)
        .sort_values(["reading", "spearman"], ascending=[True, False], kind="stable", na_position="last")
        .reset_index(drop=True)
    )
