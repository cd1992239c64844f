"""`gracelib explain` and `gracelib verify`: what a run would do and why, and whether it would find the same again.

Thin: options in, one call, lines out. Registered on the app of `gracelib.cli.app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScaleOption = Annotated[str, typer.Option(help="nano, smoke, mini, lab, lab-world1, lab-world2")]


def _world(scale: str):
    from gracelib.experiment.scales import get_scale

    if scale == "paper":
        raise ValueError("scale 'paper' has a plan of its own: `make plan SCALE=paper` prints it")
    return get_scale(scale)


def explain(
    scale: ScaleOption = "mini",
    part: Annotated[list[str], typer.Option(help="only this part of the run (may be repeated)")] = [],
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
    from gracelib.cli.app import _one_line_errors

    with _one_line_errors():
        _world(scale)
        _explain(scale, part, each, recompute)


def _explain(scale: str, part: list[str], each: bool, recompute: bool) -> None:
    from gracelib.experiment import run
    from gracelib.experiment.scales import TABLES_ONLY
    from gracelib.jobs import explain as module

    verdicts = run.explain(scale, part)
    print(module.report(verdicts, each))
    if part or scale in TABLES_ONLY:
        return
    found = module.explain_notebooks(scale, recompute)
    print()
    for name, reasons in found:
        print(f"{name:<24} {'runs: ' + '; '.join(reasons) if reasons else 'up to date'}")
    if not any(reasons for _, reasons in found) and any(v.fate == "rerun" for v in verdicts):
        print(
            "every notebook is up to date, so `make figures` would run nothing; "
            f"`gracelib recompute --scale {scale} --part ...` makes a part's jobs again"
        )


def verify(
    scale: ScaleOption = "lab",
    seed: Annotated[int, typer.Option(help="draws the cells")] = 0,
    cells: Annotated[int, typer.Option(help="how many")] = 3,
    machine: Annotated[str, typer.Option(help="auto; same: equal bits; other: within tolerances")] = "auto",
    runs: Annotated[
        Path | None,
        typer.Option(
            help="another machine's runs folder: compare the features of its "
            "checkpoints and responses, instead of the tables"
        ),
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="write figures/SCALE/verify.csv, .json")] = False,
    given: Annotated[
        bool,
        typer.Option("--given", help="the cell of figures/SCALE/given, from its committed checkpoints and responses"),
    ] = False,
    pack: Annotated[
        str | None,
        typer.Option(
            metavar="CELL", help="write figures/SCALE/given from a finished run: TASK,STUDENT,TEACHER,TEMPERATURE"
        ),
    ] = None,
) -> None:
    """Compute a sample of cells again, from nothing, and compare with the committed tables; exit status 1: outside."""
    from gracelib.cli.app import _one_line_errors

    with _one_line_errors():
        _world(scale)
        from gracelib.experiment import verify as of_tables

        if bool(runs) + given + bool(pack) > 1 or (runs and machine != "auto") or (record and (runs or given or pack)):
            raise ValueError(
                "--runs, --given and --pack stand alone; --record belongs to none of them, --machine not to --runs"
            )
        if machine not in ("auto", "same", "other"):
            raise ValueError(f"--machine {machine!r} is not known; choose auto, same or other")
        if pack:
            print(_pack(scale, pack))
            return
        if given or runs:
            from gracelib.experiment import given as of_given

            report = of_given.committed_cell(scale, machine) if given else of_given.against(scale, runs, cells, seed)
        else:
            report = of_tables.verify(scale, cells, seed, machine)
        written = of_tables.record(scale, seed, report) if record else []
    table, verdicts = report.table, report.table["verdict"].value_counts()
    print(table[table["verdict"] != "not compared"].to_string(index=False, float_format=lambda x: f"{x:.6g}"))
    print(f"expected: {report.expected} ({report.because})")
    print("numbers:", ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    for path in written:
        print(path)
    if report.outside:
        raise typer.Exit(1)


def _pack(scale: str, cell: str) -> Path:
    from gracelib.experiment.given import pack

    try:
        task, student, teacher, temperature = cell.split(",")
        parsed = task, student, teacher, float(temperature)
    except ValueError as error:
        raise ValueError(
            f"--pack {cell!r}: write TASK,STUDENT,TEACHER,TEMPERATURE, as short,first,terse-64,0.6"
        ) from error
    return pack(scale, parsed)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(explain)
    app.command()(verify)
