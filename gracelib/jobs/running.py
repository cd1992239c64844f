"""Running jobs in parallel, longest first, as soon as their inputs are there. Or, where one fills the machine, in turn.

Where a job runs is an executor's business, which has few duties: `check` says what cannot work before any work, `start`
hands jobs out and gives a future for each, `at_once` is how many it takes, `patient` what a failure means. `workers.Local`
is this machine; `cluster` has those of other engines.
"""

import functools
import os
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from pathlib import Path

from gracelib.jobs.arithmetic import PORTABLE, arithmetic
from gracelib.jobs.disk import check_writable, sweep_folders
from gracelib.jobs.progress import Bar
from gracelib.jobs.store import Job, compute, with_upstream
from gracelib.jobs.workers import ADDRESS, BETWEEN_LOOKS, EXECUTOR, Local, n_workers, variables, worker_pool


def executor_name() -> str:
    """GRACELIB_EXECUTOR. ValueError for a name that is none."""
    name = os.environ.get(EXECUTOR, "").strip() or "local"
    if name not in ("local", "ray", "slurm"):
        raise ValueError(f"{EXECUTOR} (--executor) {name!r}: choose one of local, ray, slurm")
    return name


@contextmanager
def executor_of_run(at_once: int):
    """The executor that GRACELIB_EXECUTOR names; on this machine, of `at_once` processes."""
    if (name := executor_name()) == "local":
        with worker_pool(at_once) as pool:
            yield pool
    else:
        from gracelib.jobs import cluster

        with cluster.opened(name, os.environ.get(ADDRESS, "")) as engine:
            yield engine


def _bar(jobs: Iterable[Job], description: str, **how) -> Bar:
    shown = "{desc}: {percentage:3.0f}%|{bar:30}| {elapsed} so far, about {remaining} left{postfix}"
    return Bar(total=sum(job.cost for job in jobs), desc=description, bar_format=shown, **how)


@functools.cache
def _say_native() -> None:
    """Once a process."""
    if arithmetic() == "native":
        print("this processor has no AVX2: results have other last bits than the published ones", file=sys.stderr)


def run_jobs(jobs: list[Job], root: Path, description: str, pool=None, drop: Iterable[Job] = ()) -> None:
    """Finish `jobs` and all they depend on, by an executor of their own or `pool`; finished ones cost a file look-up.

    A job in `drop` is removed from `root` as soon as no unfinished job needs it.

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
    bar = _bar(todo.values(), description, smoothing=0.05, postfix=f"0/{n_jobs} jobs")
    with nullcontext(pool) if pool else executor_of_run(min(n_workers(), n_jobs)) as workers, bar:
        workers.check(todo.values(), root)
        running, unfinished = {}, dict(todo)
        try:
            while True:
                ready = [job for job in todo.values() if not any(up.key in unfinished for up in job.inputs.values())]
                ready = sorted(ready, key=lambda job: -job.cost)[: workers.at_once + 1 - len(running)]
                for job, future in workers.start(ready, root):
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
                    _drop(job, droppable, unfinished.values(), root)
                    bar.update(job.cost)
                said = f"{n_jobs - len(unfinished)}/{n_jobs} jobs"
                bar.set_postfix_str(said + workers.state(running.values(), len(todo), len(failed), root), refresh=False)
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


def _drop(job: Job, droppable: set[str], unfinished: Iterable[Job], root: Path) -> None:
    """Remove what `job` was made from where that is droppable and nothing unfinished needs it."""
    own = [upstream for upstream in job.inputs.values() if upstream.key in droppable]
    needed = {upstream.key for other in unfinished for upstream in other.inputs.values()} if own else set()
    for upstream in own:
        if upstream.key not in needed:
            shutil.rmtree(upstream.folder(root), ignore_errors=True)


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
                    with variables(PORTABLE), Local(1) as pool:
                        pool.submit(compute, job, root).result()
                else:
                    compute(job, root)
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"the process of {job.name} died (out of memory?); run the same command again to go on"
                ) from error
            except Exception as error:
                raise RuntimeError(f"{job.name} failed: {error}") from error
            _drop(job, droppable, todo[i + 1 :], root)
            bar.update(job.cost)
