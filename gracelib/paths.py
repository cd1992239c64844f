"""Where things are. Every other module asks here."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the checkout: notebooks, figures and runs live beside the package
NOTEBOOKS = ROOT / "notebooks"


def runs() -> Path:
    """Everything a run computes (git-ignored). `GRACELIB_RUNS` moves it, e.g. to a bigger disk."""
    return Path(os.environ.get("GRACELIB_RUNS") or ROOT / "runs")


def figures(scale: str) -> Path:
    """Pictures, their tables and sidecars (committed). `GRACELIB_FIGURES` moves the folder above the scales."""
    return Path(os.environ.get("GRACELIB_FIGURES") or ROOT / "figures") / scale


def results(scale: str) -> Path:
    """The result tables behind all figures of a scale (committed)."""
    return figures(scale) / "results"
