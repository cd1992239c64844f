"""What the paper's claims are measured with: the committed tables of a scale, and one function a kind of statement.

A claim reads a row of a table that a figure draws (main table, figures 7, 9, 10, 13, 16 and 19 to 23), made from the cells of its
world: another world seed is another `World`, the table function is the same. A dozen statements have no row: a minimum, a
maximum or a share over resampled teachers. They are short functions of *draws* (1 + n_boot,): entry 0 is the data as they
are, the others are resamples of whole teachers, the same for all statistics of the same teachers, so that differences
are paired, also across students and tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from gracelib.baselines import SCORES
from gracelib.evidence import ranks
from gracelib.evidence.ablations import filtered_correlations, filtered_pairs, subset_correlations, subset_summary
from gracelib.evidence.cells import (
    ACCURACIES,
    ACCURACY_SE,
    at_setting,
    default_setting,
    most_familiar,
    rescored,
    select,
    selected,
    training_sd,
)
from gracelib.evidence.choices import RANDOM, choice_cells, over_teachers, scatter, temperature_choices
from gracelib.evidence.lengths import length_relation, teacher_bins
from gracelib.evidence.ranks import (
    FEWEST,
    mean_many,
    mean_regret,
    percentiles,
    pick_many,
    regret_interval,
    regret_many,
    spearman_known,
    spearman_many,
)
from gracelib.experiment import tables as pipeline
from gracelib.experiment.plan import compared_at
from gracelib.experiment.scales import get_scale

POINTS = " points"
NOISE, LUCK, WORLDS = "noise of the test problems and of training", "draws of that cell", "worlds"
PARTS = ("grace_variance", "grace_bias", "mean_length")  #: not scores of the paper's list beside GRACE
SUBSET_SHARE = 0.6  #: figure 23
WARMER = 0.1  #: share of teachers whose warmer temperatures are better, from which on a low one is not always best
FEW_FOLDS = 6  #: from this many folds on the paper finds the correlation flat
UNITS = {"epochs": "epochs", "generations": "responses per prompt"}  #: of the axes of `training_runs`


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
    #: (1 + n,) the value and what the interval is made of, row by row the same teachers in every world; None: no draws.
    draws: np.ndarray | None = field(default=None, compare=False, repr=False)

    def number(self, x: float) -> str:
        return f"{x:{'+' * self.signed}.{1 if self.unit == POINTS else 2}f}"

    def text(self) -> str:
        """Value and interval."""
        if not np.isfinite(self.value):
            return "undefined"
        if not np.isfinite(self.low + self.high):
            return f"{self.number(self.value)}{self.unit} (no interval)"
        return f"{self.number(self.value)} [{self.number(self.low)}, {self.number(self.high)}]{self.unit}"

    def sentence(self) -> str:
        known = np.isfinite(self.low + self.high)
        over = f" (interval: {self.over})" if known and self.over != "teachers" else ""
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

    def noise(self, frame: pd.DataFrame, where: str = "first", accuracy: str = "average_at_k") -> np.ndarray:
        """Standard error of each accuracy of a frame from the test problems and from training."""
        return self.trained(self.error(frame, accuracy).to_numpy(), where, accuracy)

    def trained(self, error: np.ndarray, where: str = "first", accuracy: str = "average_at_k") -> np.ndarray:
        """Standard errors from the test problems with the noise of training. Where seeds of it were not repeated, the scatter of
        students about a parabola in temperature stands for both where it is the larger."""
        if (again := pipeline.repeats(self.scale)) is None:
            return np.maximum(error, scatter(self.frame(where), accuracy))
        return np.hypot(error, training_sd(self.frame(), again, accuracy))

    def longer(self, axis: str) -> pd.DataFrame:
        """Students by epochs or by responses per prompt ("generations"), as the table `training_runs` has them: teacher, value,
        usual, test, test_se. Epochs from the table of that name, which goes further, where it is there."""
        if axis == "epochs" and pipeline.made(self.scale, "epochs"):
            columns = {"epochs": "value", "average": "test", "average_se": "test_se"}
            return self.table("epochs").rename(columns=columns).assign(usual=lambda t: t.value == self.config.epochs)
        runs = self.table("training_runs")
        return runs[runs.axis == axis]

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
            draws=draws,
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


# --- rows of the main table, and of figures 7, 9, 10, 13, 16 and 19 to 23 ---------------------------------------------


def correlation(w: World, score: str = "grace", where: str = "first", at_compared: bool = False) -> Measured:
    """Signed Spearman of a score over all cells, or at the temperature where teachers are compared."""
    frame = w.frame(where, at_compared)
    what = f"signed Spearman of {SCORES[score].label}" + (f" at T = {compared_at(w.config):g}" if at_compared else "")
    draws = spearman_many(frame[score], frame.average_at_k, SCORES[score].direction, w.counts(frame.teacher))
    return w.measured(draws, what, extra=f", {len(frame)} cells")


def regret(
    w: World,
    where: str = "first",
    at_compared: bool = False,
    score: str = "grace",
    accuracies: Sequence[str] = ("average_at_k",),
    parts: Callable[[pd.DataFrame], dict[str, np.ndarray]] | None = None,
    mean: bool = False,
) -> Measured:
    """Regret in points of the cells that a score ranks first; the largest of several, or their `mean`: of `accuracies`, or of
    the cells that `parts` (a frame -> membership by name) takes for all there are."""
    frame = w.frame(where, at_compared)
    member = parts(frame) if parts else {"": np.ones(len(frame), bool)}
    found, rule = [], SCORES[score].direction
    for accuracy in accuracies:
        noise = w.noise(frame, where, accuracy)
        for keep in member.values():
            own = frame[keep]
            points = regret_many(own[score], own[accuracy], rule, np.ones((1, len(own))))[0]
            found.append((points, *regret_interval(own[score], own[accuracy], noise[keep], rule)))
    names = [*member] if parts else [ACCURACIES[a].format(k=w.config.k) for a in accuracies]
    each = "; ".join(f"{name} {row[0]:.1f}" for name, row in zip(names, found, strict=True))
    how = f"{'mean' if mean else 'largest'} " * (len(found) > 1)
    return Measured(
        *(mean_regret(np.array(found)) if mean else np.max(found, axis=0)).tolist(),
        f"{how}regret of {SCORES[score].label}",
        POINTS,
        f" ({each})" * (len(found) > 1),
        NOISE,
        False,
        len(w.teachers),
    )


def better_than_chance(
    w: World,
    where: str = "first",
    at_compared: bool = False,
    accuracies: Sequence[str] = ("average_at_k",),
    parts: Callable[[pd.DataFrame], dict[str, np.ndarray]] | None = None,
    mean: bool = False,
) -> Measured:
    """The student of GRACE's pick minus that of a cell drawn at random, in points, over and over: one of
    the teachers is the best, whoever picks. Arguments as in `regret`; of several the least clear one, or the mean."""
    frame, rng = w.frame(where, at_compared), np.random.default_rng([ranks.SEED, *w.scale.encode()])
    member = parts(frame) if parts else {"": np.ones(len(frame), bool)}
    found = []
    for accuracy in accuracies:
        for keep in member.values():
            score, y = frame.grace[keep].to_numpy(), 100 * frame[accuracy][keep].to_numpy()
            own = pick_many(score, y, "lower", np.ones((1, len(y))))[0]
            found.append(own - np.concatenate([[y.mean()], rng.choice(y, 20 * ranks.N_BOOT)]))
    draws = np.mean(found, axis=0) if mean else min(found, key=lambda d: percentiles(d[1:])[0])
    return w.measured(draws, "student of GRACE's pick minus that of a cell drawn at random", POINTS, over=LUCK)


def families(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which cells are of a family, by its name."""
    return {name: (frame.manner == name).to_numpy() for name in dict.fromkeys(frame.manner)}


def change(
    w: World, what: str, new: str = "grace", old: str = "grace", accuracy: str = "average_at_k", where: str = "first"
) -> Measured:
    """Signed Spearman of a score with Average@k minus another score's, or its own with another accuracy, paired."""
    frame = w.frame(where)
    return _changed(
        w,
        (frame[old], frame[accuracy], SCORES[old].direction),
        (frame[new], frame.average_at_k, SCORES[new].direction),
        frame.teacher,
        what.format(k=w.config.k),
    )


def _changed(w: World, first: tuple, second: tuple, teacher: pd.Series, what: str, extra: str = "") -> Measured:
    """The second (score, accuracy, direction)'s signed Spearman minus the first's, over the cells where both are defined."""
    there = np.isfinite([*first[:2], *second[:2]]).all(0)
    counts = w.counts(teacher) * there
    new, old = (spearman_many(*one, counts) for one in (second, first))
    values = " and ".join(shown(spearman_known(*one)[0]) for one in (second, first))
    return w.measured(new - old, what, extra=f" ({values}{extra})", teachers=teacher[there].nunique())


def settings(w: World, name: str, new: Callable, old: Callable, where: str = "first") -> Measured:
    """GRACE's correlation at one setting of the grid minus that at another; `new`, `old` take the scale and give the value."""
    x, y = new(w.config), old(w.config)
    if x == y:
        raise NotHere(f"this scale has {name} = {x} only")
    cells = {value: w.at(where, name, value) for value in (x, y)}
    return _settings_apart(
        w,
        cells[x],
        cells[y],
        f"{name} = {x} minus {name} = {y}",
        [f"{name} = {value}" for value, own in cells.items() if own.nu_decides.any()],
    )


def _settings_apart(w: World, new: pd.DataFrame, old: pd.DataFrame, what: str, decided: Sequence[str]) -> Measured:
    first, second = ((own.grace, own.average_at_k, "lower") for own in (old, new))
    return _changed(
        w,
        first,
        second,
        new.teacher,
        f"Spearman of GRACE at {what}",
        f"; the smoothing decides at {' and '.join(decided)}" if decided else "",
    )


def half_as_many(w: World) -> Measured:
    """GRACE's correlation at n = d/2 minus the best at another n that the smoothing does not decide."""
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
        w, cells[half], cells[best], f"n = {half} minus n = {best}, the best other", [f"n = {n}" for n in decided]
    )


def fewest_prompts(config) -> int:
    """The smallest n of the ablation grid."""
    return min(n for n in (config.n_prompts >> k for k in range(4)) if n >= config.n_folds)


def filtered_correlation(w: World) -> Measured:
    """GRACE's correlation with filtered students minus that with the unfiltered ones: same cells, same scores (figure 16)."""
    rows = filtered_correlations(w.cells, w.table("filtered"), ("grace",)).set_index("pairing")
    before, after, again = (rows.loc[name] for name in ("unfiltered", "filtered", "rescored"))
    return Measured(
        after.change,
        after.change_low,
        after.change_high,
        "Spearman of GRACE, filtered minus unfiltered students, same scores",
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
    """Test accuracy at the largest number of epochs (responses per prompt) minus that at the usual (a single one): the
    teacher whose student gains least (figures 17 and 18)."""
    rows = w.longer(axis)
    last = rows.loc[rows.groupby("teacher").value.idxmax()].set_index("teacher")
    first = rows[rows.usual] if axis == "epochs" else rows.loc[rows.groupby("teacher").value.idxmin()]
    first = first.set_index("teacher").reindex(last.index)
    if last.empty or (last.value == first.value).all():
        raise NotHere(f"this scale trains with one number of {UNITS[axis]} only")
    se = 196 * np.hypot(*(w.trained(own.test_se) for own in (last, first)))
    change = 100 * (last.test - first.test)
    least = change.idxmin()
    what = f"{last.value.iloc[0]:g} minus {first.value.iloc[0]:g} {UNITS[axis]}, the smallest of {len(change)} teacher"
    each = ", ".join(f"{t} {points:+.1f}" for t, points in change.items())
    ends = float(change[least]), change[least] - se[least], change[least] + se[least]
    return Measured(*ends, what + "s" * (len(change) > 1), POINTS, f" ({each}; one seed of training)", NOISE)


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
    own = _choices(w, "grace").query("score == 'grace'").set_index("teacher").spearman
    return w.measured(w.mean(own), "mean within-teacher Spearman of GRACE", extra=f", {own.count()} teachers")


def temperature_regret(w: World) -> Measured:
    """Mean over teachers of what GRACE's choice of the temperature costs, beside a temperature drawn at random."""
    choices = _choices(w, "grace")
    blind = over_teachers(choices, "regret_points").set_index("score").loc[RANDOM, "mean"]
    found = regret(w, parts=lambda f: {t: (f.teacher == t).to_numpy() for t in choices.teacher.unique()}, mean=True)
    return replace(found, what="mean regret of GRACE within a teacher", extra=f" (a random temperature: {blind:.1f})")


def temperature_gain(w: World) -> Measured:
    """Accuracy at the temperature that GRACE picks minus the mean over temperatures, mean over teachers."""
    cost = _choices(w, "grace").pivot(index="teacher", columns="score", values="regret_points")
    return w.measured(w.mean(cost[RANDOM] - cost["grace"]), "GRACE's temperature minus one drawn at random", POINTS)


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
    """G-Vendi's temperature minus G-Norm's, mean over teachers, as a share of the teacher's range of temperatures."""
    temperature = w.frame().groupby("teacher").temperature
    picked = _choices(w, "g_vendi", "g_norm").pivot(index="teacher", columns="score", values="picked")
    return w.measured(
        w.mean((picked.g_vendi - picked.g_norm) / (temperature.max() - temperature.min())),
        "G-Vendi's temperature minus G-Norm's, share of the range",
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
    """The smaller of GRACE's two correlations minus that of the other score whose smaller one is best."""
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
        "lower of the two tasks' correlations, GRACE minus the best other score",
        "",
        f" ({each})",
    )


def gain_over_strongest(w: World) -> Measured:
    """Accuracy of the student of GRACE's pick minus that of the strongest teacher's student, in points: each by its own
    score, ties averaged, as in the main table. Two picks: no interval within a world, and one over worlds."""
    frame = w.frame()
    if frame.teacher.nunique() < 2:
        raise NotHere("there is one teacher")
    ours, theirs = (
        100 * pick_many(frame[score], frame.average_at_k, SCORES[score].direction, np.ones((1, len(frame))))[0]
        for score in ("grace", "teacher_accuracy")
    )
    names = ", ".join(dict.fromkeys(selected(frame, "teacher_accuracy").teacher))
    what, said = (
        "student of GRACE's pick minus the strongest teacher's",
        f" ({ours:.1f} and {theirs:.1f} %, of {names})",
    )
    return Measured(ours - theirs, np.nan, np.nan, what, POINTS, said, WORLDS)


def inside_budgets(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which cells are of the teachers up to a width, for the widths that at least `FEWEST` teachers have (all, if none)."""
    inside = {int(width): (frame.width <= width).to_numpy() for width in sorted(set(frame.width))}
    enough = {width: keep for width, keep in inside.items() if frame.teacher[keep].nunique() >= FEWEST} or inside
    return {f"up to {width}, {frame.teacher[keep].nunique()} teachers": keep for width, keep in enough.items()}


def budgets(w: World) -> Measured:
    """GRACE's lowest correlation over the size budgets; as many teachers as the smallest of them has (figure 7)."""
    frame = w.frame()
    inside, counts = inside_budgets(frame), w.counts(frame.teacher)
    found = {n: spearman_many(frame.grace, frame.average_at_k, "lower", counts * keep) for n, keep in inside.items()}
    each = "; ".join(f"{name}: {shown(draws[0])}" for name, draws in found.items())
    fewest = min(frame.teacher[keep].nunique() for keep in inside.values())
    return w.measured(
        np.min([*found.values()], axis=0), "lowest Spearman over the size budgets", "", f" ({each})", fewest
    )


def without_self_like(w: World, score: str) -> Measured:
    """A score's correlation without the teacher most like the student minus that with it, paired (figure 24)."""
    frame, name = w.frame(), most_familiar(w.cells, w.config.student)
    counts, rule = w.counts(frame.teacher), SCORES[score].direction
    whole, left = (
        spearman_many(frame[score], frame.average_at_k, rule, counts * keep)
        for keep in (True, (frame.teacher != name).to_numpy())
    )
    return w.measured(
        left - whole,
        f"Spearman of {SCORES[score].label} without {name} minus with it",
        "",
        f" ({shown(left[0])} and {shown(whole[0])})",
    )


def folds_flat(w: World) -> Measured:
    """Highest minus lowest correlation over C >= 6, the larger of both tasks; from the grid (figure 20)."""
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
    """Filtered student's accuracy minus the unfiltered one's, mean over teachers (of a teacher's temperatures)."""
    f = filtered_pairs(w.cells, w.table("filtered")).dropna(subset=["change_points"])
    means = f.change_points.groupby(f.teacher).mean()
    return w.measured(
        w.mean(means),
        "filtered minus unfiltered",
        POINTS,
        f", {len(f)} cells of {len(means)} teachers; worse in {(f.change_points < 0).sum()}",
        len(means),
    )


def _odd_teachers(w: World) -> pd.DataFrame:
    odd = w.table("pathological")
    return odd[odd.student == w.config.student].set_index("teacher")


def spike(w: World) -> Measured:
    """The share of real cells whose GRACE-Bias is below that of random text (the final version: Bias spikes there)."""
    frame, odd = w.frame(), _odd_teachers(w).grace_bias
    found = {kind: mean_many(frame.grace_bias < bias, w.counts(frame.teacher)) for kind, bias in odd.items()}
    each = ", ".join(f"{kind} {draws[0]:.2f}" for kind, draws in found.items())
    times = odd["random"] / frame.grace_bias.median()
    said = f" ({each}; random text has {times:.0f} times the median)"
    return w.measured(found["random"], "share of real cells with less bias than random text", "", said, signed=False)


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
