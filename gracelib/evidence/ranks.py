"""How well a score picks teachers: signed rank correlation, regret, and intervals that respect the clusters.

Why not a plain bootstrap over cells: a teacher's eight temperatures are near-copies of one another, so 120
cells hold far fewer than 120 independent facts. Resampling whole teachers keeps that dependence in the
interval. And why signed: the paper prints magnitudes, but a score that ranks backwards is a failure, not a
success, so the stated direction of a score is applied first and positive always means good.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from gracelib.intervals import Interval

DIRECTIONS = ("lower", "higher")
#: Up to this many clusters a percentile interval is a fifth or more too narrow even for a mean: for k clusters its
#: half-width is 1.96 sqrt((k - 1) / k) standard errors where Student's t asks for 2.26 (k = 10) or 2.57 (k = 6).
FEW_CLUSTERS = 10
#: With fewer clusters no conclusion is drawn from an interval over them.
FEWEST = 5


class DegenerateError(ValueError):
    """The statistic is undefined on this sample (too few cells, a constant column), as opposed to the input being
    wrong."""


@dataclass(frozen=True)
class Regret:
    """Regret in points, and which cell(s) the score ranks first (several when tied)."""

    points: float  #: 100 (best accuracy - accuracy of the selected cell); mean over tied cells
    selected: tuple[int, ...]  #: indices of the cells the score ranks first
    best: int  #: index of the (first) cell with the best accuracy


def spearman(score: Sequence[float], accuracy: Sequence[float], direction: str) -> float:
    """Signed Spearman correlation of a score with accuracy, positive when the score ranks as it should.

    `score`, `accuracy` (cells,), `direction` "lower" or "higher" (which end of the score is better). Ties get
    average ranks. Raises DegenerateError (a ValueError) for fewer than three cells or a constant column: rank
    correlation is then undefined.
    """
    score, accuracy = _pair(score, accuracy, direction, at_least=3)
    ranks = []
    for name, column in (("score", score), ("accuracy", accuracy)):
        if (column == column[0]).all():
            raise DegenerateError(
                f"{name} is constant ({column[0]:g} in all {len(column)} cells): its rank correlation is undefined"
            )
        rank = rankdata(column)
        ranks.append(rank - rank.mean())
    a, b = ranks
    rho = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(-rho if direction == "lower" else rho, -1.0, 1.0))


def regret(score: Sequence[float], accuracy: Sequence[float], direction: str) -> Regret:
    """Points lost by following the score: 100 x (best accuracy - accuracy of the cell the score ranks first).

    `accuracy` (cells,) are fractions in [0, 1]. When several cells tie for first, the regret is the mean over
    them (what a choice at random among them costs on average) and `selected` lists them all. The paper calls
    it gap, later regret.
    """
    score, accuracy = _pair(score, accuracy, direction, at_least=1)
    bad = np.flatnonzero((accuracy < 0) | (accuracy > 1))
    if bad.size:
        raise ValueError(
            f"accuracy[{bad[0]}] = {accuracy[bad[0]]:g}: accuracies are fractions in [0, 1], divide percents by 100"
        )
    first = score.min() if direction == "lower" else score.max()
    selected = np.flatnonzero(score == first)
    points = 100 * (accuracy.max() - accuracy[selected].mean())
    # max(0, .) removes rounding: the mean of equal accuracies can exceed their maximum by one ulp.
    return Regret(max(0.0, float(points)), tuple(int(i) for i in selected), int(accuracy.argmax()))


def cluster_bootstrap(
    columns: Mapping[str, Sequence] | Sequence[Sequence],
    cluster: Sequence,
    statistic: Callable[..., float],
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of `statistic` over resamples of whole clusters (teachers), drawn with replacement.

    Parameters: `columns`, a sequence of equally long arrays (passed to `statistic` by position) or a mapping
    of names to arrays, such as a data frame's columns (passed by keyword); `cluster` (cells,) labels;
    `statistic` -> float. A resample on which the statistic is undefined (DegenerateError or a non-finite
    value) is redrawn and counted in `n_degenerate`; if more than 10 n_boot draws are needed, a DegenerateError
    says so. Warns when there are few clusters: the interval is then too narrow. Comparing two
    scores: let the statistic return their difference, so both see the same resample.
    """
    named = hasattr(columns, "keys")
    names = list(columns.keys()) if named else list(range(len(columns)))
    arrays = [np.asarray(columns[name] if named else columns[i]) for i, name in enumerate(names)]
    cluster = np.asarray(cluster)
    if cluster.ndim != 1 or len(cluster) == 0:
        raise ValueError(f"cluster has shape {cluster.shape}: expected one label per cell")
    for name, array in zip(names, arrays, strict=True):
        if array.shape[:1] != cluster.shape:
            raise ValueError(f"column {name!r} has shape {array.shape}, but there are {len(cluster)} cluster labels")
    if isinstance(n_boot, bool) or not isinstance(n_boot, (int, np.integer)) or n_boot < 1:
        raise ValueError(f"n_boot = {n_boot!r}: expected a whole number >= 1")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: expected a number between 0 and 1")
    labels, code = np.unique(cluster, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"only one cluster ({labels[0]}): resampling clusters cannot show any spread")
    if len(labels) <= FEW_CLUSTERS:
        warnings.warn(
            f"only {len(labels)} clusters: the interval is too narrow, read it as a rough range", stacklevel=2
        )

    def evaluate(rows: np.ndarray) -> float:
        picked = [array[rows] for array in arrays]
        return float(statistic(**dict(zip(names, picked, strict=True))) if named else statistic(*picked))

    value = evaluate(np.arange(len(cluster)))
    if not np.isfinite(value):
        raise DegenerateError(f"the statistic is {value} on the data itself: there is nothing to resample")
    members = [np.flatnonzero(code == i) for i in range(len(labels))]
    rng = np.random.default_rng(seed)
    draws: list[float] = []
    n_degenerate = 0
    while len(draws) < n_boot:
        rows = np.concatenate([members[i] for i in rng.integers(len(labels), size=len(labels))])
        try:
            draw = evaluate(rows)
        except DegenerateError:
            draw = np.nan  # counted below, like a statistic that returns NaN itself
        if np.isfinite(draw):
            draws.append(draw)
        else:
            n_degenerate += 1
            if n_degenerate > 9 * n_boot:
                raise DegenerateError(
                    f"{n_degenerate} of {n_degenerate + len(draws)} resamples of {len(labels)} clusters "
                    "are degenerate: there are too few distinct clusters for an interval"
                )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, len(labels), int(n_boot), n_degenerate)


def _pair(score, accuracy, direction: str, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both columns as float64 vectors of one length without NaN or Inf, and a known direction."""
    if direction not in DIRECTIONS:
        raise ValueError(f"direction = {direction!r}: choose one of {', '.join(DIRECTIONS)}")
    score, accuracy = np.asarray(score, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if score.ndim != 1 or score.shape != accuracy.shape:
        raise ValueError(f"score has shape {score.shape}, accuracy {accuracy.shape}: expected one of each per cell")
    if len(score) < at_least:
        raise DegenerateError(f"{len(score)} cell(s): at least {at_least} are needed")
    for name, column in (("score", score), ("accuracy", accuracy)):
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise ValueError(
                f"{name}[{bad[0]}] = {column[bad[0]]} ({bad.size} such): leave out or repair the cell first"
            )
    return score, accuracy
