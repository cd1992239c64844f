"""Stages small enough to test the store and the workers with. In a module of their own, so that spawned
workers can import them (pytest puts this folder on sys.path, and a spawned process inherits it).

Every stage appends a line to params["log"] when it runs; params["fault"] names a file whose presence makes it
fail in the way written in that file, so that the same job (same key) can fail first and succeed later.
"""

import os
import signal
import time
from pathlib import Path

from gracelib.jobs.store import Job, Stage
from nano_for_tests import wait_until


def note(path: str, text: str) -> None:
    """Append one line in a single write: lines of two processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def add(out: Path, params: dict, inputs: dict) -> None:
    """value.txt = params["value"] plus the values of all inputs."""
    note(params["log"], f"{params['value']} {os.getpid()}")
    fault = Path(params.get("fault") or "nowhere")
    if fault.is_file():
        (out / "value.txt").write_text("half")
        kind = fault.read_text()
        if kind == "raise":
            raise ValueError("the arithmetic went on strike")
        if kind == "exit":
            os._exit(3)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(60)
    time.sleep(params.get("sleep", 0))
    print("a stage that prints")  # a result on stdout is not the business of a stage
    total = params["value"] + sum(int((folder / "value.txt").read_text()) for folder in inputs.values())
    (out / "value.txt").write_text(str(total))


def hold(out: Path, params: dict, inputs: dict) -> None:
    """Sleep where it was put, once params["at_once"] have begun and the file params["go"] is there. Notes in params["log"] what
    it held: value, machine (of a Ray on one host), GPUs, begin, end; beside it, in .begun, value, machine, process, and
    whether its result was there already."""
    begin, machine = time.time(), os.environ.get("RAY_RAYLET_PID")
    note(f"{params['log']}.begun", f"{params['value']} {machine} {os.getpid()} {out.with_suffix('').exists()}")
    wait_until(lambda: len(begun(params["log"])) >= params.get("at_once", 0) and Path(params.get("go", "/")).exists())
    time.sleep(params["sleep"])
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or "-"
    note(params["log"], f"{params['value']} {machine} {gpus} {begin} {time.time()}")
    (out / "value.txt").write_text(str(params["value"]))


ADD = Stage("add", add)
HOLD = Stage("hold", hold)
OTHER = Stage("other", add)


def begun(log) -> list[list[str]]:
    """What HOLD notes of every cell, in the order in which they began."""
    path = Path(f"{log}.begun")
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def ran(log) -> list[int]:
    """The values of the stages that ran, in their order."""
    return [int(line.split()[0]) for line in Path(log).read_text().splitlines()] if Path(log).exists() else []


def job(log, value=7, inputs=None, stage=ADD, **params) -> Job:
    return Job(stage, {"value": value, "log": str(log), **params}, inputs or {}, label=f"job {value}", cost=value)


def greet(word: str = "nobody", device: str = "auto") -> None:
    """A command of a command line."""
    if word == "nobody":
        raise ValueError("nobody is there to be greeted")
    print(f"{word} in {Path.cwd().name}")
