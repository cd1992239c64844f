"""Invariants of the reading floor: correlation is signed so that good is positive, regret is in points and
never negative, and an interval resamples whole teachers and says what it could not use. A figure that flips a
sign or counts eight temperatures as eight facts would look better than it is: that is what these tests are
against.
"""

from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gracelib.evidence import ranks
from gracelib.evidence.ranks import DegenerateError, bootstrap, regret, spearman
from slow_bootstrap import plain_regret, slow_bootstrap

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


@pytest.mark.parametrize(
    "score, accuracy, direction, message",
    [
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], "down", "direction = 'down': choose one of lower, higher"),
        ([1.0, 2.0], [0.1, 0.2, 0.3], "lower", r"score has shape \(2,\), accuracy \(3,\)"),
        ([1.0, 2.0], [0.1, 0.2], "lower", r"2 cell\(s\): at least 3"),
        ([1.0, np.nan, 3.0], [0.1, 0.2, 0.3], "lower", r"score\[1\] = nan \(1 such\)"),
        ([1.0, 2.0, 3.0], [0.1, 0.2, np.inf], "lower", r"accuracy\[2\] = inf"),
        ([0.5, 0.5, 0.5], [0.1, 0.2, 0.4], "lower", r"score is constant \(0.5 in all 3 cells\)"),
        ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5], "lower", r"accuracy is constant \(0.5 in all 3 cells\)"),
    ],
)
def test_spearman_refuses_bad_input(score, accuracy, direction, message):
    with pytest.raises(ValueError, match=message):
        spearman(score, accuracy, direction)


def test_regret_in_points():
    """Lowest score is cell 2 with 0.30; the best cell has 0.45: 15 points lost. Higher is better picks cell
    0: 25."""
    assert regret([9.0, 5.0, 1.0], [0.20, 0.45, 0.30], "lower") == pytest.approx(15.0)
    assert regret([9.0, 5.0, 1.0], [0.20, 0.45, 0.30], "higher") == pytest.approx(25.0)
    assert regret([1.0, 1.0, 2.0], [0.5, 0.3, 0.1], "lower") == pytest.approx(10.0)  # at random among the two


@pytest.mark.parametrize("teachers", [6, 15])
@pytest.mark.parametrize("skill", [0.0, 0.8, 1.0])
def test_the_interval_of_a_regret_contains_the_true_one(teachers, skill):
    """The pick's true regret among these cells, seen through noise of 2 points: in at least .92 of 300 worlds, where intervals
    from resampled teachers contain the expected regret in .57 to .94. With perfect skill the truth is zero."""
    rng, hits = np.random.default_rng(teachers), 0
    for _ in range(300):
        mean = 0.1 * np.repeat(rng.normal(size=teachers), 8) + 0.02 * rng.normal(size=8 * teachers)
        score = skill * mean / 0.1 + (1 - skill) * rng.normal(size=len(mean))
        truth = 100 * (mean.max() - mean[score.argmax()])
        low, high = ranks.regret_interval(score, rng.normal(mean, 0.02), np.full(len(mean), 0.02), "higher")
        hits += low <= truth <= high
    assert hits >= 0.92 * 300


def test_the_interval_of_a_regret_by_hand():
    """Two cells tie for first: their mean, and half its variance. Above, no price for having searched; below, Bonferroni's."""
    noise = 0.01 * np.sqrt(1 + 1 / 2)
    score, accuracy = [1, 1, 2, 3], [0.2, 0.4, 0.7, 0.5]
    found = ranks.regret_interval(score, accuracy, np.full(4, 0.01), "lower")
    assert found == pytest.approx((100 * (0.4 - 2.3940 * noise), 100 * (0.4 + 1.96 * noise)), abs=1e-3)
    assert np.isnan(ranks.regret_interval(score, accuracy, np.full(4, np.nan), "lower")).all()
    assert np.isnan(ranks.regret_interval(np.full(4, np.nan), accuracy, np.zeros(4), "lower")).all()


def test_the_mean_of_independent_regrets():
    found = ranks.mean_regret(np.array([[1.0, 0, 3], [3.0, 2, 5], [np.nan] * 3]))
    assert found == pytest.approx([2, 1, 2 + np.sqrt(8) / 2])
    assert np.isnan(ranks.mean_regret(np.full((2, 3), np.nan))).all()


def test_the_interval_of_a_mean_is_student_s():
    rng = np.random.default_rng(0)
    hits = [low <= 0 <= high for low, high in (ranks.mean_interval(rng.normal(size=6)) for _ in range(500))]
    assert 0.92 <= np.mean(hits) <= 0.98
    assert ranks.mean_interval([1, 3, np.nan]) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)
    assert np.isnan(ranks.mean_interval([1.0])).all()


def test_regret_refuses_percents():
    with pytest.raises(ValueError, match=r"accuracy\[1\] = 45: accuracies are fractions in \[0, 1\]"):
        regret([1.0, 2.0], [0.2, 45.0], "lower")


# --- resamples of whole teachers ------------------------------------------------------------------------------------

RNG = np.random.default_rng(3)
TEACHERS = {
    "lab": np.repeat([f"t{i}" for i in range(15)], 8),
    "smoke": np.repeat(["a", "b", "c"], 2),
    "uneven": np.array(list("aabbbcdddd")),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("case", TEACHERS)
@pytest.mark.parametrize("direction", ranks.DIRECTIONS)
def test_the_interval_is_the_one_resample_by_resample(case, ties, direction):
    teacher = TEACHERS[case]
    score, y = RNG.normal(size=(2, len(teacher)))
    score, y = (np.round(score), np.clip(np.round(y) / 8 + 0.5, 0, 1)) if ties else (score, 1 / (1 + np.exp(-y)))
    for many, one in ((ranks.spearman_many, spearman), (ranks.regret_many, plain_regret)):
        slow = slow_bootstrap([score, y], teacher, lambda a, b, f=one: f(a, b, direction), 150, 5)
        fast = bootstrap(lambda counts, f=many: f(score, y, direction, counts), teacher, 150, 5)
        assert fast == pytest.approx(slow[1:], abs=1e-9)
        assert many(score, y, direction, np.ones((1, len(y))))[0] == pytest.approx(slow[0], abs=1e-12)


def test_what_is_undefined_is_left_out():
    """A cell without a score is in no correlation and cannot be selected, but it can be the best."""
    score, y, counts = (
        np.array([1.0, np.nan, 2, 3]),
        np.array([0.1, 0.9, 0.3, 0.4]),
        np.array([[1, 1, 1, 1], [0, 3, 0, 0]]),
    )
    assert ranks.spearman_many(score, y, "higher", counts) == pytest.approx([1, np.nan], nan_ok=True)
    assert ranks.regret_many(score, y, "higher", counts) == pytest.approx([100 * (0.9 - 0.4), np.nan], nan_ok=True)
    assert ranks.mean_many(score, counts) == pytest.approx([2, np.nan], nan_ok=True)
    assert ranks.spearman_known(score, y, "higher") == (1.0, "")
    value, reason = ranks.spearman_known(score[:3], y[:3], "higher")
    assert np.isnan(value) and reason == "2 cell(s): at least 3 are needed"
    draws = np.column_stack([np.linspace(0, 1, 101), np.r_[np.full(60, np.nan), np.ones(41)]])
    assert ranks.percentiles(draws)[:, 0] == pytest.approx([0.025, 0.975])
    assert np.isnan(ranks.percentiles(draws)[:, 1]).all()  # fewer than half are defined


def mean_of(x):
    return partial(ranks.mean_many, x)


def test_bootstrap_resamples_teachers_not_cells():
    """Cells that are copies within a teacher carry no information: the interval must not shrink with the copies."""
    x = np.random.default_rng(0).standard_normal(12)
    few = bootstrap(mean_of(x), np.arange(12))
    low, high = bootstrap(mean_of(np.repeat(x, 8)), np.repeat(np.arange(12), 8))
    assert (low, high) == pytest.approx(few)
    as_if_independent = bootstrap(mean_of(np.repeat(x, 8)), np.arange(96))
    assert as_if_independent[1] - as_if_independent[0] < 0.6 * (high - low)


def test_bootstrap_covers_the_truth():
    """95% intervals of a mean over 20 teachers contain the truth in 85-100% of 100 synthetic data sets."""
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = np.repeat(rng.standard_normal(20), 4) + 0.1 * rng.standard_normal(80)
        low, high = bootstrap(mean_of(x), np.repeat(np.arange(20), 4), n_boot=200, seed=seed)
        hits += low <= 0 <= high
    assert 85 <= hits <= 100


def test_hopeless_resamples_are_refused():
    def undefined(counts):
        return np.full(len(counts), np.nan)

    with pytest.raises(ValueError, match="1 teacher"):
        bootstrap(mean_of(np.ones(2)), ["a", "a"])
    with pytest.raises(DegenerateError, match="1000 of 1000 resamples of 2 clusters are degenerate"):
        bootstrap(undefined, ["a", "b"], 100)
    assert (
        np.isnan(ranks.interval(undefined, ["a", "b"])).all() and np.isnan(ranks.interval(mean_of([1.0]), ["a"])).all()
    )
