"""What the paper's claims are measured with: the committed tables of a scale, and one function a kind of statement.

Why functions that return functions: a claim is then one line of a list (`claims.statements`), and the same measurement is made
on another task, student or world seed by giving it another `World`. All statistics of a world share one set of resamples
of its teachers, so a difference between two of them is paired, also across students and tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence import cells as tables
from gracelib.evidence import ranks
from gracelib.evidence.cells import at_setting
from gracelib.evidence.claim_measures import interval, regret_draws, resamples, spearman_draws, within
from gracelib.experiment import tables as pipeline
from gracelib.experiment.plan import compared_at
from gracelib.experiment.scales import get_scale

POINTS = " points"
NOISE = "noise of the test problems alone"
PARTS = ("grace_variance", "grace_bias", "mean_length")  #: not scores of the paper's list beside GRACE


class NotHere(Exception):
    """This scale has nothing to measure the claim with; the message says what is missing."""


@dataclass(frozen=True)
class Measured:
    """A number with its interval, and the words around it."""

    value: float
    low: float
    high: float
    what: str
    unit: str = ""  #: "", `POINTS` or another unit, printed after the numbers
    extra: str = ""  #: said after them
    over: str = "teachers"  #: what the interval is over
    signed: bool = True  #: False where the number cannot be negative
    teachers: int = 0  #: how many are behind it
    noise: float = 0.0  #: of a regret: its standard error from the test problems, see `Rule.verdict`
    chance: tuple[float, float] | None = (
        None  #: what a random choice gives; upper end of the interval of this less that
    )

    def number(self, x: float) -> str:
        return f"{x:{'+' * self.signed}.{1 if self.unit == POINTS else 2}f}"

    def text(self) -> str:
        """Value and interval."""
        if not np.isfinite(self.value):
            return "undefined"
        ends = (
            f" [{self.number(self.low)}, {self.number(self.high)}]"
            if np.isfinite(self.low + self.high)
            else " (no interval)"
        )
        return f"{self.number(self.value)}{ends}{self.unit}"

    def sentence(self) -> str:
        over = "" if self.over == "teachers" else f" (interval: {self.over})"
        return f"{self.what}: {self.text()}{over}{self.extra}"


class World:
    """The tables of a scale as the claims need them. Tables are read when first asked for; a missing one is an error."""

    def __init__(self, scale: str):
        self.scale, self.config = scale, get_scale(scale)
        self.cells, self._frames = pipeline.cells(scale), {}
        self.resamples = resamples(self.cells["teacher"].unique(), ranks.N_BOOT, ranks.SEED)
        self.labels = self.resamples.labels

    def frame(self, where: str = "first") -> pd.DataFrame:
        """Cells of "first" or "second" (students of the first task) or "long" (the second task, its first student)."""
        if where not in self._frames:
            config = self.config
            if where == "long":
                if len(config.tasks) < 2:
                    raise NotHere("this scale has no longer task")
                cells, student = pipeline.cells(self.scale, config.tasks[1].name), config.student
            else:
                students = [name for name, _ in config.tasks[0].temperatures]
                number = ("first", "second").index(where)
                if number >= len(students):
                    raise NotHere("this scale has no second student")
                cells, student = self.cells, students[number]
            self._frames[where] = (
                cells[cells.student == student].sort_values(["teacher", "temperature"]).reset_index(drop=True)
            )
        return self._frames[where]

    def compared(self, where: str = "first") -> pd.DataFrame:
        """The cells of a frame at the temperature where teachers are compared."""
        frame = self.frame(where)
        return frame[np.isclose(frame.temperature, compared_at(self.config))].reset_index(drop=True)

    def error(self, frame: pd.DataFrame, accuracy: str = "average_at_k") -> pd.Series:
        """Standard error of an accuracy from the test problems; binomial where each problem is right or wrong."""
        if accuracy in tables.ACCURACY_SE:
            return frame[tables.ACCURACY_SE[accuracy]]
        return np.sqrt(frame[accuracy] * (1 - frame[accuracy]) / self.config.n_test)

    def regret_noise(self, frame: pd.DataFrame, score: str = "grace", accuracy: str = "average_at_k") -> float:
        """`cells.regret_se` of the cells that a score ranks first, in points, for any accuracy."""
        judged = frame.assign(average_at_k=frame[accuracy], average_se=self.error(frame, accuracy))
        value = frame[score] * (-1 if SCORES[score].direction == "lower" else 1)
        return tables.regret_se(judged, judged[value == value.max()])

    def weights(self, frame: pd.DataFrame) -> np.ndarray:
        return self.resamples.weights(frame["teacher"])

    def rho(self, score: str, frame: pd.DataFrame, accuracy: str = "average_at_k", keep: np.ndarray | None = None):
        """Draws of the signed Spearman correlation of a score (of `SCORES`) with an accuracy; `keep` (cells,) restricts."""
        weights = self.weights(frame) if keep is None else self.weights(frame) * keep
        sign = -1 if SCORES[score].direction == "lower" else 1
        return sign * spearman_draws(frame[score], frame[accuracy], weights)

    def measured(
        self,
        draws: np.ndarray,
        what: str,
        unit: str = "",
        extra: str = "",
        signed: bool = True,
        teachers: int | None = None,
        **more,
    ) -> Measured:
        """Value and interval of draws; `teachers` None: all of this world's; `more` goes to `Measured`."""
        return self.measured_ends(*interval(draws), what, unit, extra, signed, teachers, **more)

    def measured_ends(
        self,
        value: float,
        low: float,
        high: float,
        what: str,
        unit: str = "",
        extra: str = "",
        signed: bool = True,
        teachers: int | None = None,
        **more,
    ) -> Measured:
        """A value with its interval over teachers, which one teacher does not have."""
        if len(self.labels) < 2:
            low = high = np.nan
        return Measured(
            float(value),
            float(low),
            float(high),
            what,
            unit,
            extra,
            signed=signed,
            teachers=len(self.labels) if teachers is None else teachers,
            **more,
        )

    def widths(self) -> list[tuple[int, np.ndarray]]:
        """Size budgets: each width of a teacher, and which cells of the first frame are of teachers within it."""
        width = self.frame()["width"].to_numpy()
        return [(int(w), width <= w) for w in sorted(set(width))]

    @cached_property
    def grid(self) -> pd.DataFrame:
        return pipeline.table(self.scale, "grid", recompute=False)

    def grid_rows(self, where: str, **changed) -> pd.DataFrame:
        """Rows of the ablation grid at the usual setting but for what is `changed` (None: any); NotHere if there is none."""
        config, frame = self.config, self.frame(where)
        setting = {
            "n": config.n_prompts,
            "m": config.m,
            "d": config.d,
            "n_folds": config.n_folds,
            "nu": config.nu,
            "power": 1.0,
        } | changed
        task, student = frame["task"].iloc[0], frame["student"].iloc[0]
        own = self.grid[(self.grid.task == task) & (self.grid.student == student)]
        own = at_setting(own, {name: value for name, value in setting.items() if value is not None})
        if own.empty:
            named = ", ".join(f"{k} = {v:g}" for k, v in changed.items() if v)
            raise NotHere(f"the grid of this scale has no {named or 'row at the usual setting'}")
        return own

    def grid_rho(self, where: str, **changed) -> np.ndarray:
        """Draws of GRACE's signed correlation at one setting of the ablation grid; NotHere if the grid has it not."""
        own = self.grid_rows(where, **changed)
        both = (
            self.frame(where)
            .drop(columns="grace")
            .merge(own[["teacher", "temperature", "grace"]], on=["teacher", "temperature"], validate="1:1")
        )
        return self.rho("grace", both)

    @cached_property
    def filtered(self) -> pd.DataFrame:
        return pipeline.table(self.scale, "filtered", recompute=False)

    @cached_property
    def training_runs(self) -> pd.DataFrame:
        return pipeline.table(self.scale, "training_runs", recompute=False)

    @cached_property
    def lengths(self) -> pd.DataFrame:
        return pipeline.table(self.scale, "lengths", recompute=False)

    @cached_property
    def pathological(self) -> pd.DataFrame:
        odd = pipeline.table(self.scale, "pathological", recompute=False)
        return odd[odd.student == self.config.student].set_index("teacher")

    @cached_property
    def cmi(self) -> pd.DataFrame:
        table, config = pipeline.table(self.scale, "cmi", recompute=False), self.config
        return table[
            (table.space == "h")
            & (table.preconditioner == "smoothed")
            & np.isclose(table.nu, config.nu)
            & (table.n == config.n_prompts)
            & (table.student == config.student)
        ]


Measure = Callable[[World], Measured]


def shown(draws: np.ndarray) -> str:
    """The value of draws (or a plain number), signed, two digits."""
    value = float(np.atleast_1d(draws)[0])
    return f"{value:+.2f}" if np.isfinite(value) else "undefined"


def from_noise(points: float, se: float, what: str, extra: str = "") -> Measured:
    """A difference of accuracies in points, with the 95% interval that the test problems alone give it."""
    return Measured(points, points - 1.96 * se, points + 1.96 * se, what, POINTS, extra, NOISE)


def correlation(
    score: str = "grace", where: str = "first", accuracy: str = "average_at_k", at_compared: bool = False
) -> Measure:
    """Signed Spearman of a score with an accuracy over all cells, or at the temperature where teachers are compared."""

    def measure(w: World) -> Measured:
        frame, extra = w.frame(where), ""
        if at_compared:
            frame, extra = w.compared(where), f" at T = {compared_at(w.config):g}"
        draws = w.rho(score, frame, accuracy)
        return w.measured(draws, f"signed Spearman of {SCORES[score].label}{extra}", "", f", {len(frame)} cells")

    return measure


def ahead_of(other: str, where: str = "first") -> Measure:
    """GRACE's signed Spearman less another score's, paired."""

    def measure(w: World) -> Measured:
        frame = w.frame(where)
        a, b = w.rho("grace", frame), w.rho(other, frame)
        return w.measured(a - b, f"GRACE less {SCORES[other].label}", "", f" ({shown(a)} and {shown(b)})")

    return measure


def ahead_of_all_on_both(w: World) -> Measured:
    """The smaller of GRACE's two correlations less that of the other score whose smaller one is best."""
    frames = [w.frame("first"), w.frame("long")]
    others = [s for s in SCORES if s not in (*PARTS, "grace") and all(s in f and f[s].notna().all() for f in frames)]
    both = {s: np.stack([w.rho(s, f) for f in frames]) for s in ("grace", *others)}
    # The rival is chosen on the data: the best of a dozen on every resample would be ahead by chance alone.
    best = max(others, key=lambda s: (np.nan_to_num(both[s][:, 0].min(), nan=-2), s))
    each = "; ".join(f"{SCORES[s].label} {shown(both[s][0])} and {shown(both[s][1])}" for s in ("grace", best))
    return w.measured(
        both["grace"].min(0) - both[best].min(0),
        "lower of the two tasks' correlations, GRACE less the best other score",
        "",
        f" ({each})",
    )


def beside_chance(draws: np.ndarray, blind: np.ndarray) -> tuple[float, float]:
    """`Measured.chance` of draws beside those of a random choice on the same resamples."""
    return float(blind[0]), interval(draws - blind)[2]


def regret(
    score: str = "grace",
    where: str = "first",
    accuracy: str = "average_at_k",
    at_compared: bool = False,
    beat_chance: bool = False,
) -> Measure:
    """Regret in points of the cell a score selects; with `beat_chance` it must be below that of a cell drawn at random."""

    def measure(w: World) -> Measured:
        frame = w.compared(where) if at_compared else w.frame(where)
        weights, noise = w.weights(frame), w.regret_noise(frame, score, accuracy)
        draws = regret_draws(frame[score], frame[accuracy], SCORES[score].direction, weights)
        extra, chance = f"; SE from the test problems {noise:.1f}" if np.isfinite(noise) else "", None
        if beat_chance:
            chance = beside_chance(draws, regret_draws(np.zeros(len(frame)), frame[accuracy], "lower", weights))
            extra += f"; a random choice {chance[0]:.1f}"
        return w.measured(draws, f"regret of {SCORES[score].label}", POINTS, extra, False, noise=noise, chance=chance)

    return measure


def within_teacher(x: str, y: str = "average_at_k", what: str = "") -> Measure:
    """Mean over teachers of the Spearman correlation over one teacher's temperatures; scores are signed by direction."""

    def measure(w: World) -> Measured:
        sign = -1 if y == "average_at_k" and SCORES[x].direction == "lower" else 1
        values = sign * within(w.frame(), x, y, w.labels)
        return w.measured(
            w.resamples.mean(values),
            what or f"mean within-teacher Spearman of {SCORES[x].label}",
            "",
            f", {np.isfinite(values).sum()} teachers",
        )

    return measure
