"""Invariants of the reading floor: correlation is signed so that good is positive, regret is in points and
never negative, and an interval resamples whole teachers and says what it could not use. A figure that flips a
sign or counts eight temperatures as eight facts would look better than it is: that is what these tests are
against.
"""

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gracelib.evidence.ranks import DegenerateError, cluster_bootstrap, regret, spearman

numbers = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 8)), min_size=3, max_size=20)


@settings(deadline=None, max_examples=60)
@given(numbers)
def test_spearman_agrees_with_scipy_and_flips_with_the_direction(cells):
    score, accuracy = np.array(cells, dtype=float).T
    if len(set(score)) == 1 or len(set(accuracy)) == 1:
        with pytest.raises(DegenerateError, match="is constant"):
            spearman(score, accuracy, "higher")
        return
    expected = scipy.stats.spearmanr(score, accuracy).statistic  # integers: many ties
    assert spearman(score, accuracy, "higher") == pytest.approx(expected, abs=1e-12)
    assert spearman(score, accuracy, "lower") == -spearman(score, accuracy, "higher")


def test_good_is_positive():
    """A loss that falls as accuracy rises ranks perfectly: +1 when lower is declared better, -1 when higher
    is."""
    assert spearman([3.0, 2.0, 1.0], [0.1, 0.2, 0.3], "lower") == 1.0
    assert spearman([3.0, 2.0, 1.0], [0.1, 0.2, 0.3], "higher") == -1.0


@pytest.mark.parametrize("which", ["score", "accuracy"])
def test_constant_columns_are_named(which):
    columns = {"score": [1.0, 2.0, 3.0], "accuracy": [0.1, 0.2, 0.4], which: [0.5, 0.5, 0.5]}
    with pytest.raises(ValueError, match=rf"{which} is constant \(0.5 in all 3 cells\)"):
        spearman(columns["score"], columns["accuracy"], "lower")


@pytest.mark.parametrize(
    "score, accuracy, direction, message",
    [
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], "down", "direction = 'down': choose one of lower, higher"),
        ([1.0, 2.0], [0.1, 0.2, 0.3], "lower", r"score has shape \(2,\), accuracy \(3,\)"),
        ([1.0, 2.0], [0.1, 0.2], "lower", r"2 cell\(s\): at least 3"),
        ([1.0, np.nan, 3.0], [0.1, 0.2, 0.3], "lower", r"score\[1\] = nan \(1 such\)"),
        ([1.0, 2.0, 3.0], [0.1, 0.2, np.inf], "lower", r"accuracy\[2\] = inf"),
    ],
)
def test_spearman_refuses_bad_input(score, accuracy, direction, message):
    with pytest.raises(ValueError, match=message):
        spearman(score, accuracy, direction)


def test_regret_in_points():
    """Lowest score is cell 2 with 0.30; the best cell has 0.45: 15 points lost. Higher is better picks cell
    0: 25."""
    result = regret([9.0, 5.0, 1.0], [0.20, 0.45, 0.30], "lower")
    assert result.points == pytest.approx(15.0) and result.selected == (2,) and result.best == 1
    assert regret([9.0, 5.0, 1.0], [0.20, 0.45, 0.30], "higher").points == pytest.approx(25.0)


def test_regret_of_a_tie_is_the_mean_over_the_tied_cells():
    result = regret([1.0, 1.0, 2.0], [0.5, 0.3, 0.1], "lower")
    assert result.selected == (0, 1) and result.points == pytest.approx(10.0)


@settings(deadline=None, max_examples=60)
@given(numbers)
def test_regret_is_never_negative_and_zero_for_the_oracle(cells):
    score, accuracy = np.array(cells, dtype=float).T
    accuracy = accuracy / 8
    assert regret(score, accuracy, "lower").points >= 0
    assert regret(accuracy, accuracy, "higher").points == pytest.approx(0.0, abs=1e-12)


def test_regret_refuses_percents():
    with pytest.raises(ValueError, match=r"accuracy\[1\] = 45: accuracies are fractions in \[0, 1\]"):
        regret([1.0, 2.0], [0.2, 45.0], "lower")


def mean(x):
    return x.mean()


def test_bootstrap_resamples_clusters_not_cells():
    """Cells that are copies within a cluster carry no information: the interval must not shrink with the
    copies."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(12)
    few = cluster_bootstrap([x], np.arange(12), mean)
    many = cluster_bootstrap([np.repeat(x, 8)], np.repeat(np.arange(12), 8), mean)
    assert (many.low, many.high) == pytest.approx((few.low, few.high))
    as_if_independent = cluster_bootstrap([np.repeat(x, 8)], np.arange(96), mean)
    assert as_if_independent.high - as_if_independent.low < 0.6 * (many.high - many.low)


def test_bootstrap_covers_the_truth():
    """95% intervals of a mean over 20 clusters contain the truth in 85-100% of 100 synthetic data sets."""
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = np.repeat(rng.standard_normal(20), 4) + 0.1 * rng.standard_normal(80)
        interval = cluster_bootstrap([x], np.repeat(np.arange(20), 4), mean, n_boot=200, seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert 85 <= hits <= 100


def test_bootstrap_takes_columns_by_name_and_is_reproducible():
    cells = {"score": np.arange(24.0), "accuracy": np.arange(24.0)[::-1] / 24}
    teacher = np.repeat(list("abcdefghijkl"), 2)

    def rho(score, accuracy):
        return spearman(score, accuracy, "lower")

    first = cluster_bootstrap(cells, teacher, rho, n_boot=50, seed=3)
    assert first == cluster_bootstrap(cells, teacher, rho, n_boot=50, seed=3)
    assert (first.value, first.low, first.high) == pytest.approx((1.0, 1.0, 1.0))
    assert first.n_clusters == 12 and first.n_boot == 50


def test_degenerate_resamples_are_redrawn_and_counted():
    """With 3 clusters of one constant cell each, 1 in 9 resamples draws one cluster thrice: undefined, so
    redrawn."""
    columns = [np.repeat([1.0, 2.0, 3.0], 2), np.repeat([0.1, 0.3, 0.2], 2)]

    def rho(score, accuracy):
        return spearman(score, accuracy, "higher")

    with pytest.warns(UserWarning, match="only 3 clusters"):
        result = cluster_bootstrap(columns, np.repeat([0, 1, 2], 2), rho, n_boot=400)
    assert np.isfinite([result.value, result.low, result.high]).all()
    assert 0.06 < result.n_degenerate / (400 + result.n_degenerate) < 0.17


@pytest.mark.parametrize("clusters, warned", [(6, True), (10, True), (11, False)])
def test_few_clusters_are_warned_of(clusters, warned):
    """At six, a percentile interval even of a mean is a quarter too narrow: it must not pass for an exact one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cluster_bootstrap([np.arange(float(clusters))], np.arange(clusters), mean, n_boot=20)
    assert bool(caught) is warned


@pytest.mark.filterwarnings("ignore:only")
def test_a_resample_with_too_few_cells_is_redrawn():
    """Cluster 0 has one cell: a resample of it alone has two, of which no correlation is known."""
    columns = [np.array([0.3, 0.2, 0.1]), np.array([0.5, 0.1, 0.2])]
    result = cluster_bootstrap(columns, [0, 1, 1], lambda a, b: spearman(a, b, "lower"), n_boot=200)
    assert np.isfinite([result.low, result.high]).all() and 40 < result.n_degenerate < 100  # a third of those kept
    with pytest.raises(DegenerateError, match=r"2 cell\(s\): at least 3"):
        spearman([1.0, 2.0], [0.1, 0.2], "lower")


@pytest.mark.filterwarnings("ignore:only")
def test_bootstrap_gives_up_with_a_reason_when_almost_nothing_is_defined():
    def needs_all_clusters(x):  # a resample of 8 draws all 8 with probability 8!/8^8 = 0.0024
        return mean(x) if len(set(x)) == 8 else np.nan

    with pytest.raises(DegenerateError, match="are degenerate: there are too few distinct clusters"):
        cluster_bootstrap([np.arange(8.0)], np.arange(8), needs_all_clusters, n_boot=20)
    with pytest.raises(DegenerateError, match="the statistic is nan on the data itself"):
        cluster_bootstrap([np.arange(5.0)], np.arange(5), lambda x: np.nan, n_boot=20)


@pytest.mark.parametrize(
    "columns, cluster, kwargs, message",
    [
        ([np.arange(3.0)], [0, 0, 0], {}, "only one cluster"),
        ([np.arange(4.0)], [0, 1, 2], {}, r"column 0 has shape \(4,\), but there are 3 cluster labels"),
        ({"x": np.arange(4.0)}, [0, 1, 2], {}, r"column 'x' has shape"),
        ([np.arange(3.0)], np.zeros((3, 1)), {}, "one label per cell"),
        ([np.arange(3.0)], [0, 1, 2], {"n_boot": 0}, "n_boot = 0"),
        ([np.arange(3.0)], [0, 1, 2], {"level": 95}, "level = 95: expected a number between 0 and 1"),
    ],
)
def test_bootstrap_refuses_bad_input(columns, cluster, kwargs, message):
    with pytest.raises(ValueError, match=message):
        cluster_bootstrap(columns, cluster, mean, **kwargs)
