"""`gracelib`: the commands behind the Makefile. They call the same functions that the notebooks call.

What a user can mend is one line and exit status 2; a bug keeps its traceback.
"""

import contextlib
import sys
from collections.abc import Iterator

import typer

from gracelib.cli import experiment, teachers
from gracelib.cli.elsewhere import anywhere
from gracelib.jobs import disk, paths

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="GRACE: choose the teacher before you train the student.",
)


@contextlib.contextmanager
def one_line_errors(in_a_clone: bool = False) -> Iterator[None]:
    """Around a command, or as its decorator: errors that a user can mend end it with one line and exit status 2.

    What stdout cannot encode is escaped: no run fails because a name is printed. `in_a_clone`: the command is refused
    elsewhere.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is
    try:
        if in_a_clone:
            paths.check_clone()
        yield
    except typer.Exit:
        raise  # a RuntimeError too, and not an error
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {disk.in_words(error)}", file=sys.stderr)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as stop:
        print("\nstopped; what was finished is kept: run the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from stop


for command in (*experiment.COMMANDS, *map(anywhere, teachers.COMMANDS)):
    app.command()(one_line_errors(command in experiment.IN_A_CLONE)(command))
