"""GRACE and the three spectral scores it is compared with: arrays in, numbers out.

Why a module without torch or files: a score is a function of the recalibrated, projected gradients `h` (n m,
d) and of who belongs to which prompt, and nothing else. Kept pure, the same function serves a figure, an
ablation that reuses one gradient pass for every n, m, d, C and nu, and a reader who brings a matrix of their
own. GRACE asks how large a response's gradient is where the *other* prompts' gradients leave little room: h^T
Sigma-hat(D_-i)^-1 h, with Sigma-hat estimated without the prompt's own fold. Prompts, not responses, are the
unit of the folds: responses to one prompt resemble each other, and a near-copy on both sides of the split
would hide the very redundancy that GRACE measures.

Definitions: the paper's final version (section 3), pooled over responses. The submission's
centred score is the `variance` part; the authors' released code is `released_grace`.

Rows without direction. A response of one supervised token has log|y| = 0, so its row of `h` is zero: it
carries no GRACE information and cannot be normalised. Every score refuses such rows by default and names
them; `zero_rows="keep"` gives them a defined meaning: a zero row counts as a response and adds zero to every
mean of squares, and it is left out of the normalised second moment, whose trace therefore stays 1. If every
row is zero there is no score: always an error.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigvalsh, solve_triangular
from scipy.special import xlogy

from gracelib.checks import check_choice, check_nu, check_prompted_rows, check_rows, find_zero_rows
from gracelib.moments import assign_folds, canonical_order, factor, moment_rows, whiten

PRECONDITIONERS = ("normalised", "raw", "identity")
CENTRES = ("none", "global", "fold")
NU_DECIDES = 0.5  #: of a score's log-derivative: if more than this is nu's, nu decides the score


@dataclass(frozen=True)
class Grace:
    """GRACE of one teacher, its exact parts, and the per-prompt contributions that intervals are made of.

    total = variance + bias + cross holds exactly for centre="none" (each is computed from its own formula).
    The pooled total is sum(count * per_prompt) / sum(count). All values are in squared units of `h`.
    """

    total: float  #: 1/(nm) sum_i sum_{D_i} h^T Sigma-hat(D_-i)^-1 h, lower is better
    variance: float  #: the same with h - mu(D): the submission's GRACE
    bias: float  #: sum_i |D_i|/(nm) mu^T Sigma-hat(D_-i)^-1 mu
    cross: float  #: 2 sum_i |D_i|/(nm) (mu(D_i) - mu)^T Sigma-hat(D_-i)^-1 mu
    nu_share: float  #: -d log(total) / d log(nu), in [0, 1]: the part of the score that nu decides
    prompt_ids: np.ndarray  #: (n,) sorted unique prompt ids
    per_prompt: np.ndarray  #: (n,) mean over the prompt's responses of h^T Sigma-hat(D_-i)^-1 h
    count: np.ndarray  #: (n,) responses per prompt
    fold: np.ndarray  #: (n,) fold of each prompt, 0 .. n_folds - 1
    n_zero_rows: int  #: rows without direction (responses of one token) that were kept
    nu_decides: str = ""  #: why the smoothing decides this score, in words; empty where the gradients do


def recalibrate(g: np.ndarray, length: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Length recalibration h = log(|y|)**power * g, because gradient norms fall like 1/log|y| (paper, sec.
    3).

    Parameters: `g` (n m, d) projected gradients; `length` (n m,) supervised tokens per response, EOS
    included, whole numbers >= 1; `power` >= 0 (1 in the paper; 0 leaves g as it is, also for |y| = 1; 2 is
    the paper's figure 22). Returns (n m, d) float64. With |y| = 1 and power > 0 the row is zero: see the
    module's head for what scores then do.
    """
    g = check_rows(g, "g")
    power = float(power)
    if not np.isfinite(power) or power < 0:
        raise ValueError(f"power = {power}: the length power must be finite and >= 0 (|y| = 1 would give 1/0)")
    length = np.asarray(length)
    if length.shape != (len(g),):
        raise ValueError(f"length has shape {length.shape}, expected ({len(g)},): one length per row of g")
    if length.dtype.kind not in "iuf":
        raise ValueError(f"length has dtype {length.dtype}: lengths are whole numbers of tokens")
    # `not (>= 1)` rather than `< 1` so that NaN is caught too.
    bad = np.flatnonzero(~(length >= 1) | (length != np.floor(length)) | ~np.isfinite(length.astype(float)))
    if bad.size:
        raise ValueError(
            f"length[{bad[0]}] = {length[bad[0]]} ({bad.size} such): a length is a whole number >= 1, "
            "the supervised tokens of the response with its EOS"
        )
    if power == 0:
        return g.copy()
    return np.log(length.astype(np.float64))[:, None] ** power * g  # (nm, 1) * (nm, d)


def grace(
    h: np.ndarray,
    prompt_id,
    n_folds: int = 10,
    nu: float = 1e-3,
    seed: int = 0,
    *,
    preconditioner: str = "normalised",
    centre: str = "none",
    zero_rows: str = "refuse",
) -> Grace:
    """GRACE: mean over responses of h^T Sigma-hat(D_-i)^-1 h over disjoint folds of prompts. Lower is better.

    Parameters
    ----------
    h : (n m, d) recalibrated gradients (see `recalibrate`); prompts may have unequal numbers of responses.
    prompt_id : (n m,) strings or integers. Row order never matters.
    n_folds : C, from 2 to the number of prompts. The sorted unique ids are permuted with default_rng(seed)
        and cut with numpy.array_split.
    nu : smoothing; Sigma-hat = Sigma-tilde + nu/d I. nu = 0 is refused when the matrix is singular.
    preconditioner : "normalised" (the paper: second moment of h/|h|), "raw" (second moment of h, smoothed
        with nu Tr(Sigma)/d so that rescaling h cannot change it; the score is then scale-free), "identity"
        (total = G-Norm).
    centre : what `total` and `per_prompt` use: "none" (final version), "global" (h - mu(D), the submission's
        equation 5) or "fold" (h - mu(D_i), its equation 3). `variance`, `bias` and `cross` never depend on
        it.
    zero_rows : "refuse" or "keep", see the module's head.

    `nu_decides` of the result says so when (1 - 1/C) n m <= d, or more than half of the score's log-derivative
    is nu's. Source: paper section 3 (final version); the cross term is exact algebra that the paper leaves out.
    """
    check_choice("preconditioner", preconditioner, PRECONDITIONERS)
    check_choice("centre", centre, CENTRES)
    h, prompt_ids, code, no_direction = check_prompted_rows(h, prompt_id, zero_rows)
    nu = check_nu(nu)
    fold_of = assign_folds(len(prompt_ids), n_folds, seed)  # (n,)
    (n_rows, d), n_folds = h.shape, int(n_folds)

    order = canonical_order(h, code)  # sums then run in one order whatever the caller's: same bits
    h, code, no_direction = h[order], code[order], no_direction[order]
    row_fold = fold_of[code]  # (nm,)
    mu = h.mean(axis=0)  # (d,)
    basis = moment_rows(h, no_direction, preconditioner)  # (k, d) rows whose second moment is Sigma
    basis_fold = row_fold[~no_direction] if preconditioner == "normalised" else row_fold
    gram_all = basis.T @ basis  # (d, k) @ (k, d)

    squared = np.empty(n_rows)  # h^T Sigma-hat^-1 h, centred as asked
    variance = bias = cross = shrink = 0.0
    for i in range(n_folds):
        inside = row_fold == i
        own = basis[basis_fold == i]
        outside = len(basis) - len(own)
        if outside == 0:
            raise ValueError(
                f"fold {i}: every row outside it is zero, so Sigma(D_-{i}) has no direction; use fewer "
                "folds or drop responses of one token"
            )
        gram = gram_all - own.T @ own
        if (
            np.trace(gram) < np.trace(gram_all) / 100
        ):  # this fold outweighs the others, whose digits the difference lost
            others = basis[basis_fold != i]
            gram = others.T @ others
        chol, ridge = factor(gram / outside, nu, preconditioner, f"fold {i}")
        h_i, mu_i = h[inside], h[inside].mean(axis=0)
        shift = {"none": 0.0, "global": mu, "fold": mu_i}[centre]
        z = whiten(chol, h_i - shift)  # (|D_i|, d) rows Sigma-hat^-1/2 h, up to a rotation
        squared[inside] = np.einsum("rd,rd->r", z, z)
        if ridge > 0:
            back = solve_triangular(chol, z.T, lower=True, trans="T", check_finite=False)  # (d, |D_i|)
            shrink += ridge * float(np.einsum("dr,dr->", back, back))  # ridge |Sigma-hat^-1 h|^2
        z_var = whiten(chol, h_i - mu)
        z_mu, z_off = whiten(chol, np.stack([mu, mu_i - mu]))
        variance += float(np.einsum("rd,rd->", z_var, z_var)) / n_rows
        bias += len(h_i) / n_rows * float(z_mu @ z_mu)
        cross += 2 * len(h_i) / n_rows * float(z_off @ z_mu)

    total = float(squared.sum()) / n_rows
    nu_share = shrink / n_rows / total if total > 0 else 0.0
    decides = "" if preconditioner == "identity" else _why_nu_decides(n_rows, d, n_folds, nu_share)
    count = np.bincount(code, minlength=len(prompt_ids))
    per_prompt = np.bincount(code, weights=squared, minlength=len(prompt_ids)) / count
    parts = (total, variance, bias, cross, nu_share)
    return Grace(*parts, prompt_ids, per_prompt, count, fold_of, int(no_direction.sum()), decides)


def released_grace(h: np.ndarray, prompt_id, smooth_coeff: float = 1e-3) -> float:
    """The released code's form of GRACE, as one named variant. Lower is better.

    Instead of a partition: ten random permutations (seeds 0, 1, ...) of the prompts, the last tenth
    tested each time (at least one prompt). Rows outside are normalised, eigenvalues of their second moment
    clipped at 1e-12 and shrunk to (1 - s) lambda + s mean(lambda). Returns the mean over splits of
    Tr(K_train^-1 K_test). The authors' code applies no length recalibration: pass g for their number, h for
    this variant on our features. Prompts are permuted in sorted order, so row order does not matter. Zero
    rows are refused.
    """
    h, prompt_ids, code, _ = check_prompted_rows(h, prompt_id, "refuse")
    n_prompts = len(prompt_ids)
    if n_prompts < 2:
        raise ValueError("released_grace needs at least 2 prompts: a single prompt cannot be cross-validated")
    if not 0 < smooth_coeff <= 1:
        raise ValueError(f"smooth_coeff = {smooth_coeff}: the shrinkage must be in (0, 1]")
    order = canonical_order(h, code)
    h, code = h[order], code[order]
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    n_test = max(1, int(n_prompts * 0.1))
    values = []
    for seed in range(10):
        tested = np.zeros(n_prompts, dtype=bool)
        tested[np.random.default_rng(seed).permutation(n_prompts)[-n_test:]] = True
        test = tested[code]
        lam, u = np.linalg.eigh(unit[~test].T @ unit[~test] / (~test).sum())  # (d,), (d, d)
        lam = np.clip(lam, 1e-12, None)
        lam = (1 - smooth_coeff) * lam + smooth_coeff * lam.mean()
        values.append((np.square(h[test] @ u).mean(axis=0) / lam).sum())  # (d,) / (d,)
    return float(np.mean(values))


def g_vendi(h: np.ndarray, zero_rows: str = "refuse") -> float:
    """G-Vendi: entropy (nats) of the eigenvalues of the normalised second moment. Higher is better.

    `h` (n m, d). In [0, log min(nm, d)], the bound reached by orthonormal rows. The paper states neither the
    base of the logarithm nor an exponential; its largest value, 5.93 at d = 512, fits nats.
    """
    h = check_rows(h, "h")
    no_direction = find_zero_rows(h, zero_rows)
    unit = moment_rows(h, no_direction, "normalised")  # (k, d)
    k, d = unit.shape
    small = unit.T @ unit if d <= k else unit @ unit.T  # both have the non-zero eigenvalues
    lam = np.clip(eigvalsh(small / k), 0.0, None)
    # The clamp only removes rounding: the entropy of min(k, d) numbers that sum to 1 lies in this range.
    return float(np.clip(-xlogy(lam, lam).sum(), 0.0, np.log(min(k, d)))) + 0.0  # never prints as -0.0


def g_norm(h: np.ndarray, zero_rows: str = "refuse") -> float:
    """G-Norm: Tr Sigma(D) = mean |h|^2 over responses, `h` (n m, d). Lower is better (paper's final
    version)."""
    h = check_rows(h, "h")
    find_zero_rows(h, zero_rows)
    return float(np.einsum("rd,rd->", h, h)) / len(h)


def g_var(h: np.ndarray, zero_rows: str = "refuse") -> float:
    """G-Var: mean |h - mu(D)|^2 over responses, `h` (n m, d). Lower is better. G-Norm = G-Var + |mu|^2."""
    h = check_rows(h, "h")
    find_zero_rows(h, zero_rows)
    centred = h - h.mean(axis=0)
    return float(np.einsum("rd,rd->", centred, centred)) / len(h)


def _why_nu_decides(n_rows: int, d: int, n_folds: int, nu_share: float) -> str:
    outside = (1 - 1 / n_folds) * n_rows
    if outside <= d:
        rank = f"(1 - 1/C) n m = {outside:g} <= d = {d}, Sigma(D_-i) cannot have full rank"
        return f"{rank}; use more prompts or a smaller d"
    if nu_share > NU_DECIDES:
        return f"{nu_share:.0%} of its log-derivative is nu's, as when responses are near-duplicates"
    return ""
