"""The whole chain as a user runs it: papermill executes every numbered notebook at `smoke`, a second call does no work,
and what is drawn can be traced to the tables it came from."""

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from gracelib.jobs import notebooks
from sidecars import assert_sidecars

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run_figures(where: Path) -> str:
    """What the command says on stderr."""
    env = os.environ | {"GRACELIB_RUNS": str(where / "runs"), "GRACELIB_FIGURES": str(where / "figures")}
    done = subprocess.run(
        [sys.executable, "-m", "gracelib.cli", "figures", "--scale", "smoke"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    where = tmp_path_factory.mktemp("smoke")
    run_figures(where)
    return where


def test_every_notebook_was_executed_without_an_error_output(smoke):
    for notebook in notebooks.numbered():
        (copy,) = (smoke / "runs/notebook").glob(f"*/{notebook.name}")
        executed = nbformat.read(copy, as_version=4)
        code = [cell for cell in executed.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code), notebook.name
        assert not [o for cell in code for o in cell.outputs if o.output_type == "error"], notebook.name


def test_every_registered_figure_is_there_with_its_sidecar(smoke, monkeypatch):
    monkeypatch.setenv("GRACELIB_FIGURES", str(smoke / "figures"))
    assert_sidecars("smoke")


def test_a_second_run_executes_nothing_and_changes_no_byte(smoke):
    files = {p: p.read_bytes() for p in (smoke / "figures").rglob("*") if p.is_file()}
    started = time.perf_counter()
    again = run_figures(smoke)
    assert again.count("up to date") == len(notebooks.numbered()) and "running at" not in again
    assert time.perf_counter() - started < 30
    assert files == {p: p.read_bytes() for p in (smoke / "figures").rglob("*") if p.is_file()}
