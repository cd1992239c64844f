"""Running jobs in parallel, longest first, as soon as their inputs are there. Or, where one fills the machine, in turn.

Where a job runs is an executor's business, which has few duties: `start` hands jobs out and gives a future for each,
`room` is how many it holds at a time. `workers.Local` is this machine. Those of other engines (`cluster`) are `patient`
with a job that fails, `check` what cannot work before any work, and tell the `state` of what was handed out.
"""

import functools
import os
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from gracelib.jobs.arithmetic import arithmetic
from gracelib.jobs.disk import check_writable, sweep_folders
from gracelib.jobs.progress import Bar
from gracelib.jobs.store import Job, with_upstream
from gracelib.jobs.workers import ADDRESS, BETWEEN_LOOKS, EXECUTOR, n_workers, worker_pool


def executor_name() -> str:
    """GRACELIB_EXECUTOR. ValueError for a name that is none."""
    name = os.environ.get(EXECUTOR, "").strip() or "local"
    if name not in ("local", "ray", "slurm"):
        raise ValueError(f"{EXECUTOR} (--executor) {name!r}: choose one of local, ray, slurm")
    return name


def executor_of_run(at_once: int, kept: bool = True) -> AbstractContextManager:
    """The executor that GRACELIB_EXECUTOR names; on this machine, the `worker_pool` of these."""
    if (name := executor_name()) == "local":
        return worker_pool(at_once, kept)
    from gracelib.jobs import cluster

    return cluster.opened(name, os.environ.get(ADDRESS, ""))


@functools.cache
def _say_native() -> None:
    """Once a process."""
    if arithmetic() == "native":
        print("this processor has no AVX2: results have other last bits than the published ones", file=sys.stderr)


def run_jobs(jobs: list[Job], root: Path, description: str, pool=None, drop: Iterable[Job] = ()) -> None:
    """Finish `jobs` and all they depend on, by an executor of their own or `pool`; finished ones cost a file look-up.

    A job in `drop` is removed from `root` as soon as no unfinished job needs it. Two runs that want the same job wait for
    each other.

    Raises RuntimeError naming the job that failed (the cause is chained) or, if a worker process died, those that
    were in flight; DiskError, before any work, if `root` cannot be written to. A patient executor tries a job that failed
    once more, goes on with the others and raises at the end. What was finished stays finished: calling again resumes.
    """
    todo = {job.key: job for job in with_upstream(jobs, unfinished_in=root)}
    if not todo:
        return
    check_writable(root)
    sweep_folders(root)
    _say_native()
    n_jobs, droppable, failed = len(todo), {job.key for job in drop}, {}
    bar = Bar(
        total=sum(job.cost for job in todo.values()),
        desc=description,
        bar_format="{desc}: {percentage:3.0f}%|{bar:30}| {elapsed} so far, about {remaining} left{postfix}",
        smoothing=0.05,
        postfix=f"0/{n_jobs} jobs",
    )
    with nullcontext(pool) if pool else executor_of_run(min(n_workers(), n_jobs)) as workers, bar:
        if workers.patient:
            workers.check(todo.values(), root)
        running, unfinished = {}, dict(todo)
        try:
            while True:
                ready = [job for job in todo.values() if not any(up.key in unfinished for up in job.inputs.values())]
                if workers.room > 1:  # else as they were asked for: the first cells can be looked at early
                    ready.sort(key=lambda job: -job.cost)
                for job, future in workers.start(ready[: workers.room - len(running)], root):
                    running[future] = todo.pop(job.key)
                if not running:
                    break  # all is done, or what is left stands on what failed
                for future in wait(running, BETWEEN_LOOKS if workers.patient else None, FIRST_COMPLETED).done:
                    job, error = running[future], future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    if error and not workers.patient:
                        raise RuntimeError(f"{job.name} failed: {error}") from error
                    del running[future]
                    if error:
                        if job.key not in failed:  # it may have been the machine's fault
                            todo[job.key] = job
                        failed[job.key] = f"{job.name} failed: {error}"
                        continue
                    failed.pop(job.key, None)
                    del unfinished[job.key]
                    own = [upstream for upstream in job.inputs.values() if upstream.key in droppable]
                    needed = {up.key for other in unfinished.values() for up in other.inputs.values()} if own else ()
                    for upstream in own:
                        if upstream.key not in needed:
                            shutil.rmtree(upstream.folder(root), ignore_errors=True)
                    bar.update(job.cost)
                said = workers.state(running.values(), len(todo), len(failed), root) if workers.patient else ""
                bar.set_postfix_str(f"{n_jobs - len(unfinished)}/{n_jobs} jobs{said}", refresh=False)
        except BrokenProcessPool as error:  # noticed when a job is handed out, or when one is waited for
            lost = [job.name for job in running.values() if not job.done(root)]
            raise RuntimeError(
                f"a worker process died (out of memory?) while computing {lost or 'nothing yet'}; "
                "finished work is kept, run the same command again"
            ) from error
        finally:
            for future in running:  # after an error: `pool` may be the caller's, who goes on
                future.cancel()
    if failed:
        raise RuntimeError(
            "\n".join(
                [
                    f"{len(failed)} of {n_jobs} jobs failed twice, {len(todo)} that stand on them were not begun, the others are "
                    "finished; run the same command again to try these again",
                    *failed.values(),
                ]
            )
        )
