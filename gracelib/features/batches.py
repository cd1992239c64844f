"""Which responses pass through the student together, and which of those batches are projected together.

Why two sizes: the passes through a small model are fastest while their activations stay near the cores, but a sign that
is made and packed for a product is best used for many responses. Neither size changes results beyond rounding.

Freed memory: where the C library can be told (Linux with glibc), it keeps large blocks instead of giving them back to the
system after each batch and asking for them again: every page that is asked for is filled with zeros first, which on a
virtual machine took up to half of the time of the features.
"""

import ctypes
import gc
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil
from torch import nn

from gracelib.checks import rope_switch
from gracelib.features.per_response import KEEP_ALL, LARGE_VOCABULARY, Layout, layout

BATCH_TOKENS = 4096  # whose activations stay near the cores
GROUP_ROWS = 512  # most responses projected together
GROUP_BYTES = min(6 << 30, psutil.virtual_memory().total // 4)  # and what they may wait with
LAYERED_BYTES = min(7 << 29, GROUP_BYTES)  # and with what layers are given: beyond this, more responses save little
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MAX_LOGITS = 1 << 28  # tokens x vocabulary of one batch: 1 GiB of float32


@dataclass(frozen=True)
class Groups:
    """groups: which responses pass through the model together (a batch, rows), and which batches are projected together.
    found: of the model, for `LayerByLayer`; with layers only if a group goes through them one at a time."""

    groups: list[list[list[int]]]
    found: Layout

    @property
    def token_bytes(self) -> int:
        """What a token waits with."""
        return self.found.kept_layered if self.found.layers else self.found.kept


def batch_groups(model: nn.Module, lengths: Sequence[int], batch_tokens: int | None, together: bool) -> Groups:
    """Which responses pass through the model together (a batch), and which batches are projected together (a group).

    lengths: tokens of prompt + response. A batch of a small model does not fill the cache, but making the signs and
    bringing them to the cores costs the same for 64 responses as for 512; so `together`, some batches wait for each
    other with the factors of their gradients, at most 512 responses and a quarter of main memory or 6 GiB. A large model's
    would not fit: then they wait with their layers' inputs (`Layout.layers`). Otherwise a batch is a group, and
    twice as large.
    """
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None) or 1
    found = layout(model) if together or vocabulary > LARGE_VOCABULARY else KEEP_ALL
    vocabulary = vocabulary if found.head is None else 1
    default = max(1, min(BATCH_TOKENS if together else 2 * BATCH_TOKENS, _MAX_LOGITS // vocabulary))
    switch = rope_switch(model.config) if hasattr(model, "config") else None
    batches = length_batches(lengths, batch_tokens or default, None, switch)
    if not together or not batches:
        return Groups([[batch] for batch in batches], replace(found, layers=()))
    tokens = [len(batch) * lengths[batch[0]] for batch in batches]
    layered = bool(found.layers) and found.kept * sum(tokens) > GROUP_BYTES * math.ceil(len(lengths) / GROUP_ROWS)
    held = [(found.kept_layered if layered else found.kept) * count for count in tokens]
    limit = LAYERED_BYTES if layered else GROUP_BYTES
    parts = max(math.ceil(len(lengths) / GROUP_ROWS), math.ceil(sum(held) / limit))
    groups: list[list[list[int]]] = [[] for _ in range(parts)]  # even: a short one wastes its signs
    done = 0
    for batch, size in zip(batches, held, strict=True):
        groups[int(parts * (done + size / 2) / sum(held))].append(batch)
        done += size
    return Groups([group for group in groups if group], found if layered else replace(found, layers=()))


def length_batches(lengths: Sequence[int], tokens: int, size: int | None, switch: int | None = None) -> list[list[int]]:
    """Rows by falling length (the largest batch comes first, so memory is short at the start or never), cut
    so that rows x longest <= tokens; at least one row each, at most `size`. No batch has texts on both sides of `switch`
    (`checks.rope_switch`; the last token of a text is no input)."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] > tokens
        apart = switch is not None and batches and lengths[batches[-1][0]] - 1 > switch >= lengths[i] - 1
        if not batches or full or apart or len(batches[-1]) == size:
            batches.append([])
        batches[-1].append(i)
    return batches


def keep_freed() -> None:
    """From now on freed main memory stays with this process, to be used again. Its peak is the same."""
    if mallopt := _of_c_library("mallopt"):
        mallopt(_TRIM_THRESHOLD, -1)  # never: a large student's factors are more than any threshold it takes, 2 GiB
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # larger ones go back: the heap would be torn into pieces


def give_back() -> None:
    """Hand freed main memory back to the system: what was freed before a measurement must not count, nor be used again
    unseen."""
    gc.collect()
    if trim := _of_c_library("malloc_trim"):
        trim(0)


def _of_c_library(name: str):
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
