"""The bootstrap over teachers of `stats`, for all resamples at once.

Why a second one: `ranks.cluster_bootstrap` evaluates a statistic resample by resample, which is easy to check and too
slow for two dozen figures of 120 cells each. This one draws the same resamples from the same seed and describes each by
how often it holds every cell. Ranks in a resample are then weighted counts of smaller cells: the comparisons of cells are
made once, whatever the number of resamples. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gracelib.evidence.ranks import DegenerateError

Statistic = Callable[[np.ndarray], np.ndarray]  #: counts (resamples, cells) -> values (resamples,), NaN where undefined


def spearman_many(a: np.ndarray, b: np.ndarray, direction: str, counts: np.ndarray) -> np.ndarray:
    """Signed Spearman of `a` with `b` (cells,) in every resample (rows of `counts`); NaN where it is undefined."""
    counts = np.asarray(counts, dtype=float)
    size = counts.sum(1, keepdims=True)
    x, y = (_centred_ranks(column, counts, size) for column in (a, b))
    with np.errstate(invalid="ignore"):
        rho = (counts * x * y).sum(1) / np.sqrt((counts * x * x).sum(1) * (counts * y * y).sum(1))
    rho[size[:, 0] < 3] = np.nan
    return np.clip(-rho if direction == "lower" else rho, -1.0, 1.0)


def _centred_ranks(column: np.ndarray, counts: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Average ranks of the cells in each resample, minus their mean over the resample; (resamples, cells)."""
    below = (column[:, None] < column) + 0.5 * (column[:, None] == column)  # [j, i]: does cell j push cell i up?
    return counts @ below - size / 2  # (resamples, cells) x (cells, cells); the mean of average ranks - 1/2 is size / 2


def regret_many(score: np.ndarray, accuracy: np.ndarray, direction: str, counts: np.ndarray) -> np.ndarray:
    """Regret in points in every resample, ties averaged, as `ranks.regret`."""
    value, there = (-score if direction == "lower" else score), counts > 0
    first = counts * (value == np.where(there, value, -np.inf).max(1, keepdims=True))
    best = np.where(there, accuracy, -np.inf).max(1)
    return np.maximum(0.0, 100 * (best - (first * accuracy).sum(1) / first.sum(1)))


def teacher_interval(
    statistic: Statistic, teacher: Sequence, n_boot: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of `statistic` over resamples of whole teachers, with replacement.

    `teacher` (cells,) labels; `statistic` sees how often each cell is drawn, (resamples, cells). A resample on which it is NaN is redrawn.
    ValueError for one teacher only; DegenerateError when nine in ten resamples are undefined.
    """
    labels, code = np.unique(np.asarray(teacher), return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} teacher(s): resampling teachers cannot show any spread")
    rng, kept, tried = np.random.default_rng(seed), np.zeros(0), 0
    while len(kept) < n_boot:
        picks = rng.integers(len(labels), size=(n_boot - len(kept), len(labels)))
        drawn = (picks[:, :, None] == np.arange(len(labels))).sum(1)  # (resamples, teachers)
        values = statistic(drawn[:, code])
        tried, kept = tried + len(picks), np.concatenate([kept, values[np.isfinite(values)]])
        if tried - len(kept) > 9 * n_boot:
            raise DegenerateError(
                f"{tried - len(kept)} of {tried} resamples of {len(labels)} clusters are degenerate: there are too few "
                "distinct clusters for an interval"
            )
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
