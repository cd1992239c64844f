"""Features are the exact per-response gradients of the definition, however they are computed.

Invariants: each row equals plain `backward` of that response alone, projected, and its true norm, for every
kind of parameter met (linear with and without bias, Conv1D, embeddings tied, untied, of positions, with
padding_idx, RMSNorm, LayerNorm, q/k norms, scaled embeddings); order, batch size and block size change rounding only; what is not known is done one
response at a time and said so; bad input and non-finite numbers name their response.
"""

import math

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from gracelib.features import batches, per_response
from gracelib.features.gradients import response_features
from gracelib.features.per_response import LayerByLayer, OneAtATime, layout, vector
from gradient_models import BUILT, D_ROWS, MODELS, VOCAB, agree, build, features, flatten_rows, plain, texts


@pytest.mark.parametrize("engine", [None, OneAtATime])
@pytest.mark.parametrize("kind", BUILT)
def test_equals_plain_backward(kind, engine):
    model = build(kind)
    agree(features(model, texts(), engine=engine), plain(model, texts()))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.filterwarnings("error:gradients one response at a time")
def test_logits_and_layers_made_again_give_the_same(kind, layered, monkeypatch):
    """As for a vocabulary that counts as large (logits of five tokens at once), and in groups of a few responses that go
    through the layers one at a time. Gemma 2 caps its logits, so they are kept."""
    for module in (per_response, batches):
        monkeypatch.setattr(module, "LARGE_VOCABULARY", 1)
    monkeypatch.setattr(per_response, "_LOGITS_BYTES", 5 * 4 * VOCAB)
    model, moved = build(kind), []
    found = layout(model)
    assert (found.head is None) == (kind == "gemma2") and len(found.layers) == 2
    if layered:
        assert found.kept_layered < found.kept
        monkeypatch.setattr(batches, "GROUP_BYTES", 1)
        monkeypatch.setattr(batches, "LAYERED_BYTES", 60 * found.kept_layered)
        groups = batches.batch_groups(model, [len(x) + len(y) for x, y in texts()], 40, together=True)
        assert groups.found.layers and len(groups.groups) > 1 and max(map(len, groups.groups)) > 1
    agree(features(model, texts(), batch_tokens=40, done=moved.append), plain(model, texts()))
    assert len(moved) > 30 and min(moved) > 0 and sum(moved) == pytest.approx(9)  # a bar that moves


@pytest.mark.parametrize(
    "change",
    ["shared", "cache", "outside", "tuple"],
    ids=["a weight of two layers", "a cache", "a weight of both", "fine"],
)
def test_layers_that_meet_elsewhere_are_not_taken_apart(change):
    """Else a gradient that passes beside the layers' outputs would be lost."""
    model = build()
    first, second = model.model.layers
    if change == "shared":
        second.mlp.up_proj.weight = first.mlp.up_proj.weight
    elif change == "outside":
        model.model.norm.weight = first.input_layernorm.weight
    elif change == "cache":
        first.register_forward_pre_hook(lambda m, args, kwargs: (args, {**kwargs, "seen": {}}), with_kwargs=True)
        first.forward = lambda *args, seen=None, inner=first.forward, **kwargs: inner(*args, **kwargs)
    assert len(layout(model).layers) == (2 if change == "tuple" else 0)


@pytest.mark.parametrize("choice", [{}, {"params": "last-layer"}, {"params": "lora-b"}, {"projection": "sjlt"}])
def test_results_do_not_depend_on_batches_blocks_or_order(choice):
    """float64, so that agreement to 1e-6 leaves room for RMSNorm's own float32 and for no mistake. The
    smallest blocks hold one row of a tensor, so tied, looked-up and product rows meet in every split."""
    model, examples = build(), texts(17)
    choice = {"dtype": "float64"} | choice
    base = features(model, examples, **choice)
    assert base["g"].dtype == np.float64
    for options in (
        {"batch_tokens": 1},
        {"batch_tokens": 10**6},
        {"block_bytes": 1},
        {"block_bytes": 3000},
        {"block_bytes": 1 << 28, "batch_tokens": 100},
    ):
        agree(features(model, examples, **choice, **options), base, rtol=1e-6)
    order = np.random.default_rng(1).permutation(17)
    shuffled = features(model, [examples[i] for i in order], **choice)
    agree(shuffled, {k: v[order] for k, v in base.items() if not k.startswith("token_")}, rtol=1e-6)


@pytest.mark.parametrize("params", ["all", "last-layer"])
def test_fewer_rows_are_the_first_columns_and_seed_changes_the_projection_and_nothing_else(params):
    a, few, b = (features(build(), texts(), params, **options) for options in ({}, {"d": 7}, {"seed": 1}))
    np.testing.assert_allclose(few["g"], a["g"][:, :7], rtol=1e-4, atol=1e-7)
    assert np.abs(a["g"] - b["g"]).max() > 0.01 * np.abs(a["g"]).max()
    np.testing.assert_array_equal(a["grad_norm"], b["grad_norm"])


@pytest.mark.parametrize("kind", MODELS)
def test_what_waits_is_counted_without_running_it(kind):
    """Factors kept by two passes over 2 x 7 tokens, each tensor once (q, k and v share their input)."""
    model, kept = build(kind), {}
    with LayerByLayer(model, 2, 1 << 20) as gradients:
        for _ in range(2):
            gradients.run(torch.randint(4, VOCAB, (2, 7)), lambda logits: logits.square().sum(), None)
        for parts in gradients._kept.values():
            for _, adds in parts.values():
                factors = [x for add in adds if add.func is not vector for x in add.args[:2]]
                kept |= {x.data_ptr(): x for x in factors if x.is_floating_point()}
        seen = sum(x.numel() * x.element_size() for x in kept.values())
    shared = 4 * 16 if kind == "gpt2" else 0  # its two embeddings are added, so one gradient serves both
    assert seen == (layout(model).kept - shared) * 2 * 2 * 7
    with torch.device("meta"):
        assert layout(type(model)(model.config)).kept == layout(model).kept


def test_what_waits_is_a_bound_where_it_cannot_be_asked():
    """OPT takes no mask of four dimensions, so it cannot be run without numbers. That ends no run."""
    sizes = dict(
        vocab_size=VOCAB, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16
    )
    config = transformers.OPTConfig(**sizes, max_position_embeddings=40)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with (
        torch.device("meta"),
        pytest.warns(UserWarning, match="planned memory is a bound, not an estimate: ValueError"),
    ):
        bound = layout(type(model)(config)).kept
    assert layout(model).kept < bound < 2 * layout(model).kept


def test_frozen_parameters_count_and_the_model_is_left_as_it_was():
    """requires_grad, .grad, hooks, mode and dtype are the caller's; a frozen parameter still belongs to the
    gradient."""
    model = build()
    expected = plain(model, texts())
    model.train()
    frozen = model.model.layers[0].mlp.up_proj.weight
    frozen.requires_grad_(False)
    frozen.grad, mark = None, torch.ones_like(model.model.norm.weight)
    model.model.norm.weight.grad = mark
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for engine in (None, OneAtATime):
        agree(features(model, texts(), engine=engine), expected)
    for choice in ({"dtype": "float64"}, {"params": "last-layer"}, {"params": "lora-b"}):
        features(model, texts(), **choice)
    assert model.training and [p for p in model.parameters() if not p.requires_grad] == [frozen]
    assert model.model.norm.weight.grad is mark and sum(p.grad is not None for p in model.parameters()) == 1
    assert isinstance(model.model.norm.weight, nn.Parameter)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class _Odd(nn.Linear):
    """A subclass may compute anything; this one does."""

    def forward(self, x):
        return super().forward(x) * (1 + self.weight.mean())


def odd_module(model):
    old = model.model.layers[1].mlp.up_proj
    model.model.layers[1].mlp.up_proj = odd = _Odd(old.in_features, old.out_features, bias=False)
    odd.weight = old.weight


def used_outside(model):
    """Every module is of a known kind, but the head's output also depends on a norm's weight that the head's hook
    cannot see; only the comparison with plain autograd finds it."""
    model.lm_head.register_forward_hook(lambda m, args, out: out * (1 + model.model.norm.weight.mean()))


def one_row_only(model):
    def refuse(module, args, out):
        if len(out) > 1:
            raise RuntimeError("one text at a time")

    model.lm_head.register_forward_hook(refuse)


@pytest.mark.parametrize(
    "kind, change, reason",
    [
        ("llama tied", odd_module, r"model\.layers\.1\.mlp\.up_proj \(_Odd\)"),
        ("llama untied", used_outside, "differs from plain autograd"),
        ("llama tied", flatten_rows, "not one row per response"),
        ("llama tied", one_row_only, "RuntimeError: one text at a time"),
    ],
)
def test_what_is_not_known_falls_back_and_says_so(kind, change, reason):
    model = build(kind)
    change(model)
    with pytest.warns(UserWarning, match=f"one response at a time.*{reason}"):
        got = response_features(model, texts(), d=D_ROWS, device="cpu", progress=False)
    agree(got, plain(model, texts()))


def test_bfloat16_is_close():
    model = build()
    a, b = features(model, texts(), dtype="bfloat16"), features(model, texts())
    cosine = (a["g"] * b["g"]).sum(1) / np.linalg.norm(a["g"], axis=1) / np.linalg.norm(b["g"], axis=1)
    assert cosine.min() > 0.97 and a["g"].dtype == np.float32
    np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=0.1)


def test_single_token_response_and_no_response_at_all():
    model = build()
    agree(features(model, [([1], [2])]), plain(model, [([1], [2])]))
    empty = features(model, [])
    assert empty["g"].shape == (0, D_ROWS) and empty["loss"].shape == (0,)


def test_non_finite_loss_names_the_response():
    """Only token 28's embedding is broken, so only the responses that meet it are; the first of them is
    named."""
    model = build("llama untied")
    examples = [([1, 2], [3, 4]), ([1, 2, 5], [3, 28, 4]), ([2], [6, 7])]
    with torch.no_grad():
        model.model.embed_tokens.weight[28] = math.nan
    with pytest.raises(ValueError, match=r"response 1 \(teacher T, prompt p3, sample 2\): loss is nan"):
        features(model, examples, names=["a", "teacher T, prompt p3, sample 2", "c"])
    with pytest.raises(ValueError, match=r"^response 1: loss is nan"):
        features(model, examples, engine=OneAtATime)


def test_non_finite_gradient_names_the_response():
    """The loss is finite and its gradient is not: a hook multiplies one response's gradient by infinity."""
    model = build()

    def poison(module, args, out):
        out.register_hook(lambda g: g * torch.where(args[0][:, :, :1] == marker, math.inf, 1.0))

    examples = texts(4)
    seen = []
    handle = model.lm_head.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    x, y = examples[2]
    model(torch.tensor([[*x, *y][:-1]]))
    handle.remove()
    marker = seen[0][0, len(x) - 1, 0].item()
    model.lm_head.register_forward_hook(poison)
    with pytest.raises(ValueError, match=r"response 2 \(r2\): gradient norm is (nan|inf)"):
        response_features(
            model, examples, d=4, device="cpu", progress=False, batch_tokens=1, names=[f"r{i}" for i in range(4)]
        )


@pytest.mark.parametrize(
    "examples, options, message",
    [
        ([([1], [2]), ([], [2])], {}, r"response 1: the prompt is empty"),
        ([([1], [])], {"names": ["p3"]}, r"response 0 \(p3\): the response is empty"),
        ([([1] * 20, [2] * 21)], {}, r"response 0: 20 prompt \+ 21 response tokens exceed the model's 40"),
        ([([1], [VOCAB])], {}, r"token id 29 is outside the model's vocabulary of 29"),
        ([([-1], [2])], {}, r"token id -1 is outside"),
        ([([1], [2])], {"names": ["a", "b"]}, r"2 names for 1 examples"),
        ([([1], [2])], {"d": 0}, r"d must be at least 1, got 0"),
        ([([1], [2])], {"batch_tokens": 0}, r"batch_tokens must be at least 1, got 0"),
        ([([1], [2])], {"dtype": "float16"}, r"dtype must be one of .*got 'float16'"),
    ],
)
def test_bad_input_is_refused(examples, options, message):
    with pytest.raises(ValueError, match=message):
        features(build(), examples, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: no GPU features to compare")
@pytest.mark.parametrize("kind", ["llama tied", "gpt2"])
def test_cuda_agrees_with_cpu(kind):
    """The same signs, so the same numbers up to rounding; "auto" takes the GPU and leaves the caller's model
    on the CPU."""
    model = build(kind)
    agree(features(model, texts(), device="auto"), features(model, texts()), rtol=1e-3)
    there, here = (features(model, texts(), device=device, dtype="float64") for device in ("cuda", "cpu"))
    agree(there, here, rtol=1e-5)
    assert next(model.parameters()).device.type == "cpu"


def test_a_student_is_checked_against_plain_autograd_once(monkeypatch):
    """A ranking asks for the features of one teacher after another: the student is the same."""
    model, calls, plain_run = build(), [], OneAtATime.run
    monkeypatch.setattr(OneAtATime, "run", lambda *a, **k: (calls.append(1), plain_run(*a, **k))[1])
    first, again = (response_features(model, texts(), d=8, progress=False, device="cpu") for _ in range(2))
    assert len(calls) == 2 and np.array_equal(first["g"], again["g"])
    response_features(model, texts(), d=8, progress=False, device="cpu", dtype="float64")
    assert len(calls) == 4
