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

COMMITTED = notebooks.numbered(paths.ROOT / "notebooks")
NOT_AS_RUN = (
    "not as a run of these cells wrote it; run `make publish` (05 to 09: `make publish SCALE=lab`; "
    "OPTIONS=--no-recompute: from the committed tables)"
)
_VOLATILE = {
    "a memory address": re.compile(r"\b0x[0-9a-fA-F]{6,}"),
    "an absolute path": re.compile(
        r"(?<![\w.:/])/(?:home|root|tmp|Users|private|mnt|media|opt|srv|usr|var|work)/\w"
        r"|\b[A-Z]:\\\\?\w"
    ),
    "a point in time": re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d"),
}


def check(path: Path) -> list[str]:
    """What is wrong with a committed notebook; empty when all is well.

    It is as `clean` writes it, so holds nothing of one run alone (counts, times, stderr, a kernel's details) and was made
    by the cells that are there now; besides it shows no error, no widget and nothing that changes from run to run.
    """
    book = nbformat.read(path, as_version=4)
    found = [] if path.read_text(encoding="utf-8") == nbformat.writes(notebooks.clean(book)) + "\n" else [NOT_AS_RUN]
    for output in (output for cell in book.cells for output in cell.get("outputs", [])):
        if output.output_type == "error":
            found.append(f"shows an error: {output.ename}: {output.evalue}")
        for kind, value in (output.get("data", {}) | {"text": output.get("text", "")}).items():
            text = value if isinstance(value, str) else json.dumps(value)
            found += ["shows the state of a widget"] * ("widget" in kind)
            found += [] if kind.startswith("image/") else volatile(text)
    return found


def volatile(text: str) -> list[str]:
    return [f"shows {what}: {hit[0]}" for what, pattern in _VOLATILE.items() if (hit := pattern.search(text))]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_notebook_adds_up(path):
    assert check(path) == []


@pytest.mark.parametrize(
    "text, said",
    [
        ("in /home/anna/x.csv", ["shows an absolute path: /home/a"]),
        (r"in C:\Users", [r"shows an absolute path: C:\U"]),
        ("<Axes at 0x7f3a2b1c4d50>", ["shows a memory address: 0x7f3a2b1c4d50"]),
        ("done 2026-01-31 12:03", ["shows a point in time: 2026-01-31 12:03"]),
        ("5/2, and/or, runs/score/x.csv, https://x.org/tmp/a, 0x7f, 2026-01-31, figures/mini/home/", []),
    ],
)
def test_what_changes_from_run_to_run_is_told_from_what_looks_alike(text, said):
    assert volatile(text) == said


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
    assert check(path) == [NOT_AS_RUN]
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
