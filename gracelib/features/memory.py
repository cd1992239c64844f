"""Memory of the features: stated before a run, measured after it.

Why: whether a large student fits is a question to answer before its weights are read. Gradients are projected and
freed as they appear (see `per_response.py`; on a CPU some batches wait for each other), so beyond the weights and one
backward pass over a batch (whose own weight gradients are freed one by one as well) there is only what `plan_memory`
lists: blocks of the per-response gradients of one tensor, signs, and what waits (a tied head's, a group's factors). None
of it grows with the number of responses; their results do, by d numbers each, and are listed too. The peak is then
measured, so that the statement can be held against it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from gracelib.features.batches import batch_groups
from gracelib.features.estimators import (
    CHUNK,
    RANK,
    SPARSITY,
    adapted_modules,
    check_estimator,
    chosen_shapes,
    in_and_out,
)
from gracelib.features.gradients import Batch, Example
from gracelib.features.per_response import default_block_bytes
from gracelib.features.record import CHUNK_BYTES, TOKEN_BYTES, up_projection
from gracelib.jobs.disk import size_of
from gracelib.projection import MIB

_SIGN_CACHE = 256 * MIB  # SignProjection's default
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes. weights: of the student in its dtype, each tensor once. extra: most that is needed beyond the weights and
    one backward pass, the sum of `parts` (what -> bytes). whole: what the per-response gradients of one batch would
    take if they were kept, for comparison. rows: most responses whose gradients are projected together. tokens: of the
    largest batch."""

    weights: int
    extra: int
    parts: dict[str, int]
    whole: int
    rows: int
    tokens: int

    def __str__(self) -> str:
        parts = ", ".join(f"{what} {size_of(size)}" for what, size in self.parts.items() if size >= MIB)
        return (
            f"weights {size_of(self.weights)}; beyond them and one backward pass over {self.tokens:,} tokens "
            f"(padding counted) at most {size_of(self.extra)}{f' ({parts})' if parts else ''}; keeping the gradients "
            f"of the {self.rows} responses that are projected together would take {size_of(self.whole)}"
        )


def plan_memory(
    model: nn.Module,
    lengths: Sequence[int],
    d: int,
    batch_tokens: int | None = None,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    params: str = "all",
    block_bytes: int | None = None,
    projection: str = "signs",
) -> MemoryPlan:
    """What `gradients.response_features` will need, in bytes.

    model: the student; one on torch's "meta" device (no weights read) will do. lengths: tokens of prompt + response of
    each example. d, batch_tokens, dtype, device, block_bytes: as given there; params, projection: of
    `estimators.estimator`.

    Raises ValueError for a choice of `params` that this model refuses, or an unknown projection.
    """
    check_estimator(params, projection)
    cpu = not device.startswith("cuda") and not (device == "auto" and torch.cuda.is_available())
    element, wide = {"float32": (4, 4), "float64": (8, 8), "bfloat16": (2, 4)}[dtype]
    grouped = batch_groups(model, lengths, batch_tokens, together=cpu and params == "all")
    groups = [
        [(len(batch), len(batch) * lengths[batch[0]]) for batch in group]  # (rows, tokens with padding)
        for group in grouped.groups
    ]
    rows = max((sum(r for r, _ in group) for group in groups), default=0)  # whose gradients are in one block
    tokens = max((t for group in groups for _, t in group), default=0)
    # tokens that wait: of one batch not, unless it goes through the layers apart
    most = max((sum(t for _, t in group) for group in groups if len(group) > 1 or grouped.found.layers), default=0)
    waiting = grouped.token_bytes * most
    shapes = chosen_shapes(model, params)
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    total = sum(sizes.values())
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", 0)
    tied = _is_tied(model)

    block_bytes = block_bytes or default_block_bytes(cpu, total)
    block = max(_block(shape, rows, block_bytes, wide) for shape in shapes.values())
    parts = _projecting(projection, total, rows, d, wide, cpu)
    parts["results"] = len(lengths) * (d * wide + 9 * 8) + sum(lengths) * (TOKEN_BYTES if wide == 4 else 33)
    parts["logits that are looked at"] = 5 * CHUNK_BYTES
    parts["blocks of per-response gradients"] = 3 * block  # two sums of a tied tensor, and a factor's copy
    if waiting:
        parts["factors of gradients that are projected together"] = waiting
    if params == "all":
        if (
            tied and grouped.found.head is None
        ):  # it waits for the lookup, whose gradient comes last; the norm of a sum needs both at once
            parts["gradient of a tied head's logits"] = tokens * vocabulary * wide
        # The check against plain autograd, one response at a time, comes before the signs are cached: it needs one
        # whole tensor's gradient, up to three times (two uses and their sum).
        check = max(sizes.values()) * ((3 if tied else 1) * element + (wide if element < wide else 0))
        rest = sum(parts.values()) - parts["results"]
        if check > rest:
            parts["largest tensor's gradient, in the first check"] = check - rest
    if params == "lora-b":
        modules = adapted_modules(model).values()  # A of each (drawn in float64), and A x of every token
        parts["adapters"] = RANK * (sum(in_and_out(m)[0] for m in modules) * (wide + 8) + tokens * len(modules) * wide)
    if element < wide and (looked_at := up_projection(model)) is not None:
        parts["activations that are looked at"] = tokens * looked_at.out_features * wide
    if element < wide:  # factors are widened before they are multiplied
        parts["widened factors"] = tokens * (2 * vocabulary + max(s[-1] for s in shapes.values())) * wide
    weights = element * sum(p.numel() for p in dict.fromkeys(model.parameters()))
    return MemoryPlan(weights, sum(parts.values()), parts, rows * total * wide, rows, tokens)


def one_backward(model: nn.Module, examples: Sequence[Example], batch_tokens: int) -> None:
    """Forward and backward over the largest batch, each weight's gradient freed as it appears: the pass beyond which
    `MemoryPlan.extra` counts. For measuring; the gradients are lost."""
    rows = batch_groups(model, [len(x) + len(y) for x, y in examples], batch_tokens, together=False).groups[0][0]

    def free(p):
        p.grad = None

    handles = [p.register_post_accumulate_grad_hook(free) for p in model.parameters()]
    batch = Batch([examples[i] for i in rows], next(model.parameters()).device)
    batch.loss(model(input_ids=batch.input_ids, use_cache=False).logits).backward()
    for handle in handles:
        handle.remove()


def peak_memory(device: str = "cpu") -> int:
    """The most bytes this process has used so far: allocated by torch on a CUDA device, else resident in main memory
    (weights, Python and libraries included). Since the process began, or since `reset_peak`."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():  # not getrusage: a process starts there with the peak of the one that started it
        line = next(line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak(device: str = "cpu") -> bool:
    """Let `peak_memory` start again from what is in use now; False where the system cannot (then it still counts from
    the start of the process)."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True


def _projecting(projection: str, total: int, rows: int, d: int, wide: int, cpu: bool) -> dict[str, int]:
    """What making the projection needs beside the gradients, by `estimators.PROJECTIONS`."""
    if projection == "sjlt":  # a piece, with either sign, and as `index_add_` wants it; words, rows (int64)
        return {"pieces of gradients": CHUNK * (4 * rows * wide + 8 * SPARSITY + 16)}
    floats, words = total * d * wide, total * -(-d // 32) * 4  # of all signs; some of either are kept
    chunk = (4 if cpu else 64) * MIB * -(-d // 32) * 32 // d  # whole 32-row words, floats
    kept = min(_SIGN_CACHE * 3 // 4, floats) + min(_SIGN_CACHE // 4, words)
    return {"signs": kept + 4 * chunk * (wide // 4)}


def _block(shape: tuple[int, ...], rows: int, block_bytes: int, wide: int) -> int:
    """Bytes of one block of a tensor's per-response gradients, as `LayerByLayer` cuts them."""
    cols = torch.Size(shape[1:]).numel()
    step = min(shape[0], max(1, block_bytes // (rows * cols * 4)))  # a block counts 4 bytes an element
    return rows * step * cols * wide


def _is_tied(model: nn.Module) -> bool:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and embedding is not None and getattr(head, "weight", None) is embedding.weight
