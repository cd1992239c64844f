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

Sink = Callable[[str, int, torch.Tensor], None]
LossOf = Callable[[torch.Tensor], torch.Tensor]    # logits (B, T, V) -> a sum of one loss per response


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
    return [f"{name or 'the model itself'} ({type(m).__name__})" for name, m in model.named_modules()
            if any(p is not None for p in m._parameters.values()) and _kind(m) is None]


# A contribution: add(block or None, r0, r1) -> rows r0..r1-1 of the gradient, (B, r1 - r0, cols), plus block.
# None in and None out: all zero. `factors` (left, right, padding id): for who needs them instead of the product.

def _product(left: torch.Tensor, right: torch.Tensor):
    """sum_t left[b, t, r] * right[b, t, c]: a weight matrix whose rows are left's features."""
    def add(block, r0, r1):
        rows = left[:, :, r0:r1].transpose(1, 2)                                  # (B, r, T)
        return torch.bmm(rows, right) if block is None else torch.baddbmm(block, rows, right)  # @ (B, T, c)
    add.factors = left, right, None
    return add


def _lookup(ids: torch.Tensor, grad: torch.Tensor, skip: int | None):
    """An embedding's rows: gradients of the positions that hold the id. `skip` is padding_idx, which gets
    none."""
    def add(block, r0, r1):
        here = (ids >= r0) & (ids < r1)
        if skip is not None:
            here &= ids != skip
        b, t = here.nonzero(as_tuple=True)
        if len(b) == 0:
            return block
        size = (ids.shape[0], r1 - r0, grad.shape[-1])
        block = grad.new_zeros(size) if block is None else block
        block.view(-1, size[2]).index_add_(0, b * size[1] + ids[b, t] - r0, grad[b, t])
        return block
    add.factors = ids, grad, skip
    return add


def _vector(v: torch.Tensor):
    """A bias or norm weight: v (B, numel) is its gradient already."""
    def add(block, r0, r1):
        return v[:, r0:r1, None] if block is None else block + v[:, r0:r1, None]
    return add


class LayerByLayer:
    """Per-response gradients of a whole batch (context manager: freezes and hooks the model, undoes both at
    the end).

    `block_bytes` bounds one block (B x elements); `max_batch` fixes the rows per block for all batches, so
    that a sink sees the same (name, start, size) in each of them and can keep what belongs to it.
    """

    def __init__(self, model: nn.Module, max_batch: int, block_bytes: int):
        unknown = unknown_modules(model)
        if unknown:
            raise Unsupported("no layer-by-layer gradient for " + ", ".join(unknown[:5]))
        self.model, self.max_batch, self.block_bytes = model, max_batch, block_bytes
        self.names = parameter_names(model)
        self._handles: list = []
        self._swapped: dict[nn.Module, nn.Parameter] = {}

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
        for module, weight in self._swapped.items():    # a forward that failed half-way
            module._parameters["weight"] = weight
        for p, flag in self._flags:
            p.requires_grad_(flag)
        self._handles, self._swapped, self._sink = [], {}, None

    def run(self, input_ids: torch.Tensor, loss_of: LossOf, sink: Sink) -> None:
        """input_ids (B, T), right-padded -> loss_of(logits) is a sum over responses; sends each one's
        gradient to sink."""
        self._batch, self._sink = input_ids.shape[0], sink
        self._due, self._ready = Counter(), defaultdict(list)
        with torch.enable_grad():
            loss = loss_of(self.model(input_ids=input_ids, use_cache=False).logits)
            loss.backward()
        for p in list(self._ready):    # uses that no gradient reached leave their tensor waiting
            self._emit(p)

    def _check(self, label: str, x) -> torch.Tensor:
        if not isinstance(x, torch.Tensor) or x.ndim < 2 or x.shape[0] != self._batch:
            shape = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise Unsupported(f"{label} is given {shape}, not one row per response")
        return x

    def _contribute(self, p: nn.Parameter, add) -> None:
        self._ready[p].append(add)
        self._due[p] -= 1
        if self._due[p] == 0:
            self._emit(p)

    def _emit(self, p: nn.Parameter) -> None:
        adds = self._ready.pop(p)
        n_rows, cols = p.shape[0], p[0].numel()
        step = max(1, self.block_bytes // (self.max_batch * cols * max(4, p.element_size())))
        for r0 in range(0, n_rows, step):
            block = None
            for add in adds:
                block = add(block, r0, min(r0 + step, n_rows))
            if block is not None:
                self._sink(self.names[p], r0 * cols, block.reshape(self._batch, -1))  # (B, r * c)

    def _affine(self, label: str, kind: str):
        def forward_hook(module, args, out):
            x = self._check(label, args[0] if args else None).detach()
            self._check(label, out)
            own = {k: p for k, p in module._parameters.items() if p is not None}
            self._due.update(own.values())
            if not out.requires_grad:
                raise Unsupported(f"no gradient passes through {label}")

            def backward_hook(g):
                g = _wide(g).reshape(self._batch, -1, g.shape[-1])                    # (B, T, out)
                if "bias" in own:
                    self._contribute(own["bias"], _vector(g.sum(1)))
                if "weight" not in own:
                    return
                h = _wide(x)
                if kind == "norm":
                    norm = F.layer_norm if isinstance(module, nn.LayerNorm) else F.rms_norm
                    h = norm(h, module.normalized_shape, eps=module.eps).reshape(g.shape)
                    return self._contribute(own["weight"], _vector((g * h).sum(1)))
                h = h.reshape(self._batch, -1, h.shape[-1])                           # (B, T, in)
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
            scale = getattr(module, "embed_scale", 1.0)    # Gemma's embeddings multiply after the lookup
            self._due[module.weight] += 1
            out = out.detach().requires_grad_(True)        # the leaf from which the graph grows

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
        grad, p.grad = p.grad, None    # autograd has added up all uses of a tied tensor before it calls this
        self._sink(self.names[p], 0, _wide(grad.to_dense() if grad.is_sparse else grad).reshape(1, -1))

    def run(self, input_ids: torch.Tensor, loss_of: LossOf, sink: Sink) -> None:
        """As `LayerByLayer.run`, for input_ids (1, T)."""
        if input_ids.shape[0] != 1:
            raise ValueError(f"one response at a time, got a batch of {input_ids.shape[0]}")
        self._sink = sink
        with torch.enable_grad():
            loss_of(self.model(input_ids=input_ids, use_cache=False).logits).backward()


def _wide(x: torch.Tensor) -> torch.Tensor:
    """Sums over positions and elements are taken in float32 at least, whatever the activations' dtype."""
    return x if x.dtype == torch.float64 else x.float()
