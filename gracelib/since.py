"""Scores that were published after GRACE, from what the features keep of the same forward pass: arrays in, numbers out.

Why one form for all: a practitioner who asks which of them to trust needs each with an interval over the same prompts.
Every score here is a sum over responses divided by a sum over responses (`Ratio`): a mean, where the lower sum counts them,
or a ratio of means. So prompts are resampled in one way for all, and which of the two it is cannot be lost.

`f` is the features of one teacher as `files.load_features` gives them. Arrays `token_*` are flat over its responses, of
`length` tokens each. Scores that compare a response with the other teachers' need the columns that `pooled` adds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from gracelib.checks import UndefinedScore, check_column

MISSING = -16.0  #: CASL's stand-in for the mean log-probability of tokens that a response does not have
TINY = 1e-12


@dataclass(frozen=True)
class Ratio:
    """sum(above) / sum(below) over responses, both (N,)."""

    above: np.ndarray
    below: np.ndarray

    @property
    def value(self) -> float:
        if not (total := float(self.below.sum())):
            raise UndefinedScore("no response has what the score is made of")
        return float(self.above.sum()) / total


def mean(values: np.ndarray) -> Ratio:
    """The mean over responses; those without a value (NaN) count neither above nor below."""
    there = ~np.isnan(values)
    return Ratio(np.where(there, values, 0.0), there.astype(float))


def tokens(f: Mapping, name: str) -> np.ndarray:
    """The array `name` (sum of lengths,) as float64. ValueError if it does not fit the lengths or is not finite."""
    values, length = np.asarray(f[name]), check_column("length", f["length"], 1.0)
    if values.shape != (int(length.sum()),) or not np.isfinite(values).all():
        raise ValueError(
            f"{name} has shape {values.shape}: expected one finite number for each of {length.sum():.0f} tokens"
        )
    return values.astype(np.float64)


def _sums(f: Mapping, values: np.ndarray) -> np.ndarray:
    """Sum over the tokens of each response (N,)."""
    return np.add.reduceat(values, np.cumsum([0, *f["length"][:-1]]))


def _means(f: Mapping, values: np.ndarray) -> np.ndarray:
    return _sums(f, values) / f["length"]


def rsr(f: Mapping) -> Ratio:
    """Rank-surprisal ratio: mean rank of the tokens (at most 100) over mean surprisal, each averaged over a response's tokens
    and then over responses. Lower: likely enough to be learned from, surprising enough to teach. Follows length within a
    task, and a loop is cheap to it. Yang et al. 2026 (arXiv 2601.14249), appendix A.8."""
    return Ratio(_means(f, tokens(f, "token_rank")), np.maximum(-_means(f, tokens(f, "token_logprob")), TINY))


def grape(f: Mapping) -> Ratio:
    """Mean log-probability per token, averaged over responses: the student's loss with its sign turned. arXiv 2502.04194
    selects with it, per prompt."""
    return mean(-check_column("loss", f["loss"], 0.0))


def car(f: Mapping, beta: float = 1.0) -> Ratio:
    """Compatibility-adjusted reward r / (1 + beta L): here r is the share of responses that are right, L the student's mean
    loss. The source (arXiv 2411.07133) takes a reward model and states no beta; 0 is accuracy alone."""
    if not beta >= 0:
        raise ValueError(f"beta = {beta}: expected a number >= 0")
    return Ratio(np.asarray(f["correct"], float), 1 + beta * check_column("loss", f["loss"], 0.0))


def lark(f: Mapping) -> Ratio:
    """Mean of (L / sum L) (2 rho - sum(rho L) / sum L), rho = Brier / L, sums over all teachers' responses to the prompt:
    Brier is the squared gradient of the logits (top 50). arXiv 2605.30651; the mean over responses is ours."""
    loss, brier = -_means(f, tokens(f, "token_logprob")), _means(f, tokens(f, "token_brier50"))
    pool = np.maximum(f["pool_loss"], TINY)
    return mean((2 * brier - loss * f["pool_brier"] / pool) / pool)


def _heads(f: Mapping, skip: int) -> tuple[np.ndarray, ...]:
    """Of each response (N,): mean log-probability, share of tokens that are among the first `skip` of their sentence, mean
    of these and of the others (NaN where there are none)."""
    lp, first = tokens(f, "token_logprob"), tokens(f, "token_step") < skip
    with np.errstate(invalid="ignore"):
        parts = [_sums(f, lp * part) / _sums(f, part.astype(float)) for part in (first, ~first)]
    return _means(f, lp), _means(f, first), *parts


def aslec_drop(f: Mapping, skip: int = 2) -> Ratio:
    """Mean log-probability of the tokens after the first `skip` of their sentence; 0 for a response that has none.
    arXiv 2604.06834 (the released driver's skip; its paper has 1)."""
    return mean(np.nan_to_num(_heads(f, skip)[3]))


def casl_slope(*teachers: Mapping, skip: int = 2) -> float:
    """What the share F of sentences' first tokens adds to the mean log-probability M, by least squares of M on the means of
    the other and of the first tokens, F and 1, over all responses of `teachers`."""
    found = [np.nan_to_num(np.stack(_heads(f, skip)), nan=MISSING) for f in teachers]
    m, share, first, others = np.concatenate(found, axis=1)
    return float(np.linalg.lstsq(np.stack([others, first, share, np.ones_like(m)], 1), m, rcond=None)[0][2])


def aslec_casl(f: Mapping, slope: float | None = None, skip: int = 2) -> Ratio:
    """Mean log-probability less what its share of sentences' first tokens adds to it (`casl_slope`; None: fitted to these
    responses alone, as the released driver does). arXiv 2604.06834. The fit's own error is not in its interval."""
    m, share, *_ = _heads(f, skip)
    return mean(m - (casl_slope(f, skip=skip) if slope is None else slope) * share)


def scas(f: Mapping, lam: float = 0.5) -> Ratio:
    """(1 - lam) d_A^2 |mu_A|^2 + lam d_A d_Q mu_A . mu_Q: losses of response and prompt, weighed with how alike the last
    layer's activations are (`features.record`). Lower: varied, and apart from the prompt. arXiv 2605.26872, which chooses
    among right answers; the mean over responses is ours. Responses of the end token alone are left out."""
    own, prompt = np.asarray(f["content_loss"]), np.asarray(f["prompt_loss"])
    return mean((1 - lam) * own**2 * f["act_self"] + lam * own * prompt * f["act_cross"])


def hes(f: Mapping, share: float = 99.5) -> Ratio:
    """Sum of the entropies (bits) of a response's tokens at or above their `share` percentile: nearly the largest one for
    responses of fewer than 200 tokens. OpenReview heVn5cNfje."""
    bits = np.split(tokens(f, "token_entropy") / np.log(2), np.cumsum(f["length"])[:-1])
    return mean(np.array([own[own >= np.percentile(own, share)].sum() for own in bits]))


def upd(f: Mapping) -> Ratio:
    """Mean over tokens of sigmoid(loss) max(0, 1 - H / log V): surprising where the student is sure. arXiv 2503.11441."""
    loss, entropy = -tokens(f, "token_logprob"), tokens(f, "token_entropy")
    most = np.log(np.repeat(np.asarray(f["vocabulary"], float), f["length"]))
    return mean(_means(f, np.maximum(0.0, 1 - entropy / most) / (1 + np.exp(-loss))))


def ifd(f: Mapping, of_perplexities: bool = False) -> Ratio:
    """Instruction-following difficulty: loss with the prompt over loss without it (`alone_loss`, of the tokens after the
    first), or with `of_perplexities` the ratio of their exponentials. Higher: the prompt helps less. arXiv 2308.12032, whose
    released code has the former and most others the latter; the mean over responses is ours, one-token ones left out."""
    loss, alone = check_column("loss", f["loss"], 0.0), np.asarray(f["alone_loss"], float)
    return mean(np.exp(loss - alone) if of_perplexities else loss / np.maximum(alone, TINY))


def lalp(f: Mapping) -> Ratio:
    """Local naturalness: mean over a response's sentences of their mean log-probability, each given the prompt and no more than
    a share of the sentences before it (`local_loss`). arXiv 2510.03988, whose shares of 5 to 25% ranked best."""
    return mean(-np.asarray(f["local_loss"], float))


def bits_per_character(f: Mapping, name: str) -> Ratio:
    """Compressed size, `zlib_bits` or `joint_bits`, per character. No model is needed."""
    return Ratio(check_column(name, f[name], 0.0), check_column("characters", f["characters"], 0.0))


def pooled(teachers: Mapping[str, Mapping]) -> dict[str, dict]:
    """The features of every teacher with columns of all of them: pool_loss and pool_brier, the sums over all teachers'
    responses to the prompt; pool_slope, `casl_slope` of all (where sentences are known). Features without the arrays that
    these are made of stay as they are."""
    if not all("token_brier50" in f for f in teachers.values()):
        return {name: dict(f) for name, f in teachers.items()}
    ids, code = np.unique(np.concatenate([f["prompt_id"] for f in teachers.values()]), return_inverse=True)
    columns = {}
    for column, sign, name in (("pool_loss", -1, "token_logprob"), ("pool_brier", 1, "token_brier50")):
        each = np.concatenate([sign * _means(f, tokens(f, name)) for f in teachers.values()])
        columns[column] = np.bincount(code, weights=each)[code]
    if all("token_step" in f for f in teachers.values()):
        columns["pool_slope"] = np.full(len(code), casl_slope(*teachers.values()))
    ends = np.cumsum([len(f["prompt_id"]) for f in teachers.values()])
    return {
        name: {**f, **{column: values[end - len(f["prompt_id"]) : end] for column, values in columns.items()}}
        for (name, f), end in zip(teachers.items(), ends, strict=True)
    }


# --- which response to train on --------------------------------------------------------------------------------

#: name -> what a response costs (N,), from a teacher's features: the least is taken
COSTS = {"grape": lambda f: -grape(f).above, "rsr": lambda f: rsr(f).above / rsr(f).below}


def assigned(cost: np.ndarray, shares: Sequence[float] | None = None) -> np.ndarray:
    """The teacher (n,) of each prompt with the least sum of cost (n, teachers), under `shares` of the prompts for each."""
    if shares is None:
        return cost.argmin(axis=1)
    ends = np.round(np.cumsum(shares) * len(cost)).astype(int)
    places = np.repeat(np.arange(len(shares)), np.diff(ends, prepend=0))  # one for each prompt
    return places[linear_sum_assignment(cost[:, places])[1]]
