"""Committed notebooks stay true: their outputs were made by the cells that are there, in order, without an error, hold
nothing that changes from run to run, and show numbers of the committed result tables: a table that changed is noticed.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from gracelib.jobs import notebook_checks, notebooks, paths
from gracelib.jobs.cleaning import clean
from gracelib.jobs.notebook_checks import check

COMMITTED = notebooks.numbered(paths.ROOT / "notebooks")


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_notebook_adds_up(path):
    assert check([path]) == []


def test_there_are_committed_notebooks():
    assert len(COMMITTED) >= 11


SOURCE = paths.ROOT / "notebooks" / "01_teacher_data.ipynb"


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def shown(book) -> dict:
    """The first text that a cell prints."""
    return next(o for cell in code(book) for o in cell.outputs if o.output_type == "stream")


def parameters(book):
    return next(cell for cell in code(book) if "parameters" in cell.metadata.get("tags", []))


def edit(cell, old, new):
    assert old in cell.source
    cell.source = cell.source.replace(old, new)


FAULTS = {
    "no counts": (lambda b: code(b)[2].update(execution_count=None), ", code cell 3: was not executed"),
    "out of order": (
        lambda b: code(b)[1].update(execution_count=7),
        ", code cell 2: has execution count 7, expected 2",
    ),
    "an error": (
        lambda b: code(b)[1].outputs.append(nbformat.v4.new_output("error", ename="KeyError", evalue="'x'")),
        ", code cell 2: shows an error: KeyError: 'x'",
    ),
    "stderr": (
        lambda b: code(b)[1].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="100%")),
        ", code cell 2: shows stderr",
    ),
    "another scale": (
        lambda b: edit(parameters(b), '"mini"', '"lab"'),
        ": its outputs were not made by the parameters cell",
    ),
    "an edited cell": (
        lambda b: edit(code(b)[-1], code(b)[-1].source, "1 + 1"),
        ": its outputs were not made by the code cells",
    ),
    "a cell more": (
        lambda b: b.cells.append(nbformat.v4.new_code_cell("2", id="new", execution_count=len(code(b)) + 1)),
        ": its outputs were not made by the code cells",
    ),
    "unknown origin": (lambda b: b.metadata.pop("gracelib"), ": nothing says which cells made its outputs"),
    "times of a run": (lambda b: b.metadata.update(papermill={"duration": 3.1}), ": volatile metadata papermill"),
    "times of a cell": (
        lambda b: code(b)[0].metadata.update(execution={"iopub.status.busy": "2026"}),
        "volatile metadata execution",
    ),
    "widget state": (lambda b: b.metadata.update(widgets={}), ": volatile metadata widgets"),
    "a widget": (
        lambda b: code(b)[1].outputs.append(
            nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}})
        ),
        "shows the state of a widget",
    ),
    "injected": (
        lambda b: code(b)[-1].metadata.update(tags=["injected-parameters"]),
        "parameters that papermill added",
    ),
    "kernel": (lambda b: b.metadata.kernelspec.update(display_name="my env"), ": kernel 'python3' ('my env')"),
    "python's version": (lambda b: b.metadata.language_info.update(version="3.11.7"), "metadata in language_info"),
    "output metadata": (
        lambda b: code(b)[1].outputs.append(
            nbformat.v4.new_output("display_data", {"text/plain": "x"}, metadata={"elapsed": 3})
        ),
        "output with volatile metadata elapsed",
    ),
    "a path": (lambda b: shown(b).update(text="in /home/anna/x.csv"), "shows an absolute path: '/home/a'"),
    "a windows path": (lambda b: shown(b).update(text=r"in C:\Users"), "shows an absolute path"),
    "an address": (
        lambda b: shown(b).update(text="<Axes at 0x7f3a2b1c4d50>"),
        "shows a memory address: '0x7f3a2b1c4d50'",
    ),
    "a date": (lambda b: shown(b).update(text="done 2026-01-31 12:03"), "shows a point in time"),
    "a wrong number": (
        lambda b: code(b)[1].outputs.append(
            nbformat.v4.new_output("execute_result", {"text/plain": "x"}, execution_count=9)
        ),
        "its result is numbered 9, expected 2",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_add_up_is_named(fault, tmp_path):
    harm, said = FAULTS[fault]
    book = nbformat.read(SOURCE, as_version=4)
    harm(book)
    path = tmp_path / SOURCE.name
    path.write_text(nbformat.writes(book), encoding="utf-8")  # validates
    (message,) = check([path])
    assert said in message and message.startswith(SOURCE.name) and "run `make notebooks`" in message


def test_what_is_no_notebook_is_named(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    assert check([tmp_path / "a.ipynb"])[0].startswith("a.ipynb: cannot be read as a notebook")


def test_text_that_only_looks_volatile_is_left_alone(tmp_path):
    book = nbformat.read(SOURCE, as_version=4)
    shown(book).update(text="5/2, and/or, runs/score/x.csv, https://x.org/tmp/a, 0x7f, 2026-01-31, figures/mini/home/")
    (tmp_path / SOURCE.name).write_text(nbformat.writes(book), encoding="utf-8")
    assert check([tmp_path / SOURCE.name]) == []


# --- what commit_outputs lets through -----------------------------------------------------------------------


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """A checkout with one notebook, and its executed copy as papermill leaves it."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "notebooks").mkdir()
    shutil.copy(SOURCE, tmp_path / "notebooks")
    copied = copy.deepcopy(nbformat.read(SOURCE, as_version=4))
    copied.metadata["papermill"] = {"parameters": {"scale": "mini", "recompute": True}, "duration": 3.0}
    copied.cells.insert(3, nbformat.v4.new_code_cell("recompute = True", metadata={"tags": ["injected-parameters"]}))
    shown(copied).text = "another number\n"
    out = tmp_path / "runs/notebooks/mini" / SOURCE.name
    out.parent.mkdir(parents=True)
    return out, copied


def test_what_is_committed_passes_the_check(executed, tmp_path):
    out, book = executed
    nbformat.write(book, out)
    notebook_checks.commit_outputs("mini")
    committed = tmp_path / "notebooks" / SOURCE.name
    assert check([committed]) == [] and "another number" in committed.read_text()


def test_outputs_of_other_parameters_are_not_committed(executed, tmp_path):
    out, book = executed
    book.metadata.papermill.parameters["scale"] = "lab"
    nbformat.write(book, out)
    with pytest.raises(
        ValueError, match=r"01_teacher_data\.ipynb was executed with scale = 'lab' and its parameters cell says"
    ):
        notebook_checks.commit_outputs("mini")
    assert (tmp_path / "notebooks" / SOURCE.name).read_bytes() == SOURCE.read_bytes()


def test_a_notebook_edited_since_is_not_overwritten(executed, tmp_path):
    out, book = executed
    nbformat.write(book, out)
    edited = nbformat.read(SOURCE, as_version=4)
    code(edited)[-1].source += "\n1"
    nbformat.write(edited, tmp_path / "notebooks" / SOURCE.name)
    with pytest.raises(ValueError, match="was edited since it was executed"):
        notebook_checks.commit_outputs("mini")
    assert nbformat.writes(clean(edited)) != nbformat.writes(clean(book))


# --- numbers ------------------------------------------------------------------------------------------------


def test_nbval_sees_a_changed_number_of_a_table(tmp_path):
    """One column of one table moves by a twentieth: the notebooks that show it fail, and only at cells that do."""
    shutil.copytree(paths.ROOT / "figures" / "mini", tmp_path / "figures" / "mini")
    table = tmp_path / "figures/mini/results/students.csv"
    changed = pd.read_csv(table)
    changed["average"] *= 1.05
    changed.to_csv(table, index=False)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--nbval",
            "--nbval-kernel-name=python3",
            *(str(paths.ROOT / "notebooks" / f"{name}.ipynb") for name in ("04_distill_students", "06_design_choices")),
        ],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"GRACELIB_FIGURES": str(tmp_path / "figures"), "GRACELIB_RUNS": str(tmp_path / "runs")},
    )
    assert done.returncode == 1, done.stdout[-2000:]
    for name in ("04_distill_students", "06_design_choices"):
        assert f"FAILED notebooks/{name}.ipynb::Cell" in done.stdout
    assert " passed" in done.stdout
