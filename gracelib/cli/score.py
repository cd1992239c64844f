"""`gracelib score`: rank your teachers for your student, from the command line.

Thin: options in, one call of `rank.score_teachers`, its table on stdout, its files where they were asked for.
Registered on the app of `gracelib.cli.app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE_OR_FOLDER...",
            help="one teacher's generations a file (.jsonl, .json, .parquet); a folder stands for the files in it",
        ),
    ],
    student: Annotated[str, typer.Option(help="folder of the student's checkpoint, or hub id")],
    n: Annotated[int, typer.Option("--n", help="prompts, of those that all teachers answered")] = 512,
    m: Annotated[int, typer.Option("--m", help="responses a prompt")] = 4,
    d: Annotated[int, typer.Option("--d", help="numbers that a gradient is projected to; the paper takes d = n")] = 512,
    folds: Annotated[int, typer.Option(help="C: the prompts are dealt into so many folds")] = 10,
    nu: Annotated[float, typer.Option(help="smoothing of the second moment")] = 1e-3,
    params: Annotated[str, typer.Option(help="gradients of: all, last-layer, lora-b")] = "all",
    projection: Annotated[str, typer.Option(help="of the gradients: signs (the paper's), sjlt, two-sided")] = "signs",
    batch_tokens: Annotated[int | None, typer.Option(help="padded tokens in a batch: less memory or less time")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float64")] = "float32",
    seed: Annotated[int, typer.Option(help="of the draw of prompts, the projection and the folds")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    out: Annotated[str, typer.Option(help='the table as CSV; "" writes none')] = "ranking.csv",
    plot: Annotated[str, typer.Option(help='the picture (.svg, .png, .pdf); "" draws none')] = "ranking.svg",
    template: Annotated[
        str,
        typer.Option(
            help=r"what the student reads before a response, with {question}; \n is a "
            "new line. Default: the paper's"
        ),
    ] = "",
    bos: Annotated[bool, typer.Option("--bos/--no-bos", help="begin with the tokenizer's BOS")] = False,
    max_tokens: Annotated[int | None, typer.Option(help="cut longer texts (prompt and response), and say so")] = None,
    work: Annotated[Path | None, typer.Option(help="folder of finished pieces; default runs/score")] = None,
) -> None:
    """Rank teachers for a student by GRACE, from their generations; a run that was stopped goes on where it was."""
    from gracelib.cli.app import _one_line_errors

    with _one_line_errors():
        from gracelib.models.prompting import Policy
        from gracelib.ranking.rank import score_teachers
        from gracelib.ranking.report import check_outputs, save_picture

        table, picture = Path(out) if out else None, Path(plot) if plot else None
        check_outputs(table, picture)
        shown = {"template": template.replace("\\n", "\n")} if template else {}
        ranking = score_teachers(
            student,
            files,
            n=n,
            m=m,
            d=d,
            n_folds=folds,
            nu=nu,
            params=params,
            projection=projection,
            batch_tokens=batch_tokens,
            dtype=dtype,
            seed=seed,
            device=device,
            policy=Policy(bos=bos, max_tokens=max_tokens, **shown),
            work=work,
        )
        print(ranking)
        written = []
        if table:
            written += [table, ranking.save(table)]
        if picture:
            save_picture(ranking.figure(), picture)
            written.append(picture)
        if written:
            print("\nwritten:", ", ".join(map(str, written)))


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(score)
