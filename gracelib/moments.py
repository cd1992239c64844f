"""Folds, row order and second moments: the pieces that every matrix score is built from.

Why apart from `scores`: GRACE, the determinant, the ablation grid and the CMI bound must agree on what a fold
and a normalised second moment are, to the bit. They share these few functions instead of repeating them.
"""

import numpy as np
from scipy.linalg import lapack, solve_triangular

from gracelib.checks import as_int


def assign_folds(n_prompts: int, n_folds: int, seed: int = 0) -> np.ndarray:
    """Fold (n_prompts,) of each prompt in sorted order: default_rng(seed) permutation, array_split."""
    if n_prompts < 2:
        raise ValueError("only one prompt: a single prompt cannot be cross-validated, GRACE needs at least 2")
    n_folds = as_int("n_folds", n_folds)
    if n_folds < 2:
        raise ValueError(f"n_folds = {n_folds}: cross-validation needs at least 2 folds")
    if n_folds > n_prompts:
        raise ValueError(f"n_folds = {n_folds} is more than the {n_prompts} prompts: use n_folds <= {n_prompts}")
    fold = np.empty(n_prompts, dtype=np.int64)
    for i, part in enumerate(np.array_split(np.random.default_rng(seed).permutation(n_prompts), n_folds)):
        fold[part] = i
    return fold


def canonical_order(h: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Order of rows by prompt, then by content: any permutation of the rows is brought to one sequence."""
    content = np.ascontiguousarray(h).view(np.dtype((np.void, h.shape[1] * h.itemsize))).ravel()
    by_content = np.argsort(content, kind="stable")
    return by_content[np.argsort(code[by_content], kind="stable")]


def turn_within_prompt(code: np.ndarray) -> np.ndarray:
    """Which of its prompt's rows each row is, in the order given: 0, 1, ... (N,)."""
    order = np.argsort(code, kind="stable")
    turn = np.empty(len(code), dtype=np.int64)
    turn[order] = np.arange(len(code)) - np.searchsorted(code[order], code[order])
    return turn


def moment_rows(h: np.ndarray, no_direction: np.ndarray, preconditioner: str) -> np.ndarray:
    """Rows whose mean outer product is the matrix to invert: h/|h| without zero rows, or h itself."""
    if preconditioner != "normalised":
        return h
    kept = h[~no_direction]
    kept = kept / np.abs(kept).max(axis=1, keepdims=True)  # first: |h|^2 of tiny rows would underflow
    return kept / np.linalg.norm(kept, axis=1, keepdims=True)


def factor(sigma: np.ndarray, nu: float, preconditioner: str, where: str) -> tuple[np.ndarray | None, float]:
    """Lower Cholesky factor of Sigma-hat (None for the identity) and the ridge that was added."""
    if preconditioner == "identity":
        return None, 0.0
    d = len(sigma)
    ridge = nu / d * (np.trace(sigma) if preconditioner == "raw" else 1.0)
    # The transpose of a symmetric matrix is itself, in LAPACK's order: no copy, which costs as much as factorising.
    hat = np.array(sigma, order="C").T
    hat[np.diag_indices(d)] += ridge
    norm = np.abs(hat).sum(axis=0).max()
    chol, info = lapack.dpotrf(hat, lower=1, clean=0, overwrite_a=1)  # solves read the lower half only
    rcond = lapack.dpocon(chol, norm, uplo="L")[0] if info == 0 else 0.0
    if rcond < d * np.finfo(float).eps:
        raise ValueError(
            f"{where}: Sigma-hat is singular with nu = {nu:g} (reciprocal condition {rcond:.1e}, d = {d}); "
            "use nu > 0, the default is 1e-3"
        )
    return chol, float(ridge)


def whiten(chol: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Rows x (r, d) -> L^-1 x, so that |L^-1 x|^2 = x^T Sigma-hat^-1 x."""
    return rows if chol is None else solve_triangular(chol, rows.T, lower=True, check_finite=False).T
