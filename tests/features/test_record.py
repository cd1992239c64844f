"""What is taken down beside the gradients equals its definition, one response at a time, however the logits are made and
whatever shares a batch; and the gradients do not notice."""

import numpy as np
import pytest
import torch

from gracelib.features import batches, per_response
from gracelib.features.per_response import OneAtATime
from gracelib.features.record import RESPONSE, TOKEN, of_tokens
from gradient_models import BUILT, VOCAB, build, features, texts

SPECIAL = (3, 5)
EXAMPLES = [
    *texts(8),
    ([4], [3]),
    ([4, 3], [7]),
    *((texts(1)[0][0], [k, k, 5]) for k in (3, 9)),
]  # ends, one token, shared


def brier(p, y):
    return 1 - 2 * p[y] + (p**2).sum() if y is not None else 1 + (p**2).sum()


def plainly(model, x, y):
    """The definitions of `features.record`, of one response."""
    seen, layers = [], getattr(getattr(model, "model", None), "layers", None)
    up = getattr(layers[-1].mlp, "up_proj", None) if layers is not None else None
    handle = (
        up.register_forward_hook(lambda m, args, out: seen.append(out[0].detach().double().numpy())) if up else None
    )
    with torch.no_grad():
        z = model(input_ids=torch.tensor([[*x, *y]])).logits[0].double().numpy()
    if handle:
        handle.remove()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    own = {name: [] for name in TOKEN}
    for t, token in enumerate(y):
        row, q = z[len(x) - 1 + t], p[len(x) - 1 + t]
        own["token_logprob"].append(np.log(q[token]))
        own["token_rank"].append(min(100, 1 + sum(v > row[token] for v in row)))
        own["token_entropy"].append(-sum(v * np.log(v) for v in q))
        own["token_brier"].append(brier(q, token))
        own["token_brier50"].append(brier(q, token))  # of 29 tokens all are among the 50
    text = [t not in SPECIAL for t in (*x, *y)]
    prompt = [-np.log(p[t - 1][x[t]]) for t in range(1, len(x)) if text[t]]
    content = [-lp for lp, token in zip(own["token_logprob"], y, strict=True) if token not in SPECIAL]
    values = [VOCAB, *(np.mean(v) if v else np.nan for v in (prompt, content))]
    if up:
        unit = seen[0] / np.linalg.norm(seen[0], axis=1, keepdims=True)
        mean = [
            [u for t, u in enumerate(unit) if text[t] and a <= t < b]
            for a, b in ((len(x), len(x + y) - 1), (0, len(x)))
        ]
        a, q = (np.mean(rows, axis=0) if rows else np.full(unit.shape[1], np.nan) for rows in mean)
        values += [a @ a, a @ q]
    return own, dict(zip(RESPONSE, values))


@pytest.mark.parametrize("kind", BUILT)
@pytest.mark.parametrize("how", ["logits kept", "made again", "layer by layer", "one at a time"])
@pytest.mark.filterwarnings("error:gradients one response at a time")
def test_equals_its_definition_in_padded_batches(kind, how, monkeypatch):
    if how in ("made again", "layer by layer"):
        for module in (per_response, batches):
            monkeypatch.setattr(module, "LARGE_VOCABULARY", 1)
        monkeypatch.setattr(per_response, "_LOGITS_BYTES", 5 * 4 * VOCAB)
    if how == "layer by layer":
        monkeypatch.setattr(batches, "GROUP_BYTES", 1)
    model, options = build(kind).double().eval(), {"engine": OneAtATime} if how == "one at a time" else {}
    found = features(model, EXAMPLES, dtype="float64", special=SPECIAL, **options)
    without = features(model, EXAMPLES, dtype="float64", record=False, **options)
    assert all(np.array_equal(found[name], values) for name, values in without.items()), "a bit of the features changed"
    assert ("act_self" in found) == (kind not in ("gpt2", "phi3", "phi3 longrope"))
    each = [plainly(model, list(x), list(y)) for x, y in EXAMPLES]
    within = 1e-9 if kind == "gpt2" else 1e-5  # RMSNorms and rotary positions round to float32 whatever the weights are
    for name in TOKEN:
        expected = np.concatenate([own[name] for own, _ in each])
        np.testing.assert_allclose(found[name], expected, rtol=within, atol=within, err_msg=name)
    for name in RESPONSE if "act_self" in found else RESPONSE[:3]:
        np.testing.assert_allclose(found[name], [own[name] for _, own in each], rtol=within, atol=within, err_msg=name)


def test_float32_takes_thirteen_bytes_a_token_and_is_near():
    small, exact = (features(build(), EXAMPLES, special=SPECIAL, dtype=kind) for kind in ("float32", "float64"))
    assert {name: small[name].dtype for name in TOKEN} == TOKEN
    for name in (*TOKEN, *RESPONSE):
        np.testing.assert_allclose(small[name], exact[name], rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("n_tokens", [2, 50, 51, 400])
def test_ties_tokens_that_are_ruled_out_and_certain_ones(n_tokens):
    rng = np.random.default_rng(n_tokens)
    z = rng.integers(-2, 3, (60, n_tokens)).astype(float)  # nearly all are tied
    z[:3] = 0.0
    z[3, 1:] = -np.inf
    z[4] = np.linspace(0, 1e4, n_tokens)
    y = rng.integers(0, n_tokens, 60)
    y[3] = 0
    rank, entropy, full, top = (v.numpy() for v in of_tokens(torch.tensor(z), torch.tensor(y)))
    for i in range(60):
        p = np.exp(z[i] - z[i].max())
        p /= p.sum()
        greater = sum(z[i] > z[i, y[i]])
        best = np.sort(p)[-50:]
        assert rank[i] == min(100, 1 + greater)
        assert entropy[i] == pytest.approx(-sum(v * np.log(v) for v in p if v > 0), abs=1e-9)
        assert full[i] == pytest.approx(brier(p, y[i]), abs=1e-9)
        chosen = p[y[i]] / best.sum() if greater < 50 else 0.0  # tied with the fiftieth is among them
        assert top[i] == pytest.approx(1 - 2 * chosen + ((best / best.sum()) ** 2).sum(), abs=1e-9)
