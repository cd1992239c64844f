"""Statements about what has a table of its own: the ablation grid, filtering, longer training, odd teachers, the bound.

Why apart from `claim_kinds`: those need the table of cells alone, and can so be measured on every world seed; these need
the runs of the one scale that has them.
"""

from __future__ import annotations

import numpy as np

from gracelib.claim_measures import spearman_draws
from gracelib.claim_world import POINTS, Measure, Measured, NotHere, World, from_noise, shown

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
    return w.measured(np.max(found, axis=0), f"range of Spearman over C = {folds[0]} to {folds[-1]}", "",
                      f" ({'; '.join(said)})", False)


def settings(name: str, a, b, where: str = "first") -> Measure:
    """GRACE's correlation at one setting of the grid less that at another; `a`, `b` take the scale and give the value."""
    def measure(w: World) -> Measured:
        x, y = a(w.config), b(w.config)
        if x == y:
            raise NotHere(f"this scale has {name} = {x} only")
        left, right = w.grid_rho(where, **{name: x}), w.grid_rho(where, **{name: y})
        return w.measured(left - right, f"Spearman of GRACE at {name} = {x} less {name} = {y}", "",
                          f" ({shown(left)} and {shown(right)})")
    return measure


def filtered_points(w: World) -> Measured:
    """Filtered student's accuracy less the unfiltered one's, mean over teachers (of a teacher's temperatures)."""
    f = w.filtered.dropna(subset=["f_average_at_k"])
    means = (100 * (f.f_average_at_k - f.average_at_k)).groupby(f.teacher).mean()
    draws = w.resamples.mean(means.reindex(w.labels))
    return w.measured(draws, "filtered less unfiltered", POINTS, f", {len(f)} cells of {len(means)} teachers; worse in "
                      f"{(f.f_average_at_k < f.average_at_k).sum()}", teachers=len(means))


def filtered_correlation(w: World) -> Measured:
    """GRACE's correlation among filtered cells less that among the same cells unfiltered."""
    f = w.filtered.dropna(subset=["f_average_at_k", "f_grace"])
    weights = w.weights(f)
    after, before = (-spearman_draws(f[f"{p}grace"], f[f"{p}average_at_k"], weights) for p in ("f_", ""))
    return w.measured(after - before, "Spearman of GRACE, filtered less unfiltered", "",
                      f" ({shown(after)} and {shown(before)}), {len(f)} cells of {f.teacher.nunique()} teachers",
                      teachers=f.teacher.nunique())


def flagged(kinds: tuple[str, ...]) -> Measure:
    """The smallest share of real cells with less Bias/GRACE than an odd teacher, over the odd teachers named."""
    def measure(w: World) -> Measured:
        frame, found = w.frame(), {}
        share, weights = (frame.grace_bias / frame.grace).to_numpy(), w.weights(frame)
        for kind in kinds:
            odd = w.pathological.loc[kind]
            found[kind] = weights @ (share < odd.grace_bias / odd.grace) / weights.sum(1)
        each = ", ".join(f"{kind} {draws[0]:.2f}" for kind, draws in found.items())
        return w.measured(np.min([*found.values()], axis=0), "lowest share of real cells with less bias", "",
                          f" ({each})", False)
    return measure


def vendi_likes_self(w: World) -> Measured:
    """Share of real cells with a lower G-Vendi than the untrained student as its own teacher."""
    frame, odd = w.frame(), w.pathological.loc["self"]
    weights = w.weights(frame)
    draws = weights @ (frame.g_vendi < odd.g_vendi).to_numpy(float) / weights.sum(1)
    worse = (frame.average_at_k > odd.average_at_k).mean()
    return w.measured(draws, "share of real cells less diverse than self-distillation", "",
                      f" (its student is at {100 * odd.average_at_k:.1f} %, below {worse:.0%} of the real ones)", False)


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
    return w.measured(draws, "gradient term over stability term, median over cells", "",
                      f", {ratio.min():.2g} to {ratio.max():.2g} over {len(ratio)} cells", False)


def length_power(where: str) -> Measure:
    """p of norm ~ (log|y|)^-p: least squares of log norm on log log|y| over the length bins, weighted by responses."""
    def measure(w: World) -> Measured:
        frame = w.frame(where)
        table = w.lengths[(w.lengths.task == frame.task.iloc[0]) & (w.lengths.student == frame.student.iloc[0])]
        table = table[table.mean_length > 1.5]  # log 1 = 0 has no logarithm
        x, y = np.log(np.log(table.mean_length)).to_numpy(), np.log(table.mean_norm).to_numpy()

        def slope(weights: np.ndarray) -> np.ndarray:
            size = weights.sum(1, keepdims=True)
            dx, dy = (v - (weights @ v)[:, None] / size for v in (x, y))
            spread = (weights * dx * dx).sum(1)
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.where(spread > 1e-12, -(weights * dx * dy).sum(1) / spread, np.nan)

        own = [slope(np.where(table.teacher == t, table["count"], 0.0)[None])[0] for t in table.teacher.unique()]
        draws = slope(w.weights(table) * table["count"].to_numpy(float))
        return w.measured(draws, "p of norm ~ 1 / (log|y|)^p, all responses", "",
                          f"; within single teachers {np.nanmedian(own):.2f} (median)", False)
    return measure


def longer_training(axis: str) -> Measure:
    """Test accuracy at the largest number of epochs (responses a prompt) less that at the usual (a single one)."""
    def measure(w: World) -> Measured:
        rows = w.training_runs[w.training_runs.axis == axis]
        last = rows.loc[rows.groupby("teacher").value.idxmax()].set_index("teacher")
        first = rows[rows.usual] if axis == "epochs" else rows.loc[rows.groupby("teacher").value.idxmin()]
        first = first.set_index("teacher").reindex(last.index)
        if last.empty or (last.value == first.value).all():
            raise NotHere(f"this scale trains with one number of {UNITS[axis]} only")
        change, se = 100 * (last.test - first.test), 100 * np.hypot(last.test_se, first.test_se)
        each = ", ".join(f"{t} {points:+.1f}" for t, points in change.items())
        return from_noise(float(change.mean()), float(np.sqrt((se**2).sum()) / len(se)),
                          f"{last.value.iloc[0]:g} less {first.value.iloc[0]:g} {UNITS[axis]}", f" ({each})")
    return measure


def fewest_prompts(config) -> int:
    """The smallest n of the ablation grid."""
    return min(n for n in (config.n_prompts >> k for k in range(4)) if n >= config.n_folds)
