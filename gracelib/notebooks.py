"""Executing the numbered notebooks with papermill, and only those whose inputs changed.

Recomputing, they run in order: each takes up what the ones before it finished. Redrawing, they only read the committed
tables, so as many run at once as there are cores.

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
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from filelock import FileLock, Timeout
from papermill.exceptions import PapermillExecutionError

from gracelib import paths
from gracelib.cleaning import KERNEL, clean
from gracelib.notebook_parameters import check_notebook, check_value, parameters_of
from gracelib.registry import FIGURES
from gracelib.store import digest, file_hash, fingerprint, versions, write_atomically
from gracelib.workers import prepare_worker, n_workers



def numbered(folder: Path | None = None) -> list[Path]:
    """The numbered notebooks, in the order in which they run."""
    return sorted((folder or paths.NOTEBOOKS).glob("[0-9][0-9]_*.ipynb"))


def only_reads(notebook: Path) -> bool:
    """Whether a notebook makes no table that another reads: its parameters cell carries the tag `only-reads`."""
    return any("only-reads" in cell.metadata.get("tags", []) for cell in nbformat.read(notebook, as_version=4).cells)


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
        papermill.execute_notebook(str(notebook), str(part), parameters, kernel_name=KERNEL, cwd=str(notebook.parent),
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


@dataclass(frozen=True)
class _Execution:
    """A notebook with what it is given, where its executed copy goes, and the key of all that decides its output."""

    notebook: Path
    given: dict
    out: Path
    key: str

    def up_to_date(self, figures: Path) -> bool:
        """Whether its stamp says that this very execution wrote what is there now."""
        try:
            record = json.loads(self.out.with_suffix(".json").read_text(encoding="utf-8"))
            return self.out.is_file() and record["key"] == self.key and all(
                (figures / name).is_file() and file_hash(figures / name) == hashed
                for name, hashed in record["wrote"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False  # no stamp, or not one of ours: run the notebook

    def seconds(self) -> float:
        """Execute it; how long that took."""
        print(f"{self.notebook.name}: running at scale {self.out.parent.name}", file=sys.stderr)
        started = time.perf_counter()
        execute(self.notebook, self.out, self.given)
        seconds = round(time.perf_counter() - started, 1)
        print(f"{self.notebook.name}: done in {seconds} s", file=sys.stderr)
        return seconds


def run(scale: str, recompute: bool = True, notebooks: list[Path] | None = None, parameters: dict | None = None,
        before: Callable[[], None] | None = None) -> list[Path]:
    """Run the numbered notebooks at a scale; returns those that were executed (others were up to date).

    With `recompute` one after the other, each finishing its jobs, and those that follow each other and `only_reads` side
    by side (`workers.n_workers`); without, all of them side by side from the result tables. Executed copies go to runs/notebooks/<scale>/, pictures and tables to figures/<scale>/. `parameters`
    (such as sigma) go to every notebook that declares them. Two calls at once: the second waits, then finds everything
    done. `before` is called once the request is known to be sound, if any notebook is to be executed: work that is done
    better in one go. Raises ValueError for a parameter that no notebook declares, RuntimeError for a notebook that fails.
    """
    dial = {"scale": scale, "recompute": recompute, **(parameters or {})}  # a notebook takes of it what it declares
    n_workers()  # a bad GRACELIB_WORKERS is refused now, not after the first notebook
    chosen = numbered() if notebooks is None else notebooks
    declared = {notebook: parameters_of(notebook) for notebook in chosen}
    known = {name for own in declared.values() for name in own}
    for name in parameters or {}:
        if name not in known or name in ("scale", "recompute"):
            raise ValueError(f"no notebook takes the parameter {name!r} (value {dial[name]!r}); "
                             f"they declare {sorted(known - {'scale', 'recompute'})}")
    for notebook, own in declared.items():
        check_notebook(notebook, own)
        for name in own.keys() & dial.keys():
            check_value(notebook.name, name, dial[name], own[name])
    folder = paths.runs() / "notebooks" / scale
    folder.mkdir(parents=True, exist_ok=True)
    figures = paths.figures(scale)
    figures.mkdir(parents=True, exist_ok=True)
    with _alone(folder / ".lock"):
        same = {"code": fingerprint(_package()), "versions": versions(),
                "data": {path.name: file_hash(path) for path in sorted(Path(__file__).parent.glob("*.csv"))},
                "settings": {name: os.environ.get(name) for name in ("GRACELIB_DEVICE", "GRACELIB_DTYPE")},
                # Without recomputation the result tables are inputs; with it, the notebooks write them.
                "tables": {} if recompute else {path.name: file_hash(path)
                                                for path in sorted(paths.results(scale).glob("*.csv"))}}
        planned, previous = [], None
        for notebook in chosen:
            given = {name: value for name, value in dial.items() if name in declared[notebook]}
            key = digest({"cells": _sources(notebook), "parameters": given, "previous": previous, **same})
            if recompute and not only_reads(notebook):
                previous = key
            planned.append(_Execution(notebook, given, folder / notebook.name, key))
        if before and not all(one.up_to_date(figures) for one in planned):
            before()
        executed = []
        batches = [[]]
        for one in planned:
            if batches[-1] and recompute and not (only_reads(one.notebook) and only_reads(batches[-1][-1].notebook)):
                batches.append([])
            batches[-1].append(one)
        for batch in batches:
            current = [one for one in batch if one.up_to_date(figures)]
            for one in current:
                print(f"{one.notebook.name}: up to date", file=sys.stderr)
            executed += _run_batch([one for one in batch if one not in current], figures)
    return executed


def _run_batch(batch: list[_Execution], figures: Path) -> list[Path]:
    """Execute notebooks that do not depend on each other; leave a stamp for each that succeeded."""
    before, seconds = _snapshot(figures), {}
    try:
        for one, took in _side_by_side(batch):
            seconds[one.notebook] = took
    finally:
        # Who wrote what cannot be told from the time when several run, but the registry knows each figure's producer.
        written = _written_since(figures, before)
        for one in batch:
            if one.notebook in seconds:
                own = {name: hashed for name, hashed in written.items() if _producer(name) in (None, one.notebook.stem)}
                record = {"key": one.key, "wrote": own, "seconds": seconds[one.notebook]}
                write_atomically(one.out.with_suffix(".json"), lambda part, record=record: part.write_text(
                    json.dumps(record, indent=1), encoding="utf-8"))
    return [one.notebook for one in batch]


def _producer(name: str) -> str | None:
    """The notebook that the registry names for a file below figures/<scale>/."""
    return FIGURES[Path(name).stem].notebook if Path(name).stem in FIGURES else None


def _side_by_side(batch: list[_Execution]) -> Iterator[tuple[_Execution, float]]:
    """Each execution with its seconds, as they end. After a failure nothing new is started, and it is raised."""
    if min(n_workers(), len(batch)) <= 1:
        yield from ((one, one.seconds()) for one in batch)
        return
    # Processes, not threads: papermill changes the working directory. Many figures take long, so those start first.
    figures = [item.notebook for item in FIGURES.values()]
    pool = ProcessPoolExecutor(min(n_workers(), len(batch)), mp_context=multiprocessing.get_context("spawn"),
                               initializer=prepare_worker)
    try:
        futures = {pool.submit(one.seconds): one
                   for one in sorted(batch, key=lambda one: -figures.count(one.notebook.stem))}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise RuntimeError("a process that executed notebooks died (out of memory?); "
                           "run the same command again") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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


def commit_outputs(scale: str) -> None:
    """Write the cleaned executed copies of a scale back into notebooks/ (what `make notebooks` commits)."""
    for notebook in numbered():
        executed = nbformat.read(paths.runs() / "notebooks" / scale / notebook.name, as_version=4)
        cleaned = clean(executed)
        nbformat.validate(cleaned)
        write_atomically(notebook, lambda part, nb=cleaned: nbformat.write(nb, part))
