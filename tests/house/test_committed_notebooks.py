"""Committed notebooks stay true: their outputs were made by the cells that are there, in order, without an error, hold
nothing that changes from run to run, and show numbers of the committed result tables: a table that changed is noticed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from gracelib.jobs import notebooks, paths
from gracelib.jobs.notebooks import FOLDED, KERNEL, made_by

COMMITTED = notebooks.numbered(paths.ROOT / "notebooks")
REMEDY = "run `make publish` (05 to 09: `make publish SCALE=lab`; OPTIONS=--no-recompute: from the committed tables)"
_VOLATILE = {
    "a memory address": re.compile(r"\b0x[0-9a-fA-F]{6,}"),
    "an absolute path": re.compile(
        r"(?<![\w.:/])/(?:home|root|tmp|Users|private|mnt|media|opt|srv|usr|var|work)/\w"
        r"|\b[A-Z]:\\\\?\w"
    ),
    "a point in time": re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d"),
}
_NOTEBOOK_METADATA = {"kernelspec", "language_info", "gracelib"}
_CELL_METADATA = {"tags", "jupyter"}


def check(*notebooks: Path) -> list[str]:
    """What is wrong with committed notebooks, one line each with notebook, cell and remedy; empty when all is well.

    Found: code cells without execution counts, or not numbered 1 to n in order; error outputs and stderr; outputs made
    by other code cells, or another parameters cell, than those there; metadata and outputs that change from run to run.
    """
    return [f"{path.name}{said}; {REMEDY}" for path in notebooks for said in _problems(path)]


def _problems(path: Path) -> list[str]:
    try:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
    except (ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        return [f": cannot be read as a notebook ({type(error).__name__}: {str(error).splitlines()[0]})"]
    found = [f": {said}" for said in _metadata(book)]
    for number, cell in enumerate((c for c in book.cells if c.cell_type == "code"), 1):
        found += [f", code cell {number}: {said}" for said in _cell(cell, number)]
    for cell in book.cells:
        if extra := sorted(set(cell.metadata) - _CELL_METADATA):
            found.append(f", cell {cell.get('id', '?')}: volatile metadata {', '.join(extra)}")
        folded = {part for tag in cell.metadata.get("tags", []) for part in FOLDED.get(tag, [])}
        if set(cell.metadata.get("jupyter", {})) != folded:
            found.append(f", cell {cell.get('id', '?')}: folded otherwise than its tags say")
        if "injected-parameters" in cell.metadata.get("tags", []):
            found.append(f", cell {cell.get('id', '?')}: parameters that papermill added to a run")
    return found


def _metadata(book) -> list[str]:
    recorded, now = book.metadata.get("gracelib", {}), made_by(book.cells)
    extra = sorted(set(book.metadata) - _NOTEBOOK_METADATA)
    kernel = dict(book.metadata.get("kernelspec", {}))
    named = f"{kernel.get('name')!r} ({kernel.get('display_name')!r})"
    parameters, code = (recorded.get(part) == now[part] for part in ("parameters", "code"))
    faults = (
        (bool(extra), f"volatile metadata {', '.join(extra)}"),
        (
            kernel != {"display_name": "Python 3", "language": "python", "name": KERNEL},
            f"kernel {named}, expected {KERNEL!r} ('Python 3')",
        ),
        (
            dict(book.metadata.get("language_info", {})) != {"name": "python"},
            "volatile metadata in language_info: only the name belongs there",
        ),
        (not recorded, "nothing says which cells made its outputs"),
        (recorded and not parameters, "its outputs were not made by the parameters cell that is there now"),
        (recorded and parameters and not code, "its outputs were not made by the code cells that are there now"),
    )
    return [said for there, said in faults if there]


def _cell(cell, number: int) -> list[str]:
    found = []
    if cell.execution_count is None:
        found.append("was not executed")
    elif cell.execution_count != number:
        found.append(f"has execution count {cell.execution_count}, expected {number}: cells were run out of order")
    for output in cell.outputs:
        if output.output_type == "error":
            found.append(f"shows an error: {output.ename}: {output.evalue}")
        if output.output_type == "stream" and output.name == "stderr":
            found.append("shows stderr (progress bars, warnings)")
        if output.get("metadata"):
            found.append(f"output with volatile metadata {', '.join(sorted(output.metadata))}")
        if output.get("execution_count", number) != number:
            found.append(f"its result is numbered {output.execution_count}, expected {number}")
        texts = output.get("data", {}) | ({"text/plain": output.text} if "text" in output else {})
        if widgets := sorted(kind for kind in texts if "widget" in kind):
            found.append(f"shows the state of a widget ({widgets[0]})")
        for kind, value in texts.items():
            text = value if isinstance(value, str) else json.dumps(value)
            found += [
                f"shows {what}: {hit[0]!r}"
                for what, pattern in _VOLATILE.items()
                if not kind.startswith("image/") and (hit := pattern.search(text))
            ]
    return found


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_notebook_adds_up(path):
    assert check(path) == []


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
    "folded": (
        lambda b: code(b)[0].metadata.update(jupyter={"source_hidden": True}),
        ": folded otherwise than its tags say",
    ),
    "widget state": (lambda b: b.metadata.update(widgets={}), ": volatile metadata widgets"),
    "a widget": (
        lambda b: code(b)[1].outputs.append(
            nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}})
        ),
        "shows the state of a widget",
    ),
    "injected": (
        lambda b: code(b)[-2].metadata.update(tags=["injected-parameters"]),
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
    (message,) = check(path)
    assert said in message and message.startswith(SOURCE.name) and "run `make publish`" in message


def test_what_is_no_notebook_is_named(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    assert check(tmp_path / "a.ipynb")[0].startswith("a.ipynb: cannot be read as a notebook")


def test_text_that_only_looks_volatile_is_left_alone(tmp_path):
    book = nbformat.read(SOURCE, as_version=4)
    shown(book).update(text="5/2, and/or, runs/score/x.csv, https://x.org/tmp/a, 0x7f, 2026-01-31, figures/mini/home/")
    (tmp_path / SOURCE.name).write_text(nbformat.writes(book), encoding="utf-8")
    assert check(tmp_path / SOURCE.name) == []


# --- what commit_outputs lets through -----------------------------------------------------------------------


def test_outputs_are_committed_from_the_executed_copies_of_these_very_cells(tmp_path, monkeypatch):
    """A checkout with one notebook; what is committed passes the check, and an edited notebook is not overwritten."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    (tmp_path / "notebooks").mkdir()
    head = nbformat.v4.new_code_cell('scale = "mini"\nrecompute = False', metadata={"tags": ["parameters"]})
    cells = [nbformat.v4.new_markdown_cell("# T"), head, *map(nbformat.v4.new_code_cell, ("print(scale)", "1 + 1"))]
    path = tmp_path / "notebooks" / "00_only.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(ValueError, match="00_only.ipynb was edited since it was executed"):
        notebooks.commit_outputs("mini")
    notebooks.run("mini")
    notebooks.commit_outputs("mini")
    committed = nbformat.read(path, as_version=4)
    assert check(path) == [] and [cell.source for cell in committed.cells] == [cell.source for cell in cells]
    assert committed.cells[2].outputs[0].text == "mini\n" and committed.cells[3].outputs[0].data["text/plain"] == "2"
    assert notebooks.run("mini") == []  # writing outputs back does not count as a change

    committed.cells[-1].source += "\n1"
    nbformat.write(committed, path)
    edited = path.read_bytes()
    with pytest.raises(ValueError, match="was edited since it was executed"):
        notebooks.commit_outputs("mini")
    assert path.read_bytes() == edited


# --- numbers ------------------------------------------------------------------------------------------------


def test_nbval_sees_a_changed_number_of_a_table(tmp_path):
    """One column of one table moves by a twentieth: the notebooks that show it fail, and only at cells that do."""
    for scale in ("mini", "lab"):  # of notebook 04 and of notebook 06
        shutil.copytree(paths.published(scale), tmp_path / "figures" / scale)
        table = tmp_path / "figures" / scale / "results/students.csv"
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
            "--nbval-current-env",
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
