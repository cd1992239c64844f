"""What the paper's claims are measured with: the committed tables of a scale, and one function a kind of statement.

A claim reads a row of a table that a figure draws (main table, figures 7, 9, 10, 13, 16 and 19 to 23), made from the cells of its
world: another world seed is another `World`, the table function is the same. A dozen statements have no row: a minimum, a
maximum or a share over resampled teachers. They are short functions of *draws* (1 + n_boot,): entry 0 is the data as they
are, the others are resamples of whole teachers, the same for all statistics of the same teachers, so that differences
are paired, also across students and tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from gracelib.baselines import SCORES
from gracelib.evidence import ranks
from gracelib.evidence.ablations import filtered_correlations, filtered_pairs, subset_correlations, subset_summary
from gracelib.evidence.cells import (
    ACCURACY_SE,
    at_setting,
    default_setting,
    difference,
    most_familiar,
    regret_se,
    rescored,
    score_rows,
    select,
)
from gracelib.evidence.choices import RANDOM, choice_cells, family_rows, over_teachers, temperature_choices
from gracelib.evidence.lengths import length_relation, teacher_bins
from gracelib.evidence.ranks import (
    FEWEST,
    mean_many,
    percentiles,
    pick_many,
    regret_many,
    spearman_known,
    spearman_many,
)
from gracelib.experiment import tables as pipeline
from gracelib.experiment.plan import compared_at
from gracelib.experiment.scales import get_scale

POINTS = " points"
NOISE = "noise of the test problems alone"
PARTS = ("grace_variance", "grace_bias", "mean_length")  #: not scores of the paper's list beside GRACE
SUBSET_SHARE = 0.6  #: figure 23
WARMER = 0.1  #: share of teachers whose warmer temperatures are better, from which on a low one is not always best
FEW_FOLDS = 6  #: from this many folds on the paper finds the correlation flat
UNITS = {"epochs": "epochs", "generations": "responses a prompt"}  #: of the axes of `training_runs`


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
    #: What a random choice gives; upper end of the interval of this less that.
    chance: tuple[float, float] | None = None

    def number(self, x: float) -> str:
        return f"{x:{'+' * self.signed}.{1 if self.unit == POINTS else 2}f}"

    def text(self) -> str:
        """Value and interval."""
        if not np.isfinite(self.value):
            return "undefined"
        ends = " (no interval)"
        if np.isfinite(self.low + self.high):
            ends = f" [{self.number(self.low)}, {self.number(self.high)}]"
        return f"{self.number(self.value)}{ends}{self.unit}"

    def sentence(self) -> str:
        over = "" if self.over == "teachers" else f" (interval: {self.over})"
        return f"{self.what}: {self.text()}{over}{self.extra}"


class World:
    """The tables of a scale as the claims need them; a missing one is an error when it is asked for."""

    def __init__(self, scale: str):
        self.scale, self.config, self.cells = scale, get_scale(scale), pipeline.cells(scale)
        self.teachers = np.unique(self.cells["teacher"].to_numpy(str))

    def table(self, name: str) -> pd.DataFrame:
        return pipeline.table(self.scale, name, recompute=False)

    def frame(self, where: str = "first", at_compared: bool = False) -> pd.DataFrame:
        """Cells of "first" or "second" (students of the first task) or "long" (the second task, its first student).

        `at_compared`: those at the temperature where teachers are compared.
        """
        tasks, cells, student = self.config.tasks, self.cells, self.config.student
        if where == "long":
            if len(tasks) < 2:
                raise NotHere("this scale has no longer task")
            cells = pipeline.cells(self.scale, tasks[1].name)
        if where == "second":
            if len(tasks[0].temperatures) < 2:
                raise NotHere("this scale has no second student")
            student = tasks[0].temperatures[1][0]
        rows = cells[cells.student == student].sort_values(["teacher", "temperature"])
        if at_compared:
            rows = rows[np.isclose(rows.temperature, compared_at(self.config))]
        return rows.reset_index(drop=True)

    def error(self, frame: pd.DataFrame, accuracy: str = "average_at_k") -> pd.Series:
        """Standard error of an accuracy from the test problems; binomial where each problem is right or wrong."""
        if accuracy in ACCURACY_SE:
            return frame[ACCURACY_SE[accuracy]]
        return np.sqrt(frame[accuracy] * (1 - frame[accuracy]) / self.config.n_test)

    def regret_noise(self, frame: pd.DataFrame, accuracy: str = "average_at_k") -> float:
        """`cells.regret_se` of the cells that GRACE ranks first, in points, for any accuracy."""
        judged = frame.assign(average_at_k=frame[accuracy], average_se=self.error(frame, accuracy))
        return regret_se(judged, judged[judged.grace == judged.grace.min()])

    def counts(self, teacher: Sequence) -> np.ndarray:
        """How often each cell (`teacher` (cells,)) is in each resample (1 + n_boot, cells); row 0: the data as they are."""
        return np.concatenate(
            [np.ones((1, len(teacher))), ranks.resamples(teacher, ranks.N_BOOT, np.random.default_rng(ranks.SEED))]
        )

    def mean(self, values: pd.Series) -> np.ndarray:
        """Draws of the mean over teachers of one value each; those without one are left out of a resample."""
        return mean_many(values.reindex(self.teachers), self.counts(self.teachers))

    def measured(
        self, draws: np.ndarray, what: str, unit: str = "", extra: str = "", teachers: int | None = None, **more
    ) -> Measured:
        """Value and interval of draws; `teachers` None: all of this world's, and one has no interval; `more` as `Measured`."""
        low, high = percentiles(draws[1:]) if len(self.teachers) > 1 and np.isfinite(draws[0]) else (np.nan, np.nan)
        return Measured(
            float(draws[0]),
            float(low),
            float(high),
            what,
            unit,
            extra,
            teachers=len(self.teachers) if teachers is None else teachers,
            **more,
        )

    def at(self, where: str, name: str, value: float) -> pd.DataFrame:
        """A frame with GRACE at the usual setting of the ablation grid but for one thing; NotHere if the grid lacks it."""
        own = rescored(self.frame(where), self.table("grid"), default_setting(self.config) | {name: value})
        if own.empty:
            raise NotHere(f"the grid of this scale has no {name} = {value:g}")
        return own


Measure = Callable[[World], Measured]


def shown(value: float) -> str:
    """A number, signed, two digits."""
    return f"{value:+.2f}" if np.isfinite(value) else "undefined"


def from_noise(points: float, se: float, what: str, extra: str = "") -> Measured:
    """A difference of accuracies in points, with the 95% interval that the test problems alone give it."""
    return Measured(float(points), points - 1.96 * se, points + 1.96 * se, what, POINTS, extra, NOISE)


# --- rows of the main table, and of figures 7, 9, 10, 13, 16 and 19 to 23 ---------------------------------------------


def correlation(w: World, score: str = "grace", where: str = "first", at_compared: bool = False) -> Measured:
    """Signed Spearman of a score over all cells, or at the temperature where teachers are compared."""
    frame = w.frame(where, at_compared)
    row = score_rows(frame, [score]).iloc[0]
    what = f"signed Spearman of {row.label}" + (f" at T = {compared_at(w.config):g}" if at_compared else "")
    return Measured(row.spearman, row.low, row.high, what, extra=f", {len(frame)} cells", teachers=row.teachers)


def regret(w: World, where: str = "first", at_compared: bool = False) -> Measured:
    """Regret in points of the cell that GRACE selects."""
    row = score_rows(w.frame(where, at_compared), ["grace"]).iloc[0]
    points, noise, n = (row.regret_points, row.regret_low, row.regret_high), row.regret_se_points, row.teachers
    return Measured(*points, "regret of GRACE", POINTS, _noise(noise), signed=False, teachers=n, noise=noise)


def _noise(se: float) -> str:
    return f"; SE from the test problems {se:.1f}" if np.isfinite(se) else ""


def regret_beside_chance(w: World, where: str = "first", families: bool = True) -> Measured:
    """Mean over families of GRACE's regret when that family is all there is, beside a cell of it drawn at random; without
    `families` as if all teachers were one. Figure 13."""
    frame = w.frame(where)
    rows = family_rows(frame if families else frame.assign(manner="all"), ("grace",))
    each, mean = rows[(rows.family != "mean") & (rows.score == "grace")], rows[rows.family == "mean"].set_index("score")
    own, blind = mean.loc["grace"], mean.loc[RANDOM]
    # The mean of the standard errors: what a maximum adds to a regret is not averaged away.
    noise, chance = float(each.regret_se_points.mean()), f"random choice{':' * families} {blind.regret_points:.1f}"
    what, extra = "regret of GRACE", f"{_noise(noise)}; a {chance}"
    if families:
        what, extra = "mean regret of GRACE within a family", f", {len(each)} families (a {chance})"
    return Measured(
        own.regret_points,
        own.regret_low,
        own.regret_high,
        what,
        POINTS,
        extra,
        signed=False,
        teachers=own.teachers,
        noise=noise,
        chance=(blind.regret_points, blind.minus_high),
    )


def change(
    w: World, what: str, new: str = "grace", old: str = "grace", accuracy: str = "average_at_k", where: str = "first"
) -> Measured:
    """Signed Spearman of a score with Average@k less another score's, or its own with another accuracy, paired."""
    frame = w.frame(where)
    return _changed(
        (frame[old], frame[accuracy], SCORES[old].direction),
        (frame[new], frame.average_at_k, SCORES[new].direction),
        frame.teacher,
        what.format(k=w.config.k),
    )


def _changed(first: tuple, second: tuple, teacher: Sequence, what: str, extra: str = "") -> Measured:
    row = difference(first, second, teacher)
    values = [shown(spearman_known(*one)[0]) for one in (second, first)]
    return Measured(
        row["spearman"],
        row["low"],
        row["high"],
        what,
        extra=f" ({' and '.join(values)}{extra})",
        teachers=row["teachers"],
    )


def settings(w: World, name: str, new: Callable, old: Callable, where: str = "first") -> Measured:
    """GRACE's correlation at one setting of the grid less that at another; `new`, `old` take the scale and give the value."""
    x, y = new(w.config), old(w.config)
    if x == y:
        raise NotHere(f"this scale has {name} = {x} only")
    cells = {value: w.at(where, name, value) for value in (x, y)}
    return _settings_apart(
        cells[x],
        cells[y],
        f"{name} = {x} less {name} = {y}",
        [f"{name} = {value}" for value, own in cells.items() if own.nu_decides.any()],
    )


def _settings_apart(new: pd.DataFrame, old: pd.DataFrame, what: str, decided: Sequence[str]) -> Measured:
    first, second = ((own.grace, own.average_at_k, "lower") for own in (old, new))
    return _changed(
        first,
        second,
        new.teacher,
        f"Spearman of GRACE at {what}",
        f"; the smoothing decides at {' and '.join(decided)}" if decided else "",
    )


def half_as_many(w: World) -> Measured:
    """GRACE's correlation at n = d/2 less the best at another n that the smoothing does not decide."""
    half, others = w.config.d // 2, default_setting(w.config)
    del others["n"]
    cells = {int(n): w.at("first", "n", n) for n in sorted(set(at_setting(w.table("grid"), others).n))}
    decided = [n for n, own in cells.items() if own.nu_decides.any()]
    rest = [n for n in cells if n not in (half, *decided)]
    if half not in cells:
        raise NotHere(f"the grid of this scale has no n = {half} at d = {w.config.d}")
    if half in decided or not rest:
        raise NotHere(
            f"at d = {w.config.d} the smoothing decides at n = {', '.join(map(str, decided))}: there is nothing to compare"
        )
    rho = {n: spearman_known(cells[n].grace, cells[n].average_at_k, "lower")[0] for n in rest}
    best = max(rest, key=lambda n: (np.nan_to_num(rho[n], nan=-2), n))  # chosen on the data, not on every resample
    return _settings_apart(
        cells[half], cells[best], f"n = {half} less n = {best}, the best other", [f"n = {n}" for n in decided]
    )


def fewest_prompts(config) -> int:
    """The smallest n of the ablation grid."""
    return min(n for n in (config.n_prompts >> k for k in range(4)) if n >= config.n_folds)


def filtered_correlation(w: World) -> Measured:
    """GRACE's correlation with filtered students less that with the unfiltered ones: same cells, same scores (figure 16)."""
    rows = filtered_correlations(w.cells, w.table("filtered"), ("grace",)).set_index("pairing")
    before, after, again = (rows.loc[name] for name in ("unfiltered", "filtered", "rescored"))
    return Measured(
        after.change,
        after.change_low,
        after.change_high,
        "Spearman of GRACE, filtered less unfiltered students, same scores",
        "",
        f" ({shown(after.spearman)} and {shown(before.spearman)}), {after.cells} "
        f"cells of {after.teachers} teachers; with the scores of the filtered responses {shown(again.spearman)}",
        teachers=int(after.teachers),
    )


def length_power(w: World, where: str) -> Measured:
    """p of norm ~ (log|y|)^-p within teachers: a teacher differs from another in more than length (see `evidence.lengths`)."""
    frame = w.frame(where)
    bins = teacher_bins(w.table("lengths"), frame.student.iloc[0], frame.task.iloc[0])
    rows = length_relation(bins).set_index("level")
    inside, between, whole = rows.loc["within"], rows.loc["between"], rows.loc["all"].spread_0 ** 2
    apart = f"; {between.spread_0**2 / whole:.0%} of the variance of log norm" if whole > 0 else ""
    return Measured(
        inside.exponent,
        inside.low,
        inside.high,
        "p of norm ~ 1 / (log|y|)^p within teachers",
        extra=f" (between them {shown(between.exponent)}{apart})",
        teachers=len(w.teachers),
    )


def subsets(w: World) -> Measured:
    """Median of GRACE's correlation over random 60% of the teachers, with the range of 95% of these subsets (figure 23)."""
    k = len(w.teachers)
    if k < 2:
        raise NotHere("there is one teacher")
    names, kept = [s for s in SCORES if s in w.cells and s != "mean_length"], max(1, round(SUBSET_SHARE * k))
    rows = select(w.cells, w.config.student, names)
    table = subset_summary(subset_correlations(rows, names, share=SUBSET_SHARE), rows, names)
    found = table[table.score == "grace"].set_index("reading")
    own, cells = found.loc["teachers"], found.loc["cells"]
    return Measured(
        own["median"],
        own.low,
        own.high,
        "median Spearman of GRACE over subsets of teachers",
        "",
        f"; best of {len(names)} scores in {own.best_share:.0%}; over subsets of cells {shown(cells['median'])} "
        f"[{shown(cells.low)}, {shown(cells.high)}]",
        f"95% of {own.subsets} subsets of {kept} teachers",
        teachers=kept,
    )


def longer_training(w: World, axis: str) -> Measured:
    """Test accuracy at the largest number of epochs (responses a prompt) less that at the usual (a single one): the
    teacher whose student gains least (figures 17 and 18)."""
    runs = w.table("training_runs")
    rows = runs[runs.axis == axis]
    last = rows.loc[rows.groupby("teacher").value.idxmax()].set_index("teacher")
    first = rows[rows.usual] if axis == "epochs" else rows.loc[rows.groupby("teacher").value.idxmin()]
    first = first.set_index("teacher").reindex(last.index)
    if last.empty or (last.value == first.value).all():
        raise NotHere(f"this scale trains with one number of {UNITS[axis]} only")
    change, se = 100 * (last.test - first.test), 100 * np.hypot(last.test_se, first.test_se)
    least = change.idxmin()
    what = f"{last.value.iloc[0]:g} less {first.value.iloc[0]:g} {UNITS[axis]}, the smallest of {len(change)} teacher"
    each = ", ".join(f"{t} {points:+.1f}" for t, points in change.items())
    return from_noise(change[least], se[least], what + "s" * (len(change) > 1), f" ({each}; one seed of training)")


# --- one teacher's temperatures (figures 6 and 7) ---------------------------------------------------------------------


def _choices(w: World, *scores: str) -> pd.DataFrame:
    """`temperature_choices` of the teachers that have a choice."""
    choices = temperature_choices(choice_cells(w.cells, w.config.student, scores), scores)
    choices = choices[choices.temperatures > 1]
    if choices.empty:
        raise NotHere("there is one temperature")
    return choices


def within_teacher(w: World) -> Measured:
    """Mean over teachers of GRACE's Spearman over one teacher's temperatures."""
    row = over_teachers(_choices(w, "grace"), "spearman").iloc[0]
    return Measured(
        row["mean"],
        row.low,
        row.high,
        "mean within-teacher Spearman of GRACE",
        extra=f", {row.teachers} teachers",
        teachers=len(w.teachers),
    )


def _saved(choices: pd.DataFrame) -> pd.Series:
    """What a temperature drawn at random costs less what GRACE's does, by teacher."""
    cost = choices.pivot(index="teacher", columns="score", values="regret_points")
    return cost[RANDOM] - cost["grace"]


def temperature_regret(w: World) -> Measured:
    """Mean over teachers of what GRACE's choice of the temperature costs, beside a temperature drawn at random."""
    choices = _choices(w, "grace")
    own, blind = over_teachers(choices, "regret_points").set_index("score").loc[["grace", RANDOM]].itertuples()
    return Measured(
        own.mean,
        own.low,
        own.high,
        "mean regret of GRACE within a teacher",
        POINTS,
        f" (a random temperature: {blind.mean:.1f})",
        signed=False,
        teachers=len(w.teachers),
        noise=float(np.nanmean([w.regret_noise(rows) for _, rows in w.frame().groupby("teacher")])),
        chance=(blind.mean, percentiles(-w.mean(_saved(choices))[1:])[1]),
    )


def temperature_gain(w: World) -> Measured:
    """Accuracy at the temperature that GRACE picks less the mean over temperatures, mean over teachers."""
    return w.measured(w.mean(_saved(_choices(w, "grace"))), "GRACE's temperature less one drawn at random", POINTS)


def both_rise(w: World) -> Measured:
    """The smaller of the two mean within-teacher correlations with temperature, of G-Norm and of G-Vendi."""
    norm, vendi = (w.mean(within(w.frame(), score, "temperature", "higher")) for score in ("g_norm", "g_vendi"))
    return w.measured(
        np.minimum(norm, vendi),
        "smaller mean within-teacher Spearman with temperature",
        "",
        f" (G-Norm {shown(norm[0])}, G-Vendi {shown(vendi[0])})",
    )


def within(frame: pd.DataFrame, x: str, y: str, direction: str) -> pd.Series:
    """Signed Spearman of two columns over the temperatures of each teacher; NaN below three or where constant."""
    return pd.Series({t: spearman_known(own[x], own[y], direction)[0] for t, own in frame.groupby("teacher")})


def opposite_temperatures(w: World) -> Measured:
    """G-Vendi's temperature less G-Norm's, mean over teachers, as a share of the range of temperatures."""
    temperature = w.frame().temperature
    picked = _choices(w, "g_vendi", "g_norm").pivot(index="teacher", columns="score", values="picked")
    return w.measured(
        w.mean((picked.g_vendi - picked.g_norm) / (temperature.max() - temperature.min())),
        "G-Vendi's temperature less G-Norm's, share of the range",
        "",
        f" (mean T {picked.g_vendi.mean():.2f} and {picked.g_norm.mean():.2f})",
    )


def warmer_is_better(w: World) -> Measured:
    """Share of teachers whose warmer half of temperatures teaches better than the colder, beyond one-sided 5% noise."""
    better = []
    for _, own in w.frame().groupby("teacher"):
        half = len(own) // 2
        cold, warm = own[:half], own[len(own) - half :]
        if half:
            se = np.sqrt((cold.average_se**2).sum() + (warm.average_se**2).sum()) / half
            better.append(warm.average_at_k.mean() - cold.average_at_k.mean() > 1.645 * se)
    found, n = int(np.sum(better)), len(better)
    if not n:
        raise NotHere("there is one temperature")
    # Even none of n can only show that the share is below WARMER from this many teachers on.
    needed = int(np.ceil(np.log(0.025) / np.log(1 - WARMER)))
    short = f"; that it does not hold, no fewer than {needed} teachers could show" if n < needed else ""
    ends = binomtest(found, n).proportion_ci(0.95, method="exact")  # none of n is no proof that there is none
    return Measured(
        found / n,
        *ends,
        "share of teachers whose warmer half of temperatures is better",
        "",
        f" ({found} of {n}; by chance 0.05{short})",
        "teachers, exact binomial",
        False,
        n,
    )


# --- what no table has a row of ---------------------------------------------------------------------------------------


def ahead_of_all_on_both(w: World) -> Measured:
    """The smaller of GRACE's two correlations less that of the other score whose smaller one is best."""
    frames = [w.frame("first"), w.frame("long")]
    others = [s for s in SCORES if s not in (*PARTS, "grace") and all(s in f and f[s].notna().all() for f in frames)]
    counts = [w.counts(frame.teacher) for frame in frames]
    both = {
        s: [spearman_many(f[s], f.average_at_k, SCORES[s].direction, c) for f, c in zip(frames, counts, strict=True)]
        for s in ("grace", *others)
    }
    lower = {score: np.min(draws, axis=0) for score, draws in both.items()}
    # The rival is chosen on the data: the best of a dozen on every resample would be ahead by chance alone.
    best = max(others, key=lambda s: (np.nan_to_num(lower[s][0], nan=-2), s))
    each = "; ".join(f"{SCORES[s].label} {shown(both[s][0][0])} and {shown(both[s][1][0])}" for s in ("grace", best))
    return w.measured(
        lower["grace"] - lower[best],
        "lower of the two tasks' correlations, GRACE less the best other score",
        "",
        f" ({each})",
    )


def strongest(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of the strongest teacher: the highest mean accuracy over its temperatures (several if they tie)."""
    mean = frame.groupby("teacher")["teacher_accuracy"].transform("mean")
    return frame[mean == mean.max()]


def strongest_is_not_best(w: World) -> Measured:
    """Best student of any teacher less the best student of the strongest teacher."""
    if len(w.teachers) < 2:
        raise NotHere("there is one teacher")
    best, strong = (rows.loc[rows.average_at_k.idxmax()] for rows in (w.frame(), strongest(w.frame())))
    se = 100 * np.hypot(best.average_se, strong.average_se) if best.teacher != strong.teacher else 0.0
    return from_noise(
        100 * (best.average_at_k - strong.average_at_k),
        se,
        "best student less the strongest teacher's best",
        f" ({strong.teacher} is strongest, {best.teacher} teaches best)",
    )


def gain_over_strongest(w: World) -> Measured:
    """Accuracy of the student of GRACE's selection less that of the best student of the strongest teacher, in points."""
    frame = w.frame()
    counts, of = w.counts(frame.teacher), frame.groupby("teacher")
    ours = 100 * pick_many(frame.grace, frame.average_at_k, "lower", counts)
    theirs = 100 * pick_many(of.teacher_accuracy.transform("mean"), of.average_at_k.transform("max"), "higher", counts)
    return w.measured(
        ours - theirs,
        "student of GRACE's pick less the strongest teacher's best",
        POINTS,
        f" ({ours[0]:.1f} and {theirs[0]:.1f} %, of {' and '.join(strongest(frame).teacher.unique())})",
    )


def budgets(w: World, quantity: str) -> Measured:
    """GRACE's lowest correlation, or highest regret, over the size budgets of at least `FEWEST` teachers (over all where
    none has as many: then it cannot be told); as many teachers as the smallest of them has (figures 7 and 14)."""
    frame = w.frame()
    inside = {int(width): (frame.width <= width).to_numpy() for width in sorted(set(frame.width))}
    number = {width: frame.teacher[keep].nunique() for width, keep in inside.items()}
    judged = [width for width, n in number.items() if n >= FEWEST] or list(number)
    many, counts = {"spearman": spearman_many, "regret": regret_many}[quantity], w.counts(frame.teacher)
    found = {i: many(frame.grace, frame.average_at_k, "lower", counts * keep) for i, keep in inside.items()}
    form = shown if quantity == "spearman" else "{:.1f}".format
    each = "; ".join(
        f"up to {width}, {number[width]} teacher{'s' * (number[width] != 1)}: {form(draws[0])}"
        + ("" if width in judged else ", not counted")
        for width, draws in found.items()
    )
    draws, n = [found[width] for width in judged], number[judged[0]]
    if quantity == "spearman":
        return w.measured(np.min(draws, axis=0), "lowest Spearman over the size budgets", "", f" ({each})", n)
    worst = max(judged, key=lambda width: found[width][0])
    return w.measured(
        np.max(draws, axis=0),
        "highest regret over the size budgets",
        POINTS,
        f" ({each})",
        n,
        signed=False,
        noise=w.regret_noise(frame[inside[worst]]),
    )


def without_self_like(w: World, score: str) -> Measured:
    """A score's correlation without the teacher most like the student less that with it, paired (figure 24)."""
    frame, name = w.frame(), most_familiar(w.cells, w.config.student)
    counts, rule = w.counts(frame.teacher), SCORES[score].direction
    whole, left = (
        spearman_many(frame[score], frame.average_at_k, rule, counts * keep)
        for keep in (True, (frame.teacher != name).to_numpy())
    )
    return w.measured(
        left - whole,
        f"Spearman of {SCORES[score].label} without {name} less with it",
        "",
        f" ({shown(left[0])} and {shown(whole[0])})",
    )


def pick_elsewhere(w: World) -> Measured:
    """The larger of GRACE's regrets when students are judged by greedy accuracy and by best-of-k."""
    frame = w.frame()
    counts = w.counts(frame.teacher)
    found = {a: regret_many(frame.grace, frame[a], "lower", counts) for a in ("greedy", "best_of")}
    noise = w.regret_noise(frame, max(found, key=lambda a: found[a][0]))
    return w.measured(
        np.max([*found.values()], axis=0),
        "larger regret of GRACE, greedy and best-of-k",
        POINTS,
        f" ({found['greedy'][0]:.1f} and {found['best_of'][0]:.1f}{_noise(noise)})",
        signed=False,
        noise=noise,
    )


def folds_flat(w: World) -> Measured:
    """Highest less lowest correlation over C >= 6, the larger of both tasks; from the grid (figure 20)."""
    found, said, grid = [], [], w.table("grid")
    for where in ("first", "long"):
        frame = w.frame(where)
        task, counts = frame.task.iloc[0], w.counts(frame.teacher)
        folds = sorted({int(c) for c in grid[grid.task == task].n_folds if c >= FEW_FOLDS})
        if len(folds) < 2:
            raise NotHere(f"the grid of this scale has {len(folds)} setting with C >= {FEW_FOLDS}")
        cells = [w.at(where, "n_folds", c) for c in folds]
        rho = np.stack([spearman_many(own.grace, own.average_at_k, "lower", counts) for own in cells])
        found.append(np.ptp(rho, axis=0))
        said.append(f"{task} {shown(rho[:, 0].min())} to {shown(rho[:, 0].max())}")
    return w.measured(
        np.max(found, axis=0),
        f"range of Spearman over C = {folds[0]} to {folds[-1]}",
        "",
        f" ({'; '.join(said)})",
        signed=False,
    )


def filtered_points(w: World) -> Measured:
    """Filtered student's accuracy less the unfiltered one's, mean over teachers (of a teacher's temperatures)."""
    f = filtered_pairs(w.cells, w.table("filtered")).dropna(subset=["change_points"])
    means = f.change_points.groupby(f.teacher).mean()
    return w.measured(
        w.mean(means),
        "filtered less unfiltered",
        POINTS,
        f", {len(f)} cells of {len(means)} teachers; worse in {(f.change_points < 0).sum()}",
        len(means),
    )


def _odd_teachers(w: World) -> pd.DataFrame:
    odd = w.table("pathological")
    return odd[odd.student == w.config.student].set_index("teacher")


def flagged(w: World, kinds: Sequence[str]) -> Measured:
    """The smallest share of real cells with less Bias/GRACE than an odd teacher, over the odd teachers named."""
    frame, odd = w.frame(), _odd_teachers(w)
    share, bias = frame.grace_bias / frame.grace, odd.grace_bias / odd.grace
    found = {kind: mean_many(share < bias[kind], w.counts(frame.teacher)) for kind in kinds}
    each = ", ".join(f"{kind} {draws[0]:.2f}" for kind, draws in found.items())
    draws = np.min([*found.values()], axis=0)
    return w.measured(draws, "lowest share of real cells with less bias", "", f" ({each})", signed=False)


def vendi_likes_self(w: World) -> Measured:
    """Of the untrained student as its own teacher: the smaller of two shares of real cells, those with a lower G-Vendi and
    those whose students are better."""
    frame, odd = w.frame(), _odd_teachers(w).loc["self"]
    counts = w.counts(frame.teacher)
    below, better = (
        mean_many(frame.g_vendi < odd.g_vendi, counts),
        mean_many(frame.average_at_k > odd.average_at_k, counts),
    )
    return w.measured(
        np.minimum(below, better),
        "smaller share of real cells, less diverse than self-distillation and better to learn from",
        "",
        f" ({below[0]:.2f} and {better[0]:.2f}; its student is at {100 * odd.average_at_k:.1f} %)",
        signed=False,
    )


def stability_ratio(w: World) -> Measured:
    """Median over cells of the gradient term over the stability term of the CMI bound, at the scale's n and nu."""
    table, config = w.table("cmi"), w.config
    own = table[(table.student == config.student) & (table.space == "h") & (table.preconditioner == "smoothed")]
    own = own[np.isclose(own.nu, config.nu) & (own.n == config.n_prompts) & (own.stability > 0)]
    if own.empty:
        raise NotHere("the stability term is zero in every cell")
    own = own.assign(ratio=own.gradient / own.stability).sort_values("ratio")
    weights = w.counts(own.teacher).cumsum(1)
    draws = own.ratio.to_numpy()[(weights >= weights[:, -1:] / 2).argmax(1)]  # the lower weighted median
    return w.measured(
        draws,
        "gradient term over stability term, lower median over cells",
        "",
        f", {own.ratio.min():.2g} to {own.ratio.max():.2g} over {len(own)} cells",
        signed=False,
    )
