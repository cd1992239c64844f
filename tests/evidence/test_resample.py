"""Resampling all at once must give what resampling one by one gives: the fast bootstrap is trusted because the slow one
can be read.
"""

import warnings

import numpy as np
import pytest

from gracelib.evidence import ranks
from gracelib.evidence.resample import regret_many, spearman_many, teacher_interval

RNG = np.random.default_rng(3)
TEACHERS = {
    "lab": np.repeat([f"t{i}" for i in range(15)], 8),
    "smoke": np.repeat(["a", "b", "c"], 2),
    "uneven": np.array(list("aabbbcdddd")),
}


def columns(teacher, ties):
    score, y = RNG.normal(size=(2, len(teacher)))
    return (np.round(score), np.round(y) / 8 + 0.5) if ties else (score, 1 / (1 + np.exp(-y)))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("case", TEACHERS)
@pytest.mark.parametrize("direction", ranks.DIRECTIONS)
def test_the_interval_is_the_one_resample_by_resample(case, ties, direction):
    teacher = TEACHERS[case]
    score, y = columns(teacher, ties)
    y = np.clip(y, 0, 1)
    for many, one in ((spearman_many, ranks.spearman), (regret_many, lambda *a: ranks.regret(*a).points)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slow = ranks.cluster_bootstrap([score, y], teacher, lambda a, b, f=one: f(a, b, direction), 150, 5)
        fast = teacher_interval(lambda counts, f=many: f(score, y, direction, counts), teacher, 150, 5)
        assert fast == pytest.approx((slow.low, slow.high), abs=1e-9)


def test_a_resample_in_which_it_is_undefined_is_nan():
    score, y = np.array([1.0, 1, 2, 3]), np.array([0.1, 0.2, 0.3, 0.4])
    counts = np.array([[1, 1, 1, 1], [2, 2, 0, 0], [0, 0, 1, 1], [0, 0, 3, 0], [0, 1, 2, 1]])
    found = spearman_many(score, y, "higher", counts)
    assert np.isnan(found).tolist() == [False, True, True, True, False]
    assert found[0] == pytest.approx(ranks.spearman(score, y, "higher"))
    rows = [1, 2, 2, 3]
    assert found[4] == pytest.approx(ranks.spearman(score[rows], y[rows], "higher"))
    assert regret_many(score, y, "lower", counts[[0]])[0] == pytest.approx(100 * (0.4 - 0.15))  # the two first tie


def test_hopeless_resamples_are_refused():
    with pytest.raises(ValueError, match="1 teacher"):
        teacher_interval(lambda counts: counts.mean(1), ["a", "a"])
    with pytest.raises(ranks.DegenerateError, match="1000 of 1000 resamples of 2 clusters are degenerate"):
        teacher_interval(lambda counts: np.full(len(counts), np.nan), ["a", "b"], 100)
