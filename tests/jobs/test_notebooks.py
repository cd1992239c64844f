"""Notebooks run in order, are refused with a parameter they do not know, and are executed again exactly when
their cells, their parameters or a file they wrote changed. What is committed keeps its outputs and loses
everything volatile, so that a second run of the same numbers changes no byte.
"""

import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from gracelib.jobs import notebooks, paths
from gracelib.jobs.notebooks import clean, made_by
from nano_for_tests import DIAL, write_notebook

WRITE = """\
import os
from pathlib import Path
folder = Path(os.environ["GRACELIB_FIGURES"]) / scale
folder.mkdir(parents=True, exist_ok=True)
(folder / "{name}.csv").write_text(f"{text},{{recompute}}")
with open(os.environ["GRACELIB_RUNS"] + "/log", "a") as log:
    log.write("{name} ")
print("written")"""


def notebook(folder, name, *cells, parameters=DIAL):
    write_notebook(folder / f"{name}.ipynb", *cells, dial=parameters)
    return folder / f"{name}.ipynb"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A small checkout: notebooks/, runs/ and figures/ of its own. Another environment's kernel calls itself python3."""
    (tmp_path / "notebooks").mkdir()
    foreign = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"argv": ["/opt/old/python", "{connection_file}"], "display_name": "", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    return tmp_path


def log(place) -> list[str]:
    return (place / "runs" / "log").read_text().split() if (place / "runs" / "log").exists() else []


def names(executed):
    return [name[:2] for name in executed]


def copy_of(place, name):
    """The executed copy of a notebook that was executed once."""
    return next((place / "runs" / "notebook").glob(f"*/{name}.ipynb"))


def test_a_notebook_runs_again_when_and_only_when_something_changed(place, capfd):
    folder = place / "notebooks"
    notebook(folder, "01_second", WRITE.format(name="second", text="b"))
    notebook(folder, "00_first", WRITE.format(name="first", text="a"))
    notebook(folder, "scratch", "raise SystemError('not numbered: not run')")
    (folder / "notes.txt").write_text("no notebook")
    results = place / "figures" / "nano"

    assert names(notebooks.run("nano")) == ["00", "01"] and log(place) == ["first", "second"]
    assert (results / "first.csv").read_text() == "a,True" and (results / "second.csv").read_text() == "b,True"
    captured = capfd.readouterr()
    assert captured.out == "" and "00_first.ipynb: running at scale nano" in captured.err

    assert notebooks.run("nano") == [] and len(log(place)) == 2  # unchanged: nothing is executed
    assert "01_second.ipynb: up to date" in capfd.readouterr().err

    (results / "second.csv").write_text("tampered")  # a file that it wrote: that notebook alone
    assert names(notebooks.run("nano")) == ["01"] and (results / "second.csv").read_text() == "b,True"
    (results / "first.csv").unlink()
    assert names(notebooks.run("nano")) == ["00"] and (results / "first.csv").read_text() == "a,True"

    notebook(folder, "00_first", WRITE.format(name="first", text="A"))  # its source: it and what comes after it
    assert names(notebooks.run("nano")) == ["00", "01"] and (results / "first.csv").read_text() == "A,True"
    assert names(notebooks.run("nano", recompute=False)) == ["00", "01"]  # a parameter
    assert (results / "second.csv").read_text() == "b,False"
    assert names(notebooks.run("smoke", notebooks=[folder / "00_first.ipynb"])) == ["00"]  # another scale, elsewhere
    assert notebooks.run("nano", recompute=False) == []


def test_what_comes_before_is_done_when_and_only_when_something_will_be_executed(place):
    notebook(place / "notebooks", "00_first", WRITE.format(name="first", text="a"))
    done = []
    with pytest.raises(ValueError, match="no notebook takes the parameter 'sigmo'"):
        notebooks.run("nano", parameters={"sigmo": 1}, before=lambda: done.append("unsound"))
    assert names(notebooks.run("nano", before=lambda: done.append(log(place)))) == ["00"]
    assert notebooks.run("nano", before=lambda: done.append("again")) == []
    assert done == [[]]  # once, and no notebook had run


def test_a_notebook_without_data_takes_part_in_a_run(place):
    """It declares neither scale nor recompute, so it is given neither, it is up to date at any scale, and no other waits for it
    nor it for them."""
    notebook(place / "notebooks", "00_idea", "print(seed)", parameters="seed = 7")
    assert names(notebooks.run("nano")) == ["00"]
    for name, parameters in (("01_makes", DIAL), ("02_own", "seed = 7"), ("03_makes", DIAL)):
        notebook(place / "notebooks", name, "1", parameters=parameters)
    waits = [[up.params["notebook"] for up in job.inputs.values()] for job in notebooks.planned("nano")]
    assert waits == [[], [], [], ["01_makes.ipynb"]]
    for name in ("01_makes", "02_own", "03_makes"):
        (place / "notebooks" / f"{name}.ipynb").unlink()
    executed = nbformat.read(copy_of(place, "00_idea"), as_version=4)
    assert [cell.outputs[0].text for cell in executed.cells if cell.source == "print(seed)"] == ["7\n"]
    assert notebooks.run("nano", recompute=False) == []


def test_a_failing_cell_is_reported_and_the_partial_copy_kept(place):
    folder = place / "notebooks"
    notebook(folder, "00_first", WRITE.format(name="first", text="a"))
    path = notebook(folder, "01_fails", "print('so far')", "raise KeyError('teacher')", "print('never')")
    notebook(folder, "02_after", WRITE.format(name="after", text="c"))
    with pytest.raises(
        RuntimeError, match=r"^notebook 01_fails\.ipynb at nano failed: code cell 3: KeyError: 'teacher'"
    ) as caught:
        notebooks.run("nano")
    failed = place / "runs" / "notebook" / "nano-01_fails.failed.ipynb"
    assert str(failed) in str(caught.value)
    text = failed.read_text()
    assert "so far" in text and "KeyError" in text and '"never\\n"' not in text
    assert not list(failed.parent.glob("*/01_fails.ipynb")) and log(place) == ["first"]

    notebook(folder, path.stem, "print('so far')")  # mended: the first is not run again, the failed copy goes
    assert names(notebooks.run("nano")) == ["01", "02"] and not failed.exists()
    assert not [p for p in failed.parent.iterdir() if ".part" in p.name]


def test_the_last_good_copy_stays_when_a_run_fails(place):
    notebook(place / "notebooks", "01_first", WRITE.format(name="first", text="a"))
    notebooks.run("nano")
    good, text = copy_of(place, "01_first"), copy_of(place, "01_first").read_bytes()
    (place / "figures" / "nano" / "first.csv").write_text("tampered")
    (place / "runs" / "log").unlink()
    (place / "runs" / "log").mkdir()  # the same cells fail now
    with pytest.raises(RuntimeError, match="IsADirectoryError"):
        notebooks.run("nano")
    assert good.read_bytes() == text


def executed_notebook():
    """What papermill leaves behind: an injected cell, timings, stderr, an HTML table with metadata."""
    cells = [
        new_markdown_cell("# T"),
        new_code_cell("x = 1", metadata={"tags": ["parameters"], "papermill": {"duration": 3.1}}, execution_count=1),
        new_code_cell("x = 2", metadata={"tags": ["injected-parameters"]}, execution_count=2),
        new_code_cell(
            "x + 1",
            execution_count=3,
            metadata={"execution": {"iopub.status.busy": "2020"}, "tags": ["keep"]},
            outputs=[
                nbformat.v4.new_output("stream", name="stderr", text="100%|##|"),
                nbformat.v4.new_output("stream", name="stdout", text="hel"),
                nbformat.v4.new_output("stream", name="stderr", text="a warning between"),
                nbformat.v4.new_output("stream", name="stdout", text="lo\n"),
                nbformat.v4.new_output(
                    "execute_result", {"text/plain": "3"}, execution_count=3, metadata={"elapsed": 3}
                ),
            ],
        ),
    ]
    book = new_notebook(cells=cells)
    book.metadata.update(
        {
            "papermill": {"duration": 9},
            "widgets": {},
            "kernelspec": {"name": "my-env", "display_name": "x"},
            "language_info": {"name": "python", "version": "3.11.4"},
        }
    )
    return book


def test_a_committed_notebook_keeps_outputs_and_nothing_volatile():
    cleaned = clean(executed_notebook())
    nbformat.validate(cleaned)
    assert [cell.source for cell in cleaned.cells] == ["# T", "x = 1", "x + 1"]
    assert [cell.get("execution_count") for cell in cleaned.cells] == [None, 1, 2]
    assert [dict(cell.metadata) for cell in cleaned.cells] == [{}, {"tags": ["parameters"]}, {"tags": ["keep"]}]
    stream, result = cleaned.cells[2].outputs
    assert (stream.name, stream.text) == ("stdout", "hello\n")
    assert result.data == {"text/plain": "3"} and result.execution_count == 2 and result.metadata == {}
    assert cleaned.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "gracelib": made_by(cleaned.cells),
    }
    text = nbformat.writes(cleaned)
    assert not any(word in text for word in ("papermill", "2020", "my-env", "3.11.4", "stderr", "elapsed"))
    assert nbformat.writes(clean(executed_notebook())) == text  # ids too
    assert nbformat.writes(clean(cleaned)) == text  # cleaning the clean changes nothing


# --- the notebooks of this repository -----------------------------------------------------------------------

COMMITTED = sorted((paths.ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
each = pytest.mark.parametrize(
    "path",
    COMMITTED or [pytest.param(None, marks=pytest.mark.skip(reason="no notebook is committed yet"))],
    ids=lambda path: path.name if path else "none",
)


@each
def test_it_declares_both_dials_or_none_and_its_code_cells_are_short(path):
    assert {"scale", "recompute"} & set(notebooks.parameters_of(path)) in (set(), notebooks.DIAL)
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert max(len(cell.source.splitlines()) for cell in cells) <= 25


# --- redrawing side by side ---

MEET = """\
import os, time
from pathlib import Path
here = Path(os.environ["GRACELIB_RUNS"])
(here / "{me}.here").touch()
for _ in range(600):
    if (here / "{other}.here").exists():
        break
    time.sleep(0.1)
else:
    raise RuntimeError("the other one was not running at the same time")"""


def test_redrawing_runs_notebooks_at_the_same_time_and_recomputing_one_after_the_other(place, monkeypatch, capfd):
    """Each waits until the other runs too: in turn, the first would wait in vain."""
    monkeypatch.setenv("GRACELIB_WORKERS", "2")
    folder = place / "notebooks"
    notebook(folder, "01_a", MEET.format(me="a", other="b"), WRITE.format(name="a", text="a"))
    notebook(folder, "02_b", MEET.format(me="b", other="a"), WRITE.format(name="b", text="b"))
    assert names(notebooks.run("nano", recompute=False)) == ["01", "02"] and sorted(log(place)) == ["a", "b"]
    assert "02_b.ipynb: done in" in capfd.readouterr().err
    assert notebooks.run("nano", recompute=False) == []

    notebook(folder, "01_a", "import time; time.sleep(1)", WRITE.format(name="a", text="a"))
    notebook(folder, "02_b", WRITE.format(name="b", text="b"))
    (place / "runs" / "log").unlink()
    assert names(notebooks.run("nano")) == ["01", "02"] and log(place) == ["a", "b"]


def test_a_redrawn_notebook_depends_on_the_tables_and_on_no_other_notebook(place):
    """Otherwise redrawing one figure would make all others look stale, or an edited table pass as up to date."""
    table = place / "figures" / "nano" / "results" / "other.csv"
    table.parent.mkdir(parents=True)
    table.write_text("1")
    first, second = (notebook(place / "notebooks", f"0{n}_draws", WRITE.format(name=n, text="a")) for n in (1, 2))
    notebooks.run("nano", recompute=False)
    assert notebooks.run("nano", recompute=False, notebooks=[second]) == []
    notebook(place / "notebooks", first.stem, WRITE.format(name=1, text="A"))
    assert names(notebooks.run("nano", recompute=False)) == ["01"]
    table.write_text("2")
    assert names(notebooks.run("nano", recompute=False)) == ["01", "02"]


def test_a_figure_counts_for_the_notebook_that_its_sidecar_names(place, monkeypatch):
    """Two that run at once: a figure that goes astray is drawn again by its producer, and by it alone."""
    monkeypatch.setenv("GRACELIB_WORKERS", "2")
    for name in ("01_a", "02_b"):
        sidecar = f"(folder / '{name[-1]}.json').write_text('{{\"notebook\": \"{name}\"}}')"
        notebook(place / "notebooks", name, WRITE.format(name=name[-1], text=name), sidecar)
    notebooks.run("nano", recompute=False)
    (place / "figures" / "nano" / "b.csv").unlink()
    assert names(notebooks.run("nano", recompute=False)) == ["02"]


def test_a_failure_beside_another_notebook_is_reported_and_the_other_kept(place, monkeypatch):
    monkeypatch.setenv("GRACELIB_WORKERS", "2")
    notebook(place / "notebooks", "01_fails", "import time; time.sleep(1)", "raise KeyError('teacher')")
    notebook(place / "notebooks", "02_good", WRITE.format(name="good", text="a"))
    with pytest.raises(RuntimeError, match=r"01_fails\.ipynb at nano failed: code cell 3: KeyError: 'teacher'"):
        notebooks.run("nano", recompute=False)
    assert (place / "runs" / "notebook" / "nano-01_fails.failed.ipynb").is_file() and log(place) == ["good"]
    notebook(place / "notebooks", "01_fails", "1 + 1")
    assert "01" in names(notebooks.run("nano", recompute=False))


def test_a_bad_number_of_workers_is_refused_before_anything_runs(place, monkeypatch):
    notebook(place / "notebooks", "01_first", WRITE.format(name="first", text="a"))
    monkeypatch.setenv("GRACELIB_WORKERS", "two")
    with pytest.raises(ValueError, match="GRACELIB_WORKERS='two' is not a number"):
        notebooks.run("nano")
    assert log(place) == []


def test_a_kernel_that_does_not_start_is_started_once_more(place, monkeypatch, capfd):
    """Two kernels that start in the same moment may be given the same port: the second dies of it."""
    (place / "early").mkdir()
    (place / "early" / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'ipykernel_launcher' in sys.orig_argv and (left := sorted(os.scandir(os.environ['DEATHS']), key=str)):\n"
        "    os.unlink(left[0])\n"
        "    os._exit(1)\n"
    )
    (place / "deaths").mkdir()
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(place / "early"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    )
    monkeypatch.setenv("DEATHS", str(place / "deaths"))
    notebook(place / "notebooks", "01_first", WRITE.format(name="first", text="a"))
    (place / "deaths" / "1").touch()
    assert names(notebooks.run("nano")) == ["01"] and log(place) == ["first"]
    assert "01_first.ipynb: its kernel did not start (" in capfd.readouterr().err
    (place / "figures" / "nano" / "first.csv").unlink()
    for name in "12":
        (place / "deaths" / name).touch()
    with pytest.raises(
        RuntimeError, match=r"01_first\.ipynb at nano failed: its kernel failed \(Kernel.*run the same command again"
    ):
        notebooks.run("nano")


def test_a_kernel_that_dies_in_a_cell_is_one_error_and_not_started_again(place):
    """Side effects of the cell may be half done: the user decides."""
    notebook(
        place / "notebooks",
        "01_dies",
        "import os, signal\nopen(os.environ['GRACELIB_RUNS'] + '/log', 'a').write('x ')",
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    with pytest.raises(
        RuntimeError,
        match=r"^notebook 01_dies\.ipynb at nano failed: its kernel died \(out of memory\?\); finished work is kept, run",
    ):
        notebooks.run("nano")
    assert log(place) == ["x"]
    assert not [p for p in (place / "runs" / "notebook").iterdir() if p.suffix != ".lock"]
