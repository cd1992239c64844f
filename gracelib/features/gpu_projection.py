"""The sign projection as one Triton kernel: signs are made in registers, where they are multiplied.

Why: on a GPU the torch path of `projection` writes every sign to memory and reads it back, which costs more than the
product itself. Here a program makes a tile of signs from the same hash (the layout in `projection`'s head, bit for bit;
one word gives 32 signs), multiplies it with a tile of gradients on the tensor cores and adds in float32. Triton compiles for the device it finds:
no CUDA toolchain is needed. `TRITON_INTERPRET=1` before the first import runs the same kernel on a CPU, for tests.

The elements are divided into `splits`, each summed by its own programs into partial sums (splits, B, d), which one
torch sum then adds in a fixed order: no atomics, so the same input gives the same bits. float32 gradients are multiplied
as three TF32 products ("tf32x3", an error of about 2^-21, or exactly: "ieee"), never as one; bfloat16 gradients and signs
are exact as they are. float64 is left to the torch path.
"""

import torch
import triton
import triton.language as tl

from gracelib.projection import LAST_SHIFT, ROUNDS, SignProjection, element_keys, row_keys

_BLOCK_D, _BLOCK_E = 64, 64  # rows (whole words of 32) and elements a tile
_LEAST_B, _MOST_B = 16, 128  # responses a tile: what tensor cores take at least, what registers hold at most
_MOST_SPLITS = 64
(_S1, _F1), (_S2, _F2), (_S3, _F3) = ROUNDS
_CONSTANTS = {"S1": _S1, "F1": _F1, "S2": _S2, "F2": _F2, "S3": _S3, "F3": _F3, "LAST": LAST_SHIFT}


@triton.jit
def _mix(
    x,
    S1: tl.constexpr,
    F1: tl.constexpr,
    S2: tl.constexpr,
    F2: tl.constexpr,
    S3: tl.constexpr,
    F3: tl.constexpr,
    LAST: tl.constexpr,
):
    """`mix` of `projection`'s head on unsigned 32-bit integers: products wrap, shifts bring zeros in."""
    x = (x ^ (x >> S1)) * tl.full([], F1, tl.uint32)
    x = (x ^ (x >> S2)) * tl.full([], F2, tl.uint32)
    x = (x ^ (x >> S3)) * tl.full([], F3, tl.uint32)
    return x ^ (x >> LAST)


@triton.jit(do_not_specialize=["low", "k0", "hi_key"])
def _project(
    grad,
    row_keys,
    partial,
    B,
    d,
    n,
    low,
    k0,
    hi_key,
    stride_b,
    span,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
    S1: tl.constexpr,
    F1: tl.constexpr,
    S2: tl.constexpr,
    F2: tl.constexpr,
    S3: tl.constexpr,
    F3: tl.constexpr,
    LAST: tl.constexpr,
):
    """partial[split, b, row] = sum over the split's elements e of grad[b, e] * sign(low + e, row).

    grad (B, n), rows `stride_b` apart; low: e mod 2^32 of the first element; k0, hi_key: int32
    patterns; low + n <= 2^32. Split i has the elements
    i * span and on, span a multiple of BLOCK_E.
    """
    at_b, at_d, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b = at_b * BLOCK_B + tl.arange(0, BLOCK_B)
    row = at_d * BLOCK_D + tl.arange(0, BLOCK_D)
    lane = tl.arange(0, BLOCK_E)
    block = at_d * (BLOCK_D // 32) + tl.arange(0, BLOCK_D // 32)
    key = tl.load(row_keys + block, mask=block * 32 < d, other=0).to(tl.uint32, bitcast=True)
    bit = tl.arange(0, 32).to(tl.uint32)
    k0 = k0.to(tl.uint32, bitcast=True)
    hi_key = hi_key.to(tl.uint32, bitcast=True)
    total = tl.zeros((BLOCK_B, BLOCK_D), dtype=tl.float32)
    first = split.to(tl.int64) * span
    for offset in range(0, span, BLOCK_E):
        e = first + offset + lane  # int64
        inside = e < n
        word = _mix((low + e).to(tl.uint32) ^ k0, S1, F1, S2, F2, S3, F3, LAST)
        word = _mix(word ^ hi_key, S1, F1, S2, F2, S3, F3, LAST)
        word = _mix(word[:, None] ^ key[None, :], S1, F1, S2, F2, S3, F3, LAST)  # (E, D / 32)
        up = tl.reshape((word[:, :, None] >> bit[None, None, :]) & 1, (BLOCK_E, BLOCK_D))
        sign = tl.where(up == 1, 1.0, -1.0).to(grad.dtype.element_ty)
        at = grad + b.to(tl.int64)[:, None] * stride_b + e[None, :]
        g = tl.load(at, mask=(b < B)[:, None] & inside[None, :], other=0.0)  # (B, E)
        total = tl.dot(g, sign, total, input_precision=PRECISION, out_dtype=tl.float32)
    at = partial + (split.to(tl.int64) * B + b.to(tl.int64)[:, None]) * d + row[None, :]
    tl.store(at, total, mask=(b < B)[:, None] & (row < d)[None, :])


class TritonSignProjection(SignProjection):
    """`SignProjection` with the kernel of this module for float32 and bfloat16; other dtypes take the torch path.

    precision: "tf32x3" or "ieee", how float32 is multiplied (see the module's head). splits: into how many parts the
    elements are cut at most; the result's last bits depend on it, nothing else. Raises ValueError as `SignProjection`.
    """

    def __init__(
        self,
        d: int,
        seed: int = 0,
        device: str | torch.device = "cuda",
        precision: str = "tf32x3",
        splits: int = _MOST_SPLITS,
        **options,
    ):
        super().__init__(d, seed, device, **options)
        if precision not in ("tf32x3", "ieee"):
            raise ValueError(f"TritonSignProjection: precision must be 'tf32x3' or 'ieee', got {precision!r}")
        self.precision, self.splits = precision, splits
        self._row_keys: dict[str, torch.Tensor] = {}

    def accumulate(self, out: torch.Tensor, name: str, start: int, grad_block: torch.Tensor) -> None:
        """As `SignProjection.accumulate`; `out` float32 for the kernel."""
        known = grad_block.dtype in (torch.float32, torch.bfloat16) and out.dtype == torch.float32
        if not known or grad_block.ndim != 2 or out.shape != (grad_block.shape[0], self.d) or not grad_block.numel():
            return super().accumulate(out, name, start, grad_block)
        if grad_block.stride(1) != 1:
            grad_block = grad_block.contiguous()
        at, stop = start, start + grad_block.shape[1]
        while at < stop:  # one launch per value of e >> 32: nearly always one
            end = min(stop, ((at >> 32) + 1) << 32)
            self._launch(out, name, at, grad_block[:, at - start : end - start])
            at = end

    def _launch(self, out: torch.Tensor, name: str, at: int, grad: torch.Tensor) -> None:
        B, n = grad.shape
        k0, hi_key = element_keys(self.seed, name, at)
        keys = self._row_keys.get(name)
        if keys is None:
            keys = self._row_keys[name] = row_keys(self.seed, name, -(-self.d // 32), grad.device)
        tiles = -(-n // _BLOCK_E)
        splits = max(1, min(self.splits, tiles))
        span = -(-tiles // splits) * _BLOCK_E
        splits = -(-n // span)
        partial = torch.empty(splits, B, self.d, dtype=torch.float32, device=grad.device)
        block_b = min(_MOST_B, max(_LEAST_B, triton.next_power_of_2(B)))
        grid = (-(-B // block_b), -(-self.d // _BLOCK_D), splits)
        _project[grid](
            grad,
            keys,
            partial,
            B,
            self.d,
            n,
            at & 0xFFFFFFFF,
            k0,
            hi_key,
            grad.stride(0),
            span,
            BLOCK_B=block_b,
            BLOCK_D=_BLOCK_D,
            BLOCK_E=_BLOCK_E,
            PRECISION=self.precision,
            num_warps=4 if block_b < _MOST_B else 8,
            **_CONSTANTS,
        )
        out.add_(partial.sum(0))


def works_on(device: torch.device) -> str | None:
    """None if the kernel compiles for the device and gives the torch path's numbers there on whole numbers, which are
    exact on both, else why not. (Triton builds its launcher with a C compiler, which a machine may lack.)"""
    grad = (torch.arange(5 * 333, device=device) % 101 - 50).float().reshape(5, 333)
    ours, exact = (torch.zeros(5, 40, device=device) for _ in range(2))
    try:
        TritonSignProjection(40, 1, device).accumulate(ours, "check", 2**32 - 100, grad)
    except Exception as error:  # the compiler's many kinds: any of them means that the other path is taken, and said
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    SignProjection(40, 1, device, cache_bytes=0).accumulate(exact, "check", 2**32 - 100, grad)
    return None if torch.equal(ours, exact) else "its signs differ from the torch path's"
