"""`gracelib`: the commands behind the Makefile. They call the same functions that the notebooks call."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gracelib.cli import cells, distill, paper_scale, score, truth
from gracelib.jobs import disk
from gracelib.text.rows import short

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="GRACE: choose the teacher before you train the student.",
)
ScaleOption = Annotated[str, typer.Option(help="nano, smoke, mini, lab, or paper (prints its plan and stops)")]


@app.callback()
def _main() -> None:
    """Keeps sub-commands even while there are few."""


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a user can mend is one line and exit status 2; a bug keeps its traceback."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {disk.in_words(error)}", file=sys.stderr)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as stop:
        print("\nstopped; what was finished is kept: run the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from stop


@app.command()
def figures(
    scale: ScaleOption = "mini",
    fig: Annotated[str, typer.Option(help="only these, comma-separated: 19, table01, main, ...")] = "",
    recompute: Annotated[
        bool | None,
        typer.Option(
            "--recompute/--no-recompute",
            help="train what is not there; otherwise redraw from the result tables, "
            "which is the default at lab and with --fig",
        ),
    ] = None,
    save: Annotated[bool, typer.Option(help="write the executed notebooks back into notebooks/")] = False,
    parameter: Annotated[list[str], typer.Option(help="a notebook parameter, NAME=VALUE, such as sigma=0.01")] = [],
    device: Annotated[str, typer.Option(help="where gradients are taken: auto, cpu, cuda")] = "",
    dtype: Annotated[str, typer.Option(help="their precision: float32, float64, bfloat16")] = "",
    confirm: paper_scale.ConfirmOption = False,
    drop_weights: paper_scale.DropOption = False,
    settings: paper_scale.SettingsOption = None,
    student: paper_scale.StudentOption = [],
    task: paper_scale.TaskOption = [],
    teacher: paper_scale.TeacherOption = [],
    temperature: paper_scale.TemperatureOption = [],
    assume: paper_scale.AssumeOption = [],
) -> None:
    """Run the numbered notebooks: train, score, distil and draw; finished work is reused."""
    if scale == "paper":
        with _one_line_errors():
            if fig or save or parameter or device or dtype:
                raise ValueError(
                    "scale 'paper' takes --settings, --student, --task, --teacher, --temperature, "
                    "--assume, --confirm, --drop-weights and --no-recompute; the other options belong to "
                    "the built-in world"
                )
            paper_scale.choose(settings, student, task, teacher, temperature)
            done = paper_scale.figures(recompute, assume, confirm, drop_weights)
        if not done:
            raise typer.Exit(2)
        return
    from gracelib.experiment import run
    from gracelib.experiment.scales import get_scale
    from gracelib.jobs import notebook_checks

    with _one_line_errors():
        get_scale(scale)
        if settings or student or task or teacher or temperature or assume or confirm or drop_weights:
            raise ValueError(
                f"scale {scale!r} is the built-in world; --settings, --student, --task, --teacher, "
                "--temperature, --assume, --confirm and --drop-weights belong to scale paper"
            )
        if save and (scale != "mini" or fig):
            raise ValueError(
                f"--save writes the committed notebooks, all of them, which show scale mini, not {fig or scale!r}"
            )
        if save and parameter:
            raise ValueError(
                f"--save writes notebooks as their parameters cells say, not with {parameter[0]}: change the cell"
            )
        _set_device(device, dtype)
        names = run.figures_named(fig) if fig else []
        for path in run.figures(scale, recompute, names, dict(_split(text) for text in parameter)):
            print(path)
        if save:
            notebook_checks.commit_outputs(scale)


@app.command()
def recompute(
    scale: ScaleOption = "mini",
    part: Annotated[list[str], typer.Option(help="only this part of the run (may be repeated)")] = [],
    device: Annotated[str, typer.Option(help="where gradients are taken: auto, cpu, cuda")] = "",
    dtype: Annotated[str, typer.Option(help="their precision: float32, float64, bfloat16")] = "",
) -> None:
    """Train, score, distil and draw everything of a scale, part by part; finished work is reused."""
    from gracelib.experiment import run

    with _one_line_errors():
        if scale == "paper":
            raise ValueError(
                "scale 'paper' is run by `make figures SCALE=paper CONFIRM=1`, which finishes what is not there"
            )
        _set_device(device, dtype)
        seconds = run.recompute(scale, part)
        print(f"{', '.join([scale, *part])}: finished; this call took {run.in_words(seconds)}")


@app.command()
def gallery(
    scale: ScaleOption = "mini",
    out: Annotated[Path | None, typer.Option(help="the page; default build/gallery-SCALE.html")] = None,
) -> None:
    """Write one self-contained HTML page with every figure of a scale."""
    from gracelib.drawing import gallery as page
    from gracelib.experiment.scales import get_scale

    with _one_line_errors():
        print(page.write(get_scale(scale), out))


def _set_device(device: str, dtype: str) -> None:
    from gracelib.models import checkpoints

    if device:
        checkpoints.check_device(device, "--device")
    if dtype:
        checkpoints.check_dtype(dtype, "--dtype")
    for name, value in (("GRACELIB_DEVICE", device), ("GRACELIB_DTYPE", dtype)):
        if value:
            os.environ[name] = value  # the notebooks' kernels and the worker processes inherit it


def _split(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--parameter {short(text)} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: brackets thousands deep
        return name, value  # a word


score.register(app)
cells.register(app)
distill.register(app)
paper_scale.register(app)
truth.register(app)
