"""A ranking that stops when it knows: teachers that are clearly worse than the leader take no more gradients.

Rounds are the first FIRST prompts of the draw, twice as many, and so on to n. After each but the last, a teacher leaves whose
paired difference of GRACE to the leader is clear of zero at LEVEL, over prompts, with the jackknife's standard error
(`intervals.grace_influence`, which errs on the large side) and Student's t, the level divided by the looks and by the other teachers
(Bonferroni). LEVEL is 1% though 5% may go wrong, because no interval knows that the order of few prompts differs from that of
many: in the miniature world (38 rankings of six teachers, 256 prompts, eight draws of each) the teacher that is first on all
prompts left in 1.6% of runs (3.6% at a level of 5%), and 57% of the gradients were saved. Table `races` asks it of other draws
(notebook 10: one run in thirty, over nine worlds): a teacher whose GRACE a few prompts carry leads, with a small error, until
they are drawn.
d is at most the round's prompts, as the paper takes d = n: with the last round's d in the first, smoothing decides, and the first
one left three times as often.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import t as student_t

from gracelib.scores import Grace

FIRST, LEVEL = 32, 0.01
LEFT = ("teacher", "left_after", "leader", "difference", "clear_beyond")


def rounds(n: int, n_folds: int) -> list[int]:
    """Prompts of each round, n last; the first has at least a prompt for each fold."""
    first = max(FIRST, n_folds)
    return [size for k in range(n.bit_length()) if (size := first << k) < n] + [n]


def clearly_worse(scored: Mapping[str, tuple[Grace, np.ndarray]], n_tests: int) -> list[tuple[str, str, float, float]]:
    """(teacher, leader, difference, what it would have to exceed), one for each teacher that is clearly worse than the first.
    scored: GRACE and its influence by teacher, on the same prompts. n_tests: that the level is divided by."""
    leader = min(scored, key=lambda name: (scored[name][0].total, name))
    (best, moved), found = scored[leader], []
    quantile = student_t.ppf(1 - LEVEL / max(1, n_tests), len(moved) - 1)
    for name, (other, other_moved) in scored.items():
        bound = quantile * float(np.linalg.norm(other_moved - moved))
        if name != leader and other.total - best.total > bound:
            found.append((name, leader, other.total - best.total, bound))
    return found


def race(
    names: list[str], sizes: list[int], take: Callable, look: Callable
) -> tuple[list[str], int, list[tuple], float]:
    """Who stayed, after how many prompts it ended, a row (`LEFT`) for each that left, and the share of gradients not taken.

    take(names, start, stop): makes the gradients of these prompts. look(name, stop): GRACE and its influence on all up to
    stop."""
    stayed, left, start, n_tests = names, [], 0, (len(sizes) - 1) * (len(names) - 1)
    for size in sizes:
        take(stayed, start, size)
        if size == sizes[-1]:
            break
        out = clearly_worse({name: look(name, size) for name in stayed}, n_tests)
        left += [(name, size, *why) for name, *why in out]
        stayed, start = [name for name in stayed if name not in {name for name, *_ in out}], size
        if len(stayed) == 1:
            break
    taken = sum(after for _, after, *_ in left) + size * len(stayed)
    return stayed, size, left, 1 - taken / (sizes[-1] * len(names))
