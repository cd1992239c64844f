"""Gradients of the output projection alone, and of the B matrices of fresh LoRA adapters.

Invariants: both equal plain autograd of the same loss with respect to the same tensors (the adapters really attached,
a tied head really untied), for every architecture; names, order, batches and blocks do not matter; a model on which
a choice is not defined is refused by name; all parameters remain the default and are left exactly as they were.
"""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gracelib.features import estimators as pc
from gracelib.features.gradients import response_features
from gracelib.projection import signs
from gradient_models import D_ROWS, MODELS, VOCAB, agree, build, features, texts

SEPARATE = [f"self_attn.{x}_proj" for x in "qkv"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
ADAPTED = {  # spelled out: what is adapted is part of the estimator
    "phi3": ["self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"],
    "gpt2": ["attn.c_attn", "mlp.c_fc", "mlp.c_proj"],
}


def adapted(kind):
    stem = "transformer.h" if kind == "gpt2" else "model.layers"
    return [f"{stem}.{i}.{name}" for i in range(2) for name in ADAPTED.get(kind, SEPARATE)]


class Adapter(nn.Module):
    """A real LoRA adapter, as a library would attach it."""

    def __init__(self, base, a, n_out):
        super().__init__()
        self.base, self.a = base, a
        self.b = nn.Parameter(torch.zeros(n_out, 16))

    def forward(self, x):
        return self.base(x) + (32 / 16) * (x @ self.a.T) @ self.b.T


def with_tensors(kind, params, seed):
    """A model and the tensors whose gradients are wanted, under their names in the sign layout."""
    model = build(kind)
    if params == "last-layer":
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())  # untied
        return model, {"lm_head.weight": model.lm_head.weight}
    wanted = {}
    for name in adapted(kind):
        parent, _, last = name.rpartition(".")
        base = model.get_submodule(name)
        n_in, n_out = base.weight.shape if kind == "gpt2" else base.weight.shape[::-1]
        adapter = Adapter(base, pc.lora_a(seed, name, n_in).float(), n_out)
        setattr(model.get_submodule(parent), last, adapter)
        wanted[f"{name}.lora_B.weight"] = adapter.b
    return model, wanted


def plain(kind, params, examples, d=D_ROWS, seed=0):
    model, wanted = with_tensors(kind, params, seed)
    model.eval()
    size, rows = sum(p.numel() for p in wanted.values()), []
    for x, y in examples:
        logits = model(torch.tensor([[*x, *y]])).logits[0, len(x) - 1 : -1]
        loss = F.cross_entropy(logits, torch.tensor(y))
        grads = torch.autograd.grad(loss, list(wanted.values()))
        g = sum(v.flatten().double() @ signs(seed, k, 0, v.numel(), d, torch.float64) for k, v in zip(wanted, grads))
        norm = math.sqrt(sum(float(v.double().square().sum()) for v in grads))
        prob = logits.softmax(-1).gather(1, torch.tensor(y)[:, None]).mean().item()
        rows.append(((g / math.sqrt(size)).numpy(), len(y), loss.item(), prob, norm))
    return dict(zip(("g", "length", "loss", "mean_prob", "grad_norm"), map(np.array, zip(*rows))))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("params", ["last-layer", "lora-b"])
def test_equals_plain_autograd(kind, params):
    agree(features(build(kind), texts(), params=params), plain(kind, params, texts()))


@pytest.mark.parametrize("params", ["last-layer", "lora-b"])
def test_batches_blocks_and_order_change_nothing(params):
    model, examples = build(), texts(17)
    base = features(model, examples, dtype="float64", params=params)
    assert base["g"].dtype == np.float64
    for options in ({"batch_tokens": 1}, {"batch_tokens": 10**6}, {"block_bytes": 1}, {"method": "one at a time"}):
        agree(features(model, examples, dtype="float64", params=params, **options), base, rtol=1e-6)
    shuffled = features(model, examples[::-1], dtype="float64", params=params)
    agree(shuffled, {k: v[::-1] for k, v in base.items()}, rtol=1e-6)
    few = features(model, examples, d=7, params=params, dtype="float64")
    np.testing.assert_allclose(few["g"], base["g"][:, :7], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("params", ["last-layer", "lora-b"])
def test_the_model_is_left_as_it_was(params):
    model = build()
    model.train()
    model.model.norm.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    features(model, texts(), params=params)
    assert model.training and [n for n, p in model.named_parameters() if not p.requires_grad] == ["model.norm.weight"]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_all_is_the_default_to_the_bit_and_the_others_are_something_else():
    model = build()
    default, *others = [features(model, texts(), **o) for o in ({}, *({"params": p} for p in pc.PARAMS))]
    assert all(np.array_equal(default[k], others[0][k]) for k in default)
    for other in others[1:]:
        np.testing.assert_array_equal(other["length"], default["length"])
        np.testing.assert_allclose(other["loss"], default["loss"], rtol=1e-5)
        assert np.all(np.abs(other["grad_norm"] / default["grad_norm"] - 1) > 1e-3)


def test_adapters_depend_on_seed_and_module_and_are_drawn_as_adapters_are():
    a = pc.lora_a(0, "model.layers.0.mlp.up_proj", 4096)
    assert a.shape == (16, 4096) and torch.equal(a, pc.lora_a(0, "model.layers.0.mlp.up_proj", 4096))
    for other in (pc.lora_a(1, "model.layers.0.mlp.up_proj", 4096), pc.lora_a(0, "model.layers.1.mlp.up_proj", 4096)):
        assert abs(torch.corrcoef(torch.stack([a.flatten(), other.flatten()]))[0, 1]) < 0.02
    assert a.abs().max() <= 1 / 64 and abs(a.std().item() * 64 - 1 / math.sqrt(3)) < 0.01


def test_sizes_and_words():
    """16 x outputs for every adapted module; vocabulary x hidden for the head; and the report says which."""
    llama, gpt2 = build("llama tied"), build("gpt2")
    per_layer = 16 + 8 + 8 + 24 + 24 + 16  # outputs of q, k, v, gate, up, down
    assert pc.n_parameters(llama, "lora-b") == 2 * 16 * per_layer
    assert pc.n_parameters(llama, "last-layer") == VOCAB * 16
    assert pc.n_parameters(llama, "all") == sum(p.numel() for p in llama.parameters())
    assert list(pc.adapted_modules(gpt2)) == adapted("gpt2")
    assert "12 modules (q_proj, k_proj, v_proj, gate_proj, up_proj, down_proj)" in pc.describe(llama, "lora-b")
    assert "6 modules (c_attn, c_fc, c_proj)" in pc.describe(gpt2, "lora-b")
    assert "lm_head alone (tied: its own contribution): D = 464" in pc.describe(llama, "last-layer")
    assert "tied" not in pc.describe(build("llama untied"), "last-layer")


def test_a_model_on_which_the_choice_is_not_defined_is_refused():
    model = build()
    for layer in model.model.layers:
        mlp = layer.mlp
        mlp.fc1, mlp.fc2 = mlp.up_proj, mlp.down_proj
        del mlp.up_proj, mlp.down_proj, mlp.gate_proj
    with pytest.raises(ValueError, match=r"lora-b' adapts q_proj.* LlamaForCausalLM are called fc1, fc2, k_proj"):
        response_features(model, texts(), d=4, params="lora-b", device="cpu")
    headless = build()
    headless.lm_head = nn.Identity()
    with pytest.raises(ValueError, match=r"params='last-layer': LlamaForCausalLM has no linear output projection"):
        response_features(headless, texts(), d=4, params="last-layer", device="cpu")
    with pytest.raises(ValueError, match=r"params must be one of all, last-layer, lora-b, got 'lora'"):
        features(build(), texts(), params="lora")


def test_a_module_that_mixes_responses_is_refused():
    model = build()
    mlp = model.model.layers[0].mlp
    inner = mlp.forward
    mlp.forward = lambda x: inner(x.reshape(-1, x.shape[-1])).reshape(x.shape)
    with pytest.raises(ValueError, match=r"cannot be computed for LlamaForCausalLM: .* not one row per response"):
        features(model, texts(), params="lora-b")
    assert not any(m._forward_hooks for m in model.modules())


def test_the_head_costs_no_backward_through_the_body():
    model = build()
    seen = []
    model.model.norm.register_forward_hook(lambda m, args, out: seen.append(out.requires_grad))
    features(copy.deepcopy(model), texts(4), params="last-layer")
    assert seen and not any(seen)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: no GPU features to compare")
@pytest.mark.parametrize("params", ["last-layer", "lora-b"])
def test_cuda_agrees_with_cpu(params):
    there, here = (features(build(), texts(), device=device, params=params) for device in ("cuda", "cpu"))
    agree(there, here, rtol=1e-3)
