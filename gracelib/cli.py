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
            save: Annotated[bool, typer.Option(help="write the executed notebooks back into notebooks/")] = False) -> None:
    """Run the numbered notebooks: train, score, distil and draw; finished work is reused."""
    from gracelib import notebooks
    from gracelib.scales import get_scale

    try:
        get_scale(scale)
        notebooks.run(scale, recompute)
        if save:
            notebooks.commit_outputs(scale)
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
