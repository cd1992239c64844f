"""GRACE as the sources describe it, and every way in which they disagree, as named variants on the same features.

Why a registry: the submission, the final version and the released code do not compute one number, and a reader who
re-implements GRACE meets each difference as a bug of their own. Here every difference is a function of the same
features with a name, the place in the sources where it comes from, what we do and what the alternative is, so that
its effect is measured (value, ranking) instead of argued. A variant is compared with its `reference`: the score that
it would replace. Responses of one token (log|y| = 0) count as zero rows throughout; the released code has no such
case, so its variants leave them out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gracelib.checks import as_int, check_prompt_ids
from gracelib.cmi import LeaveOneOut
from gracelib.moments import assign_folds, factor, moment_rows, turn_within_prompt, whiten
from gracelib.scores import Grace, g_norm, g_vendi, grace, recalibrate, released_grace

REFERENCES = {
    "grace": "lower",
    "grace_variance": "lower",
    "grace_bias": "lower",
    "g_vendi": "higher",
    "g_norm": "lower",
    "first_half": "lower",
}  #: what a variant may stand in for, and which end of it is better


class Teacher:
    """Features of one cell with the defaults that several variants start from, each computed once."""

    def __init__(self, features: Mapping, n_folds: int, nu: float, seed: int = 0):
        self.features, self.n_folds, self.nu, self.seed = features, n_folds, nu, seed
        self.ids, self.length = features["prompt_id"], np.asarray(features["length"])
        self.h = recalibrate(features["g"], self.length)

    def grace(self, h=None, ids=None, **changes) -> Grace:
        """`grace` with the defaults of this run, except for `changes`."""
        keys = {"n_folds": self.n_folds, "nu": self.nu, "seed": self.seed, "zero_rows": "keep"} | changes
        return grace(self.h if h is None else h, self.ids if ids is None else ids, **keys)

    @cached_property
    def default(self) -> Grace:
        return self.grace()

    def over_folds(self, matrix: str, of_mean: bool = False) -> float:
        """1/(nm) times the sum over folds of |Sigma-hat^-1/2 x|^2, x the fold's rows, or once the mean of all rows.

        matrix: whose second moment Sigma-hat is, the fold's "own", that of the "others" (as GRACE's) or of "all".
        """
        prompt_ids, code = check_prompt_ids(self.ids, len(self.h))
        fold = assign_folds(len(prompt_ids), self.n_folds, self.seed)[code]  # (N,)
        zero, mean, total = ~self.h.any(axis=1), self.h.mean(axis=0), 0.0
        for i in range(self.n_folds):
            inside = fold == i
            seen = {"own": inside, "others": ~inside, "all": slice(None)}[matrix]
            unit = moment_rows(self.h[seen], zero[seen], "normalised")  # (k, d)
            if len(unit) == 0:
                continue  # only one-token responses: all of these rows are zero, whatever the matrix
            chol, _ = factor(unit.T @ unit / len(unit), self.nu, "normalised", f"fold {i}")
            total += float(np.square(whiten(chol, mean[None] if of_mean else self.h[inside])).sum())
        return total / len(self.h)

    def leave_one_out(self) -> float:
        """GRACE with C = n, by low-rank updates of one eigendecomposition instead of n factorisations."""
        _, code = check_prompt_ids(self.ids, len(self.h))
        turn, loo, total = turn_within_prompt(code), LeaveOneOut(self.h, self.ids, self.nu, "keep"), 0.0
        for k in range(turn.max() + 1):
            v = np.zeros((loo.n, self.h.shape[1]))  # (n, d) the k-th response of each prompt, zero if it has none
            v[code[turn == k]] = self.h[turn == k]
            total += float(loo.quadratic(v).sum())
        return total / len(self.h)

    def released(self, x: np.ndarray) -> float:
        kept = self.length > 1
        return released_grace(x[kept], np.asarray(self.ids)[kept], smooth_coeff=self.nu)

    def mean_of_folds(self) -> float:
        """1/C sum_i of the mean over D_i: equal to the pooled mean only when all folds have one size."""
        g = self.default
        sums = np.bincount(g.fold, weights=g.count * g.per_prompt)  # (C,)
        return float((sums / np.bincount(g.fold, weights=g.count)).mean())

    def columns(self, which: slice) -> float:
        return self.grace(self.h[:, which]).total


@dataclass(frozen=True)
class Variant:
    """One alternative: what it replaces, where the sources say so, and how it is computed."""

    name: str  #: column of the table
    label: str
    reference: str  #: the score it would replace, a key of REFERENCES
    function: Callable[[Teacher], float]
    sources: str = ""  #: which disagreement of the sources it stands for; empty: a knob, not a disagreement
    ours: str = ""  #: what we do there


# fmt: off
_LIST = (
    Variant("grace", "GRACE, our default", "grace", lambda t: t.default.total),
    Variant("centred_global", "centred with the mean of all", "grace", lambda t: t.default.variance,
            "the submission centres, the final version does not", "uncentred; variance reported beside"),
    Variant("centred_fold", "centred with the fold's mean", "grace_variance", lambda t: t.grace(centre="fold").total,
            "eq. 3 has the fold's mean, eq. 5 the mean of all", "mean of all"),
    Variant("raw_matrix", "matrix of raw gradients", "grace", lambda t: t.grace(preconditioner="raw").total,
            "lemma 2.1 writes Sigma, appendix A Sigma-tilde", "rows scaled to length one"),
    Variant("identity_matrix", "no matrix (G-Norm)", "grace", lambda t: t.grace(preconditioner="identity").total),
    Variant("own_fold_matrix", "matrix of the fold itself", "grace", lambda t: t.over_folds("own"),
            "eq. 4 inverts M(D_-i), eq. 5 M(D_i)", "M(D_-i), the other folds"),
    Variant("all_matrix", "matrix of all prompts (no folds)", "grace", lambda t: t.over_folds("all")),
    Variant("folds_of_responses", "folds of responses", "grace", lambda t: t.grace(ids=np.arange(len(t.h))).total),
    Variant("leave_one_out", "C = n", "grace", Teacher.leave_one_out,
            "the lemma needs C = n, experiments use C = 10", "C of the scale"),
    Variant("other_folds", "another draw of the folds", "grace", lambda t: t.grace(seed=t.seed + 1).total),
    Variant("mean_of_folds", "mean of fold means", "grace", Teacher.mean_of_folds,
            "1/C sum over folds, or 1/(nm) sum over responses", "pooled over responses"),
    Variant("bias_as_printed", "bias without the fold's weight", "grace_bias", lambda t: t.over_folds("others", of_mean=True),
            "GRACE-Bias is printed without the weight |D_i|", "weighted, so that the parts add up"),
    Variant("nu_1e-4", "nu = 1e-4", "grace", lambda t: t.grace(nu=1e-4).total,
            "nu is not stated; 1e-3 in the code, 1e-4 in a third-party note", "nu = 1e-3"),
    Variant("nu_1e-2", "nu = 1e-2", "grace", lambda t: t.grace(nu=1e-2).total),
    Variant("nu_1e-1", "nu = 1e-1", "grace", lambda t: t.grace(nu=1e-1).total),
    Variant("shrunk_eigenvalues", "the code's shrinkage", "grace",
            lambda t: t.grace(nu=t.nu / (1 - t.nu)).total / (1 - t.nu),
            "lambda + nu/d, or (1 - s) lambda + s mean(lambda) in the code", "lambda + nu/d"),
    Variant("length_power_0", "no length factor", "grace", lambda t: t.grace(np.asarray(t.features["g"], float)).total,
            "log|y| in the paper, absent from the code", "log|y|"),
    Variant("length_power_2", "(log|y|) squared", "grace",
            lambda t: t.grace(recalibrate(t.features["g"], t.length, 2.0)).total),
    Variant("token_sum", "loss summed over tokens", "grace", lambda t: t.grace(t.h * t.length[:, None]).total,
            "mean or sum over tokens is not said; training weighs by |y|", "mean over tokens"),
    Variant("released", "released code", "grace", lambda t: t.released(np.asarray(t.features["g"], float)),
            "the code: random 90/10 splits, no log|y|, shrinkage", "disjoint folds, log|y|"),
    Variant("released_log", "released code with log|y|", "grace", lambda t: t.released(t.h),
            "random 90/10 splits that overlap, instead of a partition", "disjoint folds"),
    Variant("first_half", "first half of the projection", "grace", lambda t: t.columns(slice(0, t.h.shape[1] // 2)),
            "best d is n/2 in an appendix, d = n the default", "d = n"),
    Variant("second_half", "other half of the projection", "first_half",
            lambda t: t.columns(slice(t.h.shape[1] // 2, 2 * (t.h.shape[1] // 2))),
            "signs of the projection depend on the GPU model", "signs from a seed on any machine"),
    Variant("g_norm_unprojected", "G-Norm without projection", "g_norm",
            lambda t: float(np.mean((np.log(t.length) * np.asarray(t.features["grad_norm"], float)) ** 2)),
            "entries 1/sqrt(D) shrink norms by d/D, 1/sqrt(d) would not", "1/sqrt(D), as the paper"),
    Variant("g_vendi_bits", "G-Vendi with log2", "g_vendi", lambda t: g_vendi(t.h, "keep") / np.log(2),
            "the base of the entropy's logarithm is not stated", "nats"),
)
# fmt: on
VARIANTS: dict[str, Variant] = {v.name: v for v in _LIST}
_REFERENCE_VALUES = {
    "grace_variance": lambda t: t.default.variance,
    "grace_bias": lambda t: t.default.bias,
    "g_vendi": lambda t: g_vendi(t.h, "keep"),
    "g_norm": lambda t: g_norm(t.h, "keep"),
}


def variant_values(features: Mapping, n_folds: int = 10, nu: float = 1e-3, seed: int = 0) -> dict[str, float]:
    """Every variant and every reference of one cell, by name.

    `features` as `compute_scores` takes them, with grad_norm (N,). `nu` is also the released code's shrinkage. Raises
    what `grace` raises on bad input; that nu decides is a field of `Grace`.
    """
    teacher = Teacher(features, n_folds, nu, seed)
    values = {name: float(variant.function(teacher)) for name, variant in VARIANTS.items()}
    return values | {name: float(f(teacher)) for name, f in _REFERENCE_VALUES.items()}


def few_prompts(features: Mapping, n_kept: int = 4, n_draws: int = 10, seed: int = 0) -> dict[str, float]:
    """The released code on all prompts and on `n_kept` of them, as its published revision takes by mistake.

    That revision cuts the shuffled data to `subsample_responses` (4) prompts instead of `subsample_questions` (512).
    No length factor, as in the code. Keys: all, few (mean over `n_draws` draws of prompts), few_low, few_high (their
    range). ValueError if there are fewer than n_kept prompts.
    """
    g = np.asarray(features["g"], dtype=np.float64)
    prompt_ids, code = check_prompt_ids(features["prompt_id"], len(g))
    if not 2 <= as_int("n_kept", n_kept) <= len(prompt_ids):
        raise ValueError(f"n_kept = {n_kept}: the features allow 2 <= n_kept <= {len(prompt_ids)} prompts")
    draws = []
    for draw in range(as_int("n_draws", n_draws)):
        kept = np.random.default_rng([seed, draw]).permutation(len(prompt_ids))[:n_kept]
        rows = np.isin(code, kept)
        draws.append(released_grace(g[rows], code[rows]))
    return {"all": released_grace(g, code), "few": float(np.mean(draws)), "few_low": min(draws), "few_high": max(draws)}
