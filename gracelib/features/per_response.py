"""Gradients of each response of a batch, parameter by parameter, handed on in blocks and never held whole.

Why: autograd sums gradients over a batch, GRACE needs them apart, for ALL parameters, and n*m x D numbers do
not fit. But every parameter of a transformer sits in a module whose per-response gradient follows from its
input and the gradient of its output: a linear layer's is g^T x, an embedding's a scatter of g, a norm's a sum
over positions. So the parameters are frozen (which also saves autograd the summed gradient that nobody
needs), hooks note inputs on the way up, and on the way down each parameter's gradient is formed for the whole
batch in blocks of rows and given to a `sink`.

A tied tensor waits until all its uses have reported; their contributions (what one use of a parameter adds, made a
block of rows at a time) are added before the sink sees them: the norm of a sum is not the sum of norms. A module that is not known here, or is used in an unknown way,
raises `Unsupported`: then `OneAtATime` does the same work by plain autograd. Nothing is ever left out
silently.

sink(name, start, block): elements start..start+k-1 of the flattened parameter `name`, block (B, k), float32
or float64.
"""

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

Sink = Callable[[str, int, torch.Tensor], None]
LossOf = Callable[[torch.Tensor], torch.Tensor]  # logits (B, T, V) -> a sum of one loss per response


_OUTPUTS = {"linear": 0, "conv1d": 1, "embedding": 1}  # which side of such a module's weight is its output


class Unsupported(Exception):
    """The layer-by-layer path would not be exact for this model; the message names the module."""


def parameter_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """Each parameter once, under its name in `model.named_parameters()` (a tied tensor: its first name)."""
    return {p: name for name, p in model.named_parameters()}


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of the module itself (not of those inside it), by name."""
    return {name: p for name, p in module._parameters.items() if p is not None}


def kind_of(module: nn.Module) -> str | None:
    """How to differentiate a module's own parameters; None if it has some and is not known. Exact types,
    because a subclass may compute something else. RMSNorms have no common type, only a name (the caller
    checks the result)."""
    kind, title = type(module), type(module).__name__
    if kind is nn.Linear:
        return "linear"
    if title == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return "conv1d"
    if kind is nn.Embedding or (isinstance(module, nn.Embedding) and title.endswith("ScaledWordEmbedding")):
        return "embedding" if module.max_norm is None and not module.scale_grad_by_freq else None
    if kind in (nn.LayerNorm, nn.RMSNorm):
        return "norm" if len(module.normalized_shape) == 1 else None
    if title.endswith("RMSNorm") and set(own_parameters(module)) == {"weight"} and module.weight.ndim == 1:
        return "rmsnorm"
    return None


def default_block_bytes(cpu: bool, n_parameters: int) -> int:
    """Size of one block of per-response gradients. Of a large student's wide matrices 16 MiB of 512 responses are 30 rows:
    products of so few are slow; about a hundred are wanted. A small one's fit whole, and stay near the cores."""
    small, medium = n_parameters <= 2_000_000, n_parameters <= 20_000_000
    return (256 if not cpu else 16 if small else 64 if medium else 128) << 20


def held_bytes(model: nn.Module) -> int:
    """Bytes a token that `LayerByLayer` keeps until `hand_on`: inputs and output gradients of the modules, in float32
    (float64 for such a model); what several modules are given (as q, k and v are) counts once. A model on torch's
    "meta" device will do; where it cannot run there, a bound, with a warning: what every module is given counts."""
    inputs = {}

    def note(module, args, out):
        inputs[id(args[0])] = args[0]  # kept: else another tensor could get its id

    kinds = {module: kind_of(module) for module in model.modules()}
    handles = [module.register_forward_hook(note) for module, kind in kinds.items() if kind in ("linear", "conv1d")]
    device = next(model.parameters()).device
    # Without a mask transformers looks at values to choose one, which "meta" has not; one of four dimensions is taken.
    mask = {"attention_mask": torch.zeros(1, 1, 1, 1, device=device)} if device.type == "meta" else {}
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False, **mask)
        floats = sum(x.shape[-1] for x in inputs.values())
    except Exception as error:  # whatever a model does that "meta", or this mask, does not take: it is no reason to end
        warnings.warn(f"planned memory is a bound, not an estimate: {type(error).__name__}: {error}", stacklevel=2)
        known = [(module, kind) for module, kind in kinds.items() if kind in ("linear", "conv1d")]
        floats = sum(module.weight.shape[1 - _OUTPUTS[kind]] for module, kind in known)
    finally:
        for handle in handles:
            handle.remove()
    floats += sum(module.weight.shape[_OUTPUTS[kind]] for module, kind in kinds.items() if kind in _OUTPUTS)
    return floats * (8 if any(p.dtype == torch.float64 for p in model.parameters()) else 4)


# A contribution, what one use of a parameter adds to the gradients of a batch's responses, is one of the next three with
# its factors given: add(block or None, r0, r1, out=None) -> rows r0..r1-1 of the gradient, (B, r1 - r0, cols), plus block.
# None in and None out: all zero. `out` may be filled in place of a new tensor; the caller looks at what it gets.


def product(left: torch.Tensor, right: torch.Tensor, block, r0: int, r1: int, out=None):
    """sum_t left[b, t, r] * right[b, t, c]: a weight matrix whose rows are left's features."""
    rows = left[:, :, r0:r1].transpose(1, 2)  # (B, r, T)
    return torch.bmm(rows, right, out=out) if block is None else block.baddbmm_(rows, right)  # @ (B, T, c)


def lookup(ids: torch.Tensor, grad: torch.Tensor, skip: int | None, block, r0: int, r1: int, out=None):
    """An embedding's rows: gradients of the positions that hold the id. `skip` is padding_idx, which gets none."""
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


def vector(v: torch.Tensor, block, r0: int, r1: int, out=None):
    """A bias or norm weight: v (B, numel) is its gradient already."""
    return v[:, r0:r1, None] if block is None else block + v[:, r0:r1, None]


def widened(x: torch.Tensor) -> torch.Tensor:
    """Sums over positions and elements are taken in float32 at least, whatever the activations' dtype."""
    return x if x.dtype == torch.float64 else x.float()


def _sum(adds: list, rows: tuple[int, int], out: torch.Tensor | None = None) -> torch.Tensor | None:
    block = None
    for add in adds:
        block = add(block, *rows, out)
    return block


class LayerByLayer:
    """Per-response gradients of a whole batch (context manager: freezes and hooks the model, undoes both at the end).

    `block_bytes` bounds one block (B x elements; None: `default_block_bytes`); `max_batch` fixes the rows per block for
    all batches, so that a sink sees the same (name, start, size) in each of them and can keep what belongs to it.
    `names`: tensor -> name of all whose gradients are made. ValueError or Unsupported for a model that it is not for.
    """

    def __init__(self, model: nn.Module, max_batch: int, block_bytes: int | None = None):
        self.model, self.max_batch, first = model, max_batch, next(model.parameters())
        self.names = self.tensors()
        size = sum(p.numel() for p in self.names)
        self.block_bytes = block_bytes or default_block_bytes(first.device.type == "cpu", size)
        self._handles: list = []
        self._swapped: dict[nn.Module, nn.Parameter] = {}
        self._kept, self._kept_rows = defaultdict(list), 0
        # Where blocks of several passes are put together: one for all, since fresh memory costs as much as filling it.
        self._blocks = widened(torch.empty(0, dtype=first.dtype, device=first.device))

    def tensors(self) -> dict[torch.Tensor, str]:
        """tensor -> name of everything whose gradient is made: here all parameters."""
        unknown = [
            f"{name or 'the model itself'} ({type(module).__name__})"
            for name, module in self.model.named_modules()
            if own_parameters(module) and kind_of(module) is None
        ]
        if unknown:
            raise Unsupported("no layer-by-layer gradient for " + ", ".join(unknown[:5]))
        return parameter_names(self.model)

    def hook(self) -> None:
        """Let every module that has parameters of its own report their gradients."""
        for label, module in self.model.named_modules():
            own = own_parameters(module)
            kind = kind_of(module)
            if own and kind == "rmsnorm":
                self._handles.append(module.register_forward_pre_hook(self._swap_in(label)))
                self._handles.append(module.register_forward_hook(self._swap_out))
            elif own:
                hook = self._embedding(label) if kind == "embedding" else self.affine(label, kind, own)
                self._handles.append(module.register_forward_hook(hook))

    def __enter__(self):
        self._flags = [(p, p.requires_grad) for p in parameter_names(self.model)]
        for p, _ in self._flags:
            p.requires_grad_(False)
        self.hook()
        return self

    def __exit__(self, *exc):
        for handle in self._handles:
            handle.remove()
        for module, weight in self._swapped.items():  # a forward that failed half-way
            module._parameters["weight"] = weight
        for p, flag in self._flags:
            p.requires_grad_(flag)
        self._kept, self._blocks, self._sink = {}, None, None

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

    def check(self, label: str, x) -> torch.Tensor:
        """x if it has one row per response; raises Unsupported with the module's name otherwise."""
        if not isinstance(x, torch.Tensor) or x.ndim < 2 or x.shape[0] != self._batch:
            shape = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise Unsupported(f"{label} is given {shape}, not one row per response")
        return x

    def contribute(self, p: torch.Tensor, add, *factors) -> None:
        """One use of a tensor reports what it adds; `add` is `product`, `lookup` or `vector`."""
        self._ready[p].append(partial(add, *factors))
        self._due[p] -= 1
        if self._due[p] == 0:
            self._finish(p)

    def _finish(self, p: torch.Tensor) -> None:
        """All uses of a tensor in this pass have reported: hand its gradients on, or keep what they are made of."""
        adds = self._ready.pop(p)
        if self._sink is None:
            self._kept[p].append((self._kept_rows, self._batch, adds))
        else:
            self._emit(p, [(0, self._batch, adds)], self._batch, self._sink)

    def _emit(self, p: torch.Tensor, parts: list[tuple], n_responses: int, sink: Sink) -> None:
        """parts: (first response, responses, contributions) of each pass."""
        n_rows, cols = p.shape[0], p[0].numel()
        step = max(1, self.block_bytes // (self.max_batch * cols * max(4, p.element_size())))
        for r0 in range(0, n_rows, step):
            rows = r0, min(r0 + step, n_rows)
            one_pass = len(parts) == 1 and parts[0][1] == n_responses
            block = _sum(parts[0][2], rows) if one_pass else self._together(parts, rows, (n_responses, cols))
            if block is not None:
                sink(self.names[p], r0 * cols, block.reshape(n_responses, -1))  # (B, r * c)

    def _together(self, parts: list[tuple], rows: tuple[int, int], size: tuple[int, int]) -> torch.Tensor | None:
        """Rows of the gradient of all responses, (n_responses, r1 - r0, cols), from each pass's part; None if all zero.
        Good until the next call."""
        shape = size[0], rows[1] - rows[0], size[1]
        n = math.prod(shape)
        block = self._blocks.resize_(max(len(self._blocks), n))[:n].view(shape)
        if sum(count for _, count, _ in parts) < size[0]:  # a pass without gradient for this tensor
            block.zero_()
        some = False
        for first, count, adds in parts:
            own = block[first : first + count]
            found = _sum(adds, rows, own)
            some |= found is not None
            if found is None:
                own.zero_()
            elif found.data_ptr() != own.data_ptr():
                own.copy_(found)
        return block if some else None

    def affine(self, label: str, kind: str, own: dict[str, torch.Tensor], leaf: bool = False):
        """The hook of a linear layer or a norm. own: its tensors by name. leaf: the backward pass ends at its output."""

        def forward_hook(module, args, out):
            x = self.check(label, args[0] if args else None).detach()
            out = self.check(label, out)
            if leaf:
                out = out.detach().requires_grad_(True)
            self._due.update(own.values())
            if not out.requires_grad:
                raise Unsupported(f"no gradient passes through {label}")

            def backward_hook(g):
                g = widened(g).reshape(self._batch, -1, g.shape[-1])  # (B, T, out)
                if "bias" in own:
                    self.contribute(own["bias"], vector, g.sum(1))
                if "weight" not in own:
                    return
                h = widened(x)
                if kind == "norm":
                    norm = F.layer_norm if isinstance(module, nn.LayerNorm) else F.rms_norm
                    h = norm(h, module.normalized_shape, eps=module.eps).reshape(g.shape)
                    return self.contribute(own["weight"], vector, (g * h).sum(1))
                h = h.reshape(self._batch, -1, h.shape[-1])  # (B, T, in)
                # torch's Linear keeps its weight as (out, in), transformers' Conv1D as (in, out)
                self.contribute(own["weight"], product, *((g, h) if kind == "linear" else (h, g)))

            out.register_hook(backward_hook)
            return out

        return forward_hook

    def _embedding(self, label: str):
        def forward_hook(module, args, out):
            ids = args[0] if args else None
            if isinstance(ids, torch.Tensor) and ids.ndim == 2 and ids.shape[0] == 1 < self._batch:
                # learned positions are looked up once for the whole batch; apart, their gradients stay apart
                ids, out = ids.expand(self._batch, -1), out.expand(self._batch, -1, -1)
            ids = self.check(label, ids)
            scale = getattr(module, "embed_scale", 1.0)  # Gemma's embeddings multiply after the lookup
            self._due[module.weight] += 1
            out = out.detach().requires_grad_(True)  # the leaf from which the graph grows

            def backward_hook(g):
                g = widened(g) * scale if torch.is_tensor(scale) or scale != 1.0 else widened(g)
                self.contribute(module.weight, lookup, ids, g, module.padding_idx)

            out.register_hook(backward_hook)
            return out

        return forward_hook

    def _swap_in(self, label: str):
        """RMSNorms differ in detail (1 + w, casts before or after the weight), so each is run as it is, only
        with a copy of its weight per response; autograd then keeps the responses apart by itself."""

        def pre_hook(module, args):
            x = self.check(label, args[0] if args else None)
            weight = module._parameters["weight"]
            own = weight.detach().expand(self._batch, *[1] * (x.ndim - 2), -1).requires_grad_(True)
            self._due[weight] += 1
            own.register_hook(lambda g: self.contribute(weight, vector, widened(g).reshape(self._batch, -1)))
            self._swapped[module] = weight
            module._parameters["weight"] = own

        return pre_hook

    def _swap_out(self, module, args, out):
        module._parameters["weight"] = self._swapped.pop(module)


class OneAtATime:
    """The same results by plain autograd, for any model: batches of one response only. Slow, and nothing to
    know."""

    max_batch = 1

    def __init__(self, model: nn.Module, max_batch: int = 1, block_bytes: int | None = None):
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
        self._sink(self.names[p], 0, widened(grad.to_dense() if grad.is_sparse else grad).reshape(1, -1))

    def run(self, input_ids: torch.Tensor, loss_of: LossOf, sink: Sink) -> None:
        """As `LayerByLayer.run`, for input_ids (1, T)."""
        self._sink = sink
        with torch.enable_grad():
            loss_of(self.model(input_ids=input_ids, use_cache=False).logits).backward()
