"""The extra students change one thing each: what is not changed has the key of the grid's own job, so it costs nothing and
is compared with the very same students; and the teachers are chosen before any result.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gracelib.experiment import extras, tables
from gracelib.experiment.extras import ExtraPlan, filtered_cells, strongest, tersest, training_axes, weakest
from gracelib.experiment.plan import Plan
from gracelib.experiment.scales import SCALES, get_scale

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from gracelib.experiment import extras as extra_runs
from gracelib.experiment import tables as pipeline
if __name__ == "__main__":
    for name in ("teacher_data", "distilled_students"):
        getattr(pipeline, name)("nano")
    extra_runs.filtered("nano")
    extra_runs.training_runs("nano")
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path))
    monkeypatch.setenv("GRACELIB_DEVICE", "cpu")


@pytest.mark.parametrize("name", ["nano", "smoke", "mini", "lab"])
def test_what_is_not_changed_is_the_cells_own_student(name):
    plan = Plan(get_scale(name))
    extra, own = ExtraPlan(plan), {job.key for job in plan.student_accuracy.values()}
    usual = {"epochs": plan.scale.epochs, "generations": plan.scale.M}
    for (axis, _, value), job in extra.test.items():
        assert (job.key in own) == (value == usual[axis]), (axis, value)
        changed = {"epochs": "epochs", "generations": "M"}[axis]
        distil = job.inputs["model"]
        assert distil.params[changed] == value
        default = next(iter(plan.distilled.values())).params
        assert {k: v for k, v in distil.params.items() if k != changed} == {
            k: v for k, v in default.items() if k != changed
        }
    for key, job in extra.train.items():
        assert job.inputs["model"].key == extra.test[key].inputs["model"].key
        assert job.inputs["prompts"].key == plan.train_prompts.key != plan.test_prompts.key


@pytest.mark.parametrize("name", ["nano", "smoke", "mini", "lab"])
def test_filtered_students_differ_from_the_cells_in_their_responses_only(name):
    plan = Plan(get_scale(name))
    scale, extra = plan.scale, ExtraPlan(plan)
    for cell, job in extra.filtered_accuracy.items():
        like, distil = plan.distilled[scale.student, *cell], job.inputs["model"]
        assert distil.params == like.params | {"M": None} and distil.inputs["student"].key == like.inputs["student"].key
        assert distil.inputs["responses"] is extra.filtered[cell]
        assert extra.filtered[cell].inputs["responses"].key == plan.responses[cell].key
        assert extra.filtered[cell].params | {"seed": 0} == {"M": scale.M, "seed": 0, "n_prompts": scale.n_train}
        assert job.params == plan.student_accuracy[scale.student, *cell].params
        features = extra.filtered_features[cell]
        like = plan.features[scale.student, *cell].params
        assert features.params == like | {"n_prompts": None, "m": scale.m, "d": scale.d}
        assert features.inputs["responses"].params["n_prompts"] == scale.n_prompts


def test_the_budget_and_the_choice_of_teachers():
    """At most three teachers x two temperatures at mini, 32 filtered and 16 longer or shorter ones at lab."""
    for name, most_filtered, most_trained in (("mini", 6, 10), ("lab", 32, 16)):
        plan = Plan(get_scale(name))
        extra, own = ExtraPlan(plan), {job.key for job in plan.distilled.values()}
        trained = {job.inputs["model"].key for job in extra.test.values()} - own
        assert len(extra.filtered) == most_filtered and len(trained) <= most_trained
    lab = get_scale("lab")
    assert (strongest(lab), tersest(lab), weakest(lab)) == ("algebra-96", "terse-96", "equations-40")
    teachers = dict.fromkeys(t for t, _ in filtered_cells(lab))
    specs = {t.name: t for t in lab.teachers}
    assert {specs[t].manner for t in teachers} == {t.manner for t in lab.teachers}
    assert len([t for t in teachers if specs[t].base == "40"]) == 2 and len(teachers) == 8
    mini = get_scale("mini")
    assert [t for t, _ in filtered_cells(mini)][::2] == ["algebra-64", "terse-64", "equations-40"]
    for scale in SCALES.values():
        assert all(t in scale.temperatures for _, t in filtered_cells(scale))


def test_the_axes_double_and_hold_the_usual_setting():
    assert training_axes(get_scale("lab")) == {"epochs": [1, 2, 4, 8], "generations": [1, 2, 4, 8]}
    assert training_axes(get_scale("mini")) == {"epochs": [1, 2, 4, 8], "generations": [1, 2, 4]}
    odd = replace(get_scale("mini"), epochs=3, M=4, M_kept=6)
    assert training_axes(odd) == {"epochs": [3, 6], "generations": [1, 2, 4, 6]}


@pytest.mark.slow
def test_the_tables_at_nano(tmp_path, monkeypatch):
    """The real run. Its teacher may well have no right response: then the row says so, and there is no student."""
    (tmp_path / "main.py").write_text(SCRIPT)
    env = {
        **os.environ,
        "GRACELIB_RUNS": str(tmp_path / "runs"),
        "GRACELIB_FIGURES": str(tmp_path / "figures"),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "main.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and done.stdout == "", done.stderr[-3000:]
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    filtered, runs = (getattr(extras, name)("nano", recompute=False) for name in ("filtered", "training_runs"))
    teachers = tables.teacher_data("nano", recompute=False).set_index("task").train_accuracy
    assert filtered.kept_share.item() == teachers["short"]
    assert np.isnan(filtered.average.item()) == (filtered.prompts_kept.item() == 0)
    students = tables.distilled_students("nano", recompute=False)
    own = students[(students.task == "short") & (students.student == "first")].average.item()
    assert (runs[runs.usual].test == own).all() and runs.usual.sum() == 2
    assert runs[["test", "train"]].stack().between(0, 1).all()
    for name, table in (("filtered", filtered), ("training_runs", runs)):
        pd.testing.assert_frame_equal(getattr(extras, name)("nano"), table)
    extra = ExtraPlan(Plan(get_scale("nano")))
    jobs = [*extra.filtered.values(), *extra.test.values(), *extra.train.values()]
    assert all(job.done(tmp_path / "runs") for job in jobs)
