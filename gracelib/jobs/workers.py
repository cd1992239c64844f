"""Running jobs in parallel: one-thread worker processes, longest first, as soon as their inputs are there. Or, where one
fills the machine, in turn.

The models are small, so two processes of one thread do more than one process of two threads. Workers are spawned,
not forked (a forked torch can deadlock), and die with their parent.
"""

import functools
import gc
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType

from gracelib.jobs.arithmetic import PORTABLE, arithmetic
from gracelib.jobs.disk import check_writable, ended, sweep_folders
from gracelib.jobs.progress import Bar
from gracelib.jobs.store import Job, compute, with_upstream

# What spawned workers inherit: one thread each, and no bars of their own (one a checkpoint) between ours.
WORKER_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def n_workers() -> int:
    """`GRACELIB_WORKERS`, or the number of usable cores. Raises ValueError if the variable is no positive number."""
    asked = os.environ.get("GRACELIB_WORKERS", "").strip()
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"GRACELIB_WORKERS={asked!r} is not a number of processes; use 1 or more, or unset it")
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_worker() -> None:
    """What a spawned process does first."""
    end_with(multiprocessing.parent_process().pid)
    sys.stdout = sys.stderr  # stdout is for results, and a notebook compares its own with the committed one


def end_with(pid: int) -> None:
    """End this process soon after process `pid`: a worker with the command, a notebook's kernel with its worker.

    A killed parent (kill -9, out of memory) takes no leave: a worker would wait for work for ever. A kernel watches its
    parent itself, but takes the one it finds when it is ready for the right one (ipykernel 7): if the command was killed
    a second earlier, that is whoever adopts orphans. What is half-written is not renamed.
    """

    def watch() -> None:
        while not ended(pid):
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class ScriptlessProcess(SpawnProcess):
    """A process that does not run the caller's script again, as spawned ones do: without a main guard that script would
    ask for the same once more, and wait for its parent for ever. What the process calls must lie in a module."""

    def start(self) -> None:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = script


class _Context(SpawnContext):
    Process = ScriptlessProcess


def _compute(job: Job, root: Path) -> str:
    compute(job, root)
    _keep_imports()
    return job.key


@functools.cache
def _keep_imports() -> None:
    """What the first job imported stays: the collections of later ones (the Trainer asks for one) need not look at it."""
    gc.collect()
    gc.freeze()


def _pool(at_once: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(at_once, mp_context=_Context(), initializer=prepare_worker)


def _bar(jobs: Iterable[Job], description: str, **how) -> Bar:
    shown = "{desc}: {percentage:3.0f}%|{bar:30}| {elapsed} so far, about {remaining} left{postfix}"
    return Bar(total=sum(job.cost for job in jobs), desc=description, bar_format=shown, **how)


@contextmanager
def worker_pool(at_once: int):
    """Worker processes for several `run_jobs`, started when they are needed, so that each loads torch once.

    What is started within has one thread, and no bars of the hub's: with as many threads as cores in each they would wait
    for each other (a notebook beside another took twice as long), and small matrices gain nothing.
    """
    with _variables(WORKER_VARIABLES | PORTABLE):
        pool = _pool(at_once)
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _variables(changed: dict[str, str]):
    """Environment variables for what is started within."""
    saved = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in saved.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@functools.cache
def _say_native() -> None:
    """Once a process."""
    if arithmetic() == "native":
        print("this processor has no AVX2: results have other last bits than the published ones", file=sys.stderr)


def run_jobs(jobs: list[Job], root: Path, description: str, pool: ProcessPoolExecutor | None = None) -> None:
    """Finish `jobs` and all they depend on, in workers of their own or those of `pool`; finished ones cost a file look-up.

    Raises RuntimeError naming the job that failed (the cause is chained) or, if a worker process died, those that
    were in flight; DiskError, before any work, if `root` cannot be written to. What was finished stays finished:
    calling again resumes.
    """
    todo = {job.key: job for job in with_upstream(jobs, unfinished_in=root)}
    if not todo:
        return
    check_writable(root)
    sweep_folders(root)
    _say_native()
    n_jobs, at_once = len(todo), min(n_workers(), len(todo))
    bar = _bar(todo.values(), description, smoothing=0.05, postfix=f"0/{n_jobs} jobs")
    with nullcontext(pool) if pool else worker_pool(at_once) as workers, bar:
        running, unfinished = {}, set(todo)
        try:
            while todo or running:
                ready = [job for job in todo.values() if not unfinished & {up.key for up in job.inputs.values()}]
                for job in sorted(ready, key=lambda job: -job.cost)[: at_once + 1 - len(running)]:
                    running[workers.submit(_compute, job, root)] = job
                    del todo[job.key]
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running[future]
                    try:
                        unfinished.remove(future.result())
                    except BrokenProcessPool:
                        raise
                    except Exception as error:
                        raise RuntimeError(f"{job.name} failed: {error}") from error
                    del running[future]
                    bar.set_postfix_str(f"{n_jobs - len(unfinished)}/{n_jobs} jobs", refresh=False)
                    bar.update(job.cost)
        except BrokenProcessPool as error:  # noticed when a job is handed out, or when one is waited for
            lost = [job.name for job in running.values() if not job.done(root)]
            raise RuntimeError(
                f"a worker process died (out of memory?) while computing {lost or 'nothing yet'}; "
                "finished work is kept, run the same command again"
            ) from error
        finally:
            for future in running:  # after an error: `pool` may be the caller's, who goes on
                future.cancel()


def run_in_turn(jobs: Iterable[Job], root: Path, drop: Iterable[Job] = (), isolated: bool = True) -> None:
    """Finish the jobs and all they depend on, one at a time, each in a process of its own: what vllm or CUDA took is given
    back only when a process ends. Finished ones cost a file look-up. A machine with more GPUs runs the same command
    several times, each with other CUDA_VISIBLE_DEVICES and another part of the jobs; two that want the same job wait
    for each other.

    A job in `drop` (a trained model) is removed from `root` as soon as no unfinished job needs it. `isolated` False runs
    them in this process (for tests; one that ran out of memory then takes the caller with it). Raises RuntimeError naming
    the job that failed; what was finished stays finished, and what it had begun is continued.
    """
    todo, droppable = with_upstream(jobs, unfinished_in=root), {job.key for job in drop}
    with _bar(todo, "jobs", smoothing=0) as bar:
        for i, job in enumerate(todo):
            print(f"\n{i + 1} of {len(todo)}: {job.name}", file=sys.stderr)
            try:
                if isolated:
                    with _variables(PORTABLE), _pool(1) as pool:
                        pool.submit(compute, job, root).result()
                else:
                    compute(job, root)
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"the process of {job.name} died (out of memory?); run the same command again to go on"
                ) from error
            except Exception as error:
                raise RuntimeError(f"{job.name} failed: {error}") from error
            for upstream in job.inputs.values():
                if upstream.key in droppable and not any(upstream in later.inputs.values() for later in todo[i + 1 :]):
                    shutil.rmtree(upstream.folder(root), ignore_errors=True)
            bar.update(job.cost)
