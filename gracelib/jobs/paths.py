"""Where things are. Every other module asks here."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the checkout: notebooks, figures and runs live beside the package
PACKAGE = ROOT / "gracelib"
NOTEBOOKS = ROOT / "notebooks"


def check_clone() -> None:
    """ValueError where the package is installed without the notebooks: there is nothing to run, and none to compare."""
    if not NOTEBOOKS.is_dir():
        raise ValueError(
            f"this needs a clone of the repository, and {ROOT} has no notebooks/ (`pip install .` brings the library "
            "alone): `git clone` it, and in it `make setup`; `gracelib score` works anywhere"
        )


def runs() -> Path:
    """Everything a run computes (git-ignored; without a clone in the current folder). `GRACELIB_RUNS` moves it, e.g. to a
    bigger disk."""
    return _folder("GRACELIB_RUNS", (ROOT if NOTEBOOKS.is_dir() else Path.cwd()) / "runs")


def figures(scale: str) -> Path:
    """What a run of this machine draws (git-ignored). `GRACELIB_FIGURES` moves the folder above the scales."""
    return _folder("GRACELIB_FIGURES", ROOT / "figures") / scale


def published(scale: str) -> Path:
    """What the project publishes (committed). Nothing is written here but by `make publish`."""
    return ROOT / "figures" / "published" / scale


def _folder(variable: str, usual: Path) -> Path:
    place = Path(os.environ.get(variable) or usual)
    if place.is_file():
        raise ValueError(f"{variable}={str(place)!r} is a file; name a folder, or unset it")
    return place


def results(scale: str) -> Path:
    """Where a run writes the result tables behind all figures of a scale."""
    return figures(scale) / "results"


def tables(scale: str) -> Path:
    """Where the result tables of a scale are read: the run's own where there are any, else the published ones."""
    own = results(scale)
    return own if any(own.glob("*.csv")) else published(scale) / "results"
