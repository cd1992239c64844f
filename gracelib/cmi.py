"""The conditional-mutual-information bound behind GRACE, with every term measured instead of assumed.

The paper explains GRACE by one noisy preconditioned step: leave a prompt x out, update by -eta M_-x mu_-x +
noise, and ask how much the new parameters tell about which prompt was left out, I(Theta'; U | D). Its Lemma
B.1 bounds that by a gradient term (GRACE-Variance with C = n, up to a factor) plus a stability term, which
says how much the preconditioner itself depends on the prompt, and drops a third. The paper asserts that
stability is 5-10 times smaller and shows no number. Here all three are computed, beside a tighter valid bound
and log n, which the mutual information cannot exceed.

What is bounded: the step of the *projected* d-dimensional model, with g or h for the gradients (as the
caller gives them); the lemma itself speaks of unprojected g. Noise is added outside the step as in the submission's
appendix A, hence eta^2; for noise inside the step (final version) pass eta = 1.

How it is fast: with S = sum of u u^T over all normalised rows, leaving out prompt x changes (S - U_x^T
U_x)/(N - m_x) + nu/d I by a matrix of rank m_x. One eigendecomposition of S serves every x and every distinct
m_x; Woodbury does the rest. For the inverse square root, x^(-1/2) is a sum of some 20 shifted inverses (Hale,
Higham and Trefethen 2008, method 3), each updated by Woodbury; the average over x is accumulated as one
symmetric matrix product per shift.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas
from scipy.special import ellipj, ellipkm1

from gracelib.checks import check_choice, check_nu, check_prompted_rows
from gracelib.moments import moment_rows


@dataclass(frozen=True)
class CmiBound:
    """Terms and bounds in nats. Prompts weigh 1/n each, as U is uniform."""

    gradient: float  #: 3 eta^2/sigma^2 mean |M_-x (mu_-x - mu)|^2, mu_-x - mu = -(m_x/N) gbar_x
    stability: float  #: 3 eta^2/sigma^2 mean |(M_-x - mean M) mu_-x|^2, as the lemma states it
    stability_proof: float  #: the same with mu(D) for mu_-x, as its proof has it but for a factor (n/(n-1))^2
    #: 3 eta^2/sigma^2 |mean M_-x (mu_-x - mu)|^2: what is left where delta_x is split as `proof` splits it. The third term
    #: that the lemma drops is another, 1.13 times as large at n = 10.
    cross: float
    lemma: float  #: gradient + stability: the lemma's bound (not a bound when the dropped term matters)
    proof: float  #: gradient + stability_proof + cross: the proof before dropping, always valid
    tight: float  #: eta^2/sigma^2 mean |delta_x - mean delta|^2, delta_x = M_-x mu_-x: valid, no factor 3
    # (even tight / 2 holds: take N(mean delta, sigma^2 I) as the reference instead of the mixture)
    log_n: float  #: the most the mutual information can be
    ratio: float  #: gradient / stability: how many times smaller the stability term is (inf for the identity)
    n_prompts: int
    per_prompt: np.ndarray  #: (n,) |delta_x - mean delta|^2, in the order of the sorted prompt ids


def cmi_bound(
    x: np.ndarray,
    prompt_id,
    *,
    eta: float,
    sigma: float,
    preconditioner: str = "smoothed",
    nu: float = 1e-3,
    zero_rows: str = "refuse",
) -> CmiBound:
    """Leave-one-prompt-out CMI bound of one step, all terms of the proof of Lemma B.1.

    `x` (N, d) projected gradients, before (g) or after (h) length recalibration; `prompt_id` (N,). A prompt leaves with all its responses: mu_-x = (N mu - m_x g_x)/(N - m_x). `preconditioner`
    "smoothed" is M_-x = (Sigma-tilde(D_-x) + nu/d I)^(-1/2), nu > 0; "identity" is M = I.
    `zero_rows` as in `grace`. Source: submission, appendices A and B; the tighter bound is the step before |a
    + b + c|^2 <= 3 (...).
    """
    check_choice("preconditioner", preconditioner, ("smoothed", "identity"))
    for name, value in (("eta", eta), ("sigma", sigma)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value}: expected a finite number > 0")
    loo = LeaveOneOut(x, prompt_id, nu, zero_rows)
    if preconditioner == "identity":
        step, step_mu, mean_step, mean_step_mu = loo.mu_out, np.tile(loo.mu, (loo.n, 1)), loo.mu_out, loo.mu
        gradient = np.square(loo.mu_out - loo.mu).sum(axis=1)
    else:
        step, step_mu, mean_m = loo.inverse_sqrt()
        mean_step, mean_step_mu = loo.mu_out @ mean_m, loo.mu @ mean_m
        gradient = loo.quadratic(loo.mu_out - loo.mu)
    scale = eta**2 / sigma**2
    terms = {
        "gradient": 3 * scale * gradient.mean(),
        "stability": 3 * scale * np.square(step - mean_step).sum(axis=1).mean(),
        "stability_proof": 3 * scale * np.square(step_mu - mean_step_mu).sum(axis=1).mean(),
        "cross": 3 * scale * np.square((step - step_mu).mean(axis=0)).sum(),
    }
    spread = np.square(step - step.mean(axis=0)).sum(axis=1)  # (n,)
    terms["lemma"] = terms["gradient"] + terms["stability"]
    terms["proof"] = terms["gradient"] + terms["stability_proof"] + terms["cross"]
    terms["tight"] = scale * spread.mean()
    terms["ratio"] = terms["gradient"] / terms["stability"] if terms["stability"] > 0 else np.inf
    return CmiBound(
        **{k: float(v) for k, v in terms.items()}, log_n=float(np.log(loo.n)), n_prompts=loo.n, per_prompt=spread
    )


class LeaveOneOut:
    """Sigma-hat(D_-x)^-1 and ^(-1/2) for every prompt x from one eigendecomposition. Vectors are (n, d),
    sorted ids.

    Attributes: `n` prompts, `d`, `mu` (d,), `mu_out` (n, d) = mu_-x, `count` (n,) responses per prompt.
    """

    def __init__(self, x: np.ndarray, prompt_id, nu: float = 1e-3, zero_rows: str = "refuse"):
        x, prompt_ids, code, none = check_prompted_rows(x, prompt_id, zero_rows, "x")
        self.nu = check_nu(nu, "leaving a prompt out can make Sigma-tilde singular, use nu > 0")
        self.n, (self.n_rows, self.d) = len(prompt_ids), x.shape
        if self.n < 2:
            raise ValueError("only one prompt: leaving it out leaves nothing")
        order = np.argsort(code, kind="stable")
        x, code = x[order], code[order]
        self.count = np.bincount(code, minlength=self.n)
        self.mu = x.mean(axis=0)
        sums = np.add.reduceat(x, np.flatnonzero(np.diff(code, prepend=-1)), axis=0)  # (n, d) m_x g_x
        self.mu_out = (self.n_rows * self.mu - sums) / (self.n_rows - self.count)[:, None]
        kept = ~none[order]
        unit = np.zeros_like(x)  # a zero row has no direction: it stays zero and is not counted in Sigma-tilde
        unit[kept] = moment_rows(x, ~kept, "normalised")
        directed = np.bincount(code[kept], minlength=self.n)  # (n,) rows with a direction
        left = kept.sum() - directed  # (n,) those outside each prompt
        if left.min() == 0:
            raise ValueError(f"only prompt {prompt_ids[left.argmin()]} has rows with a direction")
        self.lam, self.q = np.linalg.eigh(unit.T @ unit)  # (d,), (d, d)
        self.lam = np.clip(self.lam, 0.0, None)
        rotated = unit @ self.q  # (N, d) rows in the eigenbasis of S, where every unperturbed matrix is diagonal
        # One group per distinct number of responses (and of those with a direction): its prompts (k,), their
        # rows (k, m, d) and the number of rows that Sigma-tilde(D_-x) averages over.
        self.groups = []
        for m, out in sorted(set(zip(self.count.tolist(), left.tolist(), strict=True))):
            at = np.flatnonzero((self.count == m) & (left == out))
            self.groups.append((at, rotated[np.isin(code, at)].reshape(len(at), m, self.d), out))

    def quadratic(self, v: np.ndarray) -> np.ndarray:
        """v_x^T Sigma-hat(D_-x)^-1 v_x for v (n, d) -> (n,)."""
        v, out = v @ self.q, np.empty(self.n)
        for at, rows, left in self.groups:
            root = self._root(left, 0.0)  # (d,)
            w, half, c = v[at] * root, *self._capacitance(rows, left, root)
            t = np.einsum("kmd,kd->km", half, w)
            # A^-1 + A^-1 V (I - V^T A^-1 V)^-1 V^T A^-1, and c is the Cholesky factor of the bracket
            t = np.linalg.solve(c, t[..., None])[..., 0]
            out[at] = np.einsum("kd,kd->k", w, w) + np.einsum("km,km->k", t, t)
        return out

    def inverse_sqrt(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M_-x mu_-x (n, d), M_-x mu (n, d) and the average of M_-x over prompts (d, d), M =
        Sigma-hat^(-1/2)."""
        low = self.nu / self.d
        high = self.lam[-1] / min(left for *_, left in self.groups) + low  # removing rows lowers eigenvalues
        shifts, weights = inverse_sqrt_quadrature(low, high)
        mu, mu_out = self.mu @ self.q, self.mu_out @ self.q
        on_out, on_mu = np.zeros((self.n, self.d)), np.zeros((self.n, self.d))
        mean_m = np.zeros((self.d, self.d))
        for at, rows, left in self.groups:
            pair = np.stack([mu_out[at], np.broadcast_to(mu, (len(at), self.d))], axis=1)  # (k, 2, d)
            result = np.zeros_like(pair)
            for shift, weight in zip(shifts, weights, strict=True):
                root = self._root(left, shift)
                half, c = self._capacitance(rows, left, root)
                y = np.linalg.solve(c, half)  # (k, m, d): y^T y is the correction in the scaled basis
                w = pair * root
                result += weight * root * (w + (w @ y.transpose(0, 2, 1)) @ y)  # (k, 2, m) @ (k, m, d)
                flat = y.reshape(-1, self.d)  # (k m, d)
                update = blas.dsyrk(1.0, flat.T, lower=1)  # lower triangle of (d, km) @ (km, d)
                update[np.diag_indices(self.d)] += len(at)
                mean_m += (weight / self.n) * root[:, None] * update * root
            on_out[at], on_mu[at] = result[:, 0], result[:, 1]
        mean_m = np.tril(mean_m) + np.tril(mean_m, -1).T
        return on_out @ self.q.T, on_mu @ self.q.T, self.q @ mean_m @ self.q.T

    def _root(self, left: int, shift: float) -> np.ndarray:
        """Diagonal of A^(-1/2), A = S/(N - m) + nu/d I + shift I, in the eigenbasis (d,); `left` is N - m."""
        return 1 / np.sqrt(self.lam / left + self.nu / self.d + shift)

    def _capacitance(self, rows: np.ndarray, left: int, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """V^T A^(-1/2) (k, m, d) and the Cholesky factor (k, m, m) of I - V^T A^-1 V, V = U_x^T/sqrt(N -
        m)."""
        half = rows * (root / np.sqrt(left))
        return half, np.linalg.cholesky(np.eye(rows.shape[1]) - half @ half.transpose(0, 2, 1))


def inverse_sqrt_quadrature(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Shifts s and weights w (both > 0) with x^(-1/2) = sum_k w_k / (x + s_k) for x in [low, high].

    Hale, Higham and Trefethen (2008), method 3. The relative error is about 4 exp(-2 pi^2 K / (log(high/low)
    + 2.8)) with K shifts; the K is taken that brings it to 1e-9 (at least 8; 15-21 for nu from 1e-2 to 1e-4).
    """
    if not 0 < low <= high:
        raise ValueError(f"low = {low}, high = {high}: expected 0 < low <= high")
    if high > 1e9 * low:
        raise ValueError(
            f"the spectrum spans {high / low:.0e}: beyond 1e9 the quadrature loses digits, use a larger nu"
        )
    n_shifts = max(8, int(np.ceil((np.log(high / low) + 2.8) * np.log(4e9) / (2 * np.pi**2))))
    period = ellipkm1(low / high)  # K(1 - low/high), accurate when low/high is tiny
    sn, cn, dn, _ = ellipj((np.arange(n_shifts) + 0.5) * period / n_shifts, 1 - low / high)
    return low * (sn / cn) ** 2, 2 * period * np.sqrt(low) / (np.pi * n_shifts) * dn / cn**2
