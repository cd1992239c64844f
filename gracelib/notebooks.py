"""Executing the numbered notebooks with papermill, in order, and only those whose inputs changed.

papermill alone runs everything every time, only logs a parameter it does not know, writes its output in place, and
leaves volatile metadata behind. Here a notebook is skipped if its cells, its parameters, gracelib's code and the
notebooks before it are unchanged and every file it wrote is still what it wrote; an unknown parameter is an error;
the executed copy is renamed into place when complete; and what is committed is cleaned (outputs and execution counts
kept, so that nbval has something to compare).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
from filelock import FileLock, Timeout
from papermill.exceptions import PapermillExecutionError

from gracelib import paths
from gracelib.store import digest, file_hash, fingerprint, versions, write_atomically
from gracelib.workers import n_workers

KERNEL = "python3"


def numbered(folder: Path | None = None) -> list[Path]:
    """The numbered notebooks, in the order in which they run."""
    return sorted((folder or paths.NOTEBOOKS).glob("[0-9][0-9]_*.ipynb"))


def parameters_of(notebook: Path) -> dict[str, str]:
    """Name -> default (as written) of a notebook's parameters cell."""
    with contextlib.redirect_stdout(sys.stderr):
        return {name: p["default"] for name, p in papermill.inspect_notebook(str(notebook)).items()}


def check_parameters(notebook: Path, given: dict) -> None:
    """Raises ValueError for a parameter that the notebook does not declare (papermill would only log it)."""
    known = parameters_of(notebook)
    for name in given:
        if name not in known:
            raise ValueError(f"{notebook.name}: unknown parameter {name!r} (value {given[name]!r}); "
                             f"its parameters cell has {sorted(known)}")


def _sources(notebook: Path) -> list:
    return [(cell.cell_type, cell.source) for cell in nbformat.read(notebook, as_version=4).cells]


def _package() -> tuple[str, ...]:
    return tuple(f"gracelib.{path.stem}" for path in sorted(Path(__file__).parent.glob("*.py")))


def _written_since(folder: Path, before: dict[str, int]) -> dict[str, str]:
    """Files under `folder` written since the snapshot: path relative to the folder -> content hash."""
    return {name: file_hash(folder / name) for name, stamp in _snapshot(folder).items() if before.get(name) != stamp}


def _snapshot(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))
            if p.is_file() and not p.name.startswith(".")}


class _KernelEcho(logging.Handler):
    """Lets a notebook's progress bars through to our stderr while it runs."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        # papermill logs what a kernel writes on stderr at this level; the kernel's own complaints help nobody
        if record.levelno == logging.WARNING and not text.startswith("[IPKernelApp]"):
            sys.stderr.write(text)
            sys.stderr.flush()


def execute(notebook: Path, out: Path, parameters: dict) -> None:
    """Execute one notebook into `out`.

    Raises RuntimeError naming the notebook, the cell and its error; the partly executed copy stays beside `out` as
    `*.failed.ipynb`.
    """
    check_parameters(notebook, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = out.with_suffix(".failed.ipynb")
    part = out.with_name(f".{out.stem}.{os.getpid()}.part.ipynb")
    logger, echo = logging.getLogger("papermill"), _KernelEcho()
    logger.addHandler(echo)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        papermill.execute_notebook(str(notebook), str(part), parameters, kernel_name=KERNEL, cwd=str(paths.NOTEBOOKS),
                                   log_output=True, progress_bar=False, request_save_on_cell_execute=True,
                                   extra_arguments=["--IPKernelApp.log_level=ERROR"])
        os.replace(part, out)
        failed.unlink(missing_ok=True)
    except PapermillExecutionError as error:
        os.replace(part, failed)
        number = error.exec_count - bool(parameters)  # as a reader counts: without the cell that papermill adds
        raise RuntimeError(f"{notebook.name}, code cell {number}: {error.ename}: {error.evalue}\n"
                           f"(the notebook up to there: {failed})") from error
    finally:
        part.unlink(missing_ok=True)
        logger.removeHandler(echo)


def run(scale: str, recompute: bool = True, notebooks: list[Path] | None = None, parameters: dict | None = None
        ) -> list[Path]:
    """Run the numbered notebooks at a scale; returns those that were executed (others were up to date).

    Executed copies go to runs/notebooks/<scale>/, pictures and tables to figures/<scale>/. `parameters` (such as device)
    go to every notebook that declares them. Two calls at once: the second waits, then finds everything done.
    Raises ValueError for a parameter that no notebook declares.
    """
    dial = {"scale": scale, "recompute": recompute, **(parameters or {})}  # a notebook takes of it what it declares
    n_workers()  # a bad GRACELIB_WORKERS is refused now, not after the first notebook
    known = {name for notebook in notebooks or numbered() for name in parameters_of(notebook)}
    for name in parameters or {}:
        if name not in known or name in ("scale", "recompute"):
            raise ValueError(f"no notebook takes the parameter {name!r} (value {dial[name]!r}); "
                             f"they declare {sorted(known - {'scale', 'recompute'})}")
    folder = paths.runs() / "notebooks" / scale
    folder.mkdir(parents=True, exist_ok=True)
    figures = paths.figures(scale)
    figures.mkdir(parents=True, exist_ok=True)
    executed, previous = [], None
    package_data = {path.name: file_hash(path) for path in sorted(Path(__file__).parent.glob("*.csv"))}
    settings = {name: os.environ.get(name) for name in ("GRACELIB_DEVICE", "GRACELIB_DTYPE")}
    with _alone(folder / ".lock"):
        # Without recomputation the result tables are inputs; with it, the notebooks write them.
        tables = {} if recompute else {path.name: file_hash(path) for path in sorted(paths.results(scale).glob("*.csv"))}
        for notebook in notebooks or numbered():
            declared = parameters_of(notebook)
            given = {name: value for name, value in dial.items() if name in declared}
            key = digest({"cells": _sources(notebook), "parameters": given, "code": fingerprint(_package()),
                          "versions": versions(), "previous": previous, "data": package_data, "tables": tables,
                          "settings": settings})
            previous, stamp, out = key, folder / f"{notebook.stem}.json", folder / notebook.name
            if out.is_file() and _up_to_date(stamp, key, figures):
                print(f"{notebook.name}: up to date", file=sys.stderr)
                continue
            print(f"{notebook.name}: running at scale {scale}", file=sys.stderr)
            before, started = _snapshot(figures), time.perf_counter()
            execute(notebook, out, given)
            record = {"key": key, "wrote": _written_since(figures, before),
                      "seconds": round(time.perf_counter() - started, 1)}
            write_atomically(stamp, lambda part, record=record: part.write_text(json.dumps(record, indent=1), encoding="utf-8"))
            print(f"{notebook.name}: done in {record['seconds']} s", file=sys.stderr)
            executed.append(notebook)
    return executed


def _up_to_date(stamp: Path, key: str, figures: Path) -> bool:
    """Whether a stamp says that this very notebook wrote what is there now."""
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
        return record["key"] == key and all((figures / name).is_file() and file_hash(figures / name) == hashed
                                            for name, hashed in record["wrote"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # no stamp, or not one of ours: run the notebook


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock; if another run has it, say so and wait."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        print("another run of this scale is at work; waiting for it", file=sys.stderr)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook fit for committing: outputs and execution counts stay, everything volatile goes.

    Dropped: papermill's metadata and its injected cell, timings, stderr (progress bars), kernel details beyond the
    kernel's name. Cells are numbered as a fresh run from top to bottom would number them.
    """
    keep_cell = {"tags"}
    cells, count = [], 0
    for index, cell in enumerate(c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])):
        cell = nbformat.from_dict({**cell, "id": f"cell-{index:02d}",
                                   "metadata": {k: v for k, v in cell.metadata.items() if k in keep_cell and v}})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
                if "metadata" in output:
                    output.metadata = {}
        cells.append(cell)
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
                "language_info": {"name": "python"}}
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def commit_outputs(scale: str) -> None:
    """Write the cleaned executed copies of a scale back into notebooks/ (what `make notebooks` commits)."""
    for notebook in numbered():
        executed = nbformat.read(paths.runs() / "notebooks" / scale / notebook.name, as_version=4)
        cleaned = clean(executed)
        nbformat.validate(cleaned)
        write_atomically(notebook, lambda part, nb=cleaned: nbformat.write(nb, part))
