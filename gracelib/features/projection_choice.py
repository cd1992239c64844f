"""Cheaper projections than the paper's dense signs: labelled alternatives, never the default.

Why: each keeps E||.||^2 = (d/D) ||g||^2 and inner products on average, so that scores stay comparable in size, but the
errors around that average are others, and rankings of teachers may differ; a table (`estimators`) says how much.

* "sjlt" (sparse Johnson-Lindenstrauss; Kane and Nelson 2014): every element is added, with a sign, to SPARSITY rows
  instead of to all d. Word k of an element (`projection.sign_words` under the name "<name>\\0sjlt", block k) gives the
  sign (its highest bit: 1 is +1) and the row, (the other 31 bits) * d >> 31; the factor sqrt(d / SPARSITY) keeps the
  scale. The first columns of such a projection are not the projection to fewer rows.
* "two-sided" (Kronecker; as LoGra, Choe et al. 2024, with random signs): the gradient of a weight, sum_t g_t x_t^T, is
  never formed: P (d1 x rows) and Q (d2 x columns) of signs, d1 d2 = d, are applied to g_t and x_t first. P and Q are the
  `signs` of "<name>\\0rows" and "<name>\\0columns"; biases and norms, which are vectors, have the plain signs. d1 is the
  largest divisor of d up to sqrt(d). The norm of a gradient is then an estimate, ||P G Q^T|| / sqrt(d).

As everywhere, 1/sqrt(D) is left to `gradients.response_features`.
"""

from __future__ import annotations

import math

import torch

from gracelib.features.per_layer import LayerByLayer
from gracelib.projection import SignProjection, sign_projection, sign_words, signs

PROJECTIONS = ("signs", "sjlt", "two-sided")
SPARSITY = 4
_CHUNK = 1 << 16  # elements whose rows and signs are made at once


def check_projection(projection: str, params: str = "all", method: str = "auto") -> None:
    """Raises ValueError for an unknown projection, or one that does not go with `params` or `method`."""
    if projection not in PROJECTIONS:
        raise ValueError(f"projection must be one of {', '.join(PROJECTIONS)}, got {projection!r}")
    if projection == "two-sided" and (params != "all" or method != "auto"):
        clash = f"params={params!r}" if params != "all" else f"method={method!r}"
        raise ValueError(
            f"projection='two-sided' does not go with {clash}: it needs the factors of every weight's "
            "gradient; use projection='signs' or 'sjlt'"
        )


def make_projection(projection: str, d: int, seed: int, device: torch.device):
    """What takes the blocks that an engine hands on (see `SignProjection.accumulate`)."""
    if projection == "signs":
        return sign_projection(d, seed, device)
    return SparseProjection(d, seed, device) if projection == "sjlt" else Ready()


class Ready:
    """For an engine that projects by itself: its blocks are only added up."""

    def accumulate(self, out: torch.Tensor, name: str, start: int, block: torch.Tensor) -> None:
        out += block


class SparseProjection(SignProjection):
    """Adds each element to SPARSITY of the d rows; interface of `SignProjection`, nothing is cached."""

    def accumulate(self, out: torch.Tensor, name: str, start: int, grad_block: torch.Tensor) -> None:
        """out (B, d) += the sparse projection of grad_block (B, k), elements start..start+k-1 of parameter `name`.
        Raises ValueError if the shapes do not fit."""
        if grad_block.ndim != 2 or out.shape != (grad_block.shape[0], self.d):
            raise ValueError(
                f"accumulate({name!r}): out must be (B, {self.d}) and grad_block (B, k), got "
                f"{tuple(out.shape)} and {tuple(grad_block.shape)}"
            )
        scale = math.sqrt(self.d / SPARSITY)
        for at in range(0, grad_block.shape[1], _CHUNK):
            piece = grad_block[:, at : at + _CHUNK].to(out.dtype)  # (B, c)
            words = sign_words(
                self.seed, f"{name}\0sjlt", start + at, start + at + piece.shape[1], SPARSITY, self.device
            )
            for word in words:
                row = ((word & 0x7FFFFFFF).to(torch.int64) * self.d) >> 31  # (c,)
                out.index_add_(1, row, torch.where(word < 0, piece, -piece), alpha=scale)


def sides(d: int) -> tuple[int, int]:
    """(d1, d2) with d1 d2 = d and d1 the largest divisor up to sqrt(d)."""
    d1 = next(k for k in range(math.isqrt(d), 0, -1) if d % k == 0)
    return d1, d // d1


class TwoSided(LayerByLayer):
    """LayerByLayer that hands on, once for each parameter, what is left of its gradient between P and Q: (B, d)."""

    def __init__(self, model, max_batch: int, block_bytes: int, d: int, seed: int):
        super().__init__(model, max_batch, block_bytes)
        self.d, self.seed = d, seed
        self._made: dict = {}

    def _finish(self, p) -> None:
        adds, name = self._ready.pop(p), self.names[p]
        for add in adds:
            self._sink(name, 0, self._between(add, p, name))

    def _between(self, add, p, name: str) -> torch.Tensor:
        if p.ndim == 1:
            v = add(None, 0, p.shape[0])[:, :, 0]  # (B, numel)
            return v @ self._signs(name, p.shape[0], self.d, v)
        (d1, d2), (rows, columns) = sides(self.d), p.shape
        left, right, skip = add.factors
        right = right @ self._signs(f"{name}\0columns", columns, d2, right)  # (B, T, d2)
        by_row = self._signs(f"{name}\0rows", rows, d1, right)  # (rows, d1)
        if left.ndim == 2:  # a lookup: ids (B, T) instead of gradients
            right = right if skip is None else right * (left != skip)[:, :, None]
            left = by_row[left]  # (B, T, d1)
        else:
            left = left @ by_row
        return torch.bmm(left.transpose(1, 2), right).flatten(1)  # (B, d1 d2)

    def _signs(self, name: str, size: int, d: int, like: torch.Tensor) -> torch.Tensor:
        key = (name, like.dtype)
        if key not in self._made:  # d1 and d2 are about sqrt(d): small beside the weight itself
            self._made[key] = signs(self.seed, name, 0, size, d, like.dtype, like.device)
        return self._made[key]
