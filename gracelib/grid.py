"""The whole ablation grid over n, m, d, C, nu and the length power from one pass of gradients.

Why it is possible: rows of the random projection are independent, so the first d' columns of `g` are a
projection to d' dimensions, and any subset of prompts and responses is a smaller n and m. Why it is fast:
rescaling a row by log|y|**power does not move its direction, so Sigma-hat and its Cholesky factor are shared
by all powers, the whitened unit rows by all parts of the score, and one cell costs little more than its
factorisations. Every cell equals `grace` on that subset.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.linalg import solve_triangular

from gracelib.checks import as_int, check_nu, check_prompt_ids
from gracelib.moments import assign_folds, factor, moment_rows, turn_within_prompt, whiten
from gracelib.scores import g_norm, g_var, g_vendi, recalibrate


def score_grid(
    features: Mapping,
    n: Iterable[int],
    m: Iterable[int],
    d: Iterable[int],
    n_folds: Iterable[int] = (10,),
    nu: Iterable[float] = (1e-3,),
    power: Iterable[float] = (1.0,),
    seed: int = 0,
) -> list[dict]:
    """GRACE, its parts, G-Vendi, G-Norm and G-Var for every combination, one dict a row (ready for a data
    frame).

    `features` has g (N, d_max) before recalibration, length and prompt_id. Subsets are nested: n takes the
    first prompts of one permutation of the sorted ids (default_rng(seed)), m the first responses of each
    prompt in the order given, d the first columns. Keys: n, m, d, n_folds, nu, power, grace, variance, bias,
    cross, nu_share, g_vendi, g_norm, g_var, and nu_decides ((1 - 1/C) n m <= d: where `grace` says so too). Folds
    are `grace`'s with the same seed. A one-token response counts as a zero row, as `zero_rows="keep"` says.
    Refuses sizes that the features do not have.
    """
    n, m, d, n_folds = ([as_int(k, v) for v in vs] for k, vs in (("n", n), ("m", m), ("d", d), ("n_folds", n_folds)))
    nu, power = [check_nu(v) for v in nu], [float(p) for p in power]
    for name, values in (("n", n), ("m", m), ("d", d), ("n_folds", n_folds), ("nu", nu), ("power", power)):
        if not values:
            raise ValueError(f"{name} is empty: the grid needs at least one value of each argument")
    length = np.asarray(features["length"])
    g = recalibrate(features["g"], length, 0.0)  # power 0: only the checks of rows and lengths
    scale = {p: recalibrate(np.ones((len(g), 1)), length, p)[:, 0] for p in power}  # (N,) log|y|**p
    dead = np.flatnonzero(~g[:, : min(d)].any(axis=1))
    if dead.size:
        raise ValueError(
            f"g[{dead[0]}] is zero ({dead.size} such): a dead gradient, look at how the features were made"
        )
    prompt_ids, code = check_prompt_ids(features["prompt_id"], len(g))
    for name, values, available in (("n", n, len(prompt_ids)), ("m", m, np.bincount(code).min()), ("d", d, g.shape[1])):
        if min(values) < 1 or max(values) > available:
            wrong = min(values) if min(values) < 1 else max(values)
            raise ValueError(f"{name} = {wrong}: the features allow 1 <= {name} <= {available}")
    place = np.random.default_rng(seed).permutation(len(prompt_ids))  # place[k] is the k-th prompt taken
    taken_as = np.argsort(place)[code]  # (N,) position of each row's prompt in the permutation
    turn = turn_within_prompt(code)  # (N,) 0 for a prompt's first response, 1 for its second, ...

    rows: list[dict] = []
    for n_ in n:
        folds = {c: assign_folds(n_, c, seed) for c in n_folds}
        for m_ in m:
            subset = np.flatnonzero((taken_as < n_) & (turn < m_))
            prompt = np.unique(code[subset], return_inverse=True)[1]  # index among the sorted ids of this subset
            for d_ in d:
                cells = _cells(g[subset, :d_], {p: s[subset] for p, s in scale.items()}, prompt, folds, nu)
                for cell in cells:
                    decides = (1 - 1 / cell["n_folds"]) * n_ * m_ <= d_
                    rows.append({"n": n_, "m": m_, "d": d_, **cell, "nu_decides": bool(decides)})
    return rows


def _cells(g: np.ndarray, scale: dict, prompt: np.ndarray, folds: dict, nus: list[float]) -> list[dict]:
    """All (power, C, nu) of one subset (N, d). Powers that share the rows with a direction share every
    factor."""
    n_rows, d = g.shape
    cells = []
    for with_direction in {tuple(s != 0) for s in scale.values()}:  # two groups at most: power 0, and the others
        kept = np.array(with_direction)
        if not kept.any():
            raise ValueError("every response has one token: no response has a direction, so no score is defined")
        unit = np.zeros((n_rows, d))
        unit[kept] = moment_rows(g, ~kept, "normalised")
        norm = np.linalg.norm(g, axis=1)  # (N,)
        length = {p: s * norm for p, s in scale.items() if tuple(s != 0) == with_direction}  # |h| by power
        h = {p: s[:, None] * unit for p, s in length.items()}
        mu = {p: x.mean(axis=0) for p, x in h.items()}
        plain = {  # the scores without folds; they depend on neither C nor nu
            p: {"g_vendi": g_vendi(x, "keep"), "g_norm": g_norm(x, "keep"), "g_var": g_var(x, "keep")}
            for p, x in h.items()
        }
        gram_all = unit.T @ unit  # (d, N) @ (N, d); zero rows add nothing
        for c, fold_of in folds.items():
            fold = fold_of[prompt]
            sums = {(v, p): np.zeros(4) for v in nus for p in length}  # total, variance, bias, cross: pooled sums
            shrink = dict.fromkeys(sums, 0.0)
            for i in range(c):
                inside = fold == i
                own, outside = unit[inside], int((kept & ~inside).sum())
                if outside == 0:
                    raise ValueError(f"fold {i} of {c}: every row outside it is a one-token response")
                sigma = (gram_all - own.T @ own) / outside
                for v in nus:
                    chol, ridge = factor(sigma, v, "normalised", f"n_folds = {c}, d = {d}, fold {i}")
                    z = whiten(chol, own)  # (|D_i|, d)
                    back = solve_triangular(chol, z.T, lower=True, trans="T", check_finite=False)  # (d, |D_i|)
                    quad, quad2 = np.einsum("rd,rd->r", z, z), np.einsum("dr,dr->r", back, back)
                    for p in length:
                        r = length[p][inside]  # (|D_i|,)
                        z_mu, z_own = whiten(chol, np.stack([mu[p], h[p][inside].mean(axis=0)]))
                        centred = r[:, None] * z - z_mu
                        sums[v, p] += [
                            r**2 @ quad,
                            np.einsum("rd,rd->", centred, centred),
                            len(r) * (z_mu @ z_mu),
                            2 * len(r) * ((z_own - z_mu) @ z_mu),
                        ]
                        shrink[v, p] += ridge * (r**2 @ quad2)
            for (v, p), parts in sums.items():
                named = dict(zip(("grace", "variance", "bias", "cross"), (parts / n_rows).tolist(), strict=True))
                cells.append(
                    {"n_folds": c, "nu": v, "power": p, **named, "nu_share": float(shrink[v, p] / parts[0]), **plain[p]}
                )
    return cells
