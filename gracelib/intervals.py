"""Intervals for GRACE: what the prompts can say about a score, and how much each of them moves it.

Why not resample prompts and score again: a prompt drawn twice would sit on both sides of a fold, where its
copy makes its own gradient look well supported, and only 63% of the prompts would be left to estimate the
matrices. Every resampled score is shifted, down or up by which of the two wins, and the point can lie outside
its own interval. GRACE is a mean over prompts of h^T Sigma-hat(D_-i)^-1 h given the matrices, so resampling
those contributions is cheap and keeps the point inside. What it leaves out is the error of the matrices
themselves, which all resamples share: where d is comparable to n m that is most of the error, and nominal 95%
intervals then hold the expected score in about half of the data sets. `grace_influence` puts that error back.

It is a jackknife: leave prompt p out everywhere, from its own fold and from every other fold's matrix, and score
again. With A_i the smoothed matrix of all but fold i, leaving out the m_p unit rows U_p changes it by a matrix of
rank m_p, so that Woodbury's identity gives all n leave-one-out scores for about the price of one more pass over
the folds:

    sum_{D_i} h^T S^-1 h = (1/a) [Tr(A^-1 H_i) + Tr((N_-i I - U A^-1 U^T)^-1 U A^-1 H_i A^-1 U^T)],
    S = a (A - U^T U / N_-i),  a = N_-i / (N_-i - m_p),  H_i = sum_{D_i} h h^T.

Source: Tukey's jackknife (Efron 1982, chapter 3), whose variance errs on the large side on average.

Two teachers are compared on their common prompts with the same resample for both: a hard prompt raises both
scores, and pairing removes that shared part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import solve_triangular
from scipy.stats import rankdata

from gracelib.checks import check_nu, check_prompt_ids, check_prompted_rows
from gracelib.moments import assign_folds, canonical_order, factor, moment_rows
from gracelib.scores import Grace
from gracelib.since import Ratio

CHUNK = 256  #: resamples at a time: (256, n) weights stay small however many prompts there are
N_BOOT = 2000  #: resamples, unless told otherwise
ENDS = (1 - 0.95) / 2, (1 + 0.95) / 2  # to the last digit, as in the committed tables


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95% percentile interval."""

    value: float  #: the statistic on the data as given
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """GRACE of a minus GRACE of b on their common prompts; below zero means that a is preferred."""

    difference: Interval
    p_a_lower: float  #: share of resamples in which a has the lower (better) score, ties counted half
    n_common: int
    n_left_out: int  #: prompts that only one of the two has


def grace_interval(result: Grace, n_boot: int = N_BOOT, seed: int = 0, influence: np.ndarray | None = None) -> Interval:
    """95% percentile interval of `result.total` over resamples of prompts.

    With `influence` None the fold matrices are held fixed. With `grace_influence` (n,) of the same call,
    total + sum (w_p - 1) influence_p is resampled instead, which includes their error to first order.

    Prompts weigh as many responses as they have, as in the pooled total. Intervals of GRACE-Variance: pass a
    result of `grace(..., centre="global")`, whose contributions are the centred ones.
    """
    weight = result.count.astype(np.float64)
    if influence is not None:
        moved = _resampled_shifts(np.stack([_checked(influence, result)]), n_boot, seed)[0]
        return _interval(result.total, result.total + moved)
    draws = _resampled_means(np.stack([result.per_prompt]), np.stack([weight]), n_boot, seed)[0]
    return _interval(result.total, draws)


def grace_difference(
    a: Grace, b: Grace, n_boot: int = N_BOOT, seed: int = 0, influence: tuple[np.ndarray, np.ndarray] | None = None
) -> PairedDifference:
    """Interval of GRACE(a) - GRACE(b), each resample drawing the same common prompts for both teachers.

    The value is the difference of the totals over the common prompts (each teacher's matrices as fitted on
    all of its own prompts). At least two common prompts are needed. `influence` (of a, of b) includes the error of
    the matrices, as in `grace_interval`; both teachers must then have the same prompts.
    """
    common, at_a, at_b = np.intersect1d(a.prompt_ids, b.prompt_ids, return_indices=True)
    if len(common) < 2:
        raise ValueError(f"{len(common)} common prompt(s): a comparison needs at least 2 prompts that both answered")
    values = np.stack([a.per_prompt[at_a], b.per_prompt[at_b]])  # (2, n)
    weights = np.stack([a.count[at_a], b.count[at_b]]).astype(np.float64)
    draws = _resampled_means(values, weights, n_boot, seed)  # (2, n_boot)
    difference = draws[0] - draws[1]
    if influence is not None:
        if len(common) < max(len(a.prompt_ids), len(b.prompt_ids)):
            raise ValueError(
                "with influence both teachers must have the same prompts: score both on their common prompts first"
            )
        shift = _checked(influence[0], a) - _checked(influence[1], b)
        difference = a.total - b.total + _resampled_shifts(np.stack([shift]), n_boot, seed)[0]
    point = np.average(values[0], weights=weights[0]) - np.average(values[1], weights=weights[1])
    p_lower = float((difference < 0).mean() + 0.5 * (difference == 0).mean())
    left_out = len(a.prompt_ids) + len(b.prompt_ids) - 2 * len(common)
    return PairedDifference(_interval(point, difference), p_lower, len(common), left_out)


def ratio_draws(ratio: Ratio, prompt_id, n_boot: int = N_BOOT, seed: int = 0) -> np.ndarray:
    """A ratio (n_boot,) over resamples of prompts, the same ones as `grace_interval`'s; NaN where nothing is below."""
    _, code = check_prompt_ids(prompt_id, len(ratio.above))
    above, below = (np.bincount(code, weights=part) for part in (ratio.above, ratio.below))  # (n,)
    times = np.concatenate([*_resamples(len(above), n_boot, seed)])  # (n_boot, n)
    drawn = times @ below
    return np.divide(times @ above, drawn, out=np.full(n_boot, np.nan), where=drawn > 0)


def influence_draws(value: float, influence: np.ndarray, n_boot: int = N_BOOT, seed: int = 0) -> np.ndarray:
    """Any smooth score (n_boot,) over the same resamples, to first order: value + sum (w_p - 1) influence_p, influence (n,) of
    the prompts. For what is no ratio of sums: a prompt drawn twice would pass for two that are alike, and lower an entropy."""
    return value + _resampled_shifts(influence[None], n_boot, seed)[0]


def agreement_interval(
    draws: np.ndarray, scored: Sequence[tuple[Grace, np.ndarray]], direction: str
) -> tuple[float, float]:
    """95% interval of the rank correlation over teachers of a score with GRACE, both resampled on the same prompts.

    draws: the score (teachers, n_boot) by `ratio_draws` or `influence_draws`, of responses to the same prompts; scored: GRACE
    and its influence; direction: the score's better end (GRACE's is lower). NaN, NaN where no resample defines it."""
    total = np.array([[result.total] for result, _ in scored])
    grace = total + _resampled_shifts(np.stack([moved for _, moved in scored]), draws.shape[1], 0)
    x, y = (rankdata(column, axis=0) - (len(total) + 1) / 2 for column in (draws, grace))
    with np.errstate(invalid="ignore"):
        rho = (x * y).sum(0) / np.sqrt((x * x).sum(0) * (y * y).sum(0)) * (1 if direction == "lower" else -1)
    return percentiles(rho)


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """Ends of the 95% percentile interval of the draws that are finite; NaN, NaN where none is."""
    finite = draws[np.isfinite(draws)]
    return tuple(np.quantile(finite, ENDS)) if finite.size else (np.nan, np.nan)


#: Keys of `ranked_differences`.
DIFFERENCES = ("rank", "better", "worse", "ratio", "difference", "low", "high", "p_better", "apart")


def ranked_differences(
    ranked: Sequence[str], scored: Mapping[str, tuple[Grace, np.ndarray]], against_first: bool = False
) -> list[dict]:
    """GRACE(worse) - GRACE(better) of teachers next to each other in a ranking, or of each with the first, paired.

    `ranked` names the teachers, best first; `scored` has GRACE and its `grace_influence` of each. Keys (`DIFFERENCES`):
    rank (of the better), better, worse, ratio (worse / better), difference with its 95% interval low and high, p_better
    (share of resamples that keep the order), apart (the interval excludes zero). Empty with one teacher.
    """
    pairs = [(ranked[0], other) for other in ranked[1:]] if against_first else pairwise(ranked)
    rows = []
    for better, worse in pairs:
        (best, moved), (other, other_moved) = scored[better], scored[worse]
        pair = grace_difference(other, best, influence=(other_moved, moved))
        found, ratio = pair.difference, other.total / best.total
        values = (found.value, found.low, found.high, 1 - pair.p_a_lower, bool(found.low > 0))
        rows.append(dict(zip(DIFFERENCES, (ranked.index(better) + 1, better, worse, ratio, *values), strict=True)))
    return rows


def _resampled_means(values: np.ndarray, weights: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """Weighted means (teachers, n_boot) of values (teachers, n), every teacher under the same resamples of
    prompts."""
    means = []
    for times in _resamples(values.shape[1], n_boot, seed):
        means.append((weights * values) @ times.T / (weights @ times.T))  # (t, n) @ (n, b)
    return np.concatenate(means, axis=1)


def _resampled_shifts(influence: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """sum_p (w_p - 1) influence_p (teachers, n_boot), under the same resamples as `_resampled_means`."""
    chunks = _resamples(influence.shape[1], n_boot, seed)
    return np.concatenate([influence @ (times - 1.0).T for times in chunks], axis=1)  # (t, n) @ (n, b)


def _resamples(n: int, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of n prompts is drawn (b, n), in chunks of resamples."""
    if isinstance(n_boot, bool) or not isinstance(n_boot, (int, np.integer)) or n_boot < 1:
        raise ValueError(f"n_boot = {n_boot!r}: expected a whole number >= 1")
    rng = np.random.default_rng(seed)
    for start in range(0, n_boot, CHUNK):
        yield rng.multinomial(n, np.full(n, 1 / n), size=min(CHUNK, n_boot - start))


def _checked(influence: np.ndarray, result: Grace) -> np.ndarray:
    influence = np.asarray(influence, dtype=np.float64)
    if influence.shape != result.per_prompt.shape:
        raise ValueError(
            f"influence has shape {influence.shape}, but there are {len(result.per_prompt)} prompts: it must come "
            "from the same call as the score"
        )
    return influence


def _interval(value: float, draws: np.ndarray) -> Interval:
    return Interval(float(value), *map(float, percentiles(draws)))


def grace_without(
    h: np.ndarray, prompt_id, n_folds: int = 10, nu: float = 1e-3, seed: int = 0, *, zero_rows: str = "refuse"
) -> np.ndarray:
    """GRACE with one prompt left out, for every prompt: (n,) in the order of the sorted ids; folds stay as they are.

    The arguments are `grace`'s (normalised preconditioner, not centred). ValueError as `grace` raises them, for
    nu = 0, and where leaving a prompt out would leave a fold's matrix without any row.
    """
    h, prompt_ids, code, zero = check_prompted_rows(h, prompt_id, zero_rows)
    nu = check_nu(nu, "leaving a prompt out can make Sigma-tilde singular, use nu > 0")
    fold_of = assign_folds(len(prompt_ids), n_folds, seed)  # (n,)
    order = canonical_order(h, code)
    h, code, zero = h[order], code[order], zero[order]
    n, d, row_fold = len(prompt_ids), h.shape[1], fold_of[code]
    unit, owner = moment_rows(h, zero, "normalised"), code[~zero]  # (k, d), (k,) prompt of each
    directed = np.bincount(owner, minlength=n)  # (n,) rows with a direction
    groups = {}  # m -> prompts (p,) with m rows of a direction, and the positions (p, m) of their rows
    for m in set(directed.tolist()):
        prompts = np.flatnonzero(directed == m)
        groups[m] = prompts, np.searchsorted(owner, prompts)[:, None] + np.arange(m)  # owner is sorted
    gram = unit.T @ unit  # (d, k) @ (k, d)
    count, sums = np.bincount(code, minlength=n), np.zeros(n)
    for i in range(int(n_folds)):
        own = unit[fold_of[owner] == i]
        left = len(unit) - len(own)  # N_-i
        h_i = h[row_fold == i].T  # (d, |D_i|)
        for m, (prompts, rows) in groups.items():
            if left <= m:
                raise ValueError(f"fold {i}: leaving out one more prompt leaves no row with a direction outside it")
            scale = (left - m) / left  # 1/a
            for out, ridge in ((fold_of[prompts] != i, nu * scale), (fold_of[prompts] == i, nu)):
                if not out.any():
                    continue
                chol, _ = factor((gram - own.T @ own) / left, ridge, "normalised", f"fold {i}")
                z = solve_triangular(chol, h_i, lower=True, check_finite=False)  # (d, |D_i|)
                quad = np.einsum("dr,dr->r", z, z)  # (|D_i|,)
                if ridge == nu:  # its own fold: the matrix stays, its responses go
                    per_prompt = np.bincount(code[row_fold == i], weights=quad, minlength=n)
                    sums[prompts[out]] += quad.sum() - per_prompt[prompts[out]]
                    continue
                sums[prompts[out]] += scale * quad.sum()
                if m == 0:
                    continue  # a prompt of one-token responses is in no matrix
                v = solve_triangular(chol, unit[rows[out]].reshape(-1, d).T, lower=True, check_finite=False)
                hv = ((z @ z.T) @ v).T.reshape(-1, m, d)  # (d, d) @ (d, p m), then a block a prompt
                v = v.T.reshape(-1, m, d)  # (p, m, d) rows L^-1 u
                across = hv @ v.transpose(0, 2, 1)  # (p, m, d) @ (p, d, m)
                inner = left * np.eye(m) - v @ v.transpose(0, 2, 1)
                change = np.linalg.solve(inner, across)
                sums[prompts[out]] += scale * np.trace(change, axis1=1, axis2=2)
    return sums / (len(h) - count)


def grace_influence(
    h: np.ndarray, prompt_id, n_folds: int = 10, nu: float = 1e-3, seed: int = 0, *, zero_rows: str = "refuse"
) -> np.ndarray:
    """Jackknife influence of each prompt on GRACE, (n,): sums to zero; the sum of squares estimates its variance.

    (n - 1)/n (mean leave-one-out score - the score without p), rescaled by sqrt(n/(n - 1)) so that the sum of squares
    is the jackknife variance. Arguments as `grace_without`. Pass it to `grace_interval`.
    """
    without = grace_without(h, prompt_id, n_folds, nu, seed, zero_rows=zero_rows)
    n = len(without)
    return np.sqrt((n - 1) / n) * (without.mean() - without)
