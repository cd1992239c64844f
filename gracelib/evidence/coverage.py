"""Do the intervals of GRACE hold what they promise? Data sets of known design, drawn again and again.

Why: an interval that covers the truth in 60% of data sets and says 95% is worse than none. Here a teacher is a Gaussian
design (prompts share a direction within their responses, the spectrum decays), so its expected score is the mean over
the data sets, and the share of intervals that contain it is the coverage. The design with d = n is the one that the
scales use.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

import numpy as np

from gracelib.intervals import grace_influence, grace_interval
from gracelib.scores import grace


@dataclass(frozen=True)
class Design:
    """Gradients h = length x (sqrt(alike) x prompt + sqrt(1 - alike) x response) x spectrum k^-decay."""

    n: int  #: prompts
    m: int  #: responses a prompt
    d: int
    alike: float  #: share of the variance that a prompt's responses have in common, in [0, 1)
    decay: float  #: of the standard deviation of coordinate k = 1..d
    tail: float  #: standard deviation of the logarithm of a prompt's scale: a few hard prompts

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """h (n m, d) and prompt ids (n m,)."""
        shared = np.repeat(rng.standard_normal((self.n, self.d)), self.m, axis=0)
        own = rng.standard_normal((self.n * self.m, self.d))
        scale = np.repeat(np.exp(self.tail * rng.standard_normal(self.n)), self.m)[:, None]
        spectrum = np.arange(1.0, self.d + 1) ** -self.decay
        h = scale * (np.sqrt(self.alike) * shared + np.sqrt(1 - self.alike) * own) * spectrum
        return h, np.repeat(np.arange(self.n), self.m)


DESIGNS = {
    "many rows": Design(64, 4, 16, 0.3, 1.0, 0.0),
    "d = n": Design(64, 4, 64, 0.3, 1.0, 0.0),
    "d = n, hard prompts": Design(64, 4, 64, 0.3, 1.0, 0.5),
    "d = n, near-copies": Design(64, 4, 64, 0.9, 0.5, 0.0),
}


def coverage(
    design: Design,
    n_sets: int,
    *,
    n_folds: int = 10,
    nu: float = 1e-3,
    level: float = 0.95,
    n_boot: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """Coverage of both kinds of interval over `n_sets` data sets of a design, with what explains it.

    Keys: the design's, sets, nominal, covered_fixed and covered (shares of intervals, matrices held fixed and with
    the matrices' error, that contain the expected score), spread_fixed and spread (the intervals' mean standard error
    over the score's real standard deviation: 1 is right). ValueError for fewer than 2 sets.
    """
    if n_sets < 2:
        raise ValueError(f"n_sets = {n_sets}: at least 2 data sets are needed to know a spread")
    totals, intervals, implied = [], {"fixed": [], "full": []}, {"fixed": [], "full": []}
    for number in range(n_sets):
        h, ids = design.draw(np.random.default_rng([seed, number]))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="nu = ")  # designs where nu decides are part of the study
            result = grace(h, ids, n_folds, nu)
        moved = grace_influence(h, ids, n_folds, nu)
        totals.append(result.total)
        for kind, influence in (("fixed", None), ("full", moved)):
            found = grace_interval(result, n_boot, number, level, influence)
            intervals[kind].append((found.low, found.high))
        fixed = result.count * (result.per_prompt - result.total) / result.count.sum()
        implied["fixed"].append(np.sqrt(np.sum(fixed**2)))
        implied["full"].append(np.sqrt(np.sum(moved**2)))
    truth, real = float(np.mean(totals)), float(np.std(totals, ddof=1))
    inside = {k: float(np.mean([low <= truth <= high for low, high in v])) for k, v in intervals.items()}
    return {
        **asdict(design),
        "sets": n_sets,
        "nominal": level,
        "covered_fixed": inside["fixed"],
        "covered": inside["full"],
        "spread_fixed": float(np.mean(implied["fixed"])) / real,
        "spread": float(np.mean(implied["full"])) / real,
    }
