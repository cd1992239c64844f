"""The pipeline at `nano`, through the functions the notebooks call: the same command twice does no work
twice, and a run that lost some of its results ends with the same bytes as one that was never disturbed.
(Runs that are killed, starved and damaged: tests/faults.)
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from gracelib.experiment import tables as pipeline
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths, workers
from gracelib.jobs.store import META, with_upstream

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from gracelib.experiment import tables as pipeline
if __name__ == "__main__":
    for stage in (pipeline.teacher_data, pipeline.base_students, pipeline.examples, pipeline.student_features,
                  pipeline.score_table, pipeline.distilled_students):
        stage("nano")
"""


def start(where: Path) -> subprocess.Popen:
    where.mkdir(exist_ok=True)
    (where / "main.py").write_text(SCRIPT)
    env = {
        **os.environ,
        "GRACELIB_RUNS": str(where / "runs"),
        "GRACELIB_FIGURES": str(where / "figures"),
        "GRACELIB_WORKERS": "2",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "main.py"], cwd=where, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(where: Path) -> None:
    main = start(where)
    out, err = main.communicate(timeout=300)
    assert main.returncode == 0, err
    assert out == ""  # stdout is for results


def tables(where: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (where / "figures" / "nano" / "results").iterdir()}
    assert all(name.endswith(".csv") for name in found), f"left over: {sorted(found)}"
    return found


def jobs():
    scale = get_scale("nano")
    return with_upstream(
        [
            job
            for plan in (pipeline.Plan(scale, task.name) for task in scale.tasks)
            for group in (plan.student_accuracy, plan.features, plan.base_accuracy, plan.teacher_accuracy)
            for job in group.values()
        ]
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    where = tmp_path_factory.mktemp("nano") / "first"
    finish(where)
    return where


@pytest.fixture
def here(undisturbed, monkeypatch):
    monkeypatch.setenv("GRACELIB_RUNS", str(undisturbed / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(undisturbed / "figures"))
    return undisturbed


def test_the_tables_are_complete(here):
    scale = get_scale("nano")
    assert {"teachers.csv", "base_students.csv", "examples.csv", "features.csv", "scores.csv", "students.csv"} <= set(
        tables(here)
    )
    cells = pipeline.cells("nano")
    assert len(cells) == len(scale.students) * len(scale.teachers) * len(scale.temperatures)
    longer = pipeline.cells("nano", "long")
    assert set(longer["task"]) == {"long"} and set(longer["student"]) == {"first"}
    assert len(longer) + len(cells) == len(pipeline.score_table("nano", recompute=False))
    assert longer["grace"].iloc[0] != cells["grace"].iloc[0]  # another task is another run
    numbers = cells.select_dtypes("number").drop(columns=["correct_prob", "difference_prob"])  # nobody is right at nano
    assert numbers.notna().all(axis=None) and len(numbers.columns) > 15
    total = cells["grace_variance"] + cells["grace_bias"] + cells["grace_cross"]
    pd.testing.assert_series_equal(cells["grace"], total, check_names=False, rtol=1e-9)
    assert cells[["average_at_k", "teacher_accuracy", "best_of", "greedy"]].stack().between(0, 1).all()
    assert all(job.done(paths.runs()) for job in jobs())


def test_a_second_run_does_no_work(here, monkeypatch):
    """No worker pool is even started, and the tables are the same bytes."""
    before = tables(here)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", None)
    for stage in (
        pipeline.teacher_data,
        pipeline.base_students,
        pipeline.examples,
        pipeline.student_features,
        pipeline.score_table,
        pipeline.distilled_students,
    ):
        computed = stage("nano")
        pd.testing.assert_frame_equal(stage("nano", recompute=False), computed, check_dtype=False)
    assert tables(here) == before


def test_without_recompute_a_missing_table_is_an_error(here, monkeypatch, tmp_path):
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        pipeline.teacher_data("nano", recompute=False)


def test_lost_results_are_made_again_with_the_same_bytes(undisturbed, tmp_path, monkeypatch):
    """Some finished folders go, one loses its meta file, all tables go: what is left is used, the rest comes
    back.
    """
    where = tmp_path / "copy"
    shutil.copytree(undisturbed, where)
    plan = pipeline.Plan(get_scale("nano"))
    root = where / "runs"
    lost = [*plan.responses.values(), *plan.student_accuracy.values()]
    for job in lost:
        shutil.rmtree(job.folder(root))
    features = next(iter(plan.features.values()))
    (features.folder(root) / META).unlink()
    shutil.rmtree(where / "figures")
    kept = {job.key: (job.folder(root) / META).stat().st_mtime_ns for job in jobs() if job.done(root)}
    assert len(kept) == len(jobs()) - len(lost) - 1
    finish(where)
    assert tables(where) == tables(undisturbed)
    assert {
        key: stamp
        for job in jobs()
        for key, stamp in [(job.key, (job.folder(root) / META).stat().st_mtime_ns)]
        if key in kept
    } == kept
    for job in (*lost, features):  # not only the tables: every result file
        for path in job.folder(root).iterdir():
            if path.name != META:
                assert path.read_bytes() == (job.folder(undisturbed / "runs") / path.name).read_bytes(), path.name
