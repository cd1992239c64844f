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

Two things are made again instead of kept, where keeping them is what fills memory (`Layout` says of a model whether they
can be). Logits of a large vocabulary are a megabyte a token; their gradient, (softmax - one-hot) / |y|, follows from the
head's input, so a block of the head's gradient makes the columns of it that it needs. And layer by layer, only the inputs
of the decoder layers are kept for a group of responses: on the way down each layer runs once more, and its gradients are
handed on before those of the layer below are made. That costs one more forward pass, and a tenth of the memory: so the
signs, which cost the same for one response as for hundreds, are made for hundreds.

sink(name, start, block): elements start..start+k-1 of the flattened parameter `name`, block (B, k), float32
or float64.
"""

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

Sink = Callable[[str, int, torch.Tensor], None]
LossOf = Callable[["torch.Tensor | Unmade"], torch.Tensor]  # logits (B, T, V) -> a sum of one loss per response

LARGE_VOCABULARY = 8192  # tokens beyond which logits are not kept
_LOGITS_BYTES = 256 << 20  # of such logits made at once
SIGN_WORK = 12  # what making a sign costs, in multiplications by one

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


@dataclass(frozen=True)
class Layout:
    """What one token's way through a model shows.

    head: the linear layer without bias whose output is the logits as they are (Gemma 2 caps them: None) of a
    LARGE_VOCABULARY, which need not be kept; else None. layers: the decoder layers, where each has nothing but the output
    of the one before to differentiate, and parameters of its own; else none. kept, kept_layered: bytes a token that
    `LayerByLayer` keeps until `hand_on`, in float32 (float64 for such a model), without and with `layered`; what several
    modules are given (as q, k and v are) counts once.
    """

    head: nn.Module | None
    layers: tuple[nn.Module, ...]
    kept: int
    kept_layered: int


KEEP_ALL = Layout(None, (), 0, 0)  # nothing is made again


@contextmanager
def frozen(model: nn.Module):
    """No parameter requires a gradient; afterwards those do that did before."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    for p, _ in flags:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


def layout(model: nn.Module) -> Layout:
    """The `Layout` of a model, from a forward pass of one token; a model on torch's "meta" device will do. Where it cannot
    run there, a bound, with a warning: what every module is given counts."""
    kinds = {module: kind_of(module) for module in model.modules()}
    lists = [module for module in kinds if isinstance(module, nn.ModuleList)]
    layers = tuple(max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=()))
    calls = defaultdict(list)  # module -> (args, kwargs, output); kept: else another tensor could get its id

    def note(module, args, kwargs, out):
        calls[module].append((args, kwargs, out))
        return out.detach().requires_grad_(True) if kinds[module] == "embedding" else None

    handles = [m.register_forward_hook(note, with_kwargs=True) for m in kinds if kinds[m] in _OUTPUTS or m in layers]
    element = 8 if any(p.dtype == torch.float64 for p in model.parameters()) else 4
    device = next(model.parameters()).device
    # Without a mask transformers looks at values to choose one, which "meta" has not; one of four dimensions is taken.
    mask = {"attention_mask": torch.zeros(1, 1, 1, 1, device=device)} if device.type == "meta" else {}
    try:
        with frozen(model), torch.enable_grad():
            logits = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False, **mask).logits
    except Exception as error:  # whatever a model does that "meta", or this mask, does not take: it is no reason to end
        warnings.warn(f"planned memory is a bound, not an estimate: {type(error).__name__}: {error}", stacklevel=2)
        used = [m for m in kinds if kinds[m] in _OUTPUTS]
        floats = sum(sum(m.weight.shape) if kinds[m] != "embedding" else m.weight.shape[1] for m in used)
        return Layout(None, (), element * floats, element * floats)
    finally:
        for handle in handles:
            handle.remove()
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    plain = kinds.get(head) == "linear" and head.bias is None and head.weight.shape[0] > LARGE_VOCABULARY
    head = head if plain and len(calls[head]) == 1 and calls[head][0][2] is logits else None
    layers = layers if _is_chain(model, layers, calls) else ()

    def floats(modules: Iterable[nn.Module]) -> int:
        used = [m for m in modules if kinds[m] in _OUTPUTS]
        inputs = {id(args[0]): args[0] for m in used if kinds[m] != "embedding" for args, _, _ in calls[m]}
        outputs = sum(m.weight.shape[_OUTPUTS[kinds[m]]] for m in used if m is not head)
        return sum(x.shape[-1] for x in inputs.values()) + outputs

    inside = {m for layer in layers for m in layer.modules()}
    between = calls[layers[0]][0][0][0].shape[-1] * (len(layers) + 1) if layers else 0
    largest = max((floats(layer.modules()) for layer in layers), default=0)
    layered = floats(m for m in kinds if m not in inside) + between + largest
    return Layout(head, layers, element * floats(kinds), element * layered)


def _is_chain(model: nn.Module, layers: tuple[nn.Module, ...], calls: dict) -> bool:
    """Whether each layer ran once, on the output of the one before and else on what no gradient passes through (a cache
    or dictionary might hide something), and shares no parameter."""

    def is_fixed(x) -> bool:
        if isinstance(x, tuple):
            return all(map(is_fixed, x))
        return (
            not x.requires_grad if isinstance(x, torch.Tensor) else x is None or isinstance(x, bool | int | float | str)
        )

    before = None
    for layer in layers:
        args, kwargs, out = calls[layer][0] if len(calls[layer]) == 1 else ((), {}, None)
        own, *rest = out if isinstance(out, tuple) else (out,)
        follows = bool(args) and isinstance(args[0], torch.Tensor) and before in (None, id(args[0]))
        if not follows or not isinstance(own, torch.Tensor) or not is_fixed((*args[1:], *kwargs.values(), *rest)):
            return False
        before = id(own)
    inside = {module for layer in layers for module in layer.modules()}
    owners = Counter(p for layer in layers for p in set(layer.parameters()))
    owners.update({p for m in model.modules() if m not in inside for p in own_parameters(m).values()})
    return len(layers) > 1 and all(owners[p] == 1 for layer in layers for p in layer.parameters())


def dense_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that multiply by a matrix."""
    return [module for module in model.modules() if kind_of(module) in ("linear", "conv1d")]


def work(model: nn.Module, found: Layout, rows: int, tokens: int, d: int) -> float:
    """Multiplications for `rows` responses of `tokens` tokens, padding counted, and their projection to d numbers: about
    what `done` of `LayerByLayer` is told, and for a projection d * (rows + SIGN_WORK) an element."""
    dense = sum(m.weight.numel() for m in dense_modules(model))
    again = sum(p.numel() for layer in found.layers for p in layer.parameters())
    again += found.head.weight.numel() if found.head is not None else 0
    return tokens * (3 * dense + again) + sum(p.numel() for p in model.parameters()) * d * (rows + SIGN_WORK)


# A contribution, what one use of a parameter adds to the gradients of a batch's responses, is one of the next four with
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


def head_product(hidden: torch.Tensor, weight: torch.Tensor, lse, targets, shares, block, r0: int, r1: int, out=None):
    """`product` of the logits' gradient, made from the head's input, and that input (B, T, H). lse, targets, shares (B, T):
    log of the sum of the logits' exponentials, the token that comes next, and its share of the loss (0: not supervised).
    """
    delta = widened(hidden.to(weight.dtype) @ weight[r0:r1].T)  # (B, T, r) logits
    delta.sub_(lse[..., None]).exp_().mul_(shares[..., None])
    b, t = ((targets >= r0) & (targets < r1)).nonzero(as_tuple=True)
    delta[b, t, targets[b, t] - r0] -= shares[b, t]
    return product(delta, hidden, block, 0, r1 - r0, out)


class Unmade:
    """Logits (B, T, V) that are never whole: the head's input stands for them. `contribute(*factors)` takes `head_product`'s
    first five factors."""

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor, contribute: Callable, done: Callable[[int], None]):
        self.hidden, self.weight, self.contribute, self.done = hidden, weight, contribute, done
        self.dtype = weight.dtype

    def rows(self, at: torch.Tensor):
        """(which of `at`, their logits (p, V)) for as many flat positions `at` (n,) of B * T at once as may be made."""
        given, step = self.hidden.detach().flatten(0, 1)[at], max(1, _LOGITS_BYTES // (4 * len(self.weight)))
        for i in range(0, len(at), step):
            part = slice(i, i + step)
            yield part, widened(given[part] @ self.weight.T)

    def cross_entropy(
        self, at: torch.Tensor, targets: torch.Tensor, shares: torch.Tensor, counts: list[int], watch=None
    ):
        """(nll (n,), a scalar whose backward pass is that of (nll * shares).sum()) at flat positions `at` (n,) of B * T,
        in order, `counts` of them of each response. watch: is shown logits and targets, block by block."""
        hidden = self.hidden.flatten(0, 1)[at]  # (n, H)
        given, weight = hidden.detach(), self.weight
        grad, lse, nll = torch.empty_like(given), shares.new_empty(len(at)), shares.new_empty(len(at))
        for part, logits in self.rows(at):
            own = targets[part, None]
            if watch:
                watch(logits, targets[part])
            most, chosen = logits.amax(1, keepdim=True), logits.gather(1, own)
            total = logits.sub_(most).exp_().sum(1, keepdim=True)
            lse[part] = (most + total.log()).squeeze(1)
            nll[part] = lse[part] - chosen.squeeze(1)
            delta = logits.mul_(shares[part, None] / total)
            delta.scatter_add_(1, own, -shares[part, None])
            grad[part] = delta.to(weight.dtype) @ weight  # (p, V) @ (V, H)
            self.done(2 * len(own) * weight.numel())
        padded = (nn.utils.rnn.pad_sequence(x.split(counts), batch_first=True) for x in (lse, targets, shares))
        by_response = nn.utils.rnn.pad_sequence(given.split(counts), batch_first=True)  # (B, Y, H)
        self.contribute(widened(by_response), weight, *padded)
        return nll, (hidden * grad).sum()


def widened(x: torch.Tensor) -> torch.Tensor:
    """Sums over positions and elements are taken in float32 at least, whatever the activations' dtype."""
    return x if x.dtype == torch.float64 else x.float()


def _sum(adds: list, rows: tuple[int, int], out: torch.Tensor | None = None) -> torch.Tensor | None:
    block = None
    for add in adds:
        block = add(block, *rows, out)
    return block


@dataclass
class _Pass:
    """A batch on its way through the layers: its first response in the group, how many it has, what each layer was given
    (args, kwargs), the gradient of the output of the last layer that is still to be passed, and the embeddings' output."""

    first: int
    batch: int
    inputs: list[tuple[tuple, dict]]
    grad: torch.Tensor | None = None
    bottom: torch.Tensor | None = None


class LayerByLayer:
    """Per-response gradients of a whole batch (context manager: freezes and hooks the model, undoes both at the end).

    `block_bytes` bounds one block (B x elements; None: `default_block_bytes`); `max_batch` fixes the rows per block for
    all batches, so that a sink sees the same (name, start, size) in each of them and can keep what belongs to it.
    `found`: the model's `Layout`; its head and layers are used as in the module's head. `names`: tensor -> name of all whose
    gradients are made. `done(k)` may be set: it is called as work goes on, k multiplications of those that `work` counts.
    ValueError or Unsupported for a model that it is not for.
    """

    def __init__(self, model: nn.Module, max_batch: int, block_bytes: int | None = None, found: Layout = KEEP_ALL):
        self.model, self.max_batch, first = model, max_batch, next(model.parameters())
        self.names = self.tensors()
        self.head, self.layers = found.head, found.layers
        size = sum(p.numel() for p in self.names)
        self.block_bytes = block_bytes or default_block_bytes(first.device.type == "cpu", size)
        self.done: Callable[[float], None] = lambda k: None
        self._handles: list = []
        self._swapped: dict[nn.Module, nn.Parameter] = {}
        self._kept: dict = {}  # tensor -> first response of a pass -> (how many, contributions)
        self._first, self._batch, self._passes, self._due = 0, 0, [], Counter()
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
            if module is self.head:
                self.hook_head(module.weight)
            elif own and kind == "rmsnorm":
                self._handles.append(module.register_forward_pre_hook(self._swap_in(label)))
                self._handles.append(module.register_forward_hook(self._swap_out))
            elif own:
                hook = self._embedding(label) if kind == "embedding" else self.affine(label, kind, own)
                self._handles.append(module.register_forward_hook(hook))

    def hook_head(self, tensor: torch.Tensor | None) -> None:
        """Let `head` make no logits, but keep its input; its gradient is that of `tensor` (None: nobody's)."""

        def pre_hook(module, args):
            self._hidden = self.check("the head", args[0])
            if tensor is not None:
                self._due[tensor] += 1
            return (args[0][:, :0],)

        def contribute(*factors):
            if tensor is not None:
                self.contribute(tensor, head_product, *factors)

        self._unmade = lambda: Unmade(self._hidden, self.head.weight, contribute, self.done)
        self._handles.append(self.head.register_forward_pre_hook(pre_hook))

    def __enter__(self):
        self._frozen = frozen(self.model)
        self._frozen.__enter__()
        for module in dense_modules(self.model):
            if module is not self.head:
                self._handles.append(module.register_forward_hook(self._tell))
        self.hook()
        for layer in self.layers:
            self._handles.append(layer.register_forward_pre_hook(self._into_layer, with_kwargs=True))
            self._handles.append(layer.register_forward_hook(self._out_of_layer))
        return self

    def __exit__(self, *exc):
        for handle in self._handles:
            handle.remove()
        for module, weight in self._swapped.items():  # a forward that failed half-way
            module._parameters["weight"] = weight
        self._frozen.__exit__(*exc)
        self._kept, self._blocks, self._sink, self._passes = {}, None, None, []

    def run(self, input_ids: torch.Tensor, loss_of: LossOf, sink: Sink | None) -> None:
        """input_ids (B, T), right-padded -> loss_of(logits) is a sum over responses; sends each one's
        gradient to sink during the backward pass, or, without a sink, keeps what `hand_on` needs. Where the model has a
        `head`, logits are `Unmade`."""
        self._batch, self._sink = input_ids.shape[0], None if self.layers else sink
        self._due, self._ready = Counter(), defaultdict(list)
        if self.layers:
            self._passes.append(_Pass(self._first, self._batch, []))
        with torch.enable_grad():
            logits = self.model(input_ids=input_ids, use_cache=False).logits
            loss = loss_of(logits if self.head is None else self._unmade())
            if loss.requires_grad:
                loss.backward()
        self._hidden = None
        if self.layers:
            self._passes[-1].grad, self._top = self._top.grad, None
        for p in list(self._ready):  # uses that no gradient reached leave their tensor waiting
            self._finish(p)
        self._first += self._batch if self._sink is None else 0
        if self.layers and sink is not None:
            self.hand_on(sink)

    @torch.no_grad()
    def hand_on(self, sink: Sink) -> None:
        """The gradients of all responses that were `run` without a sink since the last call, in that order: one block
        for all of them, since a sign that is made is best used for many responses at once."""
        n_rows, self._first = self._first, 0
        for layer in reversed(self.layers):
            for one in self._passes:
                self._through(layer, one)
            for p in layer.parameters():
                if p in self._kept:
                    self._emit(p, self._kept.pop(p), n_rows, sink)
        for one in self._passes:
            self._first, self._batch = one.first, one.batch
            one.bottom.backward(one.grad)
        self._first, self._passes = 0, []
        for p in list(self._kept):
            self._emit(p, self._kept.pop(p), n_rows, sink)

    def _through(self, layer: nn.Module, one: _Pass) -> None:
        """One batch's way back through a layer, which runs again for it."""
        args, kwargs = one.inputs.pop()
        self._first, self._batch = one.first, one.batch
        one.bottom, x = args[0], args[0].detach().requires_grad_(True)
        with torch.enable_grad():
            out = layer(x, *args[1:], **kwargs)
            (out[0] if isinstance(out, tuple) else out).backward(one.grad)
        one.grad = x.grad

    def _tell(self, module, args, out) -> None:
        k = args[0][..., 0].numel() * module.weight.numel()
        self.done(k)
        if out.requires_grad:
            out.register_hook(lambda g: self.done(k))

    def _into_layer(self, layer, args, kwargs):
        if self._passes[-1].grad is None:  # on the way up
            self._passes[-1].inputs.append((args, kwargs))
            torch.set_grad_enabled(False)

    def _out_of_layer(self, layer, args, out):
        if self._passes[-1].grad is not None:
            return None
        torch.set_grad_enabled(True)
        if layer is not self.layers[-1]:
            return None
        own, *rest = out if isinstance(out, tuple) else (out,)
        self._top = own.detach().requires_grad_(True)
        return (self._top, *rest) if isinstance(out, tuple) else self._top

    def check(self, label: str, x) -> torch.Tensor:
        """x if it has one row per response; raises Unsupported with the module's name otherwise."""
        if not isinstance(x, torch.Tensor) or x.ndim < 2 or x.shape[0] != self._batch:
            shape = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise Unsupported(f"{label} is given {shape}, not one row per response")
        return x

    def contribute(self, p: torch.Tensor, add, *factors) -> None:
        """One use of a tensor reports what it adds; `add` is `product`, `head_product`, `lookup` or `vector`."""
        if self._sink is None:  # kept, in the order in which tensors had their last use
            self._kept[p] = parts = self._kept.pop(p, {})
            parts.setdefault(self._first, (self._batch, []))[1].append(partial(add, *factors))
            return
        self._ready[p].append(partial(add, *factors))
        self._due[p] -= 1
        if self._due[p] == 0:
            self._finish(p)

    def _finish(self, p: torch.Tensor) -> None:
        """All uses of a tensor in this pass have reported: hand its gradients on."""
        self._emit(p, {0: (self._batch, self._ready.pop(p))}, self._batch, self._sink)

    def _emit(self, p: torch.Tensor, parts: dict[int, tuple[int, list]], n_responses: int, sink: Sink) -> None:
        """parts: first response of each pass -> (responses, contributions)."""
        n_rows, cols = p.shape[0], p[0].numel()
        step = max(1, self.block_bytes // (self.max_batch * cols * max(4, p.element_size())))
        adds = [add for _, own in parts.values() for add in own if add.func in (product, head_product)]
        tokens = sum(add.args[0].shape[:2].numel() * (1 if add.func is product else 2) for add in adds)
        for r0 in range(0, n_rows, step):
            rows = r0, min(r0 + step, n_rows)
            if 0 in parts and parts[0][0] == n_responses:  # one pass
                block = _sum(parts[0][1], rows)
            else:
                block = self._together(parts, rows, (n_responses, cols))
            self.done(tokens * (rows[1] - r0) * cols)
            if block is not None:
                sink(self.names[p], r0 * cols, block.reshape(n_responses, -1))  # (B, r * c)

    def _together(self, parts: dict[int, tuple], rows: tuple[int, int], size: tuple[int, int]) -> torch.Tensor | None:
        """Rows of the gradient of all responses, (n_responses, r1 - r0, cols), from each pass's part; None if all zero.
        Good until the next call."""
        shape = size[0], rows[1] - rows[0], size[1]
        n = math.prod(shape)
        block = self._blocks.resize_(max(len(self._blocks), n))[:n].view(shape)
        if sum(count for count, _ in parts.values()) < size[0]:  # a pass without gradient for this tensor
            block.zero_()
        some = False
        for first, (count, adds) in parts.items():
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
            if not torch.is_grad_enabled():
                return None  # of a layer that runs again
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
            if not torch.is_grad_enabled():
                return
            weight = module._parameters["weight"]
            own = weight.detach().expand(self._batch, *[1] * (x.ndim - 2), -1).requires_grad_(True)
            self._due[weight] += 1
            own.register_hook(lambda g: self.contribute(weight, vector, widened(g).reshape(self._batch, -1)))
            self._swapped[module] = weight
            module._parameters["weight"] = own

        return pre_hook

    def _swap_out(self, module, args, out):
        if module in self._swapped:
            module._parameters["weight"] = self._swapped.pop(module)


class OneAtATime:
    """The same results by plain autograd, for any model: batches of one response only. Slow, and nothing to
    know."""

    max_batch = 1

    def __init__(self, model: nn.Module, max_batch: int = 1, block_bytes: int | None = None):
        self.model, self.names = model, parameter_names(model)
        self.done: Callable[[float], None] = lambda k: None
        self._dense = {module.weight for module in dense_modules(model)}

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
        self.done(3 * self._tokens * p.numel() if p in self._dense else 0)
        self._sink(self.names[p], 0, widened(grad.to_dense() if grad.is_sparse else grad).reshape(1, -1))

    def run(self, input_ids: torch.Tensor, loss_of: LossOf, sink: Sink) -> None:
        """As `LayerByLayer.run`, for input_ids (1, T)."""
        self._sink, self._tokens = sink, input_ids.numel()
        with torch.enable_grad():
            loss_of(self.model(input_ids=input_ids, use_cache=False).logits).backward()
