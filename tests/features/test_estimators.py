"""Cheaper gradients and projections are what their module's head says, and never the default.

Invariants: gradients of the output projection alone, and of the B matrices of fresh LoRA adapters, equal plain autograd of
the same loss with respect to the same tensors (the adapters really attached, a tied head really untied), for every
architecture; the sparse projection is exact on whole numbers against the dense matrix written out; a model on which a
choice is not defined is refused by name; all parameters and dense signs remain the default.
"""

import copy
import math

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from gracelib.features import estimators as pc
from gracelib.features.estimators import SPARSITY, SparseProjection, estimator
from gracelib.projection import SignProjection, sign_words
from gracelib.ranking import rank
from gradient_models import MODELS, SMALL, VOCAB, agree, build, features, flatten_rows, plain, texts

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


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("params", ["last-layer", "lora-b"])
def test_equals_plain_autograd(kind, params):
    model, wanted = with_tensors(kind, params, seed=0)
    agree(features(build(kind), texts(), params=params), plain(model, texts(), wanted))


def test_the_others_are_something_else():
    default, *others = (features(build(), texts(), params=p) for p in pc.PARAMS)
    for other in others:
        np.testing.assert_array_equal(other["length"], default["length"])
        np.testing.assert_allclose(other["loss"], default["loss"], rtol=1e-5)
        assert np.all(np.abs(other["grad_norm"] / default["grad_norm"] - 1) > 1e-3)


def test_adapters_depend_on_seed_and_module_and_are_drawn_as_adapters_are():
    a = pc.lora_a(0, "model.layers.0.mlp.up_proj", 4096)
    assert a.shape == (16, 4096) and torch.equal(a, pc.lora_a(0, "model.layers.0.mlp.up_proj", 4096))
    for other in (pc.lora_a(1, "model.layers.0.mlp.up_proj", 4096), pc.lora_a(0, "model.layers.1.mlp.up_proj", 4096)):
        assert abs(torch.corrcoef(torch.stack([a.flatten(), other.flatten()]))[0, 1]) < 0.02
    assert a.abs().max() <= 1 / 64 and abs(a.std().item() * 64 - 1 / math.sqrt(3)) < 0.01


def test_sizes():
    """16 x outputs for every adapted module; vocabulary x hidden for the head."""
    llama, gpt2 = build("llama tied"), build("gpt2")
    per_layer = 16 + 8 + 8 + 24 + 24 + 16  # outputs of q, k, v, gate, up, down
    assert pc.n_parameters(llama, "lora-b") == 2 * 16 * per_layer
    assert pc.n_parameters(llama, "last-layer") == VOCAB * 16
    assert pc.n_parameters(llama, "all") == sum(p.numel() for p in llama.parameters())
    assert list(pc.adapted_modules(gpt2)) == adapted("gpt2")


def test_a_model_on_which_the_choice_is_not_defined_is_refused():
    model = build()
    for layer in model.model.layers:
        mlp = layer.mlp
        mlp.fc1, mlp.fc2 = mlp.up_proj, mlp.down_proj
        del mlp.up_proj, mlp.down_proj, mlp.gate_proj
    with pytest.raises(
        ValueError, match=r"lora-b' adapts q_proj.* LlamaForCausalLM has other matrices there, called fc1, fc2;"
    ):
        features(model, texts(), params="lora-b")
    low_rank = dict(q_lora_rank=None, kv_lora_rank=4, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=4)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=8)
    config = transformers.DeepseekV3Config(**SMALL | low_rank | experts, first_k_dense_replace=1)
    model = transformers.AutoModelForCausalLM.from_config(
        config
    )  # its queries and dense MLP are called as adapted ones
    with pytest.raises(ValueError, match=r"called experts, gate, kv_a_proj_with_mqa, kv_b_proj; use params='all'"):
        features(model, texts(), params="lora-b")
    headless = build()
    headless.lm_head = nn.Identity()
    with pytest.raises(ValueError, match=r"params='last-layer': LlamaForCausalLM has no linear output projection"):
        features(headless, texts(), params="last-layer")
    with pytest.raises(ValueError, match=r"params must be one of all, last-layer, lora-b, got 'lora'"):
        estimator("lora")
    with pytest.raises(ValueError, match=r"projection must be one of signs, sjlt, got 'fast'"):
        estimator(projection="fast")


def test_a_module_that_mixes_responses_is_refused():
    model = build()
    flatten_rows(model)
    with pytest.raises(ValueError, match=r"cannot be computed for LlamaForCausalLM: .* not one row per response"):
        features(model, texts(), params="lora-b")
    assert not any(m._forward_hooks for m in model.modules())


def test_the_head_costs_no_backward_through_the_body():
    model = build()
    seen = []
    model.model.norm.register_forward_hook(lambda m, args, out: seen.append(out.requires_grad))
    features(copy.deepcopy(model), texts(4), params="last-layer")
    assert seen and not any(seen)


def sparse_matrix(seed, name, start, stop, d, dtype=torch.float64):
    """The (n, d) matrix of the module's head, an element and a word at a time."""
    made = torch.zeros(stop - start, d, dtype=dtype)
    words = sign_words(seed, f"{name}\0sjlt", start, stop, SPARSITY).tolist()
    for word_of in words:
        for i, word in enumerate(word_of):
            bits = word & 0xFFFFFFFF
            made[i, ((bits & 0x7FFFFFFF) * d) >> 31] += 1.0 if bits >> 31 else -1.0
    return made * math.sqrt(d / SPARSITY)


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


@pytest.mark.parametrize("params", pc.PARAMS)
def test_sparse_is_its_definition_for_every_choice_of_parameters(params):
    model, examples = build(), texts(4)
    dense, sparse = (features(model, examples, params=params, projection=p) for p in ("signs", "sjlt"))
    for k in ("loss", "grad_norm", "length"):
        np.testing.assert_array_equal(dense[k], sparse[k])
    if params == "all":
        exact = plain(model, examples, matrix=sparse_matrix)["g"]
        np.testing.assert_allclose(sparse["g"], exact, atol=3e-5 * np.linalg.norm(exact, axis=1).max())
    ratio = np.square(sparse["g"]).sum() / np.square(dense["g"]).sum()
    assert 0.3 < ratio < 3


def test_the_default_is_the_papers():
    assert estimator()["engine"] is None
    assert type(estimator()["projection"](8, 0, torch.device("cpu"))) is SignProjection
    assert rank.PARAMS == tuple(pc.PARAMS) and rank.PROJECTIONS == tuple(pc.PROJECTIONS)
    assert (rank.PARAMS[0], rank.PROJECTIONS[0]) == ("all", "signs")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: no GPU features to compare")
@pytest.mark.parametrize("params", ["last-layer", "lora-b"])
def test_cuda_agrees_with_cpu(params):
    there, here = (features(build(), texts(), device=device, params=params) for device in ("cuda", "cpu"))
    agree(there, here, rtol=1e-3)
