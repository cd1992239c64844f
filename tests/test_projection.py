"""The projection is the same everywhere and for ever, exact, and what the paper's scaling says it is.

Invariants: the sign layout of the module head, bit for bit (every stored feature depends on it); independence
of chunk, start and number of rows; integer gradients project to exact integers; signs without structure
(balance, and no correlation between rows, elements, names or seeds); and, with the paper's 1/sqrt(D), E||Pi g||^2 =
(d/D) ||g||^2 over tensors of different shapes. The Monte-Carlo bounds are about five standard deviations of what is estimated.
"""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gracelib import projection
from gracelib.projection import SignProjection, sign_words, signs

SHAPES = {"embed.weight": (23, 8), "layer.weight": (5, 31), "layer.bias": (5,), "norm.weight": (8,), "wide": (1, 200)}


def reference_word(seed, name, e, b):
    """The layout as the module head states it, in unbounded integers."""
    u32 = 0xFFFFFFFF

    def mix(x):
        x ^= x >> 17
        x = x * 0xED5AD4BB & u32
        x ^= x >> 11
        x = x * 0xAC4C1B51 & u32
        x ^= x >> 15
        x = x * 0x31848BAB & u32
        return x ^ x >> 14

    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8, person=b"gracelib.signs").digest()
    k0, k1 = (int(k) for k in np.frombuffer(digest, "<u4"))
    hi_key = mix(mix((e >> 32) ^ k1) ^ k0)
    row_key = mix(mix(b + 0x9E3779B9 & u32) ^ k1)
    return mix(mix(mix((e & u32) ^ k0) ^ hi_key) ^ row_key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 8, 31, 32, 33, 512])
def test_a_table_of_bytes_and_shifted_bits_give_the_same_signs(monkeypatch, d, dtype):
    """A CPU takes the table; a GPU without the kernel, and a CPU of the other byte order, the bits."""
    by_table = signs(7, "layer.weight", 3, 300, d, dtype)
    monkeypatch.setattr(projection, "_of_bytes", None)  # nobody may ask for it
    monkeypatch.setattr(projection.sys, "byteorder", "big")
    by_bits = signs(7, "layer.weight", 3, 300, d, dtype)
    assert by_bits.dtype == dtype and torch.equal(by_table, by_bits)


def test_words_do_not_depend_on_the_pieces_they_are_made_in(monkeypatch):
    """A CPU makes words in pieces that stay in its cache, of elements and of words: the same bits, whatever the size."""
    start, stop = (1 << 32) - 700, (1 << 32) + 900  # the key changes on the way
    whole = sign_words(3, "w", start, stop, 5)
    for piece in (3, 64, 1000):
        monkeypatch.setattr(projection, "_PIECE", piece)
        assert torch.equal(sign_words(3, "w", start, stop, 5), whole)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(-5, 2**70), name=st.text(max_size=20), start=st.integers(0, 2**40), block=st.integers(0, 40))
@example(seed=3, name="w", start=2**31 - 2, block=1)  # across the borders of 32 bits
@example(seed=3, name="w", start=2**32 - 2, block=0)
@example(seed=3, name="w", start=3 * 2**32 - 2, block=1)
def test_words_follow_the_written_layout(seed, name, start, block):
    got = sign_words(seed, name, start, start + 3, block + 1)[block].tolist()
    assert [w & 0xFFFFFFFF for w in got] == [reference_word(seed, name, start + i, block) for i in range(3)]


@pytest.mark.parametrize("d", [1, 31, 32, 33, 80])
def test_bits_become_signs(d):
    """Bit row % 32 of word row // 32: 1 is +1, 0 is -1; so fewer rows are a prefix."""
    words = sign_words(1, "w", 10, 20, 3)
    s = signs(1, "w", 10, 20, d)
    assert s.shape == (10, d)
    for row in range(d):
        expected = [1.0 if (w >> (row % 32)) & 1 else -1.0 for w in words[row // 32].tolist()]
        assert s[:, row].tolist() == expected


@pytest.mark.parametrize("chunk_bytes", [4, 4 * 40 * 7, 1 << 22])
@pytest.mark.parametrize("cache_bytes", [0, 4 * 40 * 400, 1 << 28])
def test_integer_gradients_project_exactly(chunk_bytes, cache_bytes):
    """Sums of integers below 2^24 are exact in float32, so any wrong, missing or doubled sign shows, whatever
    the chunk, whatever fits in the cache, on a first and on a later visit, in whatever blocks the gradient
    comes."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randint(-50, 51, (3, 700), generator=generator)
    exact = (g @ signs(4, "w", 0, 700, 40).to(torch.int64)).float()
    projection = SignProjection(40, 4, cache_bytes=cache_bytes, chunk_bytes=chunk_bytes)
    for _ in range(2):
        out = torch.zeros(3, 40)
        projection.accumulate(out, "w", 0, g[:, :300].float())
        projection.accumulate(out, "w", 300, g[:, 300:].float())
        assert torch.equal(out, exact)
    assert projection.cached_bytes + projection.cached_word_bytes <= cache_bytes
    assert (projection.cached_bytes > 0) == (cache_bytes > 0)


def test_bits_are_balanced_and_uncorrelated():
    """Rows against rows, and every row against neighbouring elements, other names and seeds, over 2^16
    elements: the largest of some 10^4 correlations of independent signs is about 4.5 / sqrt(2^16)."""
    n, d = 1 << 16, 96
    s = signs(0, "a.weight", 0, n + 300, d)
    base = s[:n]
    bound = 5.5 / math.sqrt(n)
    assert base.mean(0).abs().max() < bound
    rows = base.T @ base / n - torch.eye(d)  # (d, n) @ (n, d)
    assert rows.abs().max() < bound
    for shift in (1, 2, 3, 4, 8, 16, 31, 32, 64, 128, 256):
        assert (base.T @ s[shift : n + shift] / n).abs().max() < bound, f"elements {shift} apart"
    others = {
        ("seed", 1): signs(1, "a.weight", 0, n, d),
        ("seed", -1): signs(-1, "a.weight", 0, n, d),
        ("name", "b"): signs(0, "b.weight", 0, n, d),
        ("name", "bias"): signs(0, "a.bias", 0, n, d),
        ("e", 2**32): signs(0, "a.weight", 2**32, 2**32 + n, d),
    }
    for what, other in others.items():
        assert (base.T @ other / n).abs().max() < bound, what


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: signs(0, "w", 0, 5, 0), r"'w'.*d >= 1 rows, got d=0"),
        (lambda: SignProjection(0), r"d >= 1 rows, got d=0"),
        (lambda: sign_words(0, "w", 5, 4, 1), r"start=5, stop=4"),
        (lambda: sign_words(0, "w", -1, 4, 1), r"start=-1"),
        (lambda: sign_words(0, "w", 0, 4, 0), r"blocks=0"),
        (lambda: SignProjection(4).accumulate(torch.zeros(2, 4), "w", 0, torch.zeros(3, 5)), r"\(2, 4\) and \(3, 5\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: no sign bits to compare")
def test_cuda_gives_the_same_bits():
    for start in (0, 2**31 - 50, 2**32 - 50, 2**35 + 7):
        there, here = (sign_words(9, "w", start, start + 100, 17, device) for device in ("cuda", "cpu"))
        assert torch.equal(there.cpu(), here)
    assert torch.equal(signs(9, "w", 0, 100, 77, device="cuda").cpu(), signs(9, "w", 0, 100, 77))
    g = torch.randint(-50, 51, (3, 700)).float()
    exact, out = torch.zeros(3, 40), torch.zeros(3, 40, device="cuda")
    SignProjection(40).accumulate(exact, "w", 3, g)
    SignProjection(40, device="cuda", chunk_bytes=40 * 4 * 64).accumulate(out, "w", 3, g.cuda())
    assert torch.equal(out.cpu(), exact)


@pytest.mark.parametrize("rows", [1, 3])
def test_threads_share_the_work_and_change_nothing(rows):
    """Whole numbers add up exactly: with every number of threads each element must be counted once, also where a block
    is no whole number of chunks."""
    before, wide = torch.get_num_threads(), 5 * 64 + 17
    grad = torch.randint(-9, 10, (rows, wide), generator=torch.Generator().manual_seed(1)).float()
    dense = grad @ signs(4, "w", 7, 7 + wide, 96)
    try:
        for threads in (1, 2, 4, 3):  # 64 elements a chunk: three do not divide them
            torch.set_num_threads(threads)
            projector = SignProjection(96, seed=4, cache_bytes=0, chunk_bytes=64 * 96 * 4)
            out = torch.ones(rows, 96)
            projector.accumulate(out, "w", 7, grad)
            projector.accumulate(out, "w", 7, grad)
            assert torch.equal(out, 1 + 2 * dense), threads
    finally:
        torch.set_num_threads(before)


def test_paper_scaling_is_unbiased_over_tensors_of_different_shapes():
    """E||Pi g||^2 = (d/D)||g||^2 and E<Pi u, Pi v> = (d/D)<u, v>, and var ||Pi g||^2 = 2 d / D^2 (||g||^4 -
    sum g^4). The energy is put into one tensor at a time, so that a scale depending on a tensor's shape could
    not hide."""
    d, n_seeds, size = 8, 1500, sum(math.prod(s) for s in SHAPES.values())
    generator = torch.Generator().manual_seed(1)
    for heavy in SHAPES:
        u, v = (
            {
                k: torch.randn(math.prod(s), generator=generator) * (3.0 if k == heavy else 0.1)
                for k, s in SHAPES.items()
            }
            for _ in range(2)
        )
        v = {k: v[k] + 0.5 * u[k] for k in v}
        both = {k: torch.stack([u[k], v[k]]) for k in SHAPES}
        products = []
        for seed in range(n_seeds):
            projection, out = SignProjection(d, seed, cache_bytes=0), torch.zeros(2, d)
            for k, block in both.items():
                projection.accumulate(out, k, 0, block)
            out /= math.sqrt(size)
            products.append([out[0] @ out[0], out[0] @ out[1]])
        products = torch.tensor(products).double()
        a, b = (torch.cat(list(x.values())).double() for x in (u, v))
        expected = torch.stack([a @ a, a @ b]) * d / size
        error = (products.mean(0) - expected).abs() / (products.std(0) / math.sqrt(n_seeds))
        assert error.max() < 5, f"{heavy}: off by {error.tolist()} standard errors"
        variance = 2 * d / size**2 * ((a @ a) ** 2 - (a**4).sum())
        assert products[:, 0].var() == pytest.approx(variance.item(), rel=0.3)
