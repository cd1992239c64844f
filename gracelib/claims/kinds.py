"""Further kinds of statements on the table of cells: temperatures, budgets, families, other accuracies, subsets.

Why apart from `claims.measured`: there are the measurements that most claims share, here those of single figures. Each takes
a `World` and gives a `Measured`; what is no correlation, regret or difference of these over resampled teachers says in
`over` what its interval is over.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from gracelib.baselines import SCORES
from gracelib.claims.measured import POINTS, Measure, Measured, NotHere, World, beside_chance, from_noise, shown
from gracelib.evidence.ablations import subset_correlations, subset_summary
from gracelib.evidence.cells import select
from gracelib.evidence.claim_measures import pick_draws, regret_draws, within
from gracelib.evidence.ranks import FEWEST

SUBSET_SHARE = 0.6  #: figure 23
WARMER = 0.1  #: share of teachers whose warmer temperatures are better, from which on a low one is not always best


def strongest(frame: pd.DataFrame) -> np.ndarray:
    """Which cells are of the strongest teacher: the highest mean accuracy over its temperatures (several if they tie)."""
    mean = frame.groupby("teacher")["teacher_accuracy"].transform("mean")
    return (mean == mean.max()).to_numpy()


def strongest_is_not_best(w: World) -> Measured:
    """Best student of any teacher less the best student of the strongest teacher."""
    frame = w.frame()
    if len(w.labels) < 2:
        raise NotHere("there is one teacher")
    strong, best = frame[strongest(frame)], frame.loc[frame.average_at_k.idxmax()]
    strong = strong.loc[strong.average_at_k.idxmax()]
    points, se = 100 * (best.average_at_k - strong.average_at_k), 100 * np.hypot(best.average_se, strong.average_se)
    se = se if best.teacher != strong.teacher else 0.0
    return from_noise(
        points,
        se,
        "best student less the strongest teacher's best",
        f" ({strong.teacher} is strongest, {best.teacher} teaches best)",
    )


def gain_over_strongest(w: World) -> Measured:
    """Accuracy of the student of GRACE's selection less that of the best student of the strongest teacher, in points."""
    frame, weights = w.frame(), w.weights(w.frame())
    own = frame.groupby("teacher")
    ours = 100 * pick_draws(frame.grace, frame.average_at_k, "lower", weights)
    theirs = 100 * pick_draws(
        own.teacher_accuracy.transform("mean"), own.average_at_k.transform("max"), "higher", weights
    )
    name = " and ".join(frame.teacher[strongest(frame)].unique())
    return w.measured(
        ours - theirs,
        "student of GRACE's pick less the strongest teacher's best",
        POINTS,
        f" ({ours[0]:.1f} and {theirs[0]:.1f} %, of {name})",
    )


def budgets(kind: str) -> Measure:
    """GRACE's lowest correlation, or highest regret, over the size budgets of at least `FEWEST` teachers (over all where
    none has as many: then it cannot be told); as many teachers as the smallest of them has."""

    def measure(w: World) -> Measured:
        frame, noise = w.frame(), 0.0
        budget = {width: (keep, frame.teacher[keep].nunique()) for width, keep in w.widths()}
        judged = [width for width, (_, number) in budget.items() if number >= FEWEST] or list(budget)
        if kind == "spearman":
            found = {width: w.rho("grace", frame, keep=keep) for width, (keep, _) in budget.items()}
            draws = np.min([found[width] for width in judged], axis=0)
            name, unit = "lowest Spearman over the size budgets", ""
        else:
            found = {
                width: regret_draws(frame.grace, frame.average_at_k, "lower", w.weights(frame) * keep)
                for width, (keep, _) in budget.items()
            }
            draws = np.max([found[width] for width in judged], axis=0)
            name, unit = "highest regret over the size budgets", POINTS
            noise = w.regret_noise(frame[budget[max(judged, key=lambda width: found[width][0])][0]])
        each = "; ".join(
            f"up to {width}, {number} teacher{'s' * (number != 1)}: "
            + (f"{found[width][0]:.1f}" if unit else shown(found[width]))
            + ("" if width in judged else ", not counted")
            for width, (_, number) in budget.items()
        )
        return w.measured(draws, name, unit, f" ({each})", not unit, budget[judged[0]][1], noise=noise)

    return measure


def family_regret(w: World) -> Measured:
    """Mean over families of GRACE's regret when that family is all there is, beside a cell of it drawn at random."""
    frame, weights = w.frame(), w.weights(w.frame())
    members = [(frame.manner == name).to_numpy() for name in dict.fromkeys(frame.manner)]

    def mean(score) -> np.ndarray:
        found = np.stack([regret_draws(score, frame.average_at_k, "lower", weights * member) for member in members])
        there = np.isfinite(found)  # (families, draws)
        return np.where(there, found, 0).sum(0) / np.maximum(there.sum(0), 1)

    draws = mean(frame.grace)
    chance = beside_chance(draws, mean(np.zeros(len(frame))))
    return w.measured(
        draws,
        "mean regret of GRACE within a family",
        POINTS,
        f", {len(members)} families (a random choice: {chance[0]:.1f})",
        False,
        noise=_mean_noise([w.regret_noise(frame[own]) for own in members]),
        chance=chance,
    )


def _mean_noise(errors) -> float:
    """The standard error that is allowed to a mean of regrets: their mean, for what a maximum adds is not averaged away."""
    there = np.asarray(errors, dtype=float)[np.isfinite(errors)]
    return float(there.mean()) if len(there) else np.nan


def _per_teacher(w: World, function) -> np.ndarray:
    """`function` of each teacher's cells (teachers,), NaN where there is one temperature only."""
    own = dict(tuple(w.frame().groupby("teacher")))
    return np.array([function(own[t]) if t in own and len(own[t]) > 1 else np.nan for t in w.labels])


def _ones(rows: pd.DataFrame) -> np.ndarray:
    return np.ones((1, len(rows)))


def temperature_regret(w: World) -> Measured:
    """Mean over teachers of what GRACE's choice of the temperature costs, beside a temperature drawn at random."""
    costs = _per_teacher(w, lambda f: regret_draws(f.grace, f.average_at_k, "lower", _ones(f))[0])
    blind = _per_teacher(w, lambda f: 100 * (f.average_at_k.max() - f.average_at_k.mean()))
    draws = w.resamples.mean(costs)
    chance = beside_chance(draws, w.resamples.mean(blind))
    return w.measured(
        draws,
        "mean regret of GRACE within a teacher",
        POINTS,
        f" (a random temperature: {chance[0]:.1f})" if np.isfinite(chance[0]) else "",
        False,
        noise=_mean_noise(_per_teacher(w, w.regret_noise)),
        chance=chance,
    )


def temperature_gain(w: World) -> Measured:
    """Accuracy at the temperature that GRACE picks less the mean over temperatures, mean over teachers."""

    def gain(f):
        return 100 * (pick_draws(f.grace, f.average_at_k, "lower", _ones(f))[0] - f.average_at_k.mean())

    return w.measured(w.resamples.mean(_per_teacher(w, gain)), "GRACE's temperature less one drawn at random", POINTS)


def both_rise(w: World) -> Measured:
    """The smaller of the two mean within-teacher correlations with temperature, of G-Norm and of G-Vendi."""
    norm, vendi = (w.resamples.mean(within(w.frame(), s, "temperature", w.labels)) for s in ("g_norm", "g_vendi"))
    return w.measured(
        np.minimum(norm, vendi),
        "smaller mean within-teacher Spearman with temperature",
        "",
        f" (G-Norm {shown(norm)}, G-Vendi {shown(vendi)})",
    )


def opposite_temperatures(w: World) -> Measured:
    """G-Vendi's temperature less G-Norm's, mean over teachers, as a share of the range of temperatures."""

    def picks(f, score):
        return pick_draws(f[score], f.temperature, SCORES[score].direction, _ones(f))[0]

    spread = w.frame().temperature.max() - w.frame().temperature.min()
    if spread == 0:
        raise NotHere("there is one temperature")
    vendi, norm = (_per_teacher(w, lambda f, s=s: picks(f, s)) for s in ("g_vendi", "g_norm"))
    draws = w.resamples.mean((vendi - norm) / spread)
    return w.measured(
        draws,
        "G-Vendi's temperature less G-Norm's, share of the range",
        "",
        f" (mean T {np.nanmean(vendi) if np.isfinite(vendi).any() else np.nan:.2f} and "
        f"{np.nanmean(norm) if np.isfinite(norm).any() else np.nan:.2f})",
    )


def warmer_is_better(w: World) -> Measured:
    """Share of teachers whose warmer half of temperatures teaches better than the colder, beyond one-sided 5% noise."""

    def beyond(f):
        f = f.sort_values("temperature")
        half = len(f) // 2
        cold, warm = f[:half], f[-half:]
        se = np.sqrt((cold.average_se**2).sum() + (warm.average_se**2).sum()) / half
        return float(warm.average_at_k.mean() - cold.average_at_k.mean() > 1.645 * se)

    shares = _per_teacher(w, beyond)
    found, n = int(np.nansum(shares)), int(np.isfinite(shares).sum())
    if not n:
        raise NotHere("there is one temperature")
    # Even none of n can only show that the share is below WARMER from this many teachers on.
    needed = int(np.ceil(np.log(0.025) / np.log(1 - WARMER)))
    short = f"; that it does not hold, no fewer than {needed} teachers could show" if n < needed else ""
    ends = binomtest(found, n).proportion_ci(0.95, method="exact")  # none of n is no proof that there is none
    return Measured(
        found / n,
        ends.low,
        ends.high,
        "share of teachers whose warmer half of temperatures is better",
        "",
        f" ({found} of {n}; by chance 0.05{short})",
        "teachers, exact binomial",
        False,
        n,
    )


def subsets(w: World) -> Measured:
    """Median of GRACE's correlation over random 60% of the teachers, with the range of 95% of these subsets (figure 23)."""
    k = len(w.labels)
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


def self_like(frame: pd.DataFrame) -> str:
    """The teacher whose responses the student finds likeliest: lowest mean loss over its temperatures."""
    return str(frame.groupby("teacher")["student_loss"].mean().idxmin())


def without_self_like(score: str) -> Measure:
    """A score's correlation without the teacher most like the student less that with it, paired."""

    def measure(w: World) -> Measured:
        frame = w.frame()
        name = self_like(frame)
        left, whole = w.rho(score, frame, keep=(frame.teacher != name).to_numpy()), w.rho(score, frame)
        return w.measured(
            left - whole,
            f"Spearman of {SCORES[score].label} without {name} less with it",
            "",
            f" ({shown(left)} and {shown(whole)})",
        )

    return measure


def pick_elsewhere(w: World) -> Measured:
    """The larger of GRACE's regrets when students are judged by greedy accuracy and by best-of-k."""
    frame = w.frame()
    found = {a: regret_draws(frame.grace, frame[a], "lower", w.weights(frame)) for a in ("greedy", "best_of")}
    worst = max(found, key=lambda a: found[a][0])
    noise = w.regret_noise(frame, accuracy=worst)
    beside = f"; SE from the test problems {noise:.1f}" if np.isfinite(noise) else ""
    return w.measured(
        np.max([*found.values()], axis=0),
        "larger regret of GRACE, greedy and best-of-k",
        POINTS,
        f" ({found['greedy'][0]:.1f} and {found['best_of'][0]:.1f}{beside})",
        False,
        noise=noise,
    )


def below_average(accuracy: str) -> Measure:
    """GRACE's correlation with Average@k less that with another accuracy."""

    def measure(w: World) -> Measured:
        usual, other = w.rho("grace", w.frame()), w.rho("grace", w.frame(), accuracy)
        return w.measured(
            usual - other,
            f"Spearman with Average@{w.config.k} less with {accuracy.replace('_', '-')}",
            "",
            f" ({shown(usual)} and {shown(other)})",
        )

    return measure


def variance_agrees(w: World) -> Measured:
    """GRACE-Variance's correlation less GRACE's."""
    a, b = w.rho("grace_variance", w.frame()), w.rho("grace", w.frame())
    return w.measured(a - b, "GRACE-Variance less GRACE", "", f" ({shown(a)} and {shown(b)})")
