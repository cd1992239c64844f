"""The parameters cell of a notebook, read without running it; what is wrong with a notebook is said before any runs.

papermill guesses parameters from single lines, only logs what it cannot read, and finds out about a syntax error or a
kernel of another language when the jobs before it have taken their hours. So the cell is parsed here: plain literals
only, of which a value from the command line must be of the same kind.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path

import nbformat


def parameters_of(notebook: Path) -> dict[str, str]:
    """Name -> default, as written, of a notebook's parameters cell; {} if it has none (see `check_notebook`).

    Raises FileNotFoundError, or ValueError naming the notebook: no notebook, not in Python, or a parameters cell that
    is not Python or assigns something else than plain literals.
    """
    notebook = Path(notebook)
    if not notebook.is_file():
        raise FileNotFoundError(f"{notebook} is not there; check the spelling")
    try:
        book = nbformat.read(notebook, as_version=4)
        cells = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    except Exception as error:  # nbformat has errors of its own, and AttributeError for JSON that is no notebook
        said = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{notebook.name}: not a notebook (a JSON file of cells): {said}; take the committed file back"
        ) from error
    language = book.metadata.get("kernelspec", {}).get("language") or "python"
    if language.lower() != "python":
        raise ValueError(f"{notebook.name}: its kernel speaks {language!r}; the notebooks here run in Python")
    return _defaults(cells[0].source, notebook.name) if cells else {}


def check_notebook(notebook: Path, declared: dict[str, str]) -> None:
    """ValueError for a notebook without parameters: it would run with no scale, or another than was asked for."""
    if not declared:
        raise ValueError(
            f"{Path(notebook).name}: no cell tagged 'parameters'; tag the one with scale and recompute (a line "
            "for each)"
        )


def _defaults(source: str, name: str) -> dict[str, str]:
    try:
        lines = ast.parse(source).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # a NUL; brackets thousands deep
        place, said = (
            getattr(error, "lineno", None) or 1,
            getattr(error, "msg", "") or str(error) or "nested too deeply",
        )
        raise ValueError(f"{name}: its parameters cell, line {place}, is not Python ({said}); correct it") from error
    found = {}
    for one in lines:
        target = one.targets[0] if isinstance(one, ast.Assign) else getattr(one, "target", None)
        value = getattr(one, "value", None)
        try:
            ast.literal_eval(value)
        except (ValueError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(
                f"{name}: its parameters cell, line {one.lineno}, is no plain literal "
                f"({ast.unparse(one)[:60]!r}); write NAME = VALUE"
            ) from error
        if not isinstance(target, ast.Name):
            raise ValueError(f"{name}: its parameters cell, line {one.lineno}, is not of the form NAME = VALUE")
        found[target.id] = ast.get_source_segment(source, value)
    return found


def check_value(notebook: str, name: str, given: object, default: str) -> None:
    """ValueError for a value of another kind than the default, or a number that is not finite."""
    usual = ast.literal_eval(default)
    number = isinstance(given, int | float) and not isinstance(given, bool)
    fits = number and math.isfinite(given) if isinstance(usual, float) else type(given) is type(usual)
    if usual is not None and not fits:
        raise ValueError(
            f"{notebook}: parameter {name} = {given!r:.80}; expected a value like its default, {default!r:.80}"
        )
