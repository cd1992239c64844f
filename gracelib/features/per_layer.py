"""Gradients of each response of a batch, parameter by parameter, handed on in blocks and never held whole.

Why: autograd sums gradients over a batch, GRACE needs them apart, for ALL parameters, and n*m x D numbers do
not fit. But every parameter of a transformer sits in a module whose per-response gradient follows from its
input and the gradient of its output: a linear layer's is g^T x, an embedding's a scatter of g, a norm's a sum
over positions. So the parameters are frozen (which also saves autograd the summed gradient that nobody
needs), hooks note inputs on the way up, and on the way down each parameter's gradient is formed for the whole
batch in blocks of rows and given to a `sink`.

A tied tensor waits until all its uses have reported; their contributions are added before the sink sees them
(the norm of a sum is not the sum of norms). A module that is not known here, or is used in an unknown way,
raises `Unsupported`: then `OneAtATime` does the same work by plain autograd. Nothing is ever left out
silently.

sink(name, start, block): elements start..start+k-1 of the flattened parameter `name`, block (B, k), float32
or float64.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from gracelib.features.contributions import _block, _lookup, _product, _vector, _wide

Sink = Callable[[str, int, torch.Tensor], None]
LossOf = Callable[[torch.Tensor], torch.Tensor]  # logits (B, T, V) -> a sum of one loss per response


_OUTPUTS = {"linear": 0, "conv1d": 1, "embedding": 1}  # which side of such a module's weight is its output


class Unsupported(Exception):
    """The layer-by-layer path would not be exact for this model; the message names the module."""


def parameter_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """Each parameter once, under its name in `model.named_parameters()` (a tied tensor: its first name)."""
    return {p: name for name, p in model.named_parameters()}


def _kind(module: nn.Module) -> str | None:
    """How to differentiate a module's own parameters; None if it has some and is not known. Exact types,
    because a subclass may compute something else. RMSNorms have no common type, only a name (the caller
    checks the result)."""
    own = {k for k, p in module._parameters.items() if p is not None}
    kind, title = type(module), type(module).__name__
    if kind is nn.Linear:
        return "linear"
    if title == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return "conv1d"
    if kind is nn.Embedding or (isinstance(module, nn.Embedding) and title.endswith("ScaledWordEmbedding")):
        return "embedding" if module.max_norm is None and not module.scale_grad_by_freq else None
    if kind in (nn.LayerNorm, nn.RMSNorm):
        return "norm" if len(module.normalized_shape) == 1 else None
    if title.endswith("RMSNorm") and own == {"weight"} and module.weight.ndim == 1:
        return "rmsnorm"
    return None


def unknown_modules(model: nn.Module) -> list[str]:
    """'name (Class)' of every module that has parameters of its own and no known layer-by-layer gradient."""
    return [
        f"{name or 'the model itself'} ({type(m).__name__})"
        for name, m in model.named_modules()
        if any(p is not None for p in m._parameters.values()) and _kind(m) is None
    ]


def held_bytes(model: nn.Module) -> int:
    """Bytes a token that `LayerByLayer` keeps until `hand_on`: inputs and output gradients of the modules, in float32
    (float64 for such a model); what several modules are given (as q, k and v are) counts once. A model on torch's
    "meta" device will do."""
    inputs = {}

    def note(module, args, out):
        inputs[id(args[0])] = args[0]  # kept: else another tensor could get its id

    kinds = {module: _kind(module) for module in model.modules()}
    handles = [module.register_forward_hook(note) for module, kind in kinds.items() if kind in ("linear", "conv1d")]
    device = next(model.parameters()).device
    # Without a mask transformers looks at values to choose one, which "meta" has not; one of four dimensions is taken.
    mask = {"attention_mask": torch.zeros(1, 1, 1, 1, device=device)} if device.type == "meta" else {}
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False, **mask)
    finally:
        for handle in handles:
            handle.remove()
    floats = sum(x.shape[-1] for x in inputs.values())
    floats += sum(module.weight.shape[_OUTPUTS[kind]] for module, kind in kinds.items() if kind in _OUTPUTS)
    return floats * (8 if any(p.dtype == torch.float64 for p in model.parameters()) else 4)


class LayerByLayer:
    """Per-response gradients of a whole batch (context manager: freezes and hooks the model, undoes both at
    the end).

    `block_bytes` bounds one block (B x elements); `max_batch` fixes the rows per block for all batches, so
    that a sink sees the same (name, start, size) in each of them and can keep what belongs to it.
    """

    _blocks: torch.Tensor | None = None

    def __init__(self, model: nn.Module, max_batch: int, block_bytes: int):
        unknown = unknown_modules(model)
        if unknown:
            raise Unsupported("no layer-by-layer gradient for " + ", ".join(unknown[:5]))
        self.model, self.max_batch, self.block_bytes = model, max_batch, block_bytes
        self.names = parameter_names(model)
        self._handles: list = []
        self._swapped: dict[nn.Module, nn.Parameter] = {}
        self._kept, self._kept_rows = defaultdict(list), 0

    def __enter__(self):
        self._flags = [(p, p.requires_grad) for p in self.names]
        for p in self.names:
            p.requires_grad_(False)
        for label, module in self.model.named_modules():
            if all(p is None for p in module._parameters.values()):
                continue
            kind = _kind(module)
            if kind == "rmsnorm":
                self._handles.append(module.register_forward_pre_hook(self._swap_in(label)))
                self._handles.append(module.register_forward_hook(self._swap_out))
            else:
                hook = self._embedding(label) if kind == "embedding" else self._affine(label, kind)
                self._handles.append(module.register_forward_hook(hook))
        return self

    def __exit__(self, *exc):
        for handle in self._handles:
            handle.remove()
        for module, weight in self._swapped.items():  # a forward that failed half-way
            module._parameters["weight"] = weight
        for p, flag in self._flags:
            p.requires_grad_(flag)
        self._handles, self._swapped, self._sink = [], {}, None
        self._kept, self._kept_rows, self._blocks = defaultdict(list), 0, None

    def run(self, input_ids: torch.Tensor, loss_of: LossOf, sink: Sink | None) -> None:
        """input_ids (B, T), right-padded -> loss_of(logits) is a sum over responses; sends each one's
        gradient to sink during the backward pass, or, without a sink, keeps the factors for `hand_on`."""
        self._batch, self._sink = input_ids.shape[0], sink
        self._due, self._ready = Counter(), defaultdict(list)
        with torch.enable_grad():
            loss = loss_of(self.model(input_ids=input_ids, use_cache=False).logits)
            loss.backward()
        for p in list(self._ready):  # uses that no gradient reached leave their tensor waiting
            self._finish(p)
        self._kept_rows += self._batch if sink is None else 0

    @torch.no_grad()
    def hand_on(self, sink: Sink) -> None:
        """The gradients of all responses that were `run` without a sink since the last call, in that order: one block
        for all of them, since a sign that is made is best used for many responses at once."""
        kept, n_rows = self._kept, self._kept_rows
        self._kept, self._kept_rows = defaultdict(list), 0
        for p in list(kept):
            self._emit(p, kept.pop(p), n_rows, sink)

    def _check(self, label: str, x) -> torch.Tensor:
        if not isinstance(x, torch.Tensor) or x.ndim < 2 or x.shape[0] != self._batch:
            shape = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise Unsupported(f"{label} is given {shape}, not one row per response")
        return x

    def _contribute(self, p: nn.Parameter, add) -> None:
        self._ready[p].append(add)
        self._due[p] -= 1
        if self._due[p] == 0:
            self._finish(p)

    def _finish(self, p: nn.Parameter) -> None:
        """All uses of a tensor in this pass have reported: hand its gradients on, or keep what they are made of."""
        part = (self._kept_rows, self._batch, self._ready.pop(p))
        if self._sink is None:
            self._kept[p].append(part)
        else:
            self._emit(p, [(0, *part[1:])], self._batch, self._sink)

    def _emit(self, p: nn.Parameter, parts: list[tuple], n_responses: int, sink: Sink) -> None:
        """parts: (first response, responses, contributions) of each pass."""
        n_rows, cols = p.shape[0], p[0].numel()
        step = max(1, self.block_bytes // (self.max_batch * cols * max(4, p.element_size())))
        memory = self._memory(p)
        for r0 in range(0, n_rows, step):
            block = _block(parts, n_responses, (r0, min(r0 + step, n_rows)), p, memory)
            if block is not None:
                sink(self.names[p], r0 * cols, block.reshape(n_responses, -1))  # (B, r * c)

    def _memory(self, p: nn.Parameter) -> torch.Tensor:
        """Where blocks of several passes are put together: one for all, since fresh memory costs as much as filling it."""
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        if self._blocks is None or (self._blocks.dtype, self._blocks.device) != (dtype, p.device):
            self._blocks = torch.empty(0, dtype=dtype, device=p.device)
        return self._blocks

    def _affine(self, label: str, kind: str):
        def forward_hook(module, args, out):
            x = self._check(label, args[0] if args else None).detach()
            self._check(label, out)
            own = {k: p for k, p in module._parameters.items() if p is not None}
            self._due.update(own.values())
            if not out.requires_grad:
                raise Unsupported(f"no gradient passes through {label}")

            def backward_hook(g):
                g = _wide(g).reshape(self._batch, -1, g.shape[-1])  # (B, T, out)
                if "bias" in own:
                    self._contribute(own["bias"], _vector(g.sum(1)))
                if "weight" not in own:
                    return
                h = _wide(x)
                if kind == "norm":
                    norm = F.layer_norm if isinstance(module, nn.LayerNorm) else F.rms_norm
                    h = norm(h, module.normalized_shape, eps=module.eps).reshape(g.shape)
                    return self._contribute(own["weight"], _vector((g * h).sum(1)))
                h = h.reshape(self._batch, -1, h.shape[-1])  # (B, T, in)
                # torch's Linear keeps its weight as (out, in), transformers' Conv1D as (in, out)
                self._contribute(own["weight"], _product(g, h) if kind == "linear" else _product(h, g))

            out.register_hook(backward_hook)

        return forward_hook

    def _embedding(self, label: str):
        def forward_hook(module, args, out):
            ids = args[0] if args else None
            if isinstance(ids, torch.Tensor) and ids.ndim == 2 and ids.shape[0] == 1 < self._batch:
                # learned positions are looked up once for the whole batch; apart, their gradients stay apart
                ids, out = ids.expand(self._batch, -1), out.expand(self._batch, -1, -1)
            ids = self._check(label, ids)
            scale = getattr(module, "embed_scale", 1.0)  # Gemma's embeddings multiply after the lookup
            self._due[module.weight] += 1
            out = out.detach().requires_grad_(True)  # the leaf from which the graph grows

            def backward_hook(g):
                g = _wide(g) * scale if torch.is_tensor(scale) or scale != 1.0 else _wide(g)
                self._contribute(module.weight, _lookup(ids, g, module.padding_idx))

            out.register_hook(backward_hook)
            return out

        return forward_hook

    def _swap_in(self, label: str):
        """RMSNorms differ in detail (1 + w, casts before or after the weight), so each is run as it is, only
        with a copy of its weight per response; autograd then keeps the responses apart by itself."""

        def pre_hook(module, args):
            x = self._check(label, args[0] if args else None)
            weight = module._parameters["weight"]
            own = weight.detach().expand(self._batch, *[1] * (x.ndim - 2), -1).requires_grad_(True)
            self._due[weight] += 1
            own.register_hook(lambda g: self._contribute(weight, _vector(_wide(g).reshape(self._batch, -1))))
            self._swapped[module] = weight
            module._parameters["weight"] = own

        return pre_hook

    def _swap_out(self, module, args, out):
        module._parameters["weight"] = self._swapped.pop(module)


class OneAtATime:
    """The same results by plain autograd, for any model: batches of one response only. Slow, and nothing to
    know."""

    max_batch = 1

    def __init__(self, model: nn.Module, max_batch: int = 1, block_bytes: int = 0):
        self.model, self.names = model, parameter_names(model)

    def __enter__(self):
        self._before = [(p, p.requires_grad, p.grad) for p in self.names]
        self._handles = []
        for p in self.names:
            p.grad = None
            p.requires_grad_(True)
            self._handles.append(p.register_post_accumulate_grad_hook(self._take))
        return self

    def __exit__(self, *exc):
        for handle in self._handles:
            handle.remove()
        for p, flag, grad in self._before:
            p.requires_grad_(flag)
            p.grad = grad

    def _take(self, p: nn.Parameter) -> None:
        grad, p.grad = p.grad, None  # autograd has added up all uses of a tied tensor before it calls this
        self._sink(self.names[p], 0, _wide(grad.to_dense() if grad.is_sparse else grad).reshape(1, -1))

    def run(self, input_ids: torch.Tensor, loss_of: LossOf, sink: Sink) -> None:
        """As `LayerByLayer.run`, for input_ids (1, T)."""
        if input_ids.shape[0] != 1:
            raise ValueError(f"one response at a time, got a batch of {input_ids.shape[0]}")
        self._sink = sink
        with torch.enable_grad():
            loss_of(self.model(input_ids=input_ids, use_cache=False).logits).backward()
