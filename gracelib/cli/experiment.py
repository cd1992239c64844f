"""The commands of the experiment: draw it, train it, say what a run would do and what it takes, and look whether the same
numbers come again.

Thin: options in, one call, lines out. Nothing heavy is imported before its command runs.

SCALE=paper is another matter: a slip of the finger must not start 3,000 GPU hours or download 400 GB. So nothing runs
without `--confirm` (CONFIRM=1 of make), and even then only after everything that can be checked beforehand has been.
"""

import ast
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gracelib.cli.elsewhere import AddressOption, ExecutorOption, set_executor
from gracelib.experiment.scales import get_scale
from gracelib.jobs.store import FROM_SCRATCH
from gracelib.models import checkpoints
from gracelib.paper.figures import figures_named
from gracelib.text.formats import short

ScaleOption = Annotated[str, typer.Option(help="nano, smoke, mini, lab, or paper (prints its plan and stops)")]
WorldOption = Annotated[str, typer.Option("--scale", help="nano, smoke, mini, lab, lab-world1 to 2, mini-seed1 to 8")]
PartOption = Annotated[list[str], typer.Option(help="only this part of the run (may be repeated)")]
DeviceOption = Annotated[str, typer.Option(help="where gradients are taken: auto, cpu, cuda")]
DtypeOption = Annotated[str, typer.Option(help="their precision: float32, float64, bfloat16")]
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
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    confirm: Annotated[bool, typer.Option("--confirm", help="scale paper: run what the plan says")] = False,
    drop_weights: Annotated[
        bool, typer.Option("--drop-weights", help="scale paper: remove students once they are measured")
    ] = False,
    settings: SettingsOption = None,
    student: StudentOption = [],
    task: TaskOption = [],
    teacher: TeacherOption = [],
    temperature: TemperatureOption = [],
    assume: AssumeOption = [],
    executor: ExecutorOption = "",
    address: AddressOption = "",
) -> None:
    """Run the numbered notebooks: train, score, distil and draw; finished work is reused."""
    from gracelib.experiment import run
    from gracelib.jobs import notebooks

    set_executor(executor, address)
    if scale == "paper":
        if fig or save or parameter or device or dtype:
            raise ValueError(
                "scale 'paper' takes --settings, --student, --task, --teacher, --temperature, --assume, --confirm, "
                "--drop-weights, --executor, --address and --no-recompute; the other options belong to the built-in world"
            )
        _choose(settings, student, task, teacher, temperature)
        _figures_of_the_paper(recompute, assume, confirm, drop_weights)
        return
    get_scale(scale)
    if settings or student or task or teacher or temperature or assume or confirm or drop_weights:
        raise ValueError(
            f"scale {scale!r} is the built-in world; --settings, --student, --task, --teacher, --temperature, "
            "--assume, --confirm and --drop-weights belong to scale paper"
        )
    if save and (scale not in SAVED or fig):
        raise ValueError(
            f"--save writes committed notebooks, whole, which show {' or '.join(SAVED)}, not {fig or scale!r}"
        )
    if save and parameter:
        raise ValueError(
            f"--save writes notebooks as their parameters cells say, not with {parameter[0]}: change the cell"
        )
    _set_device(device, dtype)
    names = figures_named(fig) if fig else []
    for path in run.figures(scale, recompute, names, dict(parameter_value(text) for text in parameter)):
        print(path)
    if save:
        trained = scale not in run.REDRAWN if recompute is None else recompute
        notebooks.commit_outputs(scale, trained)
        if trained:
            run.publish_bases(scale)


def recompute(
    scale: ScaleOption = "mini",
    part: PartOption = [],
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    executor: ExecutorOption = "",
    address: AddressOption = "",
) -> None:
    """Train, score, distil and draw everything of a scale, part by part; finished work is reused."""
    from gracelib.experiment import run

    if scale == "paper":
        raise ValueError(
            "scale 'paper' is run by `make figures SCALE=paper CONFIRM=1`, which finishes what is not there"
        )
    set_executor(executor, address)
    _set_device(device, dtype)
    seconds = run.recompute(scale, part)
    print(f"{', '.join([scale, *part])}: finished; this call took {run.in_words(seconds)}")


def plan(
    scale: Annotated[str, typer.Option(help="paper")] = "paper",
    settings: SettingsOption = None,
    student: StudentOption = [],
    task: TaskOption = [],
    teacher: TeacherOption = [],
    temperature: TemperatureOption = [],
    assume: AssumeOption = [],
    executor: ExecutorOption = "",
    address: AddressOption = "",
) -> None:
    """Print what the paper's own experiment takes: cells, tokens, GPU hours, disk, and every assumption behind
    them.
    """
    if scale != "paper":
        raise ValueError(f"scale {scale!r} runs on a laptop and has no plan; README.md says how long it takes")
    set_executor(executor, address)
    _choose(settings, student, task, teacher, temperature)
    print(_planned(assume)[1])


def explain(
    scale: WorldOption = "mini",
    part: PartOption = [],
    each: Annotated[bool, typer.Option("--all", help="list every job with its reason")] = False,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute/--no-recompute",
            help="of the notebooks: a run that trains, or one that redraws from the tables",
        ),
    ] = True,
) -> None:
    """Say for each stage and notebook whether its results are reused or made again, and why; nothing is run."""
    from gracelib.experiment import run
    from gracelib.jobs.explain import report
    from gracelib.jobs.notebooks import NOTEBOOK

    _check_world(scale)
    verdicts = run.explain(scale, part, recompute)
    print(report(verdicts, each))
    of_notebooks = [verdict for verdict in verdicts if verdict.job.stage is NOTEBOOK]
    if of_notebooks and not any(v.why for v in of_notebooks) and any(v.why for v in verdicts):
        print(
            "every notebook is up to date, so `make figures` would run nothing; "
            f"`gracelib recompute --scale {scale} --part ...` makes a part's jobs again"
        )


def verify(
    scale: WorldOption = "lab",
    seed: Annotated[int, typer.Option(help="draws the cells")] = 0,
    cells: Annotated[int, typer.Option(help="how many")] = 3,
) -> None:
    """Compute a sample of cells again, from nothing, and compare with the committed tables; exit status 1: outside."""
    _check_world(scale)
    from gracelib.experiment import verify as of_tables

    os.environ[FROM_SCRATCH] = "1"  # in the workers, too
    table, expected = of_tables.verify(scale, cells, seed)
    verdicts = table["verdict"].value_counts()
    print(table[table["verdict"] != "not compared"].to_string(index=False, float_format=lambda x: f"{x:.6g}"))
    print(f"expected: {expected}")
    print("numbers:", ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    if "OUTSIDE" in verdicts:
        raise typer.Exit(1)


SAVED = ("mini", "lab")  #: the scales that committed notebooks show
IN_A_CLONE = (figures, recompute, explain, verify)
COMMANDS = (*IN_A_CLONE, plan)


def parameter_value(text: str) -> tuple[str, object]:
    """("sigma", 0.01) for "sigma=0.01"; what is no Python literal is a word. ValueError for another form."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--parameter {short(text)} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: brackets thousands deep
        return name, value


def _set_device(device: str, dtype: str) -> None:
    for name, value, check in (("device", device, checkpoints.check_device), ("dtype", dtype, checkpoints.check_dtype)):
        if value:
            check(value, f"--{name}")
            os.environ[f"GRACELIB_{name.upper()}"] = value  # the notebooks' kernels and the worker processes inherit it


def _check_world(scale: str) -> None:
    if scale == "paper":
        raise ValueError("scale 'paper' has a plan of its own: `make plan SCALE=paper` prints it")
    get_scale(scale)


def _choose(
    settings: Path | None, student: list[str], task: list[str], teacher: list[str], temperature: list[float]
) -> None:
    """Make these the settings of scale paper, for this process and those it starts."""
    from gracelib.paper import settings as paper

    only = {"student": student, "task": task, "teacher": teacher, "temperature": temperature}
    only = {name: values for name, values in only.items() if values}
    if settings:
        os.environ[paper.FILE_VARIABLE] = str(settings.absolute())
    if only:
        os.environ[paper.ONLY_VARIABLE] = json.dumps(only)
    paper.paper_scale()  # what is wrong with them is said now


def _planned(assume: list[str]):
    """The assumptions with those given, and the plan under them in words."""
    from gracelib.jobs.running import executor_name, executor_of_run
    from gracelib.paper import cost

    given = {}
    for text in assume:
        name, _, value = text.partition("=")
        try:
            given[name.strip()] = float(value)
        except ValueError as error:
            raise ValueError(f"--assume {text!r} is not of the form NAME=NUMBER") from error
    scale, assumptions = get_scale("paper"), cost.Assumptions().with_values(given)
    text = cost.plan_text(scale, assumptions)
    if executor_name() != "local":
        with executor_of_run(1) as engine:
            text += f"\n\n{engine.hours(cost.plan(scale, assumptions)['gpu_hours'].iloc[-1])}."
    return assumptions, text


def _figures_of_the_paper(recompute: bool | None, assume: list[str], confirm: bool, drop_weights: bool) -> None:
    """Draw from tables if `recompute` is False; else print the plan, and run it if confirmed (exit status 2 if not)."""
    from gracelib.drawing import correlations
    from gracelib.experiment import plan, run, tables
    from gracelib.jobs import notebooks, paths

    scale, written = get_scale("paper"), []
    if recompute is not False:
        assumptions, text = _planned(assume)
        print(text)
        if not confirm:
            print(
                "\nNothing was computed. To run this: make figures SCALE=paper CONFIRM=1 (gracelib figures --scale "
                "paper --confirm); restrict it with --student, --task, --teacher, --temperature (make: "
                'OPTIONS="...")',
                file=sys.stderr,
            )
            raise typer.Exit(2)
        written = run.run_paper(scale, drop_weights=drop_weights, assumptions=assumptions)
    cells = {task.name: tables.cells("paper", task.name) for task in scale.tasks}
    written += correlations.from_cells_alone(scale, cells, plan.compared_at(scale))
    # This notebook needs the cells and nothing else, too.
    notebooks.run("paper", recompute=False, notebooks=[paths.NOTEBOOKS / "06_design_choices.ipynb"])
    for path in written:
        print(path)
