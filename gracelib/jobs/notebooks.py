"""Executing the numbered notebooks with papermill, and only those whose inputs changed: a notebook's run is a job.

Its key holds the notebook's cells, its parameters, gracelib's code and the notebooks before it; its result is the
executed copy, with the hashes of the files that it wrote below figures/. So what is finished is recognised, locked,
checked and explained as every other result is, and a file that a notebook wrote and somebody changed makes that notebook
run again. Recomputing, they run in order, each taking up what the ones before it finished, but those that only read run
side by side, and those that take no part (no `recompute`) at any time. Redrawing, they only read the committed tables, so as
many run at once as there are cores.

papermill alone runs everything every time, only logs a parameter that it does not know or cannot read, finds a kernel of
another language when the jobs before it have taken their hours, and leaves volatile metadata behind. Here a notebook that
is unsound is refused before anything runs, and what is committed is cleaned: what a reader sees stays (nbval has something
to compare), what changes from run to run goes, so that somebody sees the number that really changed.
"""

import ast
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import DeadKernelError
from nbformat import v4
from papermill.exceptions import PapermillExecutionError

from gracelib.jobs import paths
from gracelib.jobs.disk import alone, check_writable, sweep
from gracelib.jobs.explain import explain
from gracelib.jobs.running import run_jobs
from gracelib.jobs.store import Job, Stage, digest, file_hash, package_files, versions, write_atomically
from gracelib.jobs.workers import EXECUTOR, n_workers, variables

KERNEL = "python3"
#: Never a notebook's parameters: a run sets them.
DIAL = {"scale", "recompute"}


def numbered(folder: Path | None = None) -> list[Path]:
    """The numbered notebooks, in the order in which they run."""
    return sorted((folder or paths.NOTEBOOKS).glob("[0-9][0-9]*_*.ipynb"))


def parameters_of(notebook: Path) -> dict[str, object]:
    """Name -> default of a notebook's parameters cell; {} if it has none.

    Raises FileNotFoundError, or ValueError naming the notebook: no notebook, not in Python, or a parameters cell that
    is not Python or assigns something else than plain literals.
    """
    notebook = Path(notebook)
    if not notebook.is_file():
        raise FileNotFoundError(f"{notebook} is not there; check the spelling")
    try:
        book = nbformat.read(notebook, as_version=4)
        cells = [cell.source for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    except Exception as error:  # nbformat has errors of its own, and AttributeError for JSON that is no notebook
        said = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{notebook.name}: not a notebook (a JSON file of cells): {said}; take the committed file back"
        ) from error
    language = book.metadata.get("kernelspec", {}).get("language") or "python"
    if language.lower() != "python":
        raise ValueError(f"{notebook.name}: its kernel speaks {language!r}; the notebooks here run in Python")
    place = f"{notebook.name}: its parameters cell, line"
    try:
        lines = ast.parse("".join(cells[:1])).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # a NUL; brackets thousands deep
        said = getattr(error, "msg", "") or str(error) or "nested too deeply"
        line = getattr(error, "lineno", None) or 1
        raise ValueError(f"{place} {line}, is not Python ({said}); correct it") from error
    found = {}
    for one in lines:
        try:
            (name,) = [target.id for target in one.targets]
            found[name] = ast.literal_eval(one.value)
        except (AttributeError, ValueError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(
                f"{place} {one.lineno}, is no plain literal ({ast.unparse(one)[:60]!r}); write NAME = VALUE"
            ) from error
    return found


def check_value(notebook: str, name: str, given: object, usual: object) -> None:
    """ValueError for a value of another kind than the default, or a number that is not finite."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    fits = number and math.isfinite(given) if isinstance(usual, float) else type(given) is type(usual)
    if usual is not None and not fits:
        raise ValueError(
            f"{notebook}: parameter {name} = {given!r:.80}; expected a value like its default, {usual!r:.80}"
        )


class NotebookStage(Stage):
    """A notebook may call anything: all of gracelib decides its result."""

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(sorted(package_files()))


def run_notebook(out: Path, params: dict, inputs: dict) -> dict[str, str]:
    """Execute a notebook's cells into `out`; the files that it wrote below figures/, by hash.

    Raises RuntimeError naming the cell and its error, the partly executed copy being kept as `*.failed.ipynb` beside the
    results; RuntimeError, too, for a kernel that dies.
    """
    name, figures, started = params["notebook"], paths.figures(params["scale"]), time.perf_counter()
    print(f"{name}: running at scale {params['scale']}", file=sys.stderr)
    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell, "raw": v4.new_raw_cell}
    cells = [make[kind](source, metadata={"tags": tags}) for kind, source, tags in params["cells"]]
    copy, failed = out / name, out.parent / f"{params['scale']}-{Path(name).stem}.failed.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), copy)
    before = _files(figures)
    try:
        _papermill(copy, params["parameters"])
    except PapermillExecutionError as error:
        os.replace(copy, failed)
        number = error.exec_count - bool(params["parameters"])  # as a reader counts: without the cell papermill adds
        raise RuntimeError(
            f"code cell {number}: {error.ename}: {error.evalue}\n(the notebook up to there: {failed})"
        ) from error
    except RuntimeError as error:
        what = "died (out of memory?)" if isinstance(error, DeadKernelError) else f"failed ({error})"
        raise RuntimeError(f"its kernel {what}; finished work is kept, run the same command again") from error
    failed.unlink(missing_ok=True)
    print(f"{name}: done in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    # Several may run at once, and the time does not tell who wrote what, but a figure's sidecar names its notebook.
    return {
        path.relative_to(figures.parent).as_posix(): file_hash(path)
        for path, stamp in _files(figures).items()
        if before.get(path) != stamp and _producer(path) in (None, Path(name).stem)
    }


NOTEBOOK = NotebookStage("notebook", run_notebook)


def _files(folder: Path) -> dict[Path, int]:
    """The files below a folder, each with the time it was written at."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path: path.stat().st_mtime_ns for path in found}


def _producer(path: Path) -> str | None:
    """The notebook that the sidecar beside a file names as the one that makes it."""
    try:
        return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["notebook"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Kernel(AsyncKernelManager):
    """The kernel of the running environment. Looked up, "python3" is whoever answers to that name on JUPYTER_PATH."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def _papermill(copy: Path, parameters: dict) -> None:
    """Execute in place; once more if the kernel never answered. Kernels that start in the same moment may be given one
    port."""
    first = f"from gracelib.jobs.workers import end_with; end_with({os.getpid()}); del end_with"  # before any cell
    for last in (False, True):
        try:
            papermill.execute_notebook(
                str(copy),
                str(copy),
                parameters,
                kernel_name=KERNEL,
                kernel_manager_class=_Kernel,
                language="python",
                stderr_file=sys.stderr,  # progress bars
                cwd=str(paths.NOTEBOOKS),
                progress_bar=False,
                request_save_on_cell_execute=True,
                extra_arguments=["--IPKernelApp.log_level=ERROR", f"--IPKernelApp.exec_lines={first}"],
            )
            return
        except DeadKernelError:
            raise  # in the middle of a cell
        except RuntimeError as error:
            if last or "Kernel" not in str(error):
                raise
            print(f"{copy.name}: its kernel did not start ({error}); starting another", file=sys.stderr)


def planned(
    scale: str, recompute: bool = True, notebooks: list[Path] | None = None, parameters: dict | None = None
) -> list[Job]:
    """The jobs of the numbered notebooks (or of those given) at a scale, in order.

    A notebook takes of scale, recompute and `parameters` what it declares. Raises ValueError for a parameter that none
    declares, a value of another kind than the default, or a notebook without parameters: it would run with no scale, or
    another than was asked for.
    """
    dial = {"scale": scale, "recompute": recompute, **(parameters or {})}
    declared = {path: parameters_of(path) for path in (numbered() if notebooks is None else notebooks)}
    known = {name for own in declared.values() for name in own}
    for name in parameters or {}:
        if name not in known - DIAL:
            raise ValueError(
                f"no notebook takes the parameter {name!r} (value {dial[name]!r}); they declare {sorted(known - DIAL)}"
            )
    tables = [] if recompute else sorted(paths.tables(scale).glob("*.csv"))  # recomputing, the notebooks write them
    same = {
        "scale": scale,
        "versions": versions(),
        "data": {path.name: file_hash(path) for path in sorted(paths.PACKAGE.rglob("*.csv"))},
        "settings": {name: os.environ.get(name) for name in ("GRACELIB_DEVICE", "GRACELIB_DTYPE")},
        "tables": {path.name: file_hash(path) for path in tables},
    }
    jobs, before = [], {}
    for path, own in declared.items():
        if not own:
            raise ValueError(
                f"{path.name}: no cell tagged 'parameters'; tag the one with scale and recompute (a line for each)"
            )
        given = {name: value for name, value in dial.items() if name in own}
        for name, value in given.items():
            check_value(path.name, name, value, own[name])
        cells = [
            (cell.cell_type, cell.source, cell.metadata.get("tags", []))
            for cell in nbformat.read(path, as_version=4).cells
        ]
        params = {"notebook": path.name, "cells": cells, "parameters": given, **same}
        takes_part = "recompute" in own  # else it knows no table: it waits for none, and none for it
        jobs.append(Job(NOTEBOOK, params, before if takes_part else {}, f"{path.name} at {scale}", len(cells)))
        # A notebook that does not only read may make a table that others read.
        if recompute and takes_part and not any("only-reads" in tags for _, _, tags in cells):
            before = {"before": jobs[-1]}
    return jobs


def run(
    scale: str,
    recompute: bool = True,
    notebooks: list[Path] | None = None,
    parameters: dict | None = None,
    before: Callable[[], None] | None = None,
) -> list[str]:
    """Run what is not finished of `planned`; the names of the notebooks that were executed.

    Executed copies go to runs/notebook/, pictures and tables to figures/<scale>/. Two calls at once: the second waits,
    then finds everything done. `before` is called once the request is known to be sound, if any notebook is to be
    executed: work that is done better in one go. Raises RuntimeError for a notebook that fails.
    """
    n_workers()  # a bad GRACELIB_WORKERS is refused now, not after the first notebook
    jobs, root, figures = planned(scale, recompute, notebooks, parameters), paths.runs(), paths.figures(scale)
    for place in (root / NOTEBOOK.name, figures):
        check_writable(place)
    with alone(root / NOTEBOOK.name / f"{scale}.lock", "another run of this scale is at work"):
        sweep(figures)
        why = {verdict.job.key: verdict.why for verdict in explain(jobs, root)}
        for job in jobs:
            reasons = "; ".join(why[job.key])
            print(f"{job.params['notebook']}: {f'to be run: {reasons}' if reasons else 'up to date'}", file=sys.stderr)
        if before and any(why.values()):
            before()
        with variables({EXECUTOR: "local"}):  # they draw, into figures/ of this machine
            run_jobs(jobs, root, f"notebooks at {scale}")
    return [job.params["notebook"] for job in jobs if why[job.key]]


# --- what is committed ---

#: Tag of a cell that is shown folded -> what of it.
FOLDED = {"hide-input": ["source_hidden"], "hide-cell": ["source_hidden", "outputs_hidden"]}


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook fit for committing: outputs and execution counts stay, everything volatile goes.

    Dropped: papermill's metadata and its injected cell, timings, stderr (progress bars), kernel details beyond the
    kernel's name. Cells are numbered as a fresh run from top to bottom would number them. Added: `made_by` these cells, and
    which cells are folded.
    """
    cells, count = [], 0
    for index, cell in enumerate(c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])):
        tags = cell.metadata.get("tags", [])
        kept = {"tags": tags} if tags else {}
        if folded := [part for tag, parts in FOLDED.items() if tag in tags for part in parts]:
            kept["jupyter"] = dict.fromkeys(folded, True)  # the book goes by the tag, JupyterLab by this
        cell = nbformat.from_dict({**cell, "id": f"cell-{index:02d}", "metadata": kept})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _joined([o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")])
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
                if "metadata" in output:
                    output.metadata = {}
        cells.append(cell)
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
        "language_info": {"name": "python"},
        "gracelib": made_by(cells),
    }
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def made_by(cells: list) -> dict[str, str]:
    """Hashes of the code cells, the parameters cell among them, that outputs were made with: what a committed notebook
    carries, so that a cell that was edited and not run again is found (tests/house/test_committed_notebooks.py)."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    tagged = [cell.source for cell in code if "parameters" in cell.metadata.get("tags", [])]
    return {"code": digest([cell.source for cell in code]), "parameters": digest(tagged)}


def _joined(outputs: list) -> list:
    """Prints that follow each other as one output: where a kernel flushes is a matter of time."""
    joined = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def commit_outputs(scale: str, recompute: bool = True) -> None:
    """Write the cleaned executed copies of a scale back into notebooks/ (what `make publish` commits): of those notebooks
    whose own `scale` it is, or that have none.

    ValueError, before any is written, for a notebook that was not executed as it is now.
    """
    cleaned = {}
    for notebook, job in zip(numbered(), planned(scale, recompute), strict=True):
        if parameters_of(notebook).get("scale", scale) != scale:
            continue
        if job.fault(paths.runs()):
            raise ValueError(f"{notebook.name} was edited since it was executed: run it again before it is committed")
        cleaned[notebook] = clean(nbformat.read(job.folder(paths.runs()) / notebook.name, as_version=4))
    for notebook, book in cleaned.items():
        write_atomically(notebook, lambda part, book=book: nbformat.write(book, part))
