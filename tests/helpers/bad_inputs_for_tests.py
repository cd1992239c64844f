"""How a bad input is put before the commands: a row of `bad_input_rows` in, the one error it gives out.

Every row runs in an empty folder in which `student` is a whole small checkpoint, `prompts.jsonl` and `teacher.jsonl`
are good files, and the bad one lies under its own name; so messages name places that are the same everywhere.
Run as a program it writes tests/bad_inputs/README.md: what is wrong, and the error's text.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import typer
from typer.testing import CliRunner

from gracelib.jobs.paths import ROOT

BAD = Path(__file__).parents[1] / "bad_inputs"
README = BAD / "README.md"
PROMPTS = [
    {"id": "a", "question": "What is 1 + 1?", "answer": "2"},
    {"id": "b", "question": "What is 2 + 3?", "answer": "5"},
    {"id": "c", "question": "What is 3 + 4?", "answer": "7"},
]
BEGIN, END = "<!-- generated:begin -->", "<!-- generated:end -->"
#: What a user may have set that would change a message.
OWN = (
    "GRACELIB_RUNS",
    "GRACELIB_FIGURES",
    "GRACELIB_WORKERS",
    "GRACELIB_DEVICE",
    "GRACELIB_DTYPE",
    "GRACELIB_PAPER",
    "GRACELIB_PAPER_ONLY",
    "GRACELIB_ACCELERATE",
)


@dataclass(frozen=True)
class Bad:
    """A bad input. `name` says what must happen; `wrong` what is wrong with it; `run` the arguments of `gracelib`, in
    which {bad} stands for its file, or a function; `says` what the error must contain: place, value, remedy.
    `prepare` makes what no file in the repository can be (a checkpoint, a notebook, a line of a megabyte)."""

    name: str
    wrong: str
    run: list[str] | Callable[[Path], object]
    says: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None

    @property
    def kind(self) -> str:
        return self.name.partition("__")[0]

    @property
    def file(self) -> Path | None:
        found = sorted((BAD / self.kind).glob(f"{self.name.partition('__')[2]}.*"))
        return found[0] if found else None


def furnish(where: Path, student: Path, bad: Bad) -> list[str]:
    """The folder that a row runs in; the command."""
    rows = [{**row, "responses": [f"It is {row['answer']}.", row["answer"]]} for row in PROMPTS]
    for name, content in (("prompts", PROMPTS), ("teacher", rows)):
        (where / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
    shutil.copytree(student, where / "student")
    if bad.file:
        shutil.copy(bad.file, where)
    if bad.prepare:
        bad.prepare(where)
    if callable(bad.run):
        return []
    return [word.replace("{bad}", bad.file.name if bad.file else "") for word in bad.run]


def error_of(bad: Bad, arguments: list[str], where: Path) -> tuple[int, str, str, BaseException | None]:
    """(exit status, standard output, standard error, what was raised) of the command in the folder, in this process."""
    from gracelib.cli.app import app, one_line_errors

    if callable(bad.run):
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command()
        @one_line_errors()
        def function() -> None:
            bad.run(where)

    # A terminal of one width, without colours: usage errors are drawn into it.
    env = (
        dict.fromkeys(OWN)
        | {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
        | {"GRACELIB_RUNS": str(where / "runs"), "GRACELIB_FIGURES": str(where / "figures")}
        | bad.env
    )
    result = CliRunner().invoke(app, arguments, env=env)
    return result.exit_code, result.stdout, result.stderr, result.exception


def told(stderr: str, where: Path) -> str:
    """The error as a table shows it: one line, the folder and the clone left out, a usage error without its frame."""
    text = stderr.replace(f"{where}/", "").replace(str(where), ".").replace(f"{ROOT}/", "")
    said = [one for one in text.splitlines() if one.startswith("error: ")]
    if said:
        assert len(said) == 1 and text.rstrip().endswith(said[0]), text  # one error, and it comes last
        return " ".join(said[0].removeprefix("error: ").split())
    box = re.search(r"[╭+][─-]+ Error [─-]+[╮+]\n(.*?)\n[╰+][─-]", text, re.DOTALL)
    if box:
        text = "usage: " + " ".join(line.strip(" │|") for line in box[1].splitlines())
    return " ".join(text.split())


class Spent(BaseException):
    """Compute was spent on a bad input; no `except Exception` may hide it."""


#: Where hours go: training, sampling, gradients, jobs, notebooks.
EXPENSIVE = (
    "transformers.Trainer.train",
    "gracelib.models.decoding.TransformersEngine.tokens",
    "gracelib.features.gradients.response_features",
    "gracelib.experiment.run.run_jobs",
    "gracelib.experiment.tables.run_jobs",
    "gracelib.jobs.notebooks.run_jobs",
    "papermill.execute_notebook",
    "gracelib.experiment.run.run_paper",
)


@contextlib.contextmanager
def nothing_is_computed() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for place in EXPENSIVE:
            stack.enter_context(mock.patch(place, side_effect=Spent(place)))
        yield


def run_here(bad: Bad, student: Path, where: Path) -> tuple[int, str, str, BaseException | None]:
    """`furnish` and `error_of` with the folder as the working directory; afterwards all is as before."""
    before, environment = Path.cwd(), dict(os.environ)
    where.mkdir(parents=True, exist_ok=True)
    arguments = furnish(where, student, bad)
    os.chdir(where)
    try:
        with nothing_is_computed():
            return error_of(bad, arguments, where)
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


def command(bad: Bad) -> str:
    if callable(bad.run):
        return f"`{bad.run.__doc__ or bad.run.__name__}`"
    name = bad.file.name if bad.file else ""
    return (
        "`"
        + " ".join(f"{k}={v!r}" for k, v in bad.env.items())
        + (" " if bad.env else "")
        + "gracelib "
        + " ".join(word.replace("{bad}", name) if word and " " not in word else repr(word) for word in bad.run)
        + "`"
    )


def line(bad: Bad, error: str) -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("<", "&lt;")

    return f"| {bad.name} | {cell(bad.wrong)} | {cell(command(bad))} | {cell(error)} |"


def main() -> None:
    """Write the table anew: `PYTHONPATH=.:tests/helpers python tests/helpers/bad_inputs_for_tests.py`."""
    import tempfile

    from bad_input_rows import ROWS, ingest_lines
    from checkpoints_for_tests import make_checkpoint

    lines = ["| input | what is wrong | command | the error (exit status 2) |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        student = make_checkpoint(root / "whole", "llama")
        for i, bad in enumerate(ROWS):
            where = root / f"row{i}"
            _, _, err, _ = run_here(bad, student, where)  # `test_bad_inputs` looks at the rest
            lines.append(line(bad, told(err, where)))
    head, _, rest = README.read_text("utf-8").partition(BEGIN)
    text = "\n".join([head + BEGIN, *lines, "", *ingest_lines(), END])
    README.write_text(text + (rest.partition(END)[2] or "\n"), "utf-8")


if __name__ == "__main__":
    main()
