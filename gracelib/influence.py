"""How much each prompt moves GRACE, through its own contribution *and* through the matrices of the other folds.

Why: `intervals` resamples the prompts' contributions with the fold matrices held fixed, which leaves out that other
prompts would have given other matrices; where d is comparable to n m that is most of the error. The jackknife puts
it back: leave prompt p out everywhere, from its own fold and from every other fold's matrix, and score again. With
A_i the smoothed matrix of all but fold i, leaving out the m_p unit rows U_p changes it by a matrix of rank m_p, so
that Woodbury's identity gives all n leave-one-out scores for about the price of one more pass over the folds:

    sum_{D_i} h^T S^-1 h = (1/a) [Tr(A^-1 H_i) + Tr((N_-i I - U A^-1 U^T)^-1 U A^-1 H_i A^-1 U^T)],
    S = a (A - U^T U / N_-i),  a = N_-i / (N_-i - m_p),  H_i = sum_{D_i} h h^T.

Source: Tukey's jackknife (Efron 1982, chapter 3), whose variance errs on the large side on average. `coverage`
measures how well the intervals do.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from gracelib.checks import check_nu, check_prompt_ids, check_rows, find_zero_rows
from gracelib.moments import assign_folds, canonical_order, factor, moment_rows


def grace_without(
    h: np.ndarray, prompt_id, n_folds: int = 10, nu: float = 1e-3, seed: int = 0, *, zero_rows: str = "refuse"
) -> np.ndarray:
    """GRACE with one prompt left out, for every prompt: (n,) in the order of the sorted ids; folds stay as they are.

    The arguments are `grace`'s (normalised preconditioner, not centred). ValueError as `grace` raises them, for
    nu = 0, and where leaving a prompt out would leave a fold's matrix without any row.
    """
    h = check_rows(h, "h")
    prompt_ids, code = check_prompt_ids(prompt_id, len(h))
    zero = find_zero_rows(h, zero_rows)
    nu = check_nu(nu)
    if nu == 0:
        raise ValueError("nu = 0: leaving a prompt out can make Sigma-tilde singular, use nu > 0")
    fold_of = assign_folds(len(prompt_ids), n_folds, seed)  # (n,)
    order = canonical_order(h, code)
    h, code, zero = h[order], code[order], zero[order]
    n, d, row_fold = len(prompt_ids), h.shape[1], fold_of[code]
    unit, owner = moment_rows(h, zero, "normalised"), code[~zero]  # (k, d), (k,) prompt of each
    directed = np.bincount(owner, minlength=n)  # (n,) rows with a direction
    groups = {int(m): _rows_by_prompt(owner, np.flatnonzero(directed == m), int(m)) for m in set(directed.tolist())}
    gram = unit.T @ unit  # (d, k) @ (k, d)
    count, sums = np.bincount(code, minlength=n), np.zeros(n)
    for i in range(int(n_folds)):
        own = unit[fold_of[owner] == i]
        left = len(unit) - len(own)  # N_-i
        h_i = h[row_fold == i].T  # (d, |D_i|)
        for m, (prompts, rows) in groups.items():
            if left <= m:
                raise ValueError(f"fold {i}: leaving out one more prompt leaves no row with a direction outside it")
            scale = (left - m) / left  # 1/a
            for out, ridge in ((fold_of[prompts] != i, nu * scale), (fold_of[prompts] == i, nu)):
                if not out.any():
                    continue
                chol, _ = factor((gram - own.T @ own) / left, ridge, "normalised", f"fold {i}")
                z = solve_triangular(chol, h_i, lower=True, check_finite=False)  # (d, |D_i|)
                quad = np.einsum("dr,dr->r", z, z)  # (|D_i|,)
                if ridge == nu:  # its own fold: the matrix stays, its responses go
                    per_prompt = np.bincount(code[row_fold == i], weights=quad, minlength=n)
                    sums[prompts[out]] += quad.sum() - per_prompt[prompts[out]]
                    continue
                sums[prompts[out]] += scale * quad.sum()
                if m == 0:
                    continue  # a prompt of one-token responses is in no matrix
                v = solve_triangular(chol, unit[rows[out]].reshape(-1, d).T, lower=True, check_finite=False)
                hv = ((z @ z.T) @ v).T.reshape(-1, m, d)  # (d, d) @ (d, p m), then a block a prompt
                v = v.T.reshape(-1, m, d)  # (p, m, d) rows L^-1 u
                across = hv @ v.transpose(0, 2, 1)  # (p, m, d) @ (p, d, m)
                inner = left * np.eye(m) - v @ v.transpose(0, 2, 1)
                change = np.linalg.solve(inner, across)
                sums[prompts[out]] += scale * np.trace(change, axis1=1, axis2=2)
    return sums / (len(h) - count)


def grace_influence(
    h: np.ndarray, prompt_id, n_folds: int = 10, nu: float = 1e-3, seed: int = 0, *, zero_rows: str = "refuse"
) -> np.ndarray:
    """Jackknife influence of each prompt on GRACE, (n,): sums to zero; the sum of squares estimates its variance.

    (n - 1)/n (mean leave-one-out score - the score without p), rescaled by sqrt(n/(n - 1)) so that the sum of squares
    is the jackknife variance. Arguments as `grace_without`. Pass it to `intervals.grace_interval`.
    """
    without = grace_without(h, prompt_id, n_folds, nu, seed, zero_rows=zero_rows)
    n = len(without)
    return np.sqrt((n - 1) / n) * (without.mean() - without)


def _rows_by_prompt(owner: np.ndarray, prompts: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts with m rows each, and the positions (p, m) of their rows; `owner` is sorted."""
    return prompts, np.searchsorted(owner, prompts)[:, None] + np.arange(m)
