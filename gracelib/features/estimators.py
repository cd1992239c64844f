"""Cheaper gradients and cheaper projections: labelled alternatives that are plugged into the paper's path.

Why: all D parameters cost a backward pass and a projection of D numbers per response. Cheaper estimators are in use, and
each is another quantity under the same name, so they are chosen by name, and `gradients` knows none of them:
`response_features(..., **estimator(params, projection, seed))`. A table (`estimators`) says how well they rank.

Of some parameters instead of all:
* "last-layer": the output projection (lm_head) alone, (softmax - one-hot)^T h averaged over the response's tokens. A
  third-party re-run of the authors' code reports that it ranks teachers as all parameters do at .94 to .98. Nothing is
  propagated back through the body. Where the head is tied to the embedding, it is the head's contribution that counts,
  not the lookup's: otherwise a tied and an untied student would be measured differently, and the lookup needs the
  whole backward pass. Its signs go by the name "lm_head.weight" either way.
* "lora-b": matrices B of fresh LoRA adapters (r = 16, alpha = 32, as the authors' --use-lora) on the projections of
  queries, keys, values and of the MLP (not the attention's output). B = 0 leaves the student as it is, and its gradient
  is (alpha / r) sum_t g_t (A x_t)^T, from the same hooks as everything else: no adapter is ever attached. A is drawn
  from the uniform distribution on +-1/sqrt(in), as adapters are initialised, from (seed, module name): the same on
  every device. A fused projection (Phi-3's qkv_proj and gate_up_proj, GPT-2's c_attn) has one A for its parts.
A model whose modules are named otherwise is refused with the list of what it has: adapting some of them would be yet
another estimator.

By another projection than dense signs, which keeps E||.||^2 = (d/D) ||g||^2 and inner products on average, so that
scores stay comparable in size, with other errors around that average:
* "sjlt" (sparse Johnson-Lindenstrauss; Kane and Nelson 2014): every element is added, with a sign, to SPARSITY rows
  instead of to all d. Word k of an element (`projection.sign_words` under the name "<name>\\0sjlt", block k) gives the
  sign (its highest bit: 1 is +1) and the row, (the other 31 bits) * d >> 31; the factor sqrt(d / SPARSITY) keeps the
  scale. The first columns of such a projection are not the projection to fewer rows.
"""

import hashlib
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from gracelib.features.gradients import sign_projection
from gracelib.features.per_response import (
    KEEP_ALL,
    LayerByLayer,
    Layout,
    Unsupported,
    kind_of,
    own_parameters,
    parameter_names,
    product,
    widened,
)
from gracelib.projection import SignProjection, sign_words

RANK, ALPHA = 16, 32
SPARSITY = 4
CHUNK = 1 << 16  #: elements whose rows and signs `SparseProjection` makes at once
_ATTENTION = (".q_proj", ".k_proj", ".v_proj", ".qkv_proj", ".c_attn")
_ATTENTION_OUTPUT = (".o_proj", ".out_proj", ".attn.c_proj")  # not adapted, as in the authors' code
_MLP = (".gate_proj", ".up_proj", ".down_proj", ".gate_up_proj", ".c_fc", ".mlp.c_proj")  # GPT-2 has two c_proj


def estimator(params: str = "all", projection: str = "signs", seed: int = 0) -> dict[str, Callable | None]:
    """The arguments `engine` and `projection` of `gradients.response_features` by name; the defaults are the paper's.

    params: one of PARAMS; projection: one of PROJECTIONS; seed: of the adapters. ValueError for anything else. A model
    on which `params` is not defined is refused when the features are asked for.
    """
    check_estimator(params, projection)
    engine = partial(LoraB, seed=seed) if params == "lora-b" else PARAMS[params]
    return {"engine": engine, "projection": PROJECTIONS[projection]}


def check_estimator(params: str, projection: str = "signs") -> None:
    """Raises ValueError unless `params` is one of PARAMS and `projection` one of PROJECTIONS."""
    for name, value, known in (("params", params, PARAMS), ("projection", projection, PROJECTIONS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def head(model: nn.Module) -> tuple[str, nn.Module]:
    """(name, module) of the output projection. Raises ValueError if there is none of a known kind."""
    found = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    name = next((name for name, module in model.named_modules() if module is found), None)
    if found is None or kind_of(found) not in ("linear", "conv1d"):
        raise ValueError(
            f"params='last-layer': {type(model).__name__} has no linear output projection "
            f"({'none' if found is None else type(found).__name__}); use params='all'"
        )
    return name, found


def adapted_modules(model: nn.Module) -> dict[str, nn.Module]:
    """name -> module of everything that "lora-b" adapts, in the model's order.

    Raises ValueError, naming the others, unless these are all matrices there are between embedding and head but the
    attention's output: low-rank keys and values or routed experts would be left out without a word.
    """
    head, adapted, others = model.get_output_embeddings(), {}, set()
    for name, module in model.named_modules():
        if kind_of(module) in ("linear", "conv1d") and f".{name}".endswith(_ATTENTION + _MLP):
            adapted[name] = module
        elif module is not head and kind_of(module) != "embedding" and not f".{name}".endswith(_ATTENTION_OUTPUT):
            others |= {name.rsplit(".", 1)[-1] for p in own_parameters(module).values() if p.ndim > 1}
    if others or not adapted:
        raise ValueError(
            f"params='lora-b' adapts {', '.join(kind[1:] for kind in _ATTENTION + _MLP)}; {type(model).__name__} has "
            f"other matrices there, called {', '.join(sorted(others)) or '(none)'}; use params='all'"
        )
    return adapted


def chosen_shapes(model: nn.Module, params: str) -> dict[str, tuple[int, ...]]:
    """name -> shape of every tensor whose gradient is taken (rows first), a tied tensor once."""
    if params == "all":
        return {name: tuple(p.shape) for p, name in parameter_names(model).items()}
    if params == "last-layer":
        name, module = head(model)
        return {f"{name}.{own}": tuple(p.shape) for own, p in own_parameters(module).items()}
    return {f"{name}.lora_B.weight": (in_and_out(module)[1], RANK) for name, module in adapted_modules(model).items()}


def n_parameters(model: nn.Module, params: str) -> int:
    """D: how many numbers a response's gradient has. Raises ValueError as `head` and `adapted_modules`."""
    return sum(torch.Size(shape).numel() for shape in chosen_shapes(model, params).values())


def in_and_out(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a Linear, whose weight is (out, in), or a Conv1D, whose weight is (in, out)."""
    rows, cols = module.weight.shape
    return (cols, rows) if kind_of(module) == "linear" else (rows, cols)


def lora_a(seed: int, name: str, n_in: int) -> torch.Tensor:
    """A of the adapter on module `name`: (r, n_in) float64 on the CPU, uniform on +-1/sqrt(n_in)."""
    key = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8, person=b"gracelib.lora_a").digest()
    u = np.random.default_rng(int.from_bytes(key, "little")).random((RANK, n_in))
    return torch.from_numpy((2 * u - 1) / np.sqrt(n_in))


class _Chosen(LayerByLayer):
    """LayerByLayer whose gradients are of slots (shapes without storage) instead of the model's own parameters."""

    params: str

    def tensors(self) -> dict[torch.Tensor, str]:
        self.slots = {
            name: torch.empty(shape, device="meta") for name, shape in chosen_shapes(self.model, self.params).items()
        }
        return {slot: name for name, slot in self.slots.items()}

    def run(self, input_ids, loss_of, sink):
        try:
            super().run(input_ids, loss_of, sink)
        except Unsupported as reason:
            raise ValueError(
                f"this choice of parameters cannot be computed for {type(self.model).__name__}: {reason}; "
                "use params='all'"
            ) from reason


class LastLayer(_Chosen):
    """Per-response gradients of the output projection; nothing below it is differentiated."""

    params = "last-layer"

    def hook(self) -> None:
        name, module = head(self.model)
        own = {slot.rsplit(".", 1)[-1]: self.slots[slot] for slot in self.slots}
        if self.head is not None:
            return self.hook_head(own["weight"])
        self._handles.append(module.register_forward_hook(self.affine(name, kind_of(module), own, leaf=True)))


class LoraB(_Chosen):
    """Per-response gradients of B in y + (alpha / r) B A x at B = 0."""

    params = "lora-b"

    def __init__(
        self, model: nn.Module, max_batch: int, block_bytes: int | None = None, found: Layout = KEEP_ALL, seed: int = 0
    ):
        super().__init__(model, max_batch, block_bytes, found)
        self.seed = seed

    def hook(self) -> None:
        if self.head is not None:
            self.hook_head(None)
        # with all weights frozen, the graph has to start somewhere: at the embeddings
        embeddings = self.model.get_input_embeddings()
        self._handles.append(embeddings.register_forward_hook(lambda _, args, out: out.detach().requires_grad_(True)))
        for name, module in adapted_modules(self.model).items():
            self._handles.append(module.register_forward_hook(self._adapter(name, module)))

    def _adapter(self, name: str, module: nn.Module):
        (n_in, n_out), slot = in_and_out(module), self.slots[f"{name}.lora_B.weight"]
        a = lora_a(self.seed, name, n_in).mul_(ALPHA / RANK).to(self._blocks)  # (r, in), where and as sums are made

        def forward_hook(module, args, out):
            x = self.check(name, args[0]).detach()
            if not self.check(name, out).requires_grad:
                raise Unsupported(f"no gradient passes through {name}")
            ax = widened(x).reshape(self._batch, -1, n_in) @ a.T  # (B, T, in) @ (in, r): all that is kept of x
            self._due[slot] += 1
            out.register_hook(lambda g: self.contribute(slot, product, widened(g).reshape(len(ax), -1, n_out), ax))

        return forward_hook


class SparseProjection(SignProjection):
    """Adds each element to SPARSITY of the d rows; interface of `SignProjection`, nothing is cached."""

    def accumulate(self, out: torch.Tensor, name: str, start: int, grad_block: torch.Tensor) -> None:
        """out (B, d) += the sparse projection of grad_block (B, k), elements start..start+k-1 of parameter `name`.
        Raises ValueError if the shapes do not fit."""
        self.check_shapes(out, name, grad_block)
        scale = math.sqrt(self.d / SPARSITY)
        for at in range(0, grad_block.shape[1], CHUNK):
            piece = grad_block[:, at : at + CHUNK].to(out.dtype)  # (B, c)
            first = start + at
            words = sign_words(self.seed, f"{name}\0sjlt", first, first + piece.shape[1], SPARSITY, self.device)
            for word in words:
                row = ((word & 0x7FFFFFFF).to(torch.int64) * self.d) >> 31  # (c,)
                out.index_add_(1, row, torch.where(word < 0, piece, -piece), alpha=scale)


#: name -> engine, called like `LayerByLayer`; None: the one that `response_features` finds
PARAMS = {"all": None, "last-layer": LastLayer, "lora-b": LoraB}
#: name -> what makes the projection from d, seed and device
PROJECTIONS = {"signs": sign_projection, "sjlt": SparseProjection}
