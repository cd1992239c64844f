"""Worker processes on this machine: of one thread each, spawned, ended with their parent.

The models are small, so two processes of one thread do more than one process of two threads. Workers are spawned,
not forked (a forked torch can deadlock), and die with their parent.
"""

import functools
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from gracelib.jobs.arithmetic import PORTABLE
from gracelib.jobs.disk import ended
from gracelib.jobs.store import Job, compute

# What spawned workers inherit: one thread each, and no bars of their own (one per checkpoint) between ours.
WORKER_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
#: Where jobs run ("local", "ray", "slurm") and where that engine is, for notebooks and workers too.
EXECUTOR, ADDRESS = "GRACELIB_EXECUTOR", "GRACELIB_ADDRESS"
BETWEEN_LOOKS = 5.0  # seconds, at what other machines are at


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
        if (
            hasattr(os, "getpgrp") and os.getpgrp() == os.getpid()
        ):  # what it has started, such as a trainer's processes, goes with it
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class ScriptlessProcess(SpawnProcess):
    """A process that does not run the caller's script again, as spawned ones do: without a main guard that script would
    ask for the same once more, and wait for its parent for ever. What the process calls must lie in a module."""

    def start(self) -> None:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            BaseProcess.start(self)
        finally:
            sys.modules["__main__"] = script


class _ForkedProcess(ForkServerProcess):
    start = ScriptlessProcess.start


class _Context(SpawnContext):
    Process = ScriptlessProcess


class ForkServer(ForkServerContext):
    """Processes that begin in hundredths of a second: forked off one that has imported what `set_forkserver_preload` says
    (nothing that starts threads or finds a GPU), and hands on the environment of its first day."""

    Process = _ForkedProcess


def compute_job(job: Job, root: Path) -> None:
    """`compute` in a worker process, which goes on to others."""
    compute(job, root)
    _keep_imports()


@functools.cache
def _keep_imports() -> None:
    """What the first job imported stays: the collections of later ones (the Trainer asks for one) need not look at it."""
    gc.collect()
    gc.freeze()


class Local(ProcessPoolExecutor):
    """The executor of this machine: spawned processes that end with this one. The first job that fails ends a run.

    kept False: each ends with its job, which alone gives back what vllm or CUDA took."""

    patient = False

    def __init__(self, at_once: int, kept: bool = True, context: BaseContext | None = None):
        most = None if kept else 1
        super().__init__(at_once, context or _Context(), prepare_worker, max_tasks_per_child=most)
        self.kept, self.room = kept, at_once + kept  # one more than are at work: no process waits for its next job

    def start(self, jobs: list[Job], root: Path) -> Iterator[tuple[Job, Future]]:
        for job in jobs:
            if not self.kept:  # it takes hours
                print(f"\n{job.name}", file=sys.stderr)
            yield job, self.submit(compute_job, job, root)


@contextmanager
def worker_pool(at_once: int, kept: bool = True):
    """Worker processes for several `run_jobs`, started when they are needed, so that each loads torch once.

    What is started within has one thread, and no bars of the hub's: with as many threads as cores in each they would wait
    for each other (a notebook beside another took twice as long), and small matrices gain nothing. kept False: of large
    models, which want all threads (`Local`).
    """
    with variables(PORTABLE | (WORKER_VARIABLES if kept else {})):
        pool = Local(at_once, kept)
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def variables(changed: dict[str, str]):
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
