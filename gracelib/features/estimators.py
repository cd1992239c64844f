"""Gradients of some parameters instead of all: labelled alternatives to the paper's features.

Why: all D parameters cost a backward pass and a projection of D numbers a response. Two cheaper estimators are in use,
and both are other quantities under the same name, so they are chosen by name and described in words (`describe`):

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
"""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import torch
from torch import nn

from gracelib.features.contributions import _product, _vector, _wide
from gracelib.features.per_layer import LayerByLayer, Unsupported, _kind, parameter_names

PARAMS = ("all", "last-layer", "lora-b")
RANK, ALPHA = 16, 32
_ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "c_attn")
_MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "c_fc", "mlp.c_proj")  # GPT-2 has two c_proj


def check_params(params: str) -> None:
    """Raises ValueError unless `params` is one of PARAMS."""
    if params not in PARAMS:
        raise ValueError(f"params must be one of {', '.join(PARAMS)}, got {params!r}")


def head(model: nn.Module) -> tuple[str, nn.Module]:
    """(name, module) of the output projection. Raises ValueError if there is none of a known kind."""
    found = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    name = next((name for name, module in model.named_modules() if module is found), None)
    if found is None or _kind(found) not in ("linear", "conv1d"):
        raise ValueError(
            f"params='last-layer': {type(model).__name__} has no linear output projection "
            f"({'none' if found is None else type(found).__name__}); use params='all'"
        )
    return name, found


def adapted_modules(model: nn.Module) -> dict[str, nn.Module]:
    """name -> module of everything that "lora-b" adapts, in the model's order.

    Raises ValueError, listing the linear modules there are, unless both attention and MLP are found by name.
    """
    linear = {name: module for name, module in model.named_modules() if _kind(module) in ("linear", "conv1d")}
    chosen = {name: module for name, module in linear.items() if _is(name, _ATTENTION + _MLP)}
    if not any(_is(name, _ATTENTION) for name in chosen) or not any(_is(name, _MLP) for name in chosen):
        kinds = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise ValueError(
            f"params='lora-b' adapts {', '.join(_ATTENTION + _MLP)}, both in attention and MLP; the "
            f"linear modules of {type(model).__name__} are called {', '.join(kinds) or '(none)'}; use "
            "params='all'"
        )
    return chosen


def n_parameters(model: nn.Module, params: str) -> int:
    """D: how many numbers a response's gradient has. Raises ValueError as `head` and `adapted_modules`."""
    return sum(torch.Size(shape).numel() for shape in chosen_shapes(model, params).values())


def chosen_shapes(model: nn.Module, params: str) -> dict[str, tuple[int, ...]]:
    """name -> shape of every tensor whose gradient is taken (rows first), a tied tensor once."""
    check_params(params)
    if params == "all":
        return {name: tuple(p.shape) for p, name in parameter_names(model).items()}
    if params == "last-layer":
        name, module = head(model)
        return {f"{name}.{own}": tuple(p.shape) for own, p in module._parameters.items() if p is not None}
    return {f"{name}.lora_B.weight": (_sizes(module)[1], RANK) for name, module in adapted_modules(model).items()}


def describe(model: nn.Module, params: str) -> str:
    """One sentence for a report: which parameters, and how many numbers."""
    size = n_parameters(model, params)
    if params == "all":
        return f"gradients of all parameters: D = {size:,}"
    if params == "last-layer":
        name, module = head(model)
        tied = module.weight is model.get_input_embeddings().weight
        return (
            f"gradients of the output projection {name} alone{' (tied: its own contribution)' if tied else ''}: "
            f"D = {size:,}; another estimator than the paper's"
        )
    modules = adapted_modules(model)
    kinds = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in modules))
    return (
        f"gradients of the B matrices of fresh LoRA adapters (r = {RANK}, alpha = {ALPHA}) on {len(modules)} "
        f"modules ({', '.join(kinds)}): D = {size:,}; another estimator than the paper's"
    )


def engine_of(model: nn.Module, params: str, seed: int):
    """The engine class for a choice other than "all", called like `LayerByLayer`(model, max_batch, block_bytes).
    Raises ValueError for a model it is not defined for."""
    chosen_shapes(model, params)  # refuses here, before any pass
    return LastLayer if params == "last-layer" else partial(LoraB, seed=seed)


def lora_a(seed: int, name: str, n_in: int) -> torch.Tensor:
    """A of the adapter on module `name`: (r, n_in) float64 on the CPU, uniform on +-1/sqrt(n_in)."""
    key = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8, person=b"gracelib.lora_a").digest()
    u = np.random.default_rng(int.from_bytes(key, "little")).random((RANK, n_in))
    return torch.from_numpy((2 * u - 1) / np.sqrt(n_in))


class _Chosen(LayerByLayer):
    """LayerByLayer whose gradients are of slots (shapes without storage) instead of the model's own parameters."""

    def __init__(self, model: nn.Module, max_batch: int, block_bytes: int):
        self.model, self.max_batch, self.block_bytes = model, max_batch, block_bytes
        self.names: dict[torch.Tensor, str] = {}
        self._handles: list = []
        self._swapped: dict = {}
        self._kept, self._kept_rows = {}, 0  # always handed on during the pass

    def __enter__(self):
        self._flags = [(p, p.requires_grad) for p in parameter_names(self.model)]
        for p, _ in self._flags:
            p.requires_grad_(False)
        self._hook()
        return self

    def _slot(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        slot = torch.empty(shape, device="meta")
        self.names[slot] = name
        return slot

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

    def _hook(self) -> None:
        name, module = head(self.model)
        slots = {
            own: self._slot(f"{name}.{own}", tuple(p.shape)) for own, p in module._parameters.items() if p is not None
        }

        def forward_hook(module, args, out):
            x = self._check(name, args[0]).detach()
            out = self._check(name, out).detach().requires_grad_(True)  # the leaf: the backward pass ends here
            self._due.update(slots.values())

            def backward_hook(g):
                g, h = _wide(g), _wide(x)  # (B, T, V), (B, T, hidden)
                if "bias" in slots:
                    self._contribute(slots["bias"], _vector(g.sum(1)))
                self._contribute(slots["weight"], _product(g, h) if _kind(module) == "linear" else _product(h, g))

            out.register_hook(backward_hook)
            return out

        self._handles.append(module.register_forward_hook(forward_hook))


class LoraB(_Chosen):
    """Per-response gradients of B in y + (alpha / r) B A x at B = 0."""

    def __init__(self, model: nn.Module, max_batch: int, block_bytes: int, seed: int = 0):
        super().__init__(model, max_batch, block_bytes)
        self.seed = seed

    def _hook(self) -> None:
        # with all weights frozen, the graph has to start somewhere: at the embeddings
        self._handles.append(
            self.model.get_input_embeddings().register_forward_hook(
                lambda module, args, out: out.detach().requires_grad_(True)
            )
        )
        for name, module in adapted_modules(self.model).items():
            self._handles.append(module.register_forward_hook(self._adapter(name, module)))

    def _adapter(self, name: str, module: nn.Module):
        n_in, n_out = _sizes(module)
        slot = self._slot(f"{name}.lora_B.weight", (n_out, RANK))
        weight = module.weight
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        a = lora_a(self.seed, name, n_in).mul_(ALPHA / RANK).to(device=weight.device, dtype=wide)  # (r, in)

        def forward_hook(module, args, out):
            x = self._check(name, args[0]).detach()
            if not self._check(name, out).requires_grad:
                raise Unsupported(f"no gradient passes through {name}")
            ax = _wide(x).reshape(self._batch, -1, n_in) @ a.T  # (B, T, in) @ (in, r): all that is kept of x
            self._due[slot] += 1
            out.register_hook(lambda g: self._contribute(slot, _product(_wide(g).reshape(self._batch, -1, n_out), ax)))

        return forward_hook


def _is(name: str, kinds: tuple[str, ...]) -> bool:
    return any(name == kind or name.endswith("." + kind) for kind in kinds)


def _sizes(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a Linear, whose weight is (out, in), or a Conv1D, whose weight is (in, out)."""
    rows, cols = module.weight.shape
    return (cols, rows) if _kind(module) == "linear" else (rows, cols)
