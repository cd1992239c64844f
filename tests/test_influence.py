"""The jackknife leaves a prompt out of its own fold and of every other fold's matrix, exactly as scoring without it
would, and intervals made from it hold the expected score about as often as they say: with the matrices held fixed
they do not, which is why it exists.
"""

import numpy as np
import pytest

from gracelib.intervals import grace_difference, grace_influence, grace_interval, grace_without
from gracelib.moments import assign_folds
from gracelib.scores import grace


def made(seed=0, n=12, d=6):
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 4, n)
    return rng.standard_normal((count.sum(), d)) * np.linspace(3, 0.2, d), np.repeat(np.arange(n), count)


@pytest.mark.parametrize("one_token", [False, True])
def test_leaving_out_equals_scoring_without_the_prompt(one_token):
    h, ids = made()
    if one_token:
        h[[0, 5]] = 0.0
        h[ids == 3] = 0.0  # a prompt that is in no matrix
    fold, nu, d = assign_folds(12, 4, 0), 1e-2, h.shape[1]
    expected = []
    for p in range(12):
        kept, total = ids != p, 0.0
        for i in range(4):
            rows = h[kept & (fold[ids] != i)]
            unit = rows[rows.any(axis=1)]
            unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
            inverse = np.linalg.inv(unit.T @ unit / len(unit) + nu / d * np.eye(d))
            x = h[kept & (fold[ids] == i)]
            total += np.einsum("rd,de,re->", x, inverse, x)
        expected.append(total / kept.sum())
    np.testing.assert_allclose(grace_without(h, ids, 4, nu, zero_rows="keep"), expected, rtol=1e-10)


def test_influences_sum_to_zero_and_do_not_depend_on_row_order():
    h, ids = made(1)
    moved = grace_influence(h, ids, 4)
    assert abs(moved.sum()) < 1e-9 * np.abs(moved).sum()
    mixed = np.random.default_rng(2).permutation(len(h))
    np.testing.assert_allclose(grace_influence(h[mixed], ids[mixed], 4), moved, rtol=1e-9)
    np.testing.assert_allclose(grace_influence(3 * h, ids, 4), 9 * moved, rtol=1e-8)


def test_the_interval_holds_the_point_and_differences_are_paired():
    h, ids = made(3, n=60)
    result, moved = grace(h, ids), grace_influence(h, ids)
    full = grace_interval(result, influence=moved)
    assert full.low < full.value == result.total < full.high
    other = grace(1.05 * h, ids)
    pair = grace_difference(other, result, influence=(1.05**2 * moved, moved))
    assert pair.difference.value == pytest.approx(0.1025 * result.total)
    assert pair.difference.low > 0  # scaled copies: overlapping intervals, and a difference that is certain
    assert full.high > grace_interval(other, influence=1.05**2 * moved).low


def test_coverage_with_and_without_the_matrices_error():
    """Of 80 data sets of one design, how many 95% intervals hold the expected score; the mean standard error against the
    score's real spread. Matrices held fixed promise too much, which is why the jackknife exists.
    """
    ids, totals, held = np.repeat(np.arange(64), 4), [], {"fixed": [], "full": []}
    for number in range(80):
        rng = np.random.default_rng([0, number])
        alike = np.repeat(rng.standard_normal((64, 16)), 4, axis=0)  # what the responses to one prompt share
        h = (np.sqrt(0.3) * alike + np.sqrt(0.7) * rng.standard_normal((256, 16))) / np.arange(1.0, 17)
        result, moved = grace(h, ids, 10, 1e-3), grace_influence(h, ids, 10, 1e-3)
        fixed = result.count * (result.per_prompt - result.total) / result.count.sum()
        totals.append(result.total)
        for kind, shift, influence in (("fixed", fixed, None), ("full", moved, moved)):
            interval = grace_interval(result, 200, number, influence=influence)
            held[kind].append((interval.low, interval.high, np.sqrt(np.sum(shift**2))))
    low, high, error = np.transpose([held["fixed"], held["full"]], (2, 0, 1))
    covered = ((low <= np.mean(totals)) & (np.mean(totals) <= high)).mean(1)
    spread = error.mean(1) / np.std(totals, ddof=1)
    assert covered[0] < 0.8 < 0.86 <= covered[1]
    assert spread[0] < 0.7 < 0.8 < spread[1] < 1.3


def test_bad_input_is_refused():
    h, ids = made()
    with pytest.raises(ValueError, match="nu = 0: leaving a prompt out"):
        grace_without(h, ids, 4, nu=0)
    with pytest.raises(ValueError, match="NaN or Inf"):
        grace_without(np.where(np.arange(len(h))[:, None] == 2, np.nan, h), ids, 4)
    with pytest.raises(ValueError, match=r"zero row\(s\), first at row 0"):
        grace_without(np.where(np.arange(len(h))[:, None] == 0, 0, h), ids, 4)
    with pytest.raises(ValueError, match="only one prompt"):
        grace_without(h[:2], [0, 0])
    with pytest.raises(ValueError, match="leaving out one more prompt leaves no row"):
        grace_without(h[:2], [0, 1], 2)
    result = grace(h, ids, 4)
    with pytest.raises(ValueError, match=r"influence has shape \(3,\), but there are 12 prompts"):
        grace_interval(result, influence=np.zeros(3))
    fewer = grace(h[ids > 0], ids[ids > 0], 4)
    with pytest.raises(ValueError, match="must have the same prompts"):
        grace_difference(result, fewer, influence=(np.zeros(12), np.zeros(11)))
