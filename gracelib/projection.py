"""Random projection of gradients by signs that are computed, never stored.

Why: the paper projects a gradient of D numbers to d numbers by Pi in {+-1/sqrt(D)}^(d x D) (paper, section 2), so
that E||Pi g||^2 = (d/D) ||g||^2. Stored, Pi would be far larger than the model. Here every sign is a pure
function of (seed, parameter name, element, row), so that any piece of Pi can be made anywhere, in any order,
in any chunk, on any device, always with the same bits; and because rows are independent, the first d' columns
of a projection to d numbers are the projection to d' numbers.

The sign layout (fixed for ever: every stored feature depends on it)
--------------------------------------------------------------------
All numbers are unsigned 32-bit, all arithmetic is modulo 2^32, `^` is exclusive or, `>>` shifts zeros in.
    mix(x)    x ^= x >> 17; x *= 0xED5AD4BB; x ^= x >> 11; x *= 0xAC4C1B51; x ^= x >> 15; x *= 0x31848BAB;
              x ^= x >> 14  (a bijection; the three-round finaliser "triple32" found by C. Wellons' hash
              prospector)
    k0, k1    the two little-endian halves of blake2b(f"{seed}\\0{name}" in UTF-8, digest_size=8,
              person=b"gracelib.signs")
    hi_key(e) mix(mix((e >> 32) ^ k1) ^ k0)
    row_key(b) mix(mix(b + 0x9E3779B9) ^ k1)
    word(e,b) mix(mix(mix((e mod 2^32) ^ k0) ^ hi_key(e)) ^ row_key(b))
    sign      +1 if bit (row mod 32) of word(e, row // 32) is 1, else -1
where `name` is the parameter's name in `model.named_parameters()` (a tied tensor has one name), e its
element's index in the flattened (row-major) tensor, and row the row of Pi, 0 <= row < d. Within one parameter
and one row block distinct elements (of the same e >> 32) have distinct words, because every step is a
bijection of the element.

The factor 1/sqrt(D) is left to the caller (`gradients.py`), so that integer gradients project to exact
integers.
"""

import hashlib
import sys
from functools import cache

import torch

_U32 = 0xFFFFFFFF
ROUNDS = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB))  # (shift, multiplier)
LAST_SHIFT = 14
_GOLDEN = 0x9E3779B9
_ONE_BITS = 0x3F800000  # float32 +1.0
_SIGN_BIT = -(1 << 31)  # int32 with the top bit set
_PIECE = 1 << 18  # words mixed together on a CPU: their dozen passes over memory stay in the cache

MIB = 1 << 20


def _i32(x: int) -> int:
    """The signed number with the same 32 bits: torch's int32 scalars are signed."""
    x &= _U32
    return x - (1 << 32) if x >> 31 else x


def _mix_int(x: int) -> int:
    for shift, factor in ROUNDS:
        x ^= x >> shift
        x = (x * factor) & _U32
    return x ^ (x >> LAST_SHIFT)


def _mix_(x: torch.Tensor) -> torch.Tensor:
    """`mix` of the module head, in place on an int32 tensor. int32 sums and products wrap on CPU and CUDA alike;
    torch's >> keeps the sign, so the copied sign bits are masked off."""
    for shift, factor in ROUNDS:
        x ^= (x >> shift).bitwise_and_((1 << (32 - shift)) - 1)
        x *= _i32(factor)
    x ^= (x >> LAST_SHIFT).bitwise_and_((1 << (32 - LAST_SHIFT)) - 1)
    return x


def _keys(seed: int, name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8, person=b"gracelib.signs").digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def row_keys(seed: int, name: str, blocks: int, device: str | torch.device) -> torch.Tensor:
    """row_key(b) of the module head for row blocks b = 0..blocks-1: int32 (blocks,)."""
    k1 = _keys(seed, name)[1]
    keys = [_i32(_mix_int(_mix_int((b + _GOLDEN) & _U32) ^ k1)) for b in range(blocks)]
    return torch.tensor(keys, dtype=torch.int32, device=device)


def element_keys(seed: int, name: str, at: int) -> tuple[int, int]:
    """(k0, hi_key(at)) of the module head as signed 32-bit numbers; hi_key is the same for elements of one e >> 32."""
    k0, k1 = _keys(seed, name)
    return _i32(k0), _i32(_mix_int(_mix_int((at >> 32) ^ k1) ^ k0))


def sign_words(
    seed: int, name: str, start: int, stop: int, blocks: int, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Words of elements start..stop-1 for row blocks 0..blocks-1: int32, (blocks, stop - start); layout:
    module head.

    seed: any integer; name: the parameter's name; start, stop: flattened element indices, may exceed 2^32.
    Raises ValueError unless 0 <= start <= stop and blocks >= 1.
    """
    if not 0 <= start <= stop or blocks < 1:
        raise ValueError(
            f"sign_words({name!r}): need 0 <= start <= stop and blocks >= 1, "
            f"got start={start}, stop={stop}, blocks={blocks}"
        )
    keys = row_keys(seed, name, blocks, device)[:, None]  # (blocks, 1)
    cpu = keys.device.type == "cpu"
    # On a CPU a view of (stop - start, blocks): an element's words together, as `_expand` reads them.
    size = (stop - start, blocks) if cpu else (blocks, stop - start)
    words = torch.empty(size, dtype=torch.int32, device=device)
    words = words.T if cpu else words
    piece = _PIECE if cpu else 1 << 31
    at = start
    while at < stop:
        end = min(stop, at + piece, ((at >> 32) + 1) << 32)  # of one value of e >> 32
        k0, hi_key = element_keys(seed, name, at)
        e = torch.arange(end - at, dtype=torch.int32, device=device).add_(_i32(at))  # (n,), modulo 2^32
        e = _mix_(_mix_(e ^ k0) ^ hi_key)
        step = max(1, piece // blocks)  # not one size for both: too few elements for every thread to have work
        for i in range(0, end - at, step):
            part = words[:, at - start + i : min(at - start + i + step, end - start)]  # (blocks, n)
            _mix_(torch.bitwise_xor(e[i : i + step], keys, out=part))
        at = end
    return words


def _expand(words: torch.Tensor, d: int, dtype: torch.dtype, out: torch.Tensor | None = None) -> torch.Tensor:
    """(blocks, n) words -> (d, n) signs (on a little-endian CPU the transposed view of (n, d), made in the memory of
    `out` if that is given).

    There a table of what each byte means fills memory once. Elsewhere the float's sign bit is the inverted bit of the
    word and everything else the pattern of 1.0: three integer passes, no multiplication."""
    blocks, n = words.shape
    if words.device.type == "cpu" and sys.byteorder == "little":
        codes = words.T.flatten().view(torch.uint8).view(n, 4 * blocks)
        codes = codes[:, : -(-d // 8)].flatten().int()
        out = out.resize_(len(codes), 8) if out is not None else out
        found = torch.index_select(_of_bytes(dtype), 0, codes, out=out)  # (n * ceil(d / 8), 8)
        return found.view(n, -1)[:, :d].T
    shifts = 31 - torch.arange(32, dtype=torch.int32, device=words.device)
    bits = (~words)[:, None, :] << shifts[None, :, None]  # (blocks, 1, n) << (1, 32, 1)
    bits.bitwise_and_(_SIGN_BIT).bitwise_or_(_ONE_BITS)
    return bits.view(torch.float32).reshape(blocks * 32, n)[:d].to(dtype)


@cache
def _of_bytes(dtype: torch.dtype) -> torch.Tensor:
    """Signs of the 8 rows that a byte stands for, lowest bit first: (256, 8)."""
    return (torch.arange(256)[:, None] >> torch.arange(8) & 1).to(dtype) * 2 - 1


def signs(
    seed: int,
    name: str,
    start: int,
    stop: int,
    d: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """sqrt(D) * Pi^T for elements start..stop-1 of parameter `name`: (stop - start, d) of +-1 (a transposed
    view).

    `signs(..., d=d1)` equals the first d1 columns of `signs(..., d=d2)` for d1 <= d2. Raises ValueError for d
    < 1.
    """
    if d < 1:
        raise ValueError(f"signs({name!r}): the projection needs d >= 1 rows, got d={d}")
    return _expand(sign_words(seed, name, start, stop, -(-d // 32), device), d, dtype).T


class SignProjection:
    """Adds `gradient block @ signs` to running projections, a chunk of elements at a time.

    Signs are expanded `chunk_bytes` at a time (default 4 MiB on CPU so that a chunk is multiplied while in the cache,
    64 MiB elsewhere). Of `cache_bytes` (default 256 MiB) three quarters keep the first chunks met as floats, which
    covers the built-in students whole, and the rest keeps words, a 32nd of the size, of what comes then; the others are made
    again at each visit. (Visits are cyclic, where evicting would throw out exactly what is needed next.) Anything with
    this class's `accumulate` can stand in for it, e.g. a fused GPU kernel.
    """

    def __init__(
        self,
        d: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        cache_bytes: int = 256 * MIB,
        chunk_bytes: int | None = None,
    ):
        if d < 1:
            raise ValueError(f"SignProjection: the projection needs d >= 1 rows, got d={d}")
        self.d, self.seed, self.device, self.cache_bytes = d, seed, torch.device(device), cache_bytes
        if chunk_bytes is None:
            chunk_bytes = (4 if self.device.type == "cpu" else 64) * MIB
        self.chunk = max(1, chunk_bytes // (4 * d))  # elements per chunk
        self.cached_bytes = 0
        self._cache: dict[tuple, torch.Tensor] = {}
        self._last: tuple = (None, None)
        self._buffer: torch.Tensor | None = None
        self.cached_word_bytes = 0
        self._word_cache: dict[tuple, torch.Tensor] = {}

    def accumulate(self, out: torch.Tensor, name: str, start: int, grad_block: torch.Tensor) -> None:
        """out (B, d) += grad_block (B, k) @ signs of elements start..start+k-1 of parameter `name` (k, d), in
        out's dtype.

        Not scaled by 1/sqrt(D). Raises ValueError if the shapes do not fit.
        """
        self.check_shapes(out, name, grad_block)
        grad_block = grad_block.to(out.dtype)
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        shared = threads > 1 and self.chunk % threads == 0 and grad_block.shape[1] >= self.chunk
        if shared:  # a core multiplies by the signs it has just made itself: others' are far away
            sums = torch.zeros(threads, *out.shape, dtype=out.dtype)  # (threads, B, d)
        for at in range(0, grad_block.shape[1], self.chunk):
            piece = grad_block[:, at : at + self.chunk]  # (B, c)
            s = self._signs(name, start, start + grad_block.shape[1], at, out.dtype).T  # (c, d)
            if shared and len(s) == self.chunk:  # (threads, B, c / threads) @ (threads, c / threads, d)
                sums.baddbmm_(piece.unflatten(1, (threads, -1)).transpose(0, 1), s.unflatten(0, (threads, -1)))
            else:
                out.addmm_(piece, s)  # (B, c) @ (c, d)
        if shared:
            out += sums.sum(0)

    def check_shapes(self, out: torch.Tensor, name: str, grad_block: torch.Tensor) -> None:
        """Raises ValueError unless out is (B, d) and grad_block (B, k)."""
        if grad_block.ndim != 2 or out.shape != (grad_block.shape[0], self.d):
            raise ValueError(
                f"accumulate({name!r}): out must be (B, {self.d}) and grad_block (B, k), got "
                f"{tuple(out.shape)} and {tuple(grad_block.shape)}"
            )

    def _signs(self, name: str, start: int, stop: int, at: int, dtype: torch.dtype) -> torch.Tensor:
        """Signs (d, c) of one chunk, from element start + at, of the block of elements start..stop-1: kept, or expanded
        from the block's words, then good until the next call."""
        key = (name, start + at, min(start + at + self.chunk, stop), dtype)
        s = self._cache.get(key)
        if s is None:
            words = self._words(name, start, stop)[:, at : at + self.chunk]
            size = self.d * words.shape[1] * dtype.itemsize
            keep = self.cached_bytes + size <= self.cache_bytes * 3 // 4
            if not keep and (self._buffer is None or self._buffer.dtype != dtype):
                self._buffer = torch.empty(0, dtype=dtype, device=self.device)
            s = _expand(words, self.d, dtype, None if keep else self._buffer)
            if keep:
                # clone: a slice [:d] of 32-row blocks would otherwise keep the rows beyond d alive
                self._cache[key] = s = s.clone() if self.d % 32 else s
                self.cached_bytes += size
        return s

    def _words(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Words (blocks, stop - start), a 32nd of the signs' size: those met first are kept, and the last."""
        key = (name, start, stop)
        words = self._last[1] if self._last[0] == key else self._word_cache.get(key)
        if words is None:
            words = sign_words(self.seed, name, start, stop, -(-self.d // 32), self.device)
            size = words.numel() * words.element_size()
            if self.cached_word_bytes + size <= self.cache_bytes // 4:
                self._word_cache[key] = words
                self.cached_word_bytes += size
            self._last = key, words
        return words
