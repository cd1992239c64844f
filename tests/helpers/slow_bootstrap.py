"""The bootstrap over teachers, resample by resample: too slow for figures, and short enough to be trusted by reading."""

import numpy as np

from gracelib.evidence.ranks import DegenerateError


def slow_bootstrap(columns, teacher, statistic, n_boot, seed=0):
    """(value, low, high) of `statistic(*columns)`; a resample on which it is undefined is drawn again."""
    columns, (labels, code) = [np.asarray(c) for c in columns], np.unique(np.asarray(teacher), return_inverse=True)
    rng, draws = np.random.default_rng(seed), []
    while len(draws) < n_boot:
        rows = np.concatenate([np.flatnonzero(code == i) for i in rng.integers(len(labels), size=len(labels))])
        try:
            draws.append(statistic(*(column[rows] for column in columns)))
        except DegenerateError:
            continue
    return (statistic(*columns), *np.quantile(draws, [0.025, 0.975]))


def plain_regret(score, accuracy, direction):
    """Points lost by following the score, the mean over cells that tie for its first place."""
    score, accuracy = np.asarray(score), np.asarray(accuracy)
    first = score == (score.min() if direction == "lower" else score.max())
    return max(0.0, 100 * (accuracy.max() - accuracy[first].mean()))
