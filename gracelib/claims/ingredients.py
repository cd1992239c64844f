"""What a claim needs of a world before the world can say anything about it, and a number that tells whether it is there.

Why: "cannot be told" has two causes. Too few teachers is one, and more of them would help; that nothing of the kind can
happen in this world is the other, and no number of teachers would. A world whose temperatures make no copies cannot show
that a low temperature is bad. The ingredients were named after the numbers of the `lab` scale had been seen, so they may
only take a verdict back: a claim whose ingredient is lacking is "not in this world", whatever its number.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gracelib.claims.measured import World
from gracelib.evidence.lengths import teacher_bins


@dataclass(frozen=True)
class Ingredient:
    """`measure(world, where)` is the quantity; it must lie between `least` and `most`."""

    words: str
    quantity: str
    measure: Callable[[World, str], float]
    least: float = -np.inf
    most: float = np.inf

    def judge(self, world: World, where: str) -> tuple[bool, str]:
        """Whether the world has it, and the number in words."""
        value = self.measure(world, where)
        number = f"{value:.2f}" if np.isfinite(value) else "undefined"
        needed = f"at least {self.least:g}" if self.least > -np.inf else f"at most {self.most:g}"
        return bool(self.least <= value <= self.most), f"{self.words}: {self.quantity} {number}, needed {needed}"


def reliability(frame: pd.DataFrame, within: bool = True) -> float:
    """The share of the variance of accuracies over a teacher's temperatures (`within` False: over all cells) that is not
    noise of the test problems.

    A share below zero is given as zero; NaN where nothing varies. Its root is the highest correlation that any score could
    be expected to reach.
    """
    of = frame.assign(square=frame.average_se**2, all=0).groupby("teacher" if within else "all")
    spread, lost = of.average_at_k.var().mean(), of.square.mean().mean()
    return max(0.0, 1 - lost / spread) if spread > 0 else np.nan


def _strong(w: World, where: str) -> float:
    able = w.frame(where).query("teacher_accuracy >= .95")
    return 100 * float(np.ptp(able.average_at_k)) if len(able) >= 10 else 0.0


def _coldest(w: World, where: str) -> float:
    frame = w.frame(where)
    return frame.distinct[frame.temperature == frame.temperature.min()].mean()


def _still_rising(w: World, where: str) -> float:
    test = w.longer("epochs").pivot(index="teacher", columns="value", values="test")
    most = test.columns.max()
    return 100 * float((test[most] - test[most / 2]).max())


def _several_lengths(w: World, where: str) -> float:
    frame = w.frame(where)
    bins = teacher_bins(w.table("lengths"), frame.student.iloc[0], frame.task.iloc[0])
    return (bins.groupby("teacher").mean_length.nunique() > 1).mean()


# fmt: off
INGREDIENTS = {
    "spread": Ingredient("students who differ by more than noise", "share of the variance that is not noise of the test problems",
                         lambda w, where: reliability(w.frame(where), within=False), least=.8),
    "strong": Ingredient("strong teachers whose students differ", "points between the best and the worst student of teachers at .95 or more, at least ten cells,",
                         _strong, least=20),
    "heat": Ingredient("temperatures that matter", "share of the variance over a teacher's temperatures that is not noise of the test problems",
                       lambda w, where: reliability(w.frame(where)), least=.5),
    "copies": Ingredient("cold text that repeats itself", "share of different responses at the coldest temperature", _coldest, most=.9),
    "wrong": Ingredient("wrong responses to leave out", "mean share of wrong responses",
                        lambda w, where: 1 - w.table("filtered").kept_share.mean(), least=.05),
    "ended": Ingredient("training that has come to its end", "points that the last doubling of the epochs adds, at most,", _still_rising, most=3),
    "rows": Ingredient("more gradients than dimensions", "gradients in a second moment over d",
                       lambda w, where: (1 - 1 / w.config.n_folds) * w.config.n_prompts * w.config.m / w.config.d, least=1),
    "lengths": Ingredient("lengths that vary within a teacher", "share of teachers with two length bins or more", _several_lengths, least=.5),
    "ceiling": Ingredient("best-of-k below its ceiling", "share of students at .95 or more by best-of-k",
                          lambda w, where: (w.frame(where).best_of >= .95).mean(), most=.5),
}
# fmt: on
