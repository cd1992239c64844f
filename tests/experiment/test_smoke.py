"""The whole chain as a user runs it: papermill executes every numbered notebook at `smoke`, a second call does no work,
and what is drawn can be traced to the tables it came from."""

import time

import nbformat
import pytest

from gracelib.jobs import notebooks
from nano_for_tests import Nano
from sidecars import assert_sidecars

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    run = Nano(tmp_path_factory.mktemp("smoke"), "smoke", full=True)
    run.finish()
    return run


def test_every_notebook_was_executed_without_an_error_output(smoke):
    for notebook in notebooks.numbered():
        (copy,) = smoke.runs.glob(f"notebook/*/{notebook.name}")
        executed = nbformat.read(copy, as_version=4)
        code = [cell for cell in executed.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code), notebook.name
        assert not [o for cell in code for o in cell.outputs if o.output_type == "error"], notebook.name


def test_every_registered_figure_is_there_with_its_sidecar(smoke, monkeypatch):
    smoke.here(monkeypatch)
    assert_sidecars("smoke")


def test_a_second_run_executes_nothing_and_changes_no_byte(smoke):
    files, started = smoke.tables(), time.perf_counter()
    again = smoke.finish()
    assert again.count("up to date") == len(notebooks.numbered()) and "running at" not in again
    assert time.perf_counter() - started < 30
    assert files == smoke.tables()
