"""A command on another machine: `--executor ray` or `slurm` makes it a task there, with the same options and the same
folder, whose output is printed here. Files that it reads and writes must lie where all machines see them.

`score` is a task for each teacher, which takes its gradients, and one more that finds them and ranks.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gracelib.cli.teachers import score
from gracelib.jobs import paths
from gracelib.jobs.cluster import run_command
from gracelib.jobs.running import executor_name, executor_of_run
from gracelib.jobs.store import Needs, digest
from gracelib.jobs.workers import ADDRESS, EXECUTOR

ExecutorOption = Annotated[
    str, typer.Option(help="where it runs: local; ray, slurm: other machines (notebooks/more_than_one_machine.md)")
]
AddressOption = Annotated[
    str, typer.Option(help="of Ray: host:port, auto, nothing (this machine); of Slurm: a partition, local, debug")
]
CpusOption = Annotated[int | None, typer.Option(help="of a task elsewhere; default: 4 for each GPU, else 1", min=1)]
GpusOption = Annotated[int | None, typer.Option(help="of a task elsewhere; default: as the other options say", min=0)]


def set_executor(executor: str, address: str, *needs: int | None) -> bool:
    """Make this the executor of this process and those it starts; whether it is that of other machines. ValueError where it
    is not, and what only other machines take is given."""
    for name, value in ((EXECUTOR, executor), (ADDRESS, address)):
        if value:
            os.environ[name] = value
    elsewhere = executor_name() != "local"
    if not elsewhere and (address or any(need is not None for need in needs)):
        raise ValueError(
            "--address, --cpus and --gpus are of other machines: choose --executor ray or slurm, or leave them out"
        )
    return elsewhere


def anywhere(command: Callable) -> Callable:
    """The command with options that say where it runs."""

    def added(
        executor: ExecutorOption = "", address: AddressOption = "", cpus: CpusOption = None, gpus: GpusOption = None
    ):
        """Their declaration."""

    @functools.wraps(command)
    def run(executor="", address="", cpus=None, gpus=None, **options):
        if not set_executor(executor, address, cpus, gpus):
            return command(**options)
        usual = 0 if options.get("device") == "cpu" else options.get("tensor_parallel_size", 1)
        n_gpus = usual if gpus is None else gpus
        return _elsewhere(command, options, Needs(cpus or max(1, 4 * n_gpus), n_gpus))

    parameters = [one for own in (command, added) for one in inspect.signature(own).parameters.values()]
    run.__signature__ = inspect.Signature(parameters)
    return run


def _elsewhere(command: Callable, options: dict, needs: Needs) -> None:
    root, name = paths.runs().absolute(), command.__name__
    with executor_of_run(1) as engine:
        engine.check_machines(root)
        engine.check_fits(needs, name)

        def finish(parts: list[dict]) -> str:
            calls = []
            for part in parts:
                log = root / "commands" / f"{name}-{digest(repr(sorted(part.items())))}.log"
                print(f"{name} {part.get('gradients_of', '')}: {log}", file=sys.stderr)
                calls.append((run_command, (command, part, Path.cwd(), log.with_suffix(".out")), needs, name, log))
            for future in engine.calls(calls):
                future.result()
            return calls[-1][1][-1].read_text("utf-8")

        if command is score and not options["plan"] and not options["until_clear"]:  # whose rounds depend on each other
            from gracelib.text.responses import read_requests
            from gracelib.text.selection import read_teachers

            how = {"thinking": options["thinking"], "drop_text": options["drop_text"]}
            teachers = read_teachers(options["files"], requests=read_requests(options["requests"]), **how)
            finish([options | {"gradients_of": teacher.name} for teacher in teachers])
        print(finish([options]), end="")
