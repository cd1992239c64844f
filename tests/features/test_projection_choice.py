"""The cheaper projections are what their module's head says: exact on whole numbers against the dense matrices written
out, unbiased for norms and inner products over seeds with the stated variance, blind to batches, complete (every
parameter is in them), labelled, and refused where they do not go.
"""

import math

import numpy as np
import pytest
import torch

from gracelib.features.estimators import PARAMS
from gracelib.features.gradients import response_features
from gracelib.features.projection_choice import SPARSITY, SparseProjection, make_projection, sides
from gracelib.projection import SignProjection, sign_words, signs
from gracelib.ranking.rank import PROJECTIONS, score_teachers
from gradient_models import D_ROWS, agree, build, features, texts


def sparse_matrix(seed, name, start, stop, d):
    """The (n, d) matrix of the module's head, an element and a word at a time."""
    made = torch.zeros(stop - start, d, dtype=torch.float64)
    words = sign_words(seed, f"{name}\0sjlt", start, stop, SPARSITY).tolist()
    for word_of in words:
        for i, word in enumerate(word_of):
            bits = word & 0xFFFFFFFF
            made[i, ((bits & 0x7FFFFFFF) * d) >> 31] += 1.0 if bits >> 31 else -1.0
    return made * math.sqrt(d / SPARSITY)


def matrices(model, d, seed=0):
    """name -> the dense (numel, d) matrix of the two-sided projection, by its definition."""
    d1, d2 = sides(d)
    made = {}
    for name, p in model.named_parameters():
        if p.ndim == 1:
            made[name] = signs(seed, name, 0, p.numel(), d, torch.float64)
        else:
            P = signs(seed, f"{name}\0rows", 0, p.shape[0], d1, torch.float64)
            Q = signs(seed, f"{name}\0columns", 0, p.shape[1], d2, torch.float64)
            made[name] = torch.einsum("ra,cb->rcab", P, Q).reshape(p.numel(), d)
    return made


def gradients(model, examples):
    """name -> (N, numel) float64 of plain autograd."""
    rows: dict = {name: [] for name, _ in model.named_parameters()}
    model.eval()
    for x, y in examples:
        model.zero_grad()
        logits = model(torch.tensor([[*x, *y]])).logits[0, len(x) - 1 : -1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(y)).backward()
        for name, p in model.named_parameters():
            g = torch.zeros(p.numel()) if p.grad is None else p.grad.flatten().clone()
            rows[name].append(g.double())
    model.zero_grad()
    return {name: torch.stack(own) for name, own in rows.items()}


def test_sparse_is_exact_on_whole_numbers():
    """d = 16 makes the factor 2; blocks, starts beyond 2^32 and a second visit change nothing."""
    g = torch.randint(-50, 51, (3, 300), generator=torch.Generator().manual_seed(0)).double()
    for start in (0, 2**32 - 100):
        exact = g @ sparse_matrix(7, "w", start, start + 300, 16)
        made, out = SparseProjection(16, 7), torch.zeros(3, 16)
        made.accumulate(out, "w", start, g[:, :113].float())
        made.accumulate(out, "w", start + 113, g[:, 113:].float())
        assert torch.equal(out.double(), exact)
    with pytest.raises(ValueError, match=r"out must be \(B, 16\) and grad_block \(B, k\), got \(2, 16\) and \(3, 5\)"):
        made.accumulate(torch.zeros(2, 16), "w", 0, torch.zeros(3, 5))


def test_sparse_rows_are_spread_evenly():
    d, n = 12, 1 << 16
    counts = (sparse_matrix(0, "w", 0, 4096, d) != 0).double().sum(0)
    assert (counts - counts.mean()).abs().max() < 5 * math.sqrt(4096 * SPARSITY / d)
    words = sign_words(0, "w\0sjlt", 0, n, SPARSITY)
    assert ((words < 0).double().mean(1) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("kind", ["llama tied", "llama untied", "llama padding_idx", "gpt2", "qwen3", "gemma2"])
def test_two_sided_is_its_definition(kind):
    """Against plain autograd and the Kronecker product written out: tied tensors, Conv1D, biases, padding ids, q/k
    norms, learned positions. A parameter left out, or its sides swapped, would show."""
    model, examples = build(kind), texts()
    got = features(model, examples, projection="two-sided", d=24)
    exact, made = gradients(model, examples), matrices(model, 24)
    expected = sum(exact[name] @ made[name] for name in made) / math.sqrt(sum(map(len, made.values())))
    np.testing.assert_allclose(got["g"], expected.numpy(), atol=3e-5 * expected.norm(dim=1).max().item())
    size = sum(map(len, made.values()))
    np.testing.assert_allclose(got["grad_norm"], np.linalg.norm(got["g"], axis=1) * math.sqrt(size / 24), rtol=1e-5)


@pytest.mark.parametrize("params", PARAMS)
def test_sparse_is_its_definition_for_every_choice_of_parameters(params):
    model, examples = build(), texts(4)
    dense, sparse = (features(model, examples, params=params, projection=p) for p in ("signs", "sjlt"))
    for k in ("loss", "grad_norm", "length"):
        np.testing.assert_array_equal(dense[k], sparse[k])
    if params == "all":
        exact = gradients(model, examples)
        total = sum(v @ sparse_matrix(0, name, 0, v.shape[1], D_ROWS) for name, v in exact.items())
        total /= math.sqrt(sum(v.shape[1] for v in exact.values()))
        np.testing.assert_allclose(sparse["g"], total.numpy(), atol=3e-5 * total.norm(dim=1).max().item())
    ratio = np.square(sparse["g"]).sum() / np.square(dense["g"]).sum()
    assert 0.3 < ratio < 3


@pytest.mark.parametrize("projection", ["sjlt", "two-sided"])
def test_batches_and_order_change_rounding_only(projection):
    model, examples = build(), texts(9)
    base = features(model, examples, dtype="float64", projection=projection)
    assert base["g"].dtype == np.float64
    for options in ({"batch_tokens": 1}, {"batch_tokens": 10**6}, {"block_bytes": 1}):
        agree(features(model, examples, dtype="float64", projection=projection, **options), base, rtol=1e-6)
    order = np.random.default_rng(1).permutation(9)
    agree(
        features(model, [examples[i] for i in order], dtype="float64", projection=projection),
        {k: v[order] for k, v in base.items()},
        rtol=1e-6,
    )
    other = features(model, examples, seed=1, projection=projection)["g"]
    assert np.abs(other - base["g"]).max() > 0.01 * np.abs(base["g"]).max()


@pytest.mark.parametrize("projection", ["sjlt", "two-sided"])
def test_norms_and_inner_products_are_kept_on_average(projection):
    """E<Pi u, Pi v> = d <u, v> (without 1/D), over 1,500 seeds, within 5 standard errors; the variance of ||Pi u||^2 is
    about 2 d ||u||^4 (sparse), and larger for Kronecker products by at most (2/d1 + 2/d2 + 4/d) d^2 ||u||^4."""
    d, shape, n_seeds = 12, (7, 9), 1500
    generator = torch.Generator().manual_seed(3)
    u = torch.randn(63, generator=generator, dtype=torch.float64)
    v = 0.5 * u + torch.randn(63, generator=generator, dtype=torch.float64)
    both, found = torch.stack([u, v]), []
    for seed in range(n_seeds):
        if projection == "sjlt":
            out = torch.zeros(2, d, dtype=torch.float64)
            SparseProjection(d, seed).accumulate(out, "w", 0, both)
        else:
            d1, d2 = sides(d)
            P, Q = (
                signs(seed, f"w\0{side}", 0, size, k, torch.float64)
                for side, size, k in (("rows", shape[0], d1), ("columns", shape[1], d2))
            )
            out = (P.T @ both.view(2, *shape) @ Q).flatten(1)
        found.append(torch.stack([out[0] @ out[0], out[0] @ out[1]]))
    found = torch.stack(found)
    expected = d * torch.stack([u @ u, u @ v])
    error = (found.mean(0) - expected).abs() / (found.std(0) / math.sqrt(n_seeds))
    assert error.max() < 5, f"off by {error.tolist()} standard errors"
    relative = found[:, 0].var().item() / (u @ u).item() ** 2 / d**2
    d1, d2 = sides(d)
    low, high = (0.5, 1.6) if projection == "sjlt" else (0.5, d * (1 / d1 + 1 / d2 + 2 / d))
    assert low * 2 / d < relative < high * 2 / d, relative


@pytest.mark.parametrize("d, expected", [(1, (1, 1)), (7, (1, 7)), (12, (3, 4)), (16, (4, 4)), (512, (16, 32))])
def test_sides_multiply_to_d(d, expected):
    assert sides(d) == expected


@pytest.mark.parametrize(
    "options, message",
    [
        ({"projection": "fast"}, r"projection must be one of signs, sjlt, two-sided, got 'fast'"),
        ({"projection": "two-sided", "params": "last-layer"}, r"'two-sided' does not go with params='last-layer'"),
        ({"projection": "two-sided", "params": "lora-b"}, r"'two-sided' does not go with params='lora-b'"),
        ({"projection": "two-sided", "method": "one at a time"}, r"does not go with method='one at a time'"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        features(build(), texts(2), **options)


def test_two_sided_refuses_a_model_that_falls_back():
    model = build()
    old = model.model.layers[1].mlp.up_proj
    model.model.layers[1].mlp.up_proj = type("Odd", (torch.nn.Linear,), {})(
        old.in_features, old.out_features, bias=False
    )
    with pytest.warns(UserWarning, match="one response at a time"):
        with pytest.raises(ValueError, match="'two-sided' needs gradients layer by layer, which LlamaForCausalLM"):
            response_features(model, texts(2), d=4, device="cpu", progress=False, projection="two-sided")


def test_the_default_is_the_papers():
    model = build()
    np.testing.assert_array_equal(features(model, texts())["g"], features(model, texts(), projection="signs")["g"])
    assert type(make_projection("signs", 8, 0, torch.device("cpu"))) is SignProjection
    assert PROJECTIONS[0] == "signs"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"projection": "fjlt"}, "projection = 'fjlt': choose one of signs, sjlt, two-sided"),
        ({"projection": "two-sided", "params": "lora-b"}, "'two-sided' does not go with params = 'lora-b'"),
    ],
)
def test_a_ranking_refuses_them_before_it_reads_anything(options, message):
    with pytest.raises(ValueError, match=message):
        score_teachers("no-such-student", [], **options)
