"""How well a score picks teachers: signed rank correlation, regret, and intervals that respect the clusters.

Why not a plain bootstrap over cells: a teacher's eight temperatures are near-copies of one another, so 120
cells hold far fewer than 120 independent facts. Resampling whole teachers keeps that dependence in the
interval. And why signed: the paper prints magnitudes, but a score that ranks backwards is a failure, not a
success, so the stated direction of a score is applied first and positive always means good.

There is one bootstrap. A statistic is a function of *counts*, how often each cell is in each resample, and gives its value
in all resamples at once: statistics that see the same counts are paired, and two dozen figures of 120 cells each take
seconds. A test holds it against resampling one by one.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

from gracelib.checks import check_choice

DIRECTIONS = ("lower", "higher")
#: Up to this many clusters a percentile interval is a fifth or more too narrow even for a mean: for k clusters its
#: half-width is 1.96 sqrt((k - 1) / k) standard errors where Student's t asks for 2.26 (k = 10) or 2.57 (k = 6).
FEW_CLUSTERS = 10
#: With fewer clusters no conclusion is drawn from an interval over them.
FEWEST = 5
N_BOOT, SEED = 1000, 0
ENDS = (0.025, 0.975)  #: of a 95% percentile interval
ENOUGH_DEFINED = 0.5  #: share of resamples on which a statistic must be defined for `percentiles` to tell its interval


class DegenerateError(ValueError):
    """The statistic is undefined on this sample (too few cells, a constant column), as opposed to the input being
    wrong."""


def _pair(score: Sequence[float], accuracy: Sequence[float], direction: str) -> tuple[np.ndarray, np.ndarray]:
    """One finite number of each per cell, or a ValueError that says where not."""
    check_choice("direction", direction, DIRECTIONS)
    score, accuracy = np.asarray(score, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if score.ndim != 1 or score.shape != accuracy.shape:
        raise ValueError(f"score has shape {score.shape}, accuracy {accuracy.shape}: expected one of each per cell")
    for name, column in (("score", score), ("accuracy", accuracy)):
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise ValueError(
                f"{name}[{bad[0]}] = {column[bad[0]]} ({bad.size} such): leave out or repair the cell first"
            )
    return score, accuracy


def spearman(score: Sequence[float], accuracy: Sequence[float], direction: str) -> float:
    """Signed Spearman correlation of a score with accuracy, positive when the score ranks as it should.

    `score`, `accuracy` (cells,), `direction` "lower" or "higher" (which end of the score is better). Ties get
    average ranks. Raises DegenerateError (a ValueError) for fewer than three cells or a constant column: rank
    correlation is then undefined.
    """
    score, accuracy = _pair(score, accuracy, direction)
    if len(score) < 3:
        raise DegenerateError(f"{len(score)} cell(s): at least 3 are needed")
    for name, column in (("score", score), ("accuracy", accuracy)):
        if (column == column[0]).all():
            raise DegenerateError(
                f"{name} is constant ({column[0]:g} in all {len(column)} cells): its rank correlation is undefined"
            )
    return float(spearman_many(score, accuracy, direction, np.ones((1, len(score))))[0])


def regret(score: Sequence[float], accuracy: Sequence[float], direction: str) -> float:
    """Points lost by following the score: 100 x (best accuracy - accuracy of the cell that the score ranks first).

    `accuracy` (cells,) are fractions in [0, 1]; cells that tie for first count by their mean. The paper calls it gap,
    later regret. ValueError for percents.
    """
    score, accuracy = _pair(score, accuracy, direction)
    bad = np.flatnonzero((accuracy < 0) | (accuracy > 1))
    if bad.size:
        raise ValueError(
            f"accuracy[{bad[0]}] = {accuracy[bad[0]]:g}: accuracies are fractions in [0, 1], divide percents by 100"
        )
    return float(regret_many(score, accuracy, direction, np.ones((1, len(score))))[0])


def spearman_known(score: Sequence[float], accuracy: Sequence[float], direction: str) -> tuple[float, str]:
    """`spearman` over the cells where the score is defined, and ""; where it is undefined NaN and the reason."""
    score, accuracy = np.asarray(score, dtype=float), np.asarray(accuracy, dtype=float)
    there = ~np.isnan(score)
    try:
        return spearman(score[there], accuracy[there], direction), ""
    except DegenerateError as error:
        return float("nan"), str(error)


# --- statistics of many resamples at once: counts (resamples, cells) -> (resamples,), NaN where undefined ------------


def spearman_many(score: np.ndarray, accuracy: np.ndarray, direction: str, counts: np.ndarray) -> np.ndarray:
    """Signed Spearman (cells,) in every resample, over the cells where both are defined; NaN below three cells.

    Ranks in a resample are weighted counts of smaller cells: cells are compared once, whatever the number of resamples.
    """
    score, accuracy = np.asarray(score, dtype=float), np.asarray(accuracy, dtype=float)
    there = np.isfinite(score) & np.isfinite(accuracy)
    counts = np.asarray(counts, dtype=float)[:, there]
    size = counts.sum(1, keepdims=True)
    x, y = (_centred_ranks(column[there], counts, size) for column in (score, accuracy))
    with np.errstate(invalid="ignore"):
        rho = (counts * x * y).sum(1) / np.sqrt((counts * x * x).sum(1) * (counts * y * y).sum(1))
    rho[size[:, 0] < 3] = np.nan
    return np.clip(-rho if direction == "lower" else rho, -1.0, 1.0)


def _centred_ranks(column: np.ndarray, counts: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Average ranks of the cells in each resample, minus their mean over the resample; (resamples, cells)."""
    below = (column[:, None] < column) + 0.5 * (column[:, None] == column)  # [j, i]: does cell j push cell i up?
    return counts @ below - size / 2  # (resamples, cells) x (cells, cells); the mean of average ranks - 1/2 is size / 2


def pick_many(score: np.ndarray, value: np.ndarray, direction: str, counts: np.ndarray) -> np.ndarray:
    """`value` (cells,) of the cell that the score ranks first in every resample, ties averaged; NaN without a score."""
    score = np.asarray(score, dtype=float) * (-1 if direction == "lower" else 1)
    score = np.where(np.isnan(score), -np.inf, score)
    top = np.where(counts > 0, score, -np.inf).max(1, keepdims=True)
    first = counts * ((score == top) & np.isfinite(top))
    with np.errstate(invalid="ignore"):
        return (first * np.asarray(value, dtype=float)).sum(1) / first.sum(1)


def regret_many(score: np.ndarray, accuracy: np.ndarray, direction: str, counts: np.ndarray) -> np.ndarray:
    """Points lost in every resample by following the score: 100 x (best accuracy - accuracy of the cell ranked first).

    The paper calls it gap, later regret. When cells tie for first it is the mean over them, what a choice at random among
    them costs on average. A cell without a score cannot be selected but can be the best.
    """
    best = np.where(counts > 0, accuracy, -np.inf).max(1)
    # max(0, .) removes rounding: the mean of equal accuracies can exceed their maximum by one ulp.
    return np.maximum(0.0, 100 * (best - pick_many(score, accuracy, direction, counts)))


def regret_interval(score: np.ndarray, accuracy: np.ndarray, se: np.ndarray, direction: str) -> tuple[float, float]:
    """95% interval, in points, of the regret of the cells ranked first, among *these* cells; NaN, NaN without a score, `se` or a second cell.

    `se` (cells,) is the standard error of each accuracy. Why not over teachers: a regret has a maximum in it, which resampling
    cannot see beyond; intervals from resampled teachers contain the expected regret in 57% to 94% of simulated worlds of 6
    or 15 teachers, and widening them does not help where the score is good. So a regret's interval says how far the noise of
    the accuracies moves it, and nothing about other teachers. It is a comparison with the best (Edwards and Hsu 1983): above,
    the best cell is one of those compared, so 1.96 standard errors do; below, the best was chosen among all others, hence
    Bonferroni.
    """
    up = np.asarray(score, dtype=float) * (-1 if direction == "lower" else 1)
    if np.isnan(up).all() or len(up) < 2 or np.isnan(se).any():
        return float("nan"), float("nan")
    first = up == np.nanmax(up)
    gap = np.asarray(accuracy) - np.asarray(accuracy)[first].mean()
    noise = np.sqrt(np.square(se) + np.square(se)[first].sum() / first.sum() ** 2)
    low, high = gap - norm.ppf(1 - 0.025 / (len(gap) - 1)) * noise, gap + norm.ppf(0.975) * noise
    return 100 * max(0.0, float(low.max())), 100 * float(high.max())


def mean_regret(parts: np.ndarray) -> np.ndarray:
    """(points, low, high) of the mean of independent regrets, from theirs (n, 3): undefined ones are left out.

    The noise above them averages out: a regret is never less than its value at the truly best cell, which is unbiased.
    Below it does not, because a maximum over noisy accuracies is too high on average: the mean of the lower ends.
    """
    known = parts[np.isfinite(parts[:, 0])]
    if not len(known):
        return np.full(3, np.nan)
    points, low, high = known.T
    return np.array([points.mean(), low.mean(), points.mean() + np.sqrt(np.square(high - points).sum()) / len(points)])


def mean_many(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean in every resample of the values (cells,) that are defined."""
    values = np.asarray(values, dtype=float)
    defined = np.isfinite(values)
    n = counts @ defined
    return np.where(n, counts @ np.where(defined, values, 0.0) / np.maximum(n, 1), np.nan)


# --- the bootstrap over teachers ---------------------------------------------------------------------------------


def resamples(teacher: Sequence, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """How often each cell (`teacher` (cells,) labels) is in resamples of whole teachers, with replacement; (n_boot, cells)."""
    labels, code = np.unique(np.asarray(teacher), return_inverse=True)
    picks = rng.integers(len(labels), size=(n_boot, len(labels)))
    return (picks[:, :, None] == np.arange(len(labels))).sum(1)[:, code]


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], teacher: Sequence, n_boot: int | None = None, seed: int = SEED
) -> tuple[float, float]:
    """95% percentile interval of `statistic` over `n_boot` (None: `N_BOOT`) resamples of whole teachers (cells,).

    `statistic` sees how often each cell is drawn, counts (resamples, cells), and gives (resamples,) values; a resample on
    which it is NaN is redrawn. To compare two scores let it return their difference, so that both see the same
    resample. ValueError for one teacher only; DegenerateError when nine in ten resamples are undefined.
    """
    n_boot = N_BOOT if n_boot is None else n_boot
    n_teachers = len(set(np.asarray(teacher).tolist()))
    if n_teachers < 2:
        raise ValueError(f"{n_teachers} teacher(s): resampling teachers cannot show any spread")
    rng, kept, tried = np.random.default_rng(seed), np.zeros(0), 0
    while len(kept) < n_boot:
        values = statistic(resamples(teacher, n_boot - len(kept), rng))
        tried, kept = tried + len(values), np.concatenate([kept, values[np.isfinite(values)]])
        if tried - len(kept) > 9 * n_boot:
            raise DegenerateError(
                f"{tried - len(kept)} of {tried} resamples of {n_teachers} clusters are degenerate: there are too few "
                "distinct clusters for an interval"
            )
    low, high = percentiles(kept)
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's t 95% interval of a mean over independent values (families, worlds), undefined ones left out."""
    known = np.asarray(values, dtype=float)[np.isfinite(values)]
    if len(known) < 2:
        return float("nan"), float("nan")
    half = student_t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return float(known.mean() - half), float(known.mean() + half)


def interval(statistic: Callable[[np.ndarray], np.ndarray], teacher: Sequence) -> tuple[float, float]:
    """`bootstrap`; NaN, NaN for one teacher, or when nearly every resample is undefined."""
    try:
        return bootstrap(statistic, teacher)
    except ValueError:
        return float("nan"), float("nan")


def over_worlds(draws: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean over worlds from each world's draws (worlds, resamples): worlds are drawn with replacement, and
    teachers within them, the same ones in every world (`draws` of the same seed and the same cast).

    The between-world part is too narrow with three worlds; where worlds differ little beside teachers, as in `lab`, it is small.
    """
    drawn = np.random.default_rng(SEED).integers(len(draws), size=draws.shape)
    low, high = percentiles(np.take_along_axis(draws, drawn, 0).mean(0))
    return float(low), float(high)


def percentiles(draws: np.ndarray) -> np.ndarray:
    """2.5% and 97.5% down the columns of draws (resamples, ...), undefined ones left out: (2, ...).

    NaN where fewer than half of the draws are defined.
    """
    found = np.full((2, *draws.shape[1:]), np.nan)
    good = np.isfinite(draws).mean(0) >= ENOUGH_DEFINED
    if good.any():
        found[:, good] = np.nanquantile(draws[:, good], ENDS, axis=0)
    return found
