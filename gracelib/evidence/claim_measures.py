"""Many statistics of one world over the same resamples of its teachers.

Why beside `resample`: four dozen claims, some of them differences of four correlations, need thousands of resamples
of each, and they must be resampled together, also across students and tasks. A resample of whole teachers is a vector
of weights on the cells; statistics that see the same weights are paired by construction. Every statistic here is an
array of *draws*: entry 0 is the data as they are, the others are the resamples, NaN where the statistic is undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from gracelib.evidence.ranks import regret_many, spearman_many

LEVEL = 0.95
ENOUGH_DEFINED = 0.5  #: share of resamples on which a statistic must be defined for its interval to be told


@dataclass(frozen=True)
class Resamples:
    """Resamples of whole teachers, drawn with replacement: `counts` (1 + n_boot, teachers), row 0 all ones."""

    labels: np.ndarray  #: (teachers,) sorted
    counts: np.ndarray

    def weights(self, teacher: Sequence[str]) -> np.ndarray:
        """How often each cell is in each resample (1 + n_boot, cells). ValueError for a teacher that is not known."""
        teacher = np.asarray(teacher, dtype=str)
        unknown = sorted(set(teacher.tolist()) - set(self.labels.tolist()))
        if unknown:
            raise ValueError(f"teacher {unknown[0]!r} is not one of those resampled: {', '.join(self.labels)}")
        return self.counts[:, np.searchsorted(self.labels, teacher)]

    def mean(self, values: Sequence[float]) -> np.ndarray:
        """The mean over teachers of one value each (teachers,), those with a NaN left out -> draws."""
        values = np.asarray(values, dtype=float)
        there = np.isfinite(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.counts[:, there] @ values[there] / self.counts[:, there].sum(1)


def resamples(teachers: Sequence[str], n_boot: int, seed: int) -> Resamples:
    """The resamples `ranks.cluster_bootstrap` draws from the same seed (as long as none of its is redrawn)."""
    labels = np.unique(np.asarray(list(teachers), dtype=str))
    if not len(labels):
        raise ValueError("no teachers to resample")
    picks = np.random.default_rng(seed).integers(len(labels), size=(n_boot, len(labels)))
    counts = np.ones((1 + n_boot, len(labels)))
    counts[1:] = (picks[:, :, None] == np.arange(len(labels))).sum(1)
    return Resamples(labels, counts)


def interval(draws: np.ndarray) -> tuple[float, float, float]:
    """(value, low, high) of draws: the 95% percentile interval over the resamples on which they are defined.

    NaN ends where that is fewer than half of them. With one teacher all draws are the same: the caller must know.
    """
    rest = draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(draws[0]) or len(rest) < max(1, ENOUGH_DEFINED * (len(draws) - 1)):
        return float(draws[0]), np.nan, np.nan
    low, high = np.quantile(rest, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(draws[0]), float(low), float(high)


def spearman_draws(x: Sequence[float], y: Sequence[float], weights: np.ndarray) -> np.ndarray:
    """Spearman correlation of two columns (cells,) in every resample; `weights` (resamples, cells) -> draws.

    Cells where a column is NaN are left out. NaN for fewer than three cells or a constant column, as in `stats`.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    there = np.isfinite(x) & np.isfinite(y)
    return spearman_many(x[there], y[there], "higher", weights[:, there])


def regret_draws(score: Sequence[float], accuracy: Sequence[float], direction: str, weights: np.ndarray) -> np.ndarray:
    """Regret in points in every resample: best accuracy there less that of the cell ranked first (mean over ties).

    As `ranks.regret`. Cells without a score cannot be selected but can be the best; NaN where no cell with a score
    has weight.
    """
    score, accuracy = np.asarray(score, dtype=float), np.asarray(accuracy, dtype=float)
    there, draws = np.isfinite(score), np.full(len(weights), np.nan)
    some = (weights[:, there] > 0).any(1)
    draws[some] = regret_many(
        np.where(there, score, np.inf if direction == "lower" else -np.inf), accuracy, direction, weights[some]
    )
    return draws


def pick_draws(score: Sequence[float], value: Sequence[float], direction: str, weights: np.ndarray) -> np.ndarray:
    """What `value` (cells,) is in the cell that the score ranks first in every resample (weighted mean over ties)."""
    score = np.asarray(score, dtype=float) * (-1 if direction == "lower" else 1)
    shown = np.where((weights > 0) & np.isfinite(score), score, -np.inf)
    top = shown.max(1, initial=-np.inf)
    w = weights * ((shown == top[:, None]) & np.isfinite(top)[:, None])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (w @ np.asarray(value, dtype=float)) / w.sum(1)


def within(frame, x: str, y: str, labels: np.ndarray) -> np.ndarray:
    """Spearman of two columns over the temperatures of each teacher (teachers,); NaN below three or where constant."""
    found = dict.fromkeys(labels, np.nan)
    for teacher, own in frame.groupby("teacher"):
        pair = own[[x, y]].dropna()
        a, b = (rankdata(pair[c]) - (len(pair) + 1) / 2 for c in (x, y))
        spread = float((a @ a) * (b @ b))
        if len(pair) >= 3 and spread > 0:
            found[teacher] = float(a @ b) / spread**0.5
    return np.array([found[name] for name in labels])


def between(frame, x: str, y: str) -> float:
    """Spearman of the teachers' mean x with their mean y; NaN below three teachers or where constant."""
    means = frame[["teacher", x, y]].dropna().groupby("teacher").mean()
    return float(spearman_draws(means[x], means[y], np.ones((1, len(means))))[0])


def reliability(frame, accuracy: str = "average_at_k", noise: str = "average_se") -> tuple[float, float]:
    """The share of the variance of accuracies that is not noise of the test problems: between teachers, within them.

    Within: over the temperatures of a teacher. A share below zero is given as zero; NaN where nothing varies. The root
    of a reliability is the highest correlation that any score could be expected to reach.
    """
    error = frame.assign(square=frame[noise] ** 2).groupby("teacher")
    inside, count = error[accuracy].var(), error[accuracy].size()
    shares = []
    for spread, lost in (
        (error[accuracy].mean().var(), (error["square"].mean() / count).mean()),
        (inside.mean(), error["square"].mean().mean()),
    ):
        shares.append(max(0.0, 1 - lost / spread) if np.isfinite(spread) and spread > 0 else np.nan)
    return shares[0], shares[1]
