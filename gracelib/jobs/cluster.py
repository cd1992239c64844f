"""Jobs on more than one machine: by Ray (tasks) or Slurm (job arrays, through submitit), imported only when asked for.

A home-made scheduler would be no answer, so the engine decides where a job runs, keeps two from one GPU and begins again
elsewhere what a dead machine was at. Here is the rest. Results go the way they always do, as finished folders below one
root (the store) that all machines must see, never through the engine: its locks keep two runs apart, and the same command
resumes. In a task a process of its own computes, with the variables that make the same bits everywhere; it prints into a
log beside the result. One for small models goes on to the next task and has torch loaded; one with a GPU ends, which
alone gives its memory back, and the next is forked off one that waits with no more than our own imports.

Ray waits for ever, in silence, for a job that fits on no machine, and a machine with other packages makes other results.
So all is looked at before any work: every machine has the same versions and code, sees the store and its locks, and
some machine is large enough for each job.
"""

import contextlib
import logging
import math
import os
import shutil
import signal
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from gracelib.jobs.arithmetic import PORTABLE, arithmetic
from gracelib.jobs.paths import runs
from gracelib.jobs.store import META, Job, Needs, digest, file_hash, package_files, versions, write_atomically
from gracelib.jobs.workers import (
    BETWEEN_LOOKS,
    EXECUTOR,
    WORKER_VARIABLES,
    ForkServer,
    Local,
    compute_job,
    n_workers,
    variables,
)

_STORE = ".store"  #: a file at the root of the results with a name that no other root has
_LAG = 60.0  # seconds that a network's file system may take to show what another machine wrote
_LAST_LINES = 8  # of a log
_DEATHS = 3  # of machines that a job survives
_MOST_WAITERS = 4096  # threads, each of which waits for a job
_GIB = 1 << 30
_REMEDIES = {
    "store": "mount the same folder there, or set GRACELIB_RUNS to one that all machines see",
    "code": "take the same commit there",
    "arithmetic": "leave that kind of processor out: its results have other last bits",
}


# --- on a machine that computes ---------------------------------------------------------------------------------


@cache
def _installed() -> dict[str, str]:
    code = digest({name: file_hash(path) for name, path in package_files().items()})
    return versions() | {"code": code, "arithmetic": arithmetic()}


def traits(root: Path) -> dict[str, str]:
    """What must be the same on every machine: packages, gracelib's code, arithmetic, and the store that it sees."""
    try:
        store = f"{root} ({(root / _STORE).read_text('utf-8')})"
    except OSError:
        store = f"not at {root}"
    return {"store": store} | _installed()


def difference(here: dict[str, str], there: dict[str, str]) -> str:
    """The first trait in which a machine differs, with what to do; "" if none does."""
    for name, expected in here.items():
        if (found := there.get(name)) != expected:
            remedy = _REMEDIES.get(name, f"install {name} {expected} there")
            return f"{name} is {found} there and {expected} here; {remedy}"
    return ""


def probe(root: Path, machine: str) -> dict[str, str]:
    """`traits` as a machine has them; it leaves a file for the others, and looks for a lock that they hold."""
    found = traits(root)
    if (root / _STORE).is_file():
        with contextlib.suppress(OSError, Timeout):
            (root / f"{_STORE}-{machine}").touch()
            with FileLock(root / f"{_STORE}.lock").acquire(timeout=0):
                found["store"] = f"{root} without the locks of others (NFS: version 4; Lustre: -o flock)"
    return found


def on_machine(
    function: Callable,
    arguments: tuple,
    log: Path,
    root: Path,
    expected: dict[str, str],
    changed: dict[str, str],
    needs: Needs,
) -> str:
    """Call a function in a process of its own that prints into `log`; what went wrong, in words.

    changed: environment variables. A process of one CPU is kept for the next call and has loaded torch by then.
    """
    _wait_for(root / _STORE)
    if said := difference(expected, traits(root)):
        return f"machine {socket.gethostname()}: {said}"
    keep = needs.cpus <= 1 and not needs.gpus
    with variables(changed):
        pool = _kept.pop() if keep and _kept else Local(1, context=_server() if needs.gpus else None)
        group = pool.submit(_begin, dict(os.environ)).result()
    try:
        pool.submit(_call, function, arguments, log).result()
        if keep:
            _kept.append(pool)
        return ""
    except BrokenProcessPool:
        said = "its process died (out of memory?)"
    except Exception as error:
        said = str(error)
    finally:
        if pool not in _kept:
            pool.shutdown()
            with contextlib.suppress(ProcessLookupError):  # whatever it has left behind holds a GPU, too
                os.killpg(group, signal.SIGKILL)
    lines = log.read_text("utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    return "\n    ".join([f"{said}\n  on {socket.gethostname()}; the end of {log}:", *lines])


_kept: list[Local] = []  #: the process that this one of the engine's has waiting


@cache
def _server() -> ForkServer:
    server = ForkServer()
    server.set_forkserver_preload([__name__, "numpy", "psutil"])
    return server


def _begin(environment: dict[str, str]) -> int:
    os.environ.clear()
    os.environ.update(environment)
    os.setpgrp()
    return os.getpid()


def _call(function: Callable, arguments: tuple, log: Path) -> None:
    with open(log, "ab", buffering=0) as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        function(*arguments)
    except Exception:
        traceback.print_exc()
        raise


def compute_seen(job: Job, root: Path) -> None:
    """`compute_job` once what other machines made for it is seen here."""
    for upstream in job.inputs.values():
        _wait_for(upstream.folder(root) / META)
    compute_job(job, root)


def run_command(command: Callable, options: dict, place: Path, out: Path) -> None:
    """A command of the command line in the folder `place`; what it prints, but for progress, goes to the file `out`."""
    os.chdir(place)
    with open(out, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        command(**options)


def _wait_for(path: Path) -> None:
    end = time.monotonic() + _LAG
    while not path.is_file() and path.parents[1].is_dir() and time.monotonic() < end:
        time.sleep(0.5)


# --- on the machine that asks -----------------------------------------------------------------------------------


class Engine:
    """An executor of other machines: `submit` (an engine's own) hands a call to one of them."""

    patient = True
    room = sys.maxsize  #: all that can run is handed out: the engine queues it, and may ask for more machines
    root, expected = Path(), {}  #: the store, and `traits` that every machine must have
    since, looked, seen = 0.0, -math.inf, ""  #: when the run began, of `state` when and what

    def check(self, jobs: Iterable[Job], root: Path) -> None:
        """ValueError naming the machine or the job that cannot work, and what to do."""
        self.check_machines(root.absolute())
        for needs, name in {job.needs: job.name for job in jobs}.items():
            self.check_fits(needs, name)

    def check_machines(self, root: Path) -> None:
        """Make `root` the store. Whether the machines agree is said by each job, where an engine has no list of them."""
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{_STORE}.lock"):
            if not (root / _STORE).is_file():
                write_atomically(root / _STORE, lambda part: part.write_text(uuid.uuid4().hex[:8], "utf-8"))
            os.utime(root / _STORE)  # now, by the clock of the store
        self.root, self.expected = root, traits(root)
        self.since = self.since or (root / _STORE).stat().st_mtime

    def check_fits(self, needs: Needs, name: str) -> None:
        """ValueError if no machine is large enough, as far as that can be known."""

    def start(self, jobs: list[Job], root: Path) -> Iterator[tuple[Job, Future]]:
        root = root.absolute()
        calls = [(compute_seen, (job, root), job.needs, job.name, job.log(root)) for job in jobs]
        yield from zip(jobs, self.calls(calls), strict=True)

    def calls(self, calls: list[tuple]) -> list[Future]:
        """A future for each (function, arguments, needs, name, log); its exception says what went wrong."""
        found = []
        for function, arguments, needs, name, log in calls:
            log.parent.mkdir(parents=True, exist_ok=True)
            n_cpus = str(max(1, int(needs.cpus)))
            changed = {name: value for name, value in os.environ.items() if name.startswith("GRACELIB_")}
            changed |= {
                EXECUTOR: "local",
                "GRACELIB_WORKERS": n_cpus,
                "GRACELIB_RUNS": str(runs().absolute()),
            } | PORTABLE
            if not needs.gpus:
                threads = {variable: n_cpus for variable in WORKER_VARIABLES if variable.endswith("_NUM_THREADS")}
                changed |= WORKER_VARIABLES | threads | {"CUDA_VISIBLE_DEVICES": ""}
            found.append(((function, arguments, log, self.root, self.expected, changed, needs), needs, name))
        return [_in_words(future) for future in self.submit(found)]

    def hours(self, gpu_hours: float) -> str:
        """What a plan says of it; GPUs, where it is known how many there are."""
        return "The engine decides how many cells run at once"

    def close(self) -> None:
        """Nothing more will be handed out."""

    def state(self, running: Iterable[Job], n_waiting: int, n_failed: int, root: Path) -> str:
        """What has begun is known by its log."""
        logs = [job.log(root) for job in running]
        if not logs or time.monotonic() > self.looked + BETWEEN_LOOKS:
            begun = sum(log.is_file() and log.stat().st_mtime >= self.since for log in logs)
            self.looked = time.monotonic()
            self.seen = f", {begun} running, {len(logs) - begun + n_waiting} waiting, {n_failed} failed"
        return self.seen


def _in_words(theirs: Future) -> Future:
    """A future without the engine's traceback."""
    ours = Future()

    def settle(theirs: Future) -> None:
        error = theirs.exception()
        if said := str(error) if error else theirs.result():
            ours.set_exception(RuntimeError(said))
        else:
            ours.set_result(None)

    theirs.add_done_callback(settle)
    return ours


class Ray(Engine):
    """A task for each job, on a cluster at `address` (host:port, ray://host:port, auto; "": RAY_ADDRESS, or this machine).
    A task with several GPUs has them in one machine."""

    def __init__(self, address: str):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        if not ray.is_initialized():
            try:
                context = ray.init(address or None, log_to_driver=False, logging_level="warning")
            except (ConnectionError, ValueError, RuntimeError) as error:
                said = f"no Ray cluster answers at {address or 'this machine'} ({str(error).splitlines()[0]})"
                raise ValueError(f"{said}; start one with `ray start --head`, and give its address") from error
            if context.dashboard_url:
                print(f"Ray's dashboard: http://{context.dashboard_url}", file=sys.stderr)
        self.ray, self.task, self.probed = ray, ray.remote(on_machine), set()

    def machines(self) -> dict[str, dict]:
        """Name -> what it has, of those that can take a job."""
        return {
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})": node
            for node in self.ray.nodes()
            if node["Alive"] and {"CPU", "GPU"} & set(node["Resources"])
        }

    def check_machines(self, root: Path) -> None:
        super().check_machines(root)
        new = {name: node["NodeID"] for name, node in self.machines().items() if node["NodeID"] not in self.probed}
        pinned = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        ask = self.ray.remote(probe)
        with FileLock(root / f"{_STORE}.lock"):
            asked = {
                name: ask.options(num_cpus=0, scheduling_strategy=pinned(one, soft=False)).remote(root, one)
                for name, one in new.items()
            }
            for name, answer in asked.items():
                try:
                    said = difference(self.expected, self.ray.get(answer))
                except self.ray.exceptions.RayError as error:
                    last = str(error).strip().splitlines()[-1]
                    said = f"it does not answer ({last}); install gracelib there as here"
                if said:
                    raise ValueError(f"machine {name}: {said}")
                left = root / f"{_STORE}-{new[name]}"
                _wait_for(left)
                if not left.is_file():
                    raise ValueError(
                        f"machine {name}: what it writes into {root} is not seen here; {_REMEDIES['store']}"
                    )
                left.unlink()
        self.probed |= set(new.values())

    def check_fits(self, needs: Needs, name: str) -> None:
        asked = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory_gb * _GIB}
        there = {machine: node["Resources"] for machine, node in self.machines().items()}
        if any(all(has.get(kind, 0) >= size for kind, size in asked.items()) for has in there.values()):
            return
        largest = max(there, key=lambda machine: [there[machine].get(kind, 0) for kind in ("GPU", "CPU", "memory")])
        has = there[largest]
        raise ValueError(
            f"{name} needs {needs.cpus:g} CPUs, {needs.gpus:g} GPUs and {needs.memory_gb:g} GiB of memory, and no machine has "
            f"them: the largest, {largest}, has {has.get('CPU', 0):g}, {has.get('GPU', 0):g} and "
            f"{has.get('memory', 0) / _GIB:.0f}; add a larger one, or ask for less (--cpus, --gpus; [needs] of --settings)"
        )

    def submit(self, calls: list[tuple]) -> list[Future]:
        return [
            self.task.options(
                num_cpus=needs.cpus,
                num_gpus=needs.gpus,
                memory=int(needs.memory_gb * _GIB) or None,
                max_retries=_DEATHS,
                name=name,
            )
            .remote(*call)
            .future()
            for call, needs, name in calls
        ]

    def hours(self, gpu_hours: float) -> str:
        has = self.ray.cluster_resources()
        n_gpus = has.get("GPU", 0)
        said = f"The cluster has {n_gpus:g} GPUs and {has.get('CPU', 0):g} CPUs in {len(self.machines())} machine(s)"
        return f"{said}: about {gpu_hours / n_gpus:,.0f} hours, {n_gpus:g} cells of one GPU at once" if n_gpus else said


class Slurm(Engine):
    """A job array for each kind of need. `address`: the partition ("": Slurm's default), or `local` or `debug`, which run
    the same without a Slurm, for tests (they share out no GPUs). What a site asks for besides, Slurm's own variables say,
    such as SBATCH_ACCOUNT and SBATCH_TIMELIMIT (a day, if it is not set)."""

    def __init__(self, address: str):
        import submitit

        logging.getLogger("submitit").setLevel(logging.ERROR)  # a site without accounting: a warning for each look
        self.kind = address if address in ("local", "debug") else "slurm"
        if self.kind == "slurm" and not shutil.which("sbatch"):
            raise ValueError("there is no `sbatch` here: run this where Slurm's commands are")
        self.submitit, self.address, self.handed_out = submitit, address, []
        self.room = Engine.room if self.kind == "slurm" else n_workers() + 1
        self.waiters = ThreadPoolExecutor(1 if self.kind == "debug" else _MOST_WAITERS)

    def submit(self, calls: list[tuple]) -> list[Future]:
        found = {}
        for needs in dict.fromkeys(needs for _, needs, _ in calls):
            arrays = self.submitit.AutoExecutor(runs() / "slurm", self.kind)
            arrays.update_parameters(
                name="gracelib",
                timeout_min=24 * 60,
                cpus_per_task=math.ceil(needs.cpus),
                gpus_per_node=math.ceil(needs.gpus) or None,
                mem_gb=needs.memory_gb or None,
                slurm_partition=self.address or None,
            )
            own = [i for i, call in enumerate(calls) if call[1] == needs]
            with arrays.batch():
                jobs = [arrays.submit(on_machine, *calls[i][0]) for i in own]
            found |= zip(own, jobs, strict=True)
        self.handed_out += found.values()
        return [self.waiters.submit(found[i].result) for i in range(len(calls))]

    def close(self) -> None:
        """Take back what has not ended: nobody waits for it any more."""
        for job in self.handed_out:
            if not job.done():
                job.cancel()
        self.waiters.shutdown(wait=False, cancel_futures=True)


def opened(name: str, address: str) -> contextlib.AbstractContextManager[Engine]:
    """The executor of that name, "ray" or "slurm". ValueError for one that is not installed, or does not answer."""
    try:
        return contextlib.closing({"ray": Ray, "slurm": Slurm}[name](address))
    except ImportError as error:
        raise ValueError(
            f"--executor {name} needs a package that is not installed here ({error}): pip install 'gracelib[{name}]', in "
            f"a clone: .venv/bin/pip install --constraint constraints.txt --editable '.[{name}]'"
        ) from error
