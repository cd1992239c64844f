"""Statements about what has a table of its own: the ablation grid, filtering, longer training, odd teachers, the bound.

Why apart from `claims.kinds`: those need the table of cells alone, and can so be measured on every world seed; these need
the runs of the one scale that has them.
"""

from __future__ import annotations

import numpy as np

from gracelib.claims.measured import POINTS, Measure, Measured, NotHere, World, from_noise, shown
from gracelib.evidence.ablations import filtered_correlations, filtered_pairs
from gracelib.evidence.lengths import length_relation, teacher_bins

FEW_FOLDS = 6  #: from this many folds on the paper finds the correlation flat
UNITS = {"epochs": "epochs", "generations": "responses a prompt"}  #: of the axes of `training_runs`


def folds_flat(w: World) -> Measured:
    """Highest less lowest correlation over C >= 6, the larger of both tasks; from the grid."""
    found, said = [], []
    for where in ("first", "long"):
        task = w.frame(where)["task"].iloc[0]
        folds = sorted({int(c) for c in w.grid[w.grid.task == task].n_folds if c >= FEW_FOLDS})
        if len(folds) < 2:
            raise NotHere(f"the grid of this scale has {len(folds)} setting with C >= {FEW_FOLDS}")
        rho = np.stack([w.grid_rho(where, n_folds=c) for c in folds])
        found.append(rho.max(0) - rho.min(0))
        said.append(f"{task} {shown(rho[:, 0].min())} to {shown(rho[:, 0].max())}")
    return w.measured(
        np.max(found, axis=0),
        f"range of Spearman over C = {folds[0]} to {folds[-1]}",
        "",
        f" ({'; '.join(said)})",
        False,
    )


def settings(name: str, a, b, where: str = "first") -> Measure:
    """GRACE's correlation at one setting of the grid less that at another; `a`, `b` take the scale and give the value."""

    def measure(w: World) -> Measured:
        x, y = a(w.config), b(w.config)
        if x == y:
            raise NotHere(f"this scale has {name} = {x} only")
        left, right = w.grid_rho(where, **{name: x}), w.grid_rho(where, **{name: y})
        decided = [f"{name} = {v}" for v in (x, y) if w.grid_rows(where, **{name: v}).nu_decides.any()]
        return w.measured(
            left - right,
            f"Spearman of GRACE at {name} = {x} less {name} = {y}",
            "",
            f" ({shown(left)} and {shown(right)}{_decided(decided)})",
        )

    return measure


def _decided(settings_: list[str]) -> str:
    return f"; the smoothing decides at {' and '.join(settings_)}" if settings_ else ""


def half_as_many(w: World) -> Measured:
    """GRACE's correlation at n = d/2 less the best at another n that the smoothing does not decide."""
    half, known = w.config.d // 2, w.grid_rows("first", n=None)
    free = {int(n): not own.nu_decides.any() for n, own in known.groupby("n")}
    rest = [n for n, fine in free.items() if fine and n != half]
    if half not in free:
        raise NotHere(f"the grid of this scale has no n = {half} at d = {w.config.d}")
    if not (free[half] and rest):
        raise NotHere(
            f"at d = {w.config.d} the smoothing decides at n = "
            f"{', '.join(str(n) for n, fine in free.items() if not fine)}: there is nothing to compare"
        )
    rho = {n: w.grid_rho("first", n=n) for n in (half, *rest)}
    best = max(rest, key=lambda n: (np.nan_to_num(rho[n][0], nan=-2), n))  # chosen on the data, not on every resample
    left_out = [f"n = {n}" for n, fine in free.items() if not fine]
    return w.measured(
        rho[half] - rho[best],
        f"Spearman of GRACE at n = {half} less n = {best}, the best other",
        "",
        f" ({shown(rho[half])} and {shown(rho[best])}{_decided(left_out)})",
    )


def filtered_points(w: World) -> Measured:
    """Filtered student's accuracy less the unfiltered one's, mean over teachers (of a teacher's temperatures)."""
    f = filtered_pairs(w.cells, w.filtered).dropna(subset=["change_points"])
    means = f.change_points.groupby(f.teacher).mean()
    draws = w.resamples.mean(means.reindex(w.labels))
    return w.measured(
        draws,
        "filtered less unfiltered",
        POINTS,
        f", {len(f)} cells of {len(means)} teachers; worse in {(f.change_points < 0).sum()}",
        teachers=len(means),
    )


def filtered_correlation(w: World) -> Measured:
    """GRACE's correlation with filtered students less that with the unfiltered ones: same cells, same scores (figure 16)."""
    rows = filtered_correlations(w.cells, w.filtered, ("grace",)).set_index("pairing")
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


def flagged(kinds: tuple[str, ...]) -> Measure:
    """The smallest share of real cells with less Bias/GRACE than an odd teacher, over the odd teachers named."""

    def measure(w: World) -> Measured:
        frame, found = w.frame(), {}
        share, weights = (frame.grace_bias / frame.grace).to_numpy(), w.weights(frame)
        for kind in kinds:
            odd = w.pathological.loc[kind]
            found[kind] = weights @ (share < odd.grace_bias / odd.grace) / weights.sum(1)
        each = ", ".join(f"{kind} {draws[0]:.2f}" for kind, draws in found.items())
        return w.measured(
            np.min([*found.values()], axis=0), "lowest share of real cells with less bias", "", f" ({each})", False
        )

    return measure


def vendi_likes_self(w: World) -> Measured:
    """Of the untrained student as its own teacher: the smaller of two shares of real cells, those with a lower G-Vendi and
    those whose students are better."""
    frame, odd = w.frame(), w.pathological.loc["self"]
    weights = w.weights(frame)
    below, better = (
        weights @ there.to_numpy(float) / weights.sum(1)
        for there in (frame.g_vendi < odd.g_vendi, frame.average_at_k > odd.average_at_k)
    )
    return w.measured(
        np.minimum(below, better),
        "smaller share of real cells, less diverse than self-distillation and better to learn from",
        "",
        f" ({below[0]:.2f} and {better[0]:.2f}; its student is at {100 * odd.average_at_k:.1f} %)",
        False,
    )


def stability_ratio(w: World) -> Measured:
    """Median over cells of the gradient term over the stability term of the CMI bound, at the scale's n and nu."""
    table = w.cmi[w.cmi.stability > 0]
    if table.empty:
        raise NotHere("the stability term is zero in every cell")
    ratio, draws = (table.gradient / table.stability).to_numpy(), []
    order = np.argsort(ratio)
    weights = w.weights(table)[:, order].cumsum(1)
    at = (weights >= weights[:, -1:] / 2).argmax(1)  # the lower weighted median
    draws = ratio[order][at]
    return w.measured(
        draws,
        "gradient term over stability term, lower median over cells",
        "",
        f", {ratio.min():.2g} to {ratio.max():.2g} over {len(ratio)} cells",
        False,
    )


def length_power(where: str) -> Measure:
    """p of norm ~ (log|y|)^-p within teachers: a teacher differs from another in more than length (see `evidence.lengths`)."""

    def measure(w: World) -> Measured:
        frame = w.frame(where)
        rows = length_relation(teacher_bins(w.lengths, frame.student.iloc[0], frame.task.iloc[0])).set_index("level")
        inside, whole = rows.loc["within"], rows.loc["all"].spread_0 ** 2
        apart = f"; {rows.loc['between'].spread_0 ** 2 / whole:.0%} of the variance of log norm" if whole > 0 else ""
        return w.measured_ends(
            inside.exponent,
            inside.low,
            inside.high,
            "p of norm ~ 1 / (log|y|)^p within teachers",
            "",
            f" (between them {shown(rows.loc['between'].exponent)}{apart})",
        )

    return measure


def longer_training(axis: str) -> Measure:
    """Test accuracy at the largest number of epochs (responses a prompt) less that at the usual (a single one): the
    teacher whose student gains least."""

    def measure(w: World) -> Measured:
        rows = w.training_runs[w.training_runs.axis == axis]
        last = rows.loc[rows.groupby("teacher").value.idxmax()].set_index("teacher")
        first = rows[rows.usual] if axis == "epochs" else rows.loc[rows.groupby("teacher").value.idxmin()]
        first = first.set_index("teacher").reindex(last.index)
        if last.empty or (last.value == first.value).all():
            raise NotHere(f"this scale trains with one number of {UNITS[axis]} only")
        change, se = 100 * (last.test - first.test), 100 * np.hypot(last.test_se, first.test_se)
        least = change.idxmin()
        each = ", ".join(f"{t} {points:+.1f}" for t, points in change.items())
        return from_noise(
            float(change[least]),
            float(se[least]),
            f"{last.value.iloc[0]:g} less {first.value.iloc[0]:g} "
            f"{UNITS[axis]}, the smallest of {len(change)} teacher{'s' * (len(change) > 1)}",
            f" ({each}; one seed of training)",
        )

    return measure


def fewest_prompts(config) -> int:
    """The smallest n of the ablation grid."""
    return min(n for n in (config.n_prompts >> k for k in range(4)) if n >= config.n_folds)
