"""Which responses pass through the student together, and which of those batches are projected together.

Why two sizes: the passes through a small model are fastest while their activations stay near the cores, but a sign that
is made and packed for a product is best used for many responses. Neither size changes results beyond rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import psutil
from torch import nn

from gracelib.features.per_layer import held_bytes

_BATCH_TOKENS = 4096  # whose activations stay near the cores
_GROUP_ROWS = 512  # most responses projected together
_GROUP_BYTES = min(6 << 30, psutil.virtual_memory().total // 4)  # and what they may wait with
_MAX_LOGITS = 1 << 28  # tokens x vocabulary of one batch: 1 GiB of float32


def default_block_bytes(cpu: bool, n_parameters: int) -> int:
    """Size of one block of per-response gradients. Of a large student's wide matrices 16 MiB of 512 responses are 30 rows:
    products of so few are slow; about a hundred are wanted. A small one's fit whole, and stay near the cores."""
    small, medium = n_parameters <= 2_000_000, n_parameters <= 20_000_000
    return (256 if not cpu else 16 if small else 64 if medium else 128) << 20


def batch_groups(
    model: nn.Module, lengths: Sequence[int], batch_tokens: int | None, together: bool
) -> list[list[list[int]]]:
    """Which responses pass through the model together (a batch), and which batches are projected together (a group).

    lengths: tokens of prompt + response. A batch of a small model does not fill the cache, but making the signs and
    bringing them to the cores costs the same for 64 responses as for 512; so `together`, some batches wait for each
    other with the factors of their gradients, at most 512 responses and a quarter of main memory or 6 GiB. Otherwise a
    batch is a group, and twice as large.
    """
    token_bytes = held_bytes(model) if together else _GROUP_BYTES
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None) or 1
    default = max(1, min(_BATCH_TOKENS if together else 2 * _BATCH_TOKENS, _MAX_LOGITS // vocabulary))
    batches = _batches(lengths, batch_tokens or default, None)
    if not together or not batches:
        return [[batch] for batch in batches]
    held = [token_bytes * len(batch) * lengths[batch[0]] for batch in batches]
    parts = max(math.ceil(len(lengths) / _GROUP_ROWS), math.ceil(sum(held) / _GROUP_BYTES))
    groups: list[list[list[int]]] = [[] for _ in range(parts)]  # even: a short one wastes its signs
    done = 0
    for batch, size in zip(batches, held, strict=True):
        groups[int(parts * (done + size / 2) / sum(held))].append(batch)
        done += size
    return [group for group in groups if group]


def _batches(lengths: Sequence[int], tokens: int, size: int | None) -> list[list[int]]:
    """Rows by falling length (the largest batch comes first, so memory is short at the start or never), cut
    so that rows x longest <= tokens; at least one row each, at most `size`."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] > tokens
        if not batches or full or len(batches[-1]) == size:
            batches.append([])
        batches[-1].append(i)
    return batches
