"""What one use of a parameter adds to the gradients of a batch's responses, made a block of rows at a time.

Why apart from the hooks that collect them: a tensor may be used more than once, its gradients may be wanted pass by pass
or for several passes at once, and another projection may want the factors instead of their product.
"""

from __future__ import annotations

import math

import torch
from torch import nn

# A contribution: add(block or None, r0, r1, out=None) -> rows r0..r1-1 of the gradient, (B, r1 - r0, cols), plus block.
# None in and None out: all zero. `out` may be filled in place of a new tensor; the caller looks at what it gets.
# `factors` (left, right, padding id): for who needs them instead of the product.


def _product(left: torch.Tensor, right: torch.Tensor):
    """sum_t left[b, t, r] * right[b, t, c]: a weight matrix whose rows are left's features."""

    def add(block, r0, r1, out=None):
        rows = left[:, :, r0:r1].transpose(1, 2)  # (B, r, T)
        return torch.bmm(rows, right, out=out) if block is None else block.baddbmm_(rows, right)  # @ (B, T, c)

    add.factors = left, right, None
    return add


def _lookup(ids: torch.Tensor, grad: torch.Tensor, skip: int | None):
    """An embedding's rows: gradients of the positions that hold the id. `skip` is padding_idx, which gets
    none."""

    def add(block, r0, r1, out=None):
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

    def add(block, r0, r1, out=None):
        return v[:, r0:r1, None] if block is None else block + v[:, r0:r1, None]

    return add


def _sum(adds: list, r0: int, r1: int, out: torch.Tensor | None = None) -> torch.Tensor | None:
    block = None
    for add in adds:
        block = add(block, r0, r1, out)
    return block


def _block(
    parts: list[tuple], n_responses: int, rows: tuple[int, int], p: nn.Parameter, memory: torch.Tensor
) -> torch.Tensor | None:
    """Rows of the gradient of all responses, (n_responses, r1 - r0, cols), from each pass's part; None if all zero. Of
    several passes they are put together in `memory`, which grows as it needs to: until the next call."""
    if len(parts) == 1 and parts[0][1] == n_responses:
        return _sum(parts[0][2], *rows)
    shape = n_responses, rows[1] - rows[0], p[0].numel()
    size = math.prod(shape)
    block = memory.resize_(max(len(memory), size))[:size].view(shape)
    if sum(count for _, count, _ in parts) < n_responses:  # a pass without gradient for this tensor
        block.zero_()
    some = False
    for first, count, adds in parts:
        own = block[first : first + count]
        found = _sum(adds, *rows, own)
        some |= found is not None
        if found is None:
            own.zero_()
        elif found.data_ptr() != own.data_ptr():
            own.copy_(found)
    return block if some else None


def _wide(x: torch.Tensor) -> torch.Tensor:
    """Sums over positions and elements are taken in float32 at least, whatever the activations' dtype."""
    return x if x.dtype == torch.float64 else x.float()
