"""The scores GRACE is compared with (paper, appendix C.1), and one registry of every score there is.

Why a registry: a table that calls a score "lower is better" and a plot that calls it "higher" cannot both be
right. `SCORES` is the only place that says what a score is called, which end is good, what it needs and where
it is from. The paper names most baselines without a formula and states few directions; `Score.source` says
which are its words and which are our reading. A direction that is ours is a guess made before looking at any
result, and a negative signed correlation is then the finding.

`compute_scores` takes the features of one teacher, a mapping with g (N, d) before length recalibration,
length, loss, mean_prob, prompt_id (all (N,)) and, where graded, correct (N,) bool. GRACE's folds are computed
once for all its parts.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property

import numpy as np

from gracelib import since
from gracelib.checks import (
    UndefinedScore,
    check_choice,
    check_column,
    check_nu,
    check_prompt_ids,
    check_prompted_rows,
    check_rows,
    find_zero_rows,
)
from gracelib.moments import moment_rows
from gracelib.scores import Grace, g_norm, g_var, g_vendi, grace, recalibrate


@dataclass(frozen=True)
class PerPrompt:
    """A score that is a mean over prompts, and how many prompts could not take part."""

    value: float
    used: int  #: prompts in the mean
    skipped: int  #: prompts without what the score needs (two responses, a correct one, ...)
    influence: np.ndarray  #: (n,) what a prompt's weight adds to the value, to first order; sums to zero

    @classmethod
    def of(cls, values: np.ndarray, has: np.ndarray) -> "PerPrompt":
        """The mean of `values` (n,) over the prompts that have one, `has` (n,) bool."""
        value, used = float(values[has].mean()), int(has.sum())
        return cls(value, used, int((~has).sum()), np.where(has, values - value, 0.0) / used)


def determinant(h: np.ndarray, nu: float = 1e-3, zero_rows: str = "refuse") -> float:
    """log det(Sigma-tilde + nu/d I) of the normalised second moment, `h` (N, d), natural logarithm.

    Higher is more diverse. The paper names a determinant and gives no formula; the smoothing is GRACE's,
    without it the logarithm is minus infinity whenever N < d. nu > 0.
    """
    h = check_rows(h, "h")
    nu = check_nu(nu, "the determinant needs nu > 0, its logarithm is -inf for a singular second moment")
    unit = moment_rows(h, find_zero_rows(h, zero_rows), "normalised")  # (k, d)
    d = h.shape[1]
    return float(np.linalg.slogdet(unit.T @ unit / len(unit) + nu / d * np.eye(d))[1])


def badge(h: np.ndarray, nu: float = 1e-3, zero_rows: str = "refuse") -> float:
    """BADGE-style score: `determinant` + log mean |h|^2, a determinant times a norm on the logarithmic scale.

    The product itself would be meaningless with a negative log-determinant. Higher is larger and more
    diverse.
    """
    return determinant(h, nu, zero_rows) + float(np.log(g_norm(h, zero_rows)))


def inner_product(h: np.ndarray, prompt_id, normalised: bool = True, zero_rows: str = "refuse") -> PerPrompt:
    """Mean over prompts of the mean inner product of two different responses' gradients to the same prompt.

    `h` (N, d); `normalised` uses h/|h| (a cosine), else h. A response is never paired with itself; prompts
    with one response (or, normalised, with fewer than two rows that have a direction) are skipped and
    counted.
    """
    h, prompt_ids, code, no_direction = check_prompted_rows(h, prompt_id, zero_rows)
    if normalised:
        h, code = moment_rows(h, no_direction, "normalised"), code[~no_direction]
    n = len(prompt_ids)
    count = np.bincount(code, minlength=n)
    sums = np.zeros((n, h.shape[1]))
    np.add.at(sums, code, h)  # (n, d) sum of a prompt's rows
    own = np.bincount(code, weights=np.einsum("rd,rd->r", h, h), minlength=n)
    pairs = np.einsum("nd,nd->n", sums, sums) - own  # sum over ordered pairs of different responses
    has = count >= 2
    if not has.any():
        raise UndefinedScore(f"no pair: each of the {n} prompts has fewer than two responses with a direction")
    return PerPrompt.of(np.divide(pairs, count * (count - 1), out=np.zeros(n), where=has), has)


def best_prob(mean_prob: np.ndarray, prompt_id) -> PerPrompt:
    """Mean over prompts of the largest mean token probability among the prompt's responses. Higher is
    better."""
    mean_prob = check_column("mean_prob", mean_prob, 0.0, 1.0)
    prompt_ids, code = check_prompt_ids(prompt_id, len(mean_prob))
    best = np.full(len(prompt_ids), -np.inf)
    np.maximum.at(best, code, mean_prob)
    return PerPrompt.of(best, np.full(len(best), True))


def graded_prob(mean_prob: np.ndarray, prompt_id, correct: np.ndarray, kind: str) -> PerPrompt:
    """Mean token probability of correct or incorrect responses, or their difference, averaged per prompt
    first.

    `kind` is "correct", "incorrect" or "difference" (correct minus incorrect). Prompts that lack the kind
    (for the difference: either kind) are skipped and counted; if every prompt lacks it the score is
    undefined: ValueError.
    """
    check_choice("kind", kind, ("correct", "incorrect", "difference"))
    mean_prob = check_column("mean_prob", mean_prob, 0.0, 1.0)
    prompt_ids, code = check_prompt_ids(prompt_id, len(mean_prob))
    correct = np.asarray(correct)
    if correct.shape != mean_prob.shape or correct.dtype != bool:
        raise ValueError(f"correct has shape {correct.shape} and dtype {correct.dtype}: expected one bool per response")
    n = len(prompt_ids)
    means, has = {}, {}
    for name, mask in (("correct", correct), ("incorrect", ~correct)):
        count = np.bincount(code[mask], minlength=n)
        has[name] = count > 0
        means[name] = np.bincount(code[mask], weights=mean_prob[mask], minlength=n) / np.maximum(count, 1)
    used = has["correct"] & has["incorrect"] if kind == "difference" else has[kind]
    if not used.any():
        what = "both a correct and an incorrect" if kind == "difference" else f"a{'n' * (kind[0] == 'i')} {kind}"
        raise UndefinedScore(f"none of the {n} prompts has {what} response: the score is undefined")
    values = means["correct"] - means["incorrect"] if kind == "difference" else means[kind]
    return PerPrompt.of(values, used)


def size_influence(h: np.ndarray) -> np.ndarray:
    """What a row's weight adds to the mean |h|^2 of `h` (N, d), (N,)."""
    squared = np.einsum("rd,rd->r", h, h)
    return (squared - squared.mean()) / len(h)


def spectral_influence(h: np.ndarray, derivative: Callable[[np.ndarray], np.ndarray], zero_rows: str) -> np.ndarray:
    """What a row's weight adds to a sum over the eigenvalues of the normalised second moment of `h` (N, d), to first order (N,).

    derivative: of the summand, at eigenvalues that are not zero. Rows without direction have none."""
    no_direction = find_zero_rows(h, zero_rows)
    unit = moment_rows(h, no_direction, "normalised")  # (k, d)
    lam, v = np.linalg.eigh(unit.T @ unit / len(unit))  # (d,), (d, d)
    there = lam > lam[-1] * 1e-12  # no row has a part along the others
    moved, influence = np.square(unit @ v[:, there]) @ derivative(lam[there]), np.zeros(len(h))
    influence[~no_direction] = (moved - moved.mean()) / len(unit)
    return influence


class _Teacher:
    """Features of one teacher with what several scores share (h, GRACE) computed once, on first use."""

    def __init__(self, features: Mapping, n_folds: int, nu: float, power: float, seed: int):
        self.features, self.nu = features, nu
        self._grace_args = {"n_folds": n_folds, "nu": nu, "seed": seed, "zero_rows": "keep"}
        self._power = power

    def __getitem__(self, name: str):
        return self.features[name]

    @cached_property
    def h(self) -> np.ndarray:
        h = recalibrate(self["g"], self["length"], self._power)
        dead = np.flatnonzero(~h.any(axis=1) & (np.asarray(self["length"]) > 1))
        if dead.size:  # one-token responses are zero by definition and kept; any other zero row is a fault
            raise ValueError(
                f"g[{dead[0]}] is zero ({dead.size} such) though its response has more than one token: a "
                "dead gradient, look at how the features were made"
            )
        return h

    def by_volume(self) -> np.ndarray:
        """What a row's weight adds to the log-determinant (N,)."""
        return spectral_influence(self.h, lambda lam: 1 / (lam + self.nu / self.h.shape[1]), "keep")

    @cached_property
    def grace(self) -> Grace:
        return grace(self.h, self["prompt_id"], **self._grace_args)


@dataclass(frozen=True)
class Score:
    """What a table or a plot has to know about a score."""

    name: str  #: column name
    label: str  #: what a figure prints
    direction: str  #: "lower" or "higher": which end is better
    needs: tuple[str, ...]  #: feature columns
    source: str  #: where the definition and the direction come from
    function: Callable[[_Teacher], float | PerPrompt | since.Ratio] | None  #: None: measured elsewhere, joined by name
    aggregation: str = ""  #: of one published since: how responses become a teacher's number
    #: Of a score of gradients: what a response's weight adds to it (N,), to first order.
    influence: Callable[[_Teacher], np.ndarray] | None = None


_H = ("g", "length", "prompt_id")
_C = ("mean_prob", "prompt_id", "correct")
_OURS = "; direction ours"


def _graded(kind: str) -> Callable[[_Teacher], PerPrompt]:
    return lambda t: graded_prob(t["mean_prob"], t["prompt_id"], t["correct"], kind)


def _mean(name: str, low: float, high: float = np.inf) -> Callable[[_Teacher], since.Ratio]:
    return lambda t: since.mean(check_column(name, t[name], low, high))


# fmt: off
_LIST = (
    Score("grace", "GRACE", "lower", _H, "sec. 3, final version", lambda t: t.grace.total),
    Score("grace_variance", "GRACE-Variance", "lower", _H, "final version; the submission's GRACE",
          lambda t: t.grace.variance),
    Score("grace_bias", "GRACE-Bias", "lower", _H, "final version, fold-weighted", lambda t: t.grace.bias),
    Score("g_norm", "G-Norm", "lower", _H, "sec. 3, final version", lambda t: g_norm(t.h, "keep"),
          influence=lambda t: size_influence(t.h)),
    Score("g_var", "G-Var", "lower", _H, "submission, eq. 3", lambda t: g_var(t.h, "keep"),
          influence=lambda t: size_influence(t.h - t.h.mean(axis=0))),
    Score("g_vendi", "G-Vendi", "higher", _H, "Jung et al. 2025; in nats", lambda t: g_vendi(t.h, "keep"),
          influence=lambda t: spectral_influence(t.h, lambda lam: -np.log(lam), "keep")),
    Score("student_loss", "Student loss", "lower", ("loss",), "C.1 (1)", _mean("loss", 0.0)),
    Score("determinant", "Determinant", "higher", _H, "C.1 (4), formula ours" + _OURS,
          lambda t: determinant(t.h, t.nu, "keep"), influence=lambda t: t.by_volume()),
    Score("badge", "Determinant with norm", "higher", _H, "C.1 (5), BADGE-style, formula ours" + _OURS,
          lambda t: badge(t.h, t.nu, "keep"), influence=lambda t: t.by_volume() + size_influence(t.h) / g_norm(t.h, "keep")),
    Score("inner_product", "Inner product, normalised", "lower", _H, "C.1 (6)" + _OURS + ": less redundant",
          lambda t: inner_product(t.h, t["prompt_id"], True, "keep")),
    Score("inner_product_raw", "Inner product, raw", "lower", _H, "C.1 (7)" + _OURS + ": less redundant",
          lambda t: inner_product(t.h, t["prompt_id"], False, "keep")),
    Score("average_prob", "Average probability", "higher", ("mean_prob",), "C.1 (8)" + _OURS,
          _mean("mean_prob", 0.0, 1.0)),
    Score("best_prob", "Best probability per prompt", "higher", ("mean_prob", "prompt_id"), "C.1 (9)" + _OURS,
          lambda t: best_prob(t["mean_prob"], t["prompt_id"])),
    Score("correct_prob", "Probability of correct", "higher", _C, "C.1 (10)" + _OURS, _graded("correct")),
    Score("incorrect_prob", "Probability of incorrect", "lower", _C, "C.1 (11)" + _OURS,
          _graded("incorrect")),
    Score("difference_prob", "Correct minus incorrect", "higher", _C, "C.1 (12)" + _OURS,
          _graded("difference")),
    Score("teacher_accuracy", "Teacher accuracy", "higher", (), "Average@k on held-out problems", None),
    Score("mean_length", "Response length", "higher", ("length",), "authors' blog: fails" + _OURS,
          _mean("length", 1.0)),
)
# Published since, made of what the features take down beside the gradients (`features.record`).
_LP, _MEAN, _OF_MEANS = ("token_logprob", "length"), "mean over responses", "ratio of means over responses"
_POOL = ("pool_loss", "pool_brier")
_SINCE = (
    Score("rsr", "RSR", "lower", ("token_rank", *_LP), "arXiv 2601.14249", since.rsr, _OF_MEANS),
    Score("grape", "GRAPE", "higher", ("loss",), "arXiv 2502.04194; as a teacher's score ours", since.grape, _MEAN),
    Score("car", "CAR, accuracy as reward", "higher", ("loss", "correct"), "arXiv 2411.07133; beta = 1 ours", since.car,
          _OF_MEANS),
    Score("lark", "LARK", "higher", ("token_brier50", *_LP, *_POOL), "arXiv 2605.30651", since.lark, _MEAN),
    Score("aslec_drop", "ASLEC-DROP", "higher", ("token_step", *_LP), "arXiv 2604.06834, skip 2", since.aslec_drop, _MEAN),
    Score("aslec_casl", "ASLEC-CASL, pooled fit", "higher", ("token_step", *_LP, "pool_slope"),
          "arXiv 2604.06834; one fit for all teachers is ours", lambda t: since.aslec_casl(t, float(t["pool_slope"][0])),
          _MEAN),
    Score("aslec_casl_own", "ASLEC-CASL, as released", "higher", ("token_step", *_LP), "arXiv 2604.06834, released driver",
          since.aslec_casl, _MEAN),
    Score("scas", "SCAS", "lower", ("act_self", "act_cross", "content_loss", "prompt_loss"), "arXiv 2605.26872, lambda .5",
          since.scas, _MEAN),
    Score("hes", "High-entropy sum", "higher", ("token_entropy", "length"), "OpenReview heVn5cNfje", since.hes, _MEAN),
    Score("upd", "UPD", "higher", ("token_entropy", "vocabulary", *_LP), "arXiv 2503.11441", since.upd, _MEAN),
    Score("ifd", "IFD, ratio of losses", "higher", ("loss", "alone_loss"), "arXiv 2308.12032, released code", since.ifd,
          _MEAN),
    Score("ifd_perplexity", "IFD, ratio of perplexities", "higher", ("loss", "alone_loss"), "arXiv 2308.12032, as in others' code",
          lambda t: since.ifd(t, of_perplexities=True), _MEAN),
    Score("lalp", "Local naturalness", "higher", ("local_loss",), "arXiv 2510.03988, window 25% of the sentences before",
          since.lalp, _MEAN),
    Score("zlib", "zlib bits per character", "higher", ("zlib_bits", "characters"), "no model" + _OURS,
          lambda t: since.bits_per_character(t, "zlib_bits"), _OF_MEANS),
    Score("zlib_joint", "zlib bits, all responses together", "higher", ("joint_bits", "characters"), "no model" + _OURS,
          lambda t: since.bits_per_character(t, "joint_bits"), _OF_MEANS),
)
# fmt: on
#: The paper's scores, then those of `since`: tables and claims are about the former, the latter come where they are named.
SCORES: dict[str, Score] = {score.name: score for score in (*_LIST, *_SINCE)}
SINCE: tuple[str, ...] = tuple(score.name for score in _SINCE)


def check_score(name: str) -> None:
    """ValueError for a name that is none, with those that it may have meant."""
    if name not in SCORES:
        near = ", ".join(get_close_matches(name, SCORES, 3))
        raise ValueError(f"unknown score {name!r}: {near and f'did you mean {near}? '}choose from {', '.join(SCORES)}")


@dataclass(frozen=True)
class Scored:
    """Every score of one teacher."""

    values: dict[str, float]
    skipped: dict[str, int]  #: prompts left out, for the scores that are means over prompts
    undefined: dict[str, str]  #: scores that no prompt of this teacher allows, with the reason
    grace: Grace | None  #: GRACE with its per-prompt contributions, when a part of it was asked for
    ratios: dict[str, since.Ratio] = field(default_factory=dict)  #: of means over responses and ratios of these
    influence: dict[str, np.ndarray] = field(default_factory=dict)  #: of the others but GRACE: of each prompt (n,)


def compute_scores(
    features: Mapping,
    names: Iterable[str] | None = None,
    n_folds: int = 10,
    nu: float = 1e-3,
    power: float = 1.0,
    seed: int = 0,
    with_influence: bool = False,
) -> Scored:
    """All scores of `SCORES` (or `names`) that these features allow.

    With `names` None the paper's; scores whose columns are missing (no grades) and those measured elsewhere are left out;
    naming one that cannot be computed is an error. A teacher that is never wrong has no probability of
    incorrect responses: such scores are listed in `undefined` with the reason instead of appearing as NaN.
    with_influence: of the prompts on scores of gradients as well, for intervals.
    The other arguments are those of `grace` and `recalibrate`.
    """
    asked = None if names is None else list(names)
    for name in asked or ():
        check_score(name)
        if SCORES[name].function is None:
            raise ValueError(f"{name} is not a function of the features: {SCORES[name].source}; join it by name")
        missing = [column for column in SCORES[name].needs if column not in features]
        if missing:
            raise ValueError(f"{name} needs the feature column(s) {', '.join(missing)}")
    if asked is None:
        asked = [s.name for s in _LIST if s.function is not None and all(c in features for c in s.needs)]
    teacher = _Teacher(features, n_folds, nu, power, seed)
    values, skipped, undefined, ratios, influence = {}, {}, {}, {}, {}
    for name in asked:
        try:
            value = SCORES[name].function(teacher)
            if isinstance(value, since.Ratio):
                ratios[name], value = value, value.value
        except UndefinedScore as error:
            undefined[name] = str(error)
            continue
        if isinstance(value, PerPrompt):
            skipped[name], influence[name] = value.skipped, value.influence
            value = value.value
        elif with_influence and (by_response := SCORES[name].influence):
            _, code = check_prompt_ids(features["prompt_id"], len(features["prompt_id"]))
            influence[name] = np.bincount(code, weights=by_response(teacher))
        values[name] = value
    return Scored(values, skipped, undefined, teacher.__dict__.get("grace"), ratios, influence)
