"""`gracelib`: the commands behind the Makefile. They call the same functions that the notebooks call."""

from __future__ import annotations

import ast
import os
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
            parameter: Annotated[list[str], typer.Option(help="a notebook parameter, NAME=VALUE, such as sigma=0.01")] = [],
            device: Annotated[str, typer.Option(help="where gradients are taken: auto, cpu, cuda")] = "",
            dtype: Annotated[str, typer.Option(help="their precision: float32, float64, bfloat16")] = "") -> None:
    """Run the numbered notebooks: train, score, distil and draw; finished work is reused."""
    from gracelib import notebooks
    from gracelib.scales import get_scale

    try:
        get_scale(scale)
        if save and scale != "mini":
            raise ValueError(f"--save writes the committed notebooks, which show scale mini, not {scale!r}")
        for name, value in (("GRACELIB_DEVICE", device), ("GRACELIB_DTYPE", dtype)):
            if value:
                os.environ[name] = value  # the notebooks' kernels inherit it
        notebooks.run(scale, recompute, parameters=dict(_split(text) for text in parameter))
        if save:
            notebooks.commit_outputs(scale)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as stop:
        print("\nstopped; what was finished is kept: run the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from stop


def _split(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--parameter {text!r} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a word


if __name__ == "__main__":
    app()
