"""Where a model runs and in which precision: names that are known, refused before anything is loaded.

torch itself says of a wrong name which thirty kinds of device it was built for, and says it after the weights were
read.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float64")
_KNOWN = re.compile(r"auto|cpu|(cuda|mps|xpu)(:[0-9]+)?")


def check_device(name: str, what: str = "device") -> None:
    """ValueError, without loading torch, for a name that is none; `what` says in it where the name stood."""
    if not _KNOWN.fullmatch(name):
        raise ValueError(f"{what}={name!r} is not known; use auto, cpu or cuda")


def check_dtype(name: str, what: str = "dtype") -> None:
    """ValueError for a precision that no gradient is taken in."""
    if name not in DTYPES:
        raise ValueError(f"{what}={name!r} is not known; choose one of {', '.join(DTYPES)}")


def resolve_device(name: str, what: str = "device") -> str:
    """A device that is there; "auto": CUDA where there is one. ValueError if it is not known or not there.

    Loads torch only where a CUDA device is asked for, or an NVIDIA driver suggests that there is one.
    """
    check_device(name, what)
    if name == "auto" and not (Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")):
        return "cpu"
    if name != "auto" and not name.startswith("cuda"):
        return name
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if there else "cpu"
    if int(name.partition(":")[2] or 0) >= there:
        raise ValueError(
            f"{what}={name!r}: torch finds {there or 'no'} CUDA device{'s' * (there != 1)} here; use cpu or auto"
        )
    return name


def of_this_run() -> tuple[str, str]:
    """(device, dtype) of the gradients of a whole run: GRACELIB_DEVICE (auto) and GRACELIB_DTYPE (float32).

    ValueError naming the variable for a value that is not known.
    """
    dtype = os.environ.get("GRACELIB_DTYPE") or "float32"
    check_dtype(dtype, "GRACELIB_DTYPE")
    return resolve_device(os.environ.get("GRACELIB_DEVICE") or "auto", "GRACELIB_DEVICE"), dtype
