"""What the C library does with memory that was freed, where it can be told (Linux with glibc).

Why: it gives large blocks back to the system at once and asks for them again at the next batch, and every page that is
asked for is filled with zeros first: on a virtual machine that took up to half of the time of the features.
"""

from __future__ import annotations

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


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
