"""Every bad input gives one error that names place, value and remedy, exit status 2 and no traceback, before
anything is trained, sampled or executed. tests/bad_inputs/README.md is the table of them and of what they are told.
"""

import os
import subprocess
import sys

import pytest

from bad_input_rows import ROWS, ingest_lines
from bad_inputs_for_tests import (
    BAD,
    BEGIN,
    END,
    EXPENSIVE,
    README,
    Spent,
    command,
    furnish,
    line,
    nothing_is_computed,
    run_here,
    told,
)
from checkpoints_for_tests import make_checkpoint
from gracelib.jobs.paths import ROOT

AGAIN = "run `PYTHONPATH=.:tests/helpers python tests/helpers/bad_inputs_for_tests.py`"
BY_NAME = {row.name: row for row in ROWS}
#: One of each way in, as a process of its own: nothing of pytest's or typer's runner stands between.
AS_PROCESSES = (
    "score__m_is_negative",
    "prompts__names_line_2_half_a_character",
    "settings__names_the_section_is_a_number",
    "environment__paper_part_unknown",
    "command__unknown",
)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("whole") / "student", "llama")


@pytest.fixture(scope="module")
def table():
    return README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].splitlines()


@pytest.mark.parametrize("name", BY_NAME)
def test_each_is_refused_in_one_error(name, student, tmp_path, table):
    bad = BY_NAME[name]
    status, out, err, raised = run_here(bad, student, tmp_path)
    assert status == 2, (raised, err)
    assert isinstance(raised, SystemExit) and "Traceback" not in err and not out, (raised, err, out)
    error = told(err, tmp_path)
    assert [said for said in bad.says if said not in error] == [], error
    assert len(error) < 1000, "a message quotes no page"
    assert not (tmp_path / "it_ran").exists(), "code of a checkpoint was run"
    assert line(bad, error) in table, f"tests/bad_inputs/README.md is older than the code: {AGAIN}"


def test_the_table_lists_them_all_and_nothing_else(table):
    rows = [row.split(" | ")[0].removeprefix("| ") for row in table if row.startswith("| ")]
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) >= 80
    assert rows[1 : len(names) + 1] == names and table[-len(ingest_lines()) :] == ingest_lines(), AGAIN


def test_every_file_of_the_corpus_is_in_a_row():
    used = {row.file for row in ROWS if row.file}
    there = {
        path
        for kind in BAD.iterdir()
        if kind.is_dir() and kind.name not in ("ingest", "grading")
        for path in kind.iterdir()
    }
    assert there == used


@pytest.mark.parametrize("name", AS_PROCESSES)
def test_as_a_process_too(name, student, tmp_path):
    arguments = furnish(tmp_path, student, BY_NAME[name])
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"} | BY_NAME[name].env
    done = subprocess.run(
        [sys.executable, "-m", "gracelib.cli", *arguments],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    assert [said for said in BY_NAME[name].says if said not in told(done.stderr, tmp_path)] == [], done.stderr


def test_compute_would_be_seen(student, tmp_path, monkeypatch):
    """The guard that the rows stand on: a command without a fault runs into it."""
    from dataclasses import replace

    for name, arguments in (
        (
            "score__one_fold",
            ["score", "teacher.jsonl", "--student", "student", "--n", "3", "--m", "2", "--d", "4", "--folds", "3"],
        ),
        ("figures__scale_unknown", ["recompute", "--scale", "nano", "--part", "teachers"]),
    ):
        with pytest.raises(Spent):
            run_here(replace(BY_NAME[name], run=arguments), student, tmp_path / name)
    with nothing_is_computed(), pytest.raises(Spent, match=EXPENSIVE[0]):
        import transformers

        transformers.Trainer.train(None)
    assert "gracelib score" in command(BY_NAME["score__one_fold"])
