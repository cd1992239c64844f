"""`gracelib`: the commands behind the Makefile. They call the same functions that the notebooks call."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="GRACE: choose the teacher before you train the student.")
ScaleOption = Annotated[str, typer.Option(help="nano, smoke or mini")]


@app.callback()
def _main() -> None:
    """Keeps sub-commands even while there are few."""


@app.command()
def figures(scale: ScaleOption = "mini",
            recompute: Annotated[bool, typer.Option(help="run the pipeline; otherwise redraw from committed tables")] = True,
            save: Annotated[bool, typer.Option(help="write the executed notebooks back into notebooks/")] = False,
            parameter: Annotated[list[str], typer.Option(help="a notebook parameter, NAME=VALUE, such as device=cuda")] = [],
            ) -> None:
    """Run the numbered notebooks: train, score, distil and draw; finished work is reused."""
    from gracelib import notebooks
    from gracelib.scales import get_scale

    try:
        get_scale(scale)
        notebooks.run(scale, recompute, parameters=dict(_split(text) for text in parameter))
        if save:
            notebooks.commit_outputs(scale)
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--parameter {text!r} is not of the form NAME=VALUE")
    return name, value


if __name__ == "__main__":
    app()
