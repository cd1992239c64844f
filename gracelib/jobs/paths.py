"""Where things are. Every other module asks here."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the checkout: notebooks, figures and runs live beside the package
PACKAGE = ROOT / "gracelib"
NOTEBOOKS = ROOT / "notebooks"


def runs() -> Path:
    """Everything a run computes (git-ignored). `GRACELIB_RUNS` moves it, e.g. to a bigger disk."""
    return _folder("GRACELIB_RUNS", ROOT / "runs")


def figures(scale: str) -> Path:
    """Pictures, their tables and sidecars (committed). `GRACELIB_FIGURES` moves the folder above the scales."""
    return _folder("GRACELIB_FIGURES", ROOT / "figures") / scale


def _folder(variable: str, usual: Path) -> Path:
    place = Path(os.environ.get(variable) or usual)
    if place.is_file():
        raise ValueError(f"{variable}={str(place)!r} is a file; name a folder, or unset it")
    return place


def results(scale: str) -> Path:
    """The result tables behind all figures of a scale (committed)."""
    return figures(scale) / "results"
