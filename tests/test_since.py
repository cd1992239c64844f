"""Each score published since equals a plain second implementation of its published definition, response by response and
token by token, also where tokens tie, a response has one token, or a sentence has no second word; and each has an input on
which only its own direction picks the better teacher."""

import math

import numpy as np
import pytest

from gracelib import since
from gracelib.baselines import SCORES, SINCE, compute_scores
from gracelib.checks import UndefinedScore
from gracelib.intervals import percentiles, ratio_draws


def teacher(seed=0, n=12, m=3, ugly=False):
    """Features of one teacher; `ugly`: one-token responses, ties, certain tokens, no prompt, nothing wrong or all."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 4 if ugly else 40, n * m)
    total, starts = length.sum(), np.cumsum([0, *length[:-1]])
    lp = np.log(rng.choice([1.0, 0.5, 1e-9], total) if ugly else rng.uniform(0.01, 1, total))
    f = {
        "length": length,
        "prompt_id": np.repeat([f"q{i}" for i in range(n)], m),
        "loss": -np.add.reduceat(lp, starts) / length,
        "correct": rng.random(n * m) < 0.5,
        "token_logprob": lp,
        "token_rank": rng.choice([1, 2, 100], total).astype(np.uint8),
        "token_entropy": rng.integers(0, 3, total) * 1.0 if ugly else rng.uniform(0, 3, total),
        "token_brier50": rng.uniform(0, 2, total),
        "token_step": rng.integers(0, 5, total).astype(np.uint8),
        "vocabulary": np.full(n * m, 20.0),
        **{name: rng.uniform(0.1, 2, n * m) for name in ("prompt_loss", "content_loss", "act_self", "act_cross")},
        **{name: rng.integers(8, 900, n * m) for name in ("zlib_bits", "joint_bits")},
        "characters": length * 4,
        "alone_loss": rng.uniform(0.1, 3, n * m),
        "local_loss": rng.uniform(0.1, 3, n * m),
    }
    for name in ("content_loss", "alone_loss"):
        f[name][length == 1] = np.nan  # nothing but the end token
    return f


def of(f, name):
    """The values of a flat array, a list per response."""
    return [list(map(float, part)) for part in np.split(f[name], np.cumsum(f["length"])[:-1])]


def average(values):
    return math.fsum(values) / len(values)


def heads(f):
    """Of each response, as the driver has it: M, F, M of the first two tokens of sentences, M of the others."""
    for lp, step in zip(of(f, "token_logprob"), of(f, "token_step")):
        a, b = ([v for v, s in zip(lp, step) if (s < 2) == first] for first in (True, False))
        yield average(lp), len(a) / len(lp), average(a) if a else None, average(b) if b else None


def slope(teachers):
    rows = [
        (m, share, -16 if a is None else a, -16 if b is None else b) for f in teachers for m, share, a, b in heads(f)
    ]
    m, share, a, b = map(np.array, zip(*rows))
    x = np.stack([b, a, share, np.ones(len(m))], 1)
    return (np.linalg.pinv(x) @ m)[2]


def plain_lark(f, everyone):
    values = []
    for lp, brier, prompt in zip(of(f, "token_logprob"), of(f, "token_brier50"), f["prompt_id"]):
        losses = [-average(x) for t in everyone for x, q in zip(of(t, "token_logprob"), t["prompt_id"]) if q == prompt]
        briers = [average(x) for t in everyone for x, q in zip(of(t, "token_brier50"), t["prompt_id"]) if q == prompt]
        rho, total = [b / max(loss, 1e-300) for b, loss in zip(briers, losses)], max(sum(losses), 1e-12)
        own = -average(lp)
        weighted = sum(r * loss for r, loss in zip(rho, losses))
        values.append((2 * average(brier) - own * (sum(briers) if min(losses) == 0 else weighted) / total) / total)
    return average(values)


def plain_hes(f):
    sums = []
    for entropy in of(f, "token_entropy"):
        bits = sorted(h / math.log(2) for h in entropy)
        place = 0.995 * (len(bits) - 1)
        low = bits[math.floor(place)]
        limit = low + (bits[math.ceil(place)] - low) * (place - math.floor(place))
        sums.append(sum(b for b in bits if b >= limit))
    return average(sums)


def plain_scas(f):
    rows = [row for row in zip(f["content_loss"], f["prompt_loss"], f["act_self"], f["act_cross"]) if row[0] == row[0]]
    return average([0.5 * a * a * same + 0.5 * a * q * cross for a, q, same, cross in rows])


def plain_upd(f):
    each = zip(of(f, "token_logprob"), of(f, "token_entropy"))
    return average([average([max(0, 1 - h / math.log(20)) / (1 + math.exp(v)) for v, h in zip(*r)]) for r in each])


PLAIN = {
    "rsr": lambda f, _: (
        average([average(r) for r in of(f, "token_rank")])
        / average([max(-average(lp), 1e-12) for lp in of(f, "token_logprob")])
    ),
    "grape": lambda f, _: average([average(lp) for lp in of(f, "token_logprob")]),
    "car": lambda f, _: average(f["correct"]) / (1 + average([-average(lp) for lp in of(f, "token_logprob")])),
    "lark": plain_lark,
    "aslec_drop": lambda f, _: average([0 if b is None else b for *_, b in heads(f)]),
    "aslec_casl": lambda f, everyone: average([m - slope(everyone) * share for m, share, *_ in heads(f)]),
    "aslec_casl_own": lambda f, _: average([m - slope([f]) * share for m, share, *_ in heads(f)]),
    "scas": lambda f, _: plain_scas(f),
    "hes": lambda f, _: plain_hes(f),
    "upd": lambda f, _: plain_upd(f),
    "ifd": lambda f, _: average([a / b for a, b in zip(f["loss"], f["alone_loss"]) if b == b]),
    "ifd_perplexity": lambda f, _: average(
        [math.exp(a) / math.exp(b) for a, b in zip(f["loss"], f["alone_loss"]) if b == b]
    ),
    "lalp": lambda f, _: average([-v for v in f["local_loss"]]),
    "zlib": lambda f, _: sum(f["zlib_bits"]) / sum(f["characters"]),
    "zlib_joint": lambda f, _: sum(f["joint_bits"]) / sum(f["characters"]),
}


@pytest.mark.parametrize("name", SINCE)
@pytest.mark.parametrize("ugly", [False, True])
def test_equals_a_plain_implementation(name, ugly):
    everyone = {str(k): teacher(k, ugly=ugly) for k in range(3)}
    for f in since.pooled(everyone).values():
        found = compute_scores(f, [name])
        assert found.values[name] == pytest.approx(PLAIN[name](f, list(everyone.values())), rel=1e-9, abs=1e-9)
        low, high = percentiles(ratio_draws(found.ratios[name], f["prompt_id"]))
        assert low <= found.ratios[name].value == found.values[name] <= high


#: What is better, as the source says, and what makes a teacher so: columns that are multiplied, all else being equal.
BETTER = {
    "rsr": {"token_rank": 0.5},  # likelier among the alternatives at the same surprise
    "grape": {"loss": 0.5},
    "car": {"loss": 0.5},
    "lark": {"token_brier50": 2},  # a larger gradient at the same loss
    "aslec_drop": {"token_logprob": 0.5},
    "aslec_casl": {"token_logprob": 0.5},
    "aslec_casl_own": {"token_logprob": 0.5},
    "scas": {"act_self": 0.5},  # more varied
    "hes": {"token_entropy": 2},
    "upd": {"token_entropy": 0.5},  # surer
    "ifd": {"alone_loss": 0.5},  # the prompt helps less
    "ifd_perplexity": {"alone_loss": 0.5},
    "lalp": {"local_loss": 0.5},
    "zlib": {"zlib_bits": 2},
    "zlib_joint": {"joint_bits": 2},
}


@pytest.mark.parametrize("name", SINCE)
def test_the_direction_is_the_sources(name):
    usual = teacher(4)
    better = usual | {column: usual[column] * factor for column, factor in BETTER[name].items()}
    pair = [compute_scores(f, [name]).values[name] for f in since.pooled({"usual": usual, "better": better}).values()]
    assert (pair[1] < pair[0]) == (SCORES[name].direction == "lower") and pair[0] != pair[1]
    assert SCORES[name].aggregation and SCORES[name].source and SCORES[name].label


def test_rsr_of_given_logits_is_the_published_formula():
    """Clamp 100, strictly greater, a ratio of means: from logits to the teacher's number."""
    torch = pytest.importorskip("torch")
    from gracelib.features.record import of_tokens

    rng = np.random.default_rng(0)
    z = [rng.integers(-40, 40, (size, 300)) / 8 for size in (5, 1, 17)]  # many ties
    y = [rng.integers(0, 300, len(rows)) for rows in z]
    ranks = [[min(1 + sum(v > row[t] for v in row), 100) for row, t in zip(*own)] for own in zip(z, y)]
    nll = [[math.log(sum(math.exp(v) for v in row)) - row[t] for row, t in zip(*own)] for own in zip(z, y)]
    whole, targets = torch.tensor(np.concatenate(z)), torch.tensor(np.concatenate(y))
    lp = torch.log_softmax(whole, 1).gather(1, targets[:, None])[:, 0]
    f = {
        "length": np.array([5, 1, 17]),
        "token_rank": of_tokens(whole, targets)[0].numpy(),
        "token_logprob": lp.numpy(),
    }
    assert max(max(r) for r in ranks) == 100
    assert since.rsr(f).value == pytest.approx(average(map_mean(ranks)) / average(map_mean(nll)), rel=1e-12)


def map_mean(rows):
    return [average(row) for row in rows]


def test_beta_of_car_runs_from_accuracy_alone_to_loss():
    f = teacher()
    values = [since.car(f, beta).value for beta in (0, 1, 10)]
    assert values[0] == f["correct"].mean() and values == sorted(values, reverse=True)
    with pytest.raises(ValueError, match="beta = -1: expected a number >= 0"):
        since.car(f, -1)


def test_an_interval_covers_the_mean_of_the_population():
    """The percentile interval of a mean of independent prompts holds the truth in about 95% of data sets."""
    held, rng = 0, np.random.default_rng(0)
    for seed in range(200):
        values = rng.normal(3, 1, 60)
        low, high = percentiles(ratio_draws(since.Ratio(values, np.ones(60)), np.arange(60), 400, seed))
        held += low <= 3 <= high
    assert 180 <= held <= 199


def test_what_does_not_fit_is_refused():
    f = teacher()
    for change, message in (
        (
            {"token_rank": f["token_rank"][1:]},
            r"token_rank has shape .*: expected one finite number for each of \d+ tokens",
        ),
        ({"token_logprob": np.full_like(f["token_logprob"], np.nan)}, "token_logprob has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            since.rsr(f | change)
    with pytest.raises(UndefinedScore, match="no response has what the score is made of"):
        _ = since.scas(f | {"content_loss": np.full(36, np.nan)}).value
    assert "pool_slope" not in since.pooled({"a": {k: v for k, v in f.items() if k != "token_step"}})["a"]
