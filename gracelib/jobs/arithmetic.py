"""The same bits on every processor: what decides the last bit of a result is fixed before torch is loaded.

One rounding flips one sampled token, that trains another teacher, and the findings turn round. What decides a rounding is
which vector instructions a library finds at its start. So workers are told to use those that every x86 processor of the
last ten years has, from Intel and AMD alike, whatever better ones are there. Compared on an AMD processor with AVX-512 and
on emulated Intel and AMD ones without (tests/experiment/test_arithmetic.py names what comes out where you are):

* MKL multiplies matrices in another order for each maker, with every setting but COMPATIBLE. That one is slower: 2.2 times
  for the products of the world's sizes, 1.4 times for a pretraining.
* torch's square root is MKL's, and the one for AVX-512 does not round correctly. Only the optimiser takes roots: torch's
  fused AdamW has a code of its own for them.
* oneDNN (bfloat16 products of Muon), OpenBLAS and numpy (scores, tables) have a switch each.

Elsewhere (ARM, no AVX2) results are right and reproducible on that machine, and have other bits.
"""

from functools import cache

#: What spawned workers inherit.
PORTABLE = {
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4,AVX512_ICL,AVX512_SPR",
}


@cache
def arithmetic() -> str:
    """What jobs compute with: "portable-1", the same bits wherever it is, or "native", this kind of processor's own."""
    import numpy as np

    found = np.show_config(mode="dicts")["SIMD Extensions"]
    known = {*found["baseline"], *found["found"]}
    return "portable-1" if {"X86_V3", "AVX2"} & known else "native"
