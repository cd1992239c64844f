"""Figures at rest: picture, the numbers drawn, and a sidecar that says where they come from.

Why four files: the SVG is for print, the PNG for the web, the CSV for a reader who wants to check or redraw,
and the JSON ties them to the notebook, the parameters, the result tables and the code they were made with, by
hash. The same table gives the same bytes: pictures carry no dates and no random ids, tables a fixed number
format. tests/helpers/sidecars.py makes "every figure of the paper is there, and belongs to these tables" a test instead of a
claim.
"""

import json
import math
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from gracelib.jobs import paths
from gracelib.jobs.store import file_hash, versions, write_atomically
from gracelib.paper.figures import registered

DPI = 200


@dataclass
class Drawn:
    """A figure with what belongs beside it: the numbers drawn, caption, alt text, our numbers and the
    paper's.
    """

    fig: Figure | None
    table: pd.DataFrame
    caption: str
    alt: str
    ours: dict = field(default_factory=dict)
    paper: dict = field(default_factory=dict)

    def show(self, scale: str, name: str, **about) -> None:
        """Save it (`about`: see `save`), then show in a notebook the picture, the caption and the command that draws it."""
        from IPython.display import Markdown, display

        self.save(scale, name, **about)
        if self.fig is not None:
            display(self.fig)
        display(Markdown(f"{self.caption}\n\nDraw it again: `make figures SCALE={scale} FIG={name}`"))

    def save(self, scale: str, name: str, *, inputs: Iterable[str], parameters: Mapping, seed: int) -> list[Path]:
        """Write `figures/<scale>/<name>.svg`, `.png`, `.csv` and last the `.json` sidecar; the paths, in that order. A table
        of the paper has no picture: `fig` None, `.csv` and `.json` only.

        `inputs` names the result tables behind it ("scores", ...: files `results/<input>.csv` of the scale).
        `parameters`, `ours` and `paper` must be JSON-ready (numpy numbers are converted, NaN becomes null). The commit is
        that of the code at the first drawing: the sidecar keeps it while all else stays the same. ValueError for an
        unregistered name, a figure where the registry has a table or the other way round; FileNotFoundError for an input
        that is not there.
        """
        item, folder, read = registered(name), paths.figures(scale), paths.tables(scale).parent
        if item.picture != (self.fig is not None):
            kind = "a figure: it needs a picture" if item.picture else "a table without picture: pass fig=None"
            raise ValueError(f"{name} is registered as {kind}")
        tables = {f"results/{table}.csv": file_hash(read / f"results/{table}.csv") for table in sorted(inputs)}
        writers = picture_writers(self.fig, name, item.title) if item.picture else {}
        writers[".csv"] = partial(self.table.to_csv, index=False, float_format="%.10g", lineterminator="\n")
        for ending, write in writers.items():
            write_atomically(folder / f"{name}{ending}", write)
        sidecar = {
            "name": name,
            "scale": scale,
            "notebook": item.notebook,
            "paper_item": item.paper_item,
            "title": item.title,
            "caption": self.caption,
            "alt": self.alt if item.picture else None,
            "parameters": dict(parameters),
            "seed": seed,
            "ours": self.ours,
            "paper": self.paper,
            "inputs": tables,
            "files": {f"{name}{ending}": file_hash(folder / f"{name}{ending}") for ending in writers},
            "versions": versions(),
        }
        sidecar, path = json_ready(sidecar), folder / f"{name}.json"
        sidecar["git"] = _commit_to_record(path, sidecar)
        text = json.dumps(sidecar, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
        return [folder / f"{name}{ending}" for ending in (*writers, ".json")]


def picture_writers(fig: Figure, name: str, title: str, endings: Iterable[str] = (".svg", ".png")) -> dict:
    """Ending (".svg", ".png", ".pdf") -> function that writes the picture to a path, without dates or random ids."""
    # Without a salt the SVG's ids are random; text as outlines does not depend on a reader's fonts.
    salt = {"svg.hashsalt": name, "svg.fonttype": "path", "savefig.bbox": None}
    # The layout runs once and its corners are rounded: the solver's last bits differ between runs, and with them the
    # names of clip paths and the last digits of texts in an SVG.
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    for part in fig.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(5))  # (2, 2): corners in the figure
    for ax in fig.get_axes():
        ax.set_position(Bbox(ax.get_position().get_points().round(5)))

    def picture(part: Path, ending: str) -> None:
        undated = {".svg": "Date", ".png": "Software", ".pdf": "CreationDate"}[ending]
        with mpl.rc_context(salt):
            fig.savefig(part, format=ending[1:], dpi=DPI, metadata={undated: None, "Title": title})
        if ending == ".svg":  # the names of marks (`marks.family_marks`): a link becomes what a pointer is told
            named = re.sub(r'<a xlink:href="([^"]*)"[^>]*>', r"<g><title>\1</title>", part.read_text(encoding="utf-8"))
            part.write_text(named.replace("</a>", "</g>"), encoding="utf-8")

    return {ending: partial(picture, ending=ending) for ending in endings}


def _commit_to_record(path: Path, sidecar: dict) -> dict | None:
    """The commit of the sidecar that is there if nothing else changed, else the present one.

    Otherwise drawing the same figures again after a commit would change every sidecar, and each would have to
    be committed again. A figure drawn from changed code (dirty) takes the first clean commit it is redrawn
    at.
    """
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        git = old.pop("git")
        unchanged = old == sidecar and git["dirty"] is False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        unchanged = False  # none there, or not a sidecar of ours: it is about to be replaced
    return git if unchanged else git_state()


def git_state() -> dict | None:
    """`{"commit", "dirty"}` of the checkout; dirty means that the package differs from the commit. None
    without git.
    """

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=paths.ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")).resolve() != paths.ROOT:
            return None  # unpacked inside somebody else's repository
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--", "gracelib"))}
    except (OSError, subprocess.CalledProcessError):
        return None  # an unpacked archive, no git installed, or no commit yet


def json_ready(value):
    """Plain JSON values: numpy numbers converted, floats at ten digits (as in the tables), NaN and
    infinities null.
    """
    if isinstance(value, Mapping):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [json_ready(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return value
