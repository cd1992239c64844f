"""`gracelib plan`, and what `gracelib figures --scale paper` does: print what the paper's experiment takes, and stop.

A slip of the finger must not start 3,000 GPU hours or download 400 GB, so nothing runs without `--confirm` (CONFIRM=1
of make), and even then only after everything that can be checked beforehand has been.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

SettingsOption = Annotated[
    Path | None,
    typer.Option(
        help="scale paper: a TOML or JSON file with local models, data and other settings (see gracelib/paper/settings.py)"
    ),
]
StudentOption = Annotated[
    list[str], typer.Option(help="scale paper: only this student, such as Llama-3.2-1B (repeatable)")
]
TaskOption = Annotated[list[str], typer.Option(help="scale paper: only GSM8K or MATH (repeatable)")]
TeacherOption = Annotated[list[str], typer.Option(help="scale paper: only this teacher, such as Phi-4 (repeatable)")]
TemperatureOption = Annotated[
    list[float], typer.Option(help="scale paper: only teachers at this temperature (repeatable)")
]
AssumeOption = Annotated[
    list[str], typer.Option(help="scale paper: an assumption of the plan, NAME=VALUE (repeatable)")
]
ConfirmOption = Annotated[bool, typer.Option("--confirm", help="scale paper: run what the plan says")]
DropOption = Annotated[bool, typer.Option("--drop-weights", help="scale paper: remove students once they are measured")]


def plan(
    scale: Annotated[str, typer.Option(help="paper")] = "paper",
    settings: SettingsOption = None,
    student: StudentOption = [],
    task: TaskOption = [],
    teacher: TeacherOption = [],
    temperature: TemperatureOption = [],
    assume: AssumeOption = [],
) -> None:
    """Print what the paper's own experiment takes: cells, tokens, GPU hours, disk, and every assumption behind
    them.
    """
    from gracelib.cli.app import _one_line_errors

    with _one_line_errors():
        if scale != "paper":
            raise ValueError(f"scale {scale!r} runs on a laptop and has no plan; README.md says how long it takes")
        choose(settings, student, task, teacher, temperature)
        print(_planned(assume)[1])


def choose(
    settings: Path | None, student: list[str], task: list[str], teacher: list[str], temperature: list[float]
) -> None:
    """Make these the settings of scale paper, for this process and those it starts."""
    from gracelib.paper import settings as paper_scale

    part = {"student": student, "task": task, "teacher": teacher, "temperature": temperature}
    part = {name: values for name, values in part.items() if values}
    for variable, value in (
        (paper_scale.FILE_VARIABLE, settings and str(settings.absolute())),
        (paper_scale.ONLY_VARIABLE, part and json.dumps(part)),
    ):
        if value:
            os.environ[variable] = value
    paper_scale.paper_scale()  # what is wrong with them is said now


def _planned(assume: list[str]):
    from gracelib.experiment.scales import get_scale
    from gracelib.paper.cost import Assumptions, plan_text

    given = {}
    for text in assume:
        name, _, value = text.partition("=")
        try:
            given[name.strip()] = float(value)
        except ValueError as error:
            raise ValueError(f"--assume {text!r} is not of the form NAME=NUMBER") from error
    assumptions = Assumptions().with_values(given)
    return assumptions, plan_text(get_scale("paper"), assumptions)


def figures(recompute: bool | None, assume: list[str], confirm: bool, drop_weights: bool) -> bool:
    """Scale paper of `gracelib figures`: draw from tables if `recompute` is False, else print the plan, and run if
    confirmed.

    False when it was not confirmed: nothing was done, and the command ends with exit status 2.
    """
    from gracelib.experiment.scales import get_scale

    if recompute is False:
        from gracelib.experiment import paper_run

        for path in paper_run.draw(get_scale("paper")):
            print(path)
        return True
    assumptions, text = _planned(assume)
    print(text)
    if not confirm:
        print(
            "\nNothing was computed. To run this: make figures SCALE=paper CONFIRM=1 (gracelib figures --scale paper "
            '--confirm); restrict it with --student, --task, --teacher, --temperature (make: OPTIONS="...")',
            file=sys.stderr,
        )
        return False
    from gracelib.experiment import paper_run

    for path in paper_run.run(get_scale("paper"), drop_weights=drop_weights, assumptions=assumptions):
        print(path)
    return True


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(plan)
