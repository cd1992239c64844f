"""`gracelib`: the commands behind the Makefile. They call the same functions that the notebooks call.

What a user can mend is one line and exit status 2; a bug keeps its traceback.
"""

import contextlib
import sys
from collections.abc import Iterator

import typer

from gracelib.cli import experiment, teachers
from gracelib.jobs import disk

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="GRACE: choose the teacher before you train the student.",
)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command, or as its decorator: errors that a user can mend end it with one line and exit status 2."""
    try:
        yield
    except typer.Exit:
        raise  # a RuntimeError too, and not an error
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {disk.in_words(error)}", file=sys.stderr)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as stop:
        print("\nstopped; what was finished is kept: run the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from stop


for command in (*experiment.COMMANDS, *teachers.COMMANDS):
    app.command()(one_line_errors()(command))
