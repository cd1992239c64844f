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
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from gracelib.jobs import paths
from gracelib.jobs.cleaning import KERNEL
from gracelib.jobs.disk import alone, check_writable, explained, flush, part_of, sweep
from gracelib.jobs.notebook_parameters import check_notebook, check_value, parameters_of
from gracelib.jobs.store import digest, file_hash, fingerprint, signed, verified, versions, write_atomically
from gracelib.jobs.workers import n_workers, one_thread_each, prepare_worker


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
            raise ValueError(
                f"{notebook.name}: unknown parameter {name!r} (value {given[name]!r}); "
                f"its parameters cell has {sorted(known)}"
            )


def _sources(notebook: Path) -> list:
    return [(cell.cell_type, cell.source) for cell in nbformat.read(notebook, as_version=4).cells]


def _package() -> tuple[str, ...]:
    top = paths.PACKAGE
    return tuple(".".join(path.relative_to(top.parent).with_suffix("").parts) for path in sorted(top.rglob("*.py")))


def _written_since(folder: Path, before: dict[str, int]) -> dict[str, str]:
    """Files under `folder` written since the snapshot: path relative to the folder -> content hash."""
    return {name: file_hash(folder / name) for name, stamp in _snapshot(folder).items() if before.get(name) != stamp}


def _snapshot(folder: Path) -> dict[str, int]:
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith(".")
    }


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
    `*.failed.ipynb`. RuntimeError, too, for a kernel that dies, DiskError for a disk that cannot take the copy.
    """
    check_parameters(notebook, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = out.with_suffix(".failed.ipynb")
    part = part_of(out)
    logger, echo = logging.getLogger("papermill"), _KernelEcho()
    logger.addHandler(echo)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        with explained(out.parent):
            _papermill(notebook, part, parameters)
            flush(part)
            os.replace(part, out)
        failed.unlink(missing_ok=True)
    except PapermillExecutionError as error:
        os.replace(part, failed)
        number = error.exec_count - bool(parameters)  # as a reader counts: without the cell that papermill adds
        raise RuntimeError(
            f"{notebook.name}, code cell {number}: {error.ename}: {error.evalue}\n(the notebook up to there: {failed})"
        ) from error
    except RuntimeError as error:
        what = "died (out of memory?)" if isinstance(error, DeadKernelError) else f"failed ({error})"
        raise RuntimeError(
            f"{notebook.name}: its kernel {what}; finished work is kept, run the same command again"
        ) from error
    finally:
        part.unlink(missing_ok=True)
        logger.removeHandler(echo)


def _papermill(notebook: Path, out: Path, parameters: dict) -> None:
    """Execute; once more if the kernel never answered. Kernels that start in the same moment may be given one port."""
    first = f"from gracelib.jobs.workers import end_with; end_with({os.getpid()}); del end_with"  # in the kernel, before any cell
    for last in (False, True):
        try:
            papermill.execute_notebook(
                str(notebook),
                str(out),
                parameters,
                kernel_name=KERNEL,
                log_output=True,
                cwd=str(notebook.parent),
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
            print(f"{notebook.name}: its kernel did not start ({error}); starting another", file=sys.stderr)


@dataclass(frozen=True, eq=False)
class _Execution:
    """A notebook with what it is given, where its executed copy goes, and the key of all that decides its output."""

    notebook: Path
    given: dict
    out: Path
    key: str
    made_from: dict  #: what the key is made from, so that a stamp can say later what changed

    def outdated(self, figures: Path) -> str | None:
        """Why it has to be executed; None if its stamp says that this very execution wrote what is there now."""
        stamp = self.out.with_suffix(".json")
        if not (stamp.is_file() and self.out.is_file()):
            return "it has not been executed to its end"
        try:
            record = verified(stamp.read_text(encoding="utf-8"))
            key, wrote, copy = record["key"], dict(record["wrote"]), record["copy"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"its stamp {stamp.name} is damaged ({error})"
        if key != self.key:
            return "its cells, its parameters, the code or what comes before it changed"
        if copy != file_hash(self.out):
            return f"{self.out.name}, its executed copy, is damaged (its checksum changed)"
        for name, hashed in wrote.items():
            if not (figures / name).is_file():
                return f"{name} is missing"
            if file_hash(figures / name) != hashed:
                return f"{name} is damaged or was edited (its checksum changed)"
        return None

    def seconds(self, why: str) -> float:
        """Execute it; how long that took."""
        print(f"{self.notebook.name}: running at scale {self.out.parent.name}: {why}", file=sys.stderr)
        started = time.perf_counter()
        execute(self.notebook, self.out, self.given)
        seconds = round(time.perf_counter() - started, 1)
        print(f"{self.notebook.name}: done in {seconds} s", file=sys.stderr)
        return seconds


def run(
    scale: str,
    recompute: bool = True,
    notebooks: list[Path] | None = None,
    parameters: dict | None = None,
    before: Callable[[], None] | None = None,
) -> list[Path]:
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
            raise ValueError(
                f"no notebook takes the parameter {name!r} (value {dial[name]!r}); "
                f"they declare {sorted(known - {'scale', 'recompute'})}"
            )
    for notebook, own in declared.items():
        check_notebook(notebook, own)
        for name in own.keys() & dial.keys():
            check_value(notebook.name, name, dial[name], own[name])
    folder, figures = paths.runs() / "notebooks" / scale, paths.figures(scale)
    for place in (folder, figures):
        check_writable(place)
    with alone(folder / ".lock", "another run of this scale is at work"):
        for place in (folder, figures):
            sweep(place)
        planned = planned_executions(scale, recompute, chosen, dial)
        if before and any(one.outdated(figures) for one in planned):
            before()
        executed = []
        batches = [[]]
        for one in planned:
            if batches[-1] and recompute and not (only_reads(one.notebook) and only_reads(batches[-1][-1].notebook)):
                batches.append([])
            batches[-1].append(one)
        for batch in batches:
            why = {one: one.outdated(figures) for one in batch}
            for one in (one for one in batch if not why[one]):
                print(f"{one.notebook.name}: up to date", file=sys.stderr)
            executed += _run_batch({one: reason for one, reason in why.items() if reason}, figures)
    return executed


def planned_executions(scale: str, recompute: bool, chosen: list[Path], dial: dict) -> list[_Execution]:
    """What `run` would execute where it is not up to date, in order, with the key of all that decides each output."""
    same = {
        "code": fingerprint(_package()),
        "versions": versions(),
        "data": {path.name: file_hash(path) for path in sorted(paths.PACKAGE.rglob("*.csv"))},
        "settings": {name: os.environ.get(name) for name in ("GRACELIB_DEVICE", "GRACELIB_DTYPE")},
        # Without recomputation the result tables are inputs; with it, the notebooks write them.
        "tables": {}
        if recompute
        else {path.name: file_hash(path) for path in sorted(paths.results(scale).glob("*.csv"))},
    }
    modules, planned, previous = {name: fingerprint((name,)) for name in _package()}, [], None
    for notebook in chosen:
        declared = parameters_of(notebook)
        given = {name: value for name, value in dial.items() if name in declared}
        own = {"cells": _sources(notebook), "parameters": given, "previous": previous}
        key = digest({**own, **same})
        made_from = {**same, **own, "cells": digest(own["cells"]), "code": modules}
        planned.append(_Execution(notebook, given, paths.runs() / "notebooks" / scale / notebook.name, key, made_from))
        if recompute and not only_reads(notebook):
            previous = key
    return planned


def _run_batch(batch: dict[_Execution, str], figures: Path) -> list[Path]:
    """Execute notebooks that do not depend on each other (and why); leave a stamp for each that succeeded."""
    before, seconds = _snapshot(figures), {}
    try:
        with one_thread_each():  # also where one runs alone: its matrices are too small for more
            for one, took in _side_by_side(batch):
                seconds[one.notebook] = took
    finally:
        # Who wrote what cannot be told from the time when several run, but a figure's sidecar names its notebook.
        written = _written_since(figures, before)
        for one in batch:
            if one.notebook in seconds:
                own = {
                    name: hashed
                    for name, hashed in written.items()
                    if _producer(figures / name) in (None, one.notebook.stem)
                }
                stamp = signed(
                    {
                        "key": one.key,
                        "made_from": one.made_from,
                        "wrote": own,
                        "copy": file_hash(one.out),
                        "seconds": seconds[one.notebook],
                    }
                )
                write_atomically(
                    one.out.with_suffix(".json"), lambda part, stamp=stamp: part.write_text(stamp, encoding="utf-8")
                )
    return [one.notebook for one in batch]


def _producer(path: Path) -> str | None:
    """The notebook that the sidecar beside a file names as the one that makes it."""
    try:
        return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["notebook"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _side_by_side(batch: dict[_Execution, str]) -> Iterator[tuple[_Execution, float]]:
    """Each execution with its seconds, as they end. After a failure nothing new is started, and it is raised."""
    if min(n_workers(), len(batch)) <= 1:
        yield from ((one, one.seconds(why)) for one, why in batch.items())
        return
    # Processes, not threads: papermill changes the working directory. What takes long starts first.
    pool = ProcessPoolExecutor(
        min(n_workers(), len(batch)), mp_context=multiprocessing.get_context("spawn"), initializer=prepare_worker
    )
    futures = {}
    try:
        for one in sorted(batch, key=lambda one: -len(_sources(one.notebook))):
            futures[pool.submit(one.seconds, batch[one])] = one
        for future in as_completed(futures):
            yield futures[future], future.result()
            del futures[future]
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that executed notebooks died (out of memory?) with these unfinished: "
            f"{sorted(one.notebook.name for one in futures.values())}; finished work is kept, run the "
            "same command again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
