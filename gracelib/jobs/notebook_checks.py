"""What is wrong with a committed notebook, without running it.

Why beside nbval: re-execution compares numbers, and is silent about a notebook whose outputs were never made, whose
cells were edited after the last run, or that would differ after every run. `commit_outputs` writes none; a
notebook saved from Jupyter, or merged by hand, may be any.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path

import nbformat

from gracelib.jobs import paths
from gracelib.jobs.cleaning import KERNEL, clean, made_by
from gracelib.jobs.notebooks import numbered, parameters_of
from gracelib.jobs.store import write_atomically

REMEDY = "run `make notebooks` (or `make notebooks OPTIONS=--no-recompute`: from the committed tables)"
_VOLATILE = {
    "a memory address": re.compile(r"\b0x[0-9a-fA-F]{6,}"),
    "an absolute path": re.compile(
        r"(?<![\w.:/])/(?:home|root|tmp|Users|private|mnt|media|opt|srv|usr|var|work)/\w"
        r"|\b[A-Z]:\\\\?\w"
    ),
    "a point in time": re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d"),
}
_NOTEBOOK_METADATA = {"kernelspec", "language_info", "gracelib"}
_CELL_METADATA = {"tags"}


def check(notebooks: Iterable[Path]) -> list[str]:
    """What is wrong with committed notebooks, one line each with notebook, cell and remedy; empty when all is well.

    Found: code cells without execution counts, or not numbered 1 to n in order; error outputs and stderr; outputs made
    by other code cells, or another parameters cell, than those there; metadata and outputs that change from run to run.
    """
    return [f"{path.name}{said}; {REMEDY}" for path in notebooks for said in _problems(path)]


def _problems(path: Path) -> list[str]:
    try:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
    except (ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        return [f": cannot be read as a notebook ({type(error).__name__}: {str(error).splitlines()[0]})"]
    found = [f": {said}" for said in _metadata(book)]
    for number, cell in enumerate((c for c in book.cells if c.cell_type == "code"), 1):
        found += [f", code cell {number}: {said}" for said in _cell(cell, number)]
    for cell in book.cells:
        if extra := sorted(set(cell.metadata) - _CELL_METADATA):
            found.append(f", cell {cell.get('id', '?')}: volatile metadata {', '.join(extra)}")
        if "injected-parameters" in cell.metadata.get("tags", []):
            found.append(f", cell {cell.get('id', '?')}: parameters that papermill added to a run")
    return found


def _metadata(book) -> list[str]:
    found, recorded, now = [], book.metadata.get("gracelib", {}), made_by(book.cells)
    if extra := sorted(set(book.metadata) - _NOTEBOOK_METADATA):
        found.append(f"volatile metadata {', '.join(extra)}")
    kernel = dict(book.metadata.get("kernelspec", {}))
    if kernel != {"display_name": "Python 3", "language": "python", "name": KERNEL}:
        named = f"{kernel.get('name')!r} ({kernel.get('display_name')!r})"
        found.append(f"kernel {named}, expected {KERNEL!r} ('Python 3')")
    if dict(book.metadata.get("language_info", {})) != {"name": "python"}:
        found.append("volatile metadata in language_info: only the name belongs there")
    if not recorded:
        found.append("nothing says which cells made its outputs")
    elif recorded.get("parameters") != now["parameters"]:
        found.append("its outputs were not made by the parameters cell that is there now")
    elif recorded.get("code") != now["code"]:
        found.append("its outputs were not made by the code cells that are there now")
    return found


def _cell(cell, number: int) -> list[str]:
    found = []
    if cell.execution_count is None:
        found.append("was not executed")
    elif cell.execution_count != number:
        found.append(f"has execution count {cell.execution_count}, expected {number}: cells were run out of order")
    for output in cell.outputs:
        if output.output_type == "error":
            found.append(f"shows an error: {output.ename}: {output.evalue}")
        if output.output_type == "stream" and output.name == "stderr":
            found.append("shows stderr (progress bars, warnings)")
        if output.get("metadata"):
            found.append(f"output with volatile metadata {', '.join(sorted(output.metadata))}")
        if output.get("execution_count", number) != number:
            found.append(f"its result is numbered {output.execution_count}, expected {number}")
        texts = output.get("data", {}) | ({"text/plain": output.text} if "text" in output else {})
        if widgets := sorted(kind for kind in texts if "widget" in kind):
            found.append(f"shows the state of a widget ({widgets[0]})")
        for kind, value in texts.items():
            text = value if isinstance(value, str) else json.dumps(value)
            found += [
                f"shows {what}: {hit[0]!r}"
                for what, pattern in _VOLATILE.items()
                if not kind.startswith("image/") and (hit := pattern.search(text))
            ]
    return found


def commit_outputs(scale: str) -> None:
    """Write the cleaned executed copies of a scale back into notebooks/ (what `make notebooks` commits).

    ValueError, before any is written, for a copy made with other parameters than its notebook shows (`recompute` aside:
    the tables are the same either way), or from other cells.
    """
    copies = {
        notebook: nbformat.read(paths.runs() / "notebooks" / scale / notebook.name, as_version=4)
        for notebook in numbered()
    }
    for notebook, executed in copies.items():
        shown = parameters_of(notebook)
        for name, value in executed.metadata.get("papermill", {}).get("parameters", {}).items():
            if name != "recompute" and ast.literal_eval(shown[name]) != value:
                raise ValueError(
                    f"{notebook.name} was executed with {name} = {value!r} and its parameters cell says "
                    f"{shown[name]}: run it with that before its outputs are committed"
                )
        if clean(executed).metadata.gracelib != made_by(nbformat.read(notebook, as_version=4).cells):
            raise ValueError(f"{notebook.name} was edited since it was executed: run it again before it is committed")
    for notebook, executed in copies.items():
        cleaned = clean(executed)
        nbformat.validate(cleaned)
        write_atomically(notebook, lambda part, nb=cleaned: nbformat.write(nb, part))
