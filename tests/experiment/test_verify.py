"""`verify` finds a number of the tables that is not what the code computes, by the rule that fits the machine; and the
committed tables are what it computes.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from gracelib.cli.app import app
from gracelib.experiment import scales, verify
from gracelib.experiment.plan import Plan, accuracy_of, plans_of
from gracelib.experiment.scales import NANO, get_scale
from gracelib.experiment.tables import MADE_WITH
from gracelib.features.files import load_features
from gracelib.jobs import paths, store
from nano_for_tests import Nano

pytestmark = pytest.mark.slow
CELL = ("short", "first", "reversed-64", 0.6)
SEED = next(seed for seed in range(99) if verify.sample(NANO, 1, seed) == [CELL])


@pytest.fixture(scope="module")
def rerun(undisturbed, tmp_path_factory):
    """A finished run with the rerun of one cell beside it: computed once, copied by each test."""
    nano = Nano(tmp_path_factory.mktemp("nano")).copy_of(undisturbed)
    with pytest.MonkeyPatch.context() as patch:
        nano.here(patch)
        verify.verify("nano", n=1, seed=SEED)
    return nano


@pytest.fixture
def place(rerun, tmp_path, monkeypatch):
    return Nano(tmp_path).copy_of(rerun).here(monkeypatch)


def run_verify(*words):
    return CliRunner().invoke(app, ["verify", "--scale", "nano", "--cells", "1", "--seed", str(SEED), *words])


def outside(result) -> list[str]:
    return [line for line in result.stdout.splitlines() if line.endswith(" OUTSIDE") and not line.startswith("numbers")]


def change(name: str, columns, change) -> None:
    path = paths.results("nano") / f"{name}.csv"
    table = pd.read_csv(path)
    table[columns] = change(table[columns])
    table.to_csv(path, index=False, float_format="%.10g")


def test_the_same_machine_gives_the_same_numbers(place):
    """A whole chain from nothing, in a folder of its own: every number of the cell comes out again."""
    table, expected = verify.verify("nano", 1, SEED)
    assert expected == "equal bits"
    assert set(table.verdict) == {"equal"} and (table.difference.fillna(0) == 0).all()
    assert {q.split(".")[0] for q in table.quantity} == set(verify.TABLES) and len(table) == 42
    ours, theirs = (root / "responses" for root in (place / "runs", place / "runs/verify/nano"))
    assert theirs.is_dir() and {p.name for p in theirs.iterdir()} <= {p.name for p in ours.iterdir()}


@pytest.mark.parametrize(
    "name, column",
    [
        ("scores", "grace"),
        ("students", "truncated"),
        ("teachers", "mean_length"),
        ("base_students", "average"),
        ("features", "loss"),
    ],
)
def test_a_tampered_number_is_found(place, name, column):
    """In the ninth digit: on the machine that made the table, that is not rounding."""
    change(name, column, lambda values: values * (1 + 1e-8) + 1e-9)
    result = run_verify()
    assert result.exit_code == 1
    (row,) = outside(result)
    assert f" {name}.{column} " in row and "1 OUTSIDE" in result.stdout


def test_tables_of_another_cpu_are_compared_within_their_errors(place):
    scores = pd.read_csv(paths.results("nano") / "scores.csv").select_dtypes("float").columns.drop("temperature")
    native = json.loads((paths.results("nano") / MADE_WITH).read_text()) | {"arithmetic": "native"}
    (paths.results("nano") / MADE_WITH).write_text(json.dumps(native))
    for name, columns in (("features", ["loss", "mean_prob", "grad_norm"]), ("scores", scores)):
        change(name, columns, lambda values: values * (1 + 1e-7))  # nothing is equal to the last digit
    result = run_verify()
    assert result.exit_code == 0, result.stdout
    assert "expected: other bits (arithmetic native -> portable-1)" in result.stdout
    table = verify.verify("nano", 1, SEED)[0].set_index("quantity")
    assert table.verdict["features.loss"] == table.verdict["scores.grace"] == "within"
    assert table.verdict["scores.badge"] == "not compared" and "scores.badge" not in result.stdout
    assert table.tolerance["scores.grace"] > table.tolerance["features.loss"] > 0
    own = accuracy_of(Plan(NANO).teacher_accuracy[CELL[2:]], paths.runs())["average_se"]
    assert table.tolerance["teachers.accuracy"] == pytest.approx(3 * 2**0.5 * own)
    change("features", "loss", lambda values: values * 1.5)
    change("students", "average", lambda values: values + 0.5)
    result = run_verify()
    assert result.exit_code == 1 and len(outside(result)) == 2


def test_bad_usage_is_refused_before_anything_is_computed(place, monkeypatch):
    monkeypatch.setattr(verify, "run_jobs", None)
    for words, said in (
        (["--cells", "9"], "--cells 9: scale 'nano' has 3 cells"),
        (["--cells", "0"], "choose 1 to 3"),
        (["--scale", "paper"], "make plan SCALE=paper"),
    ):
        result = run_verify(*words)
        assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.output, result.output
    change("students", "teacher", lambda values: values.replace("reversed-64", "other"))
    result = run_verify()
    said = "students.csv: 0 rows of short first reversed-64 0.6, expected one"
    assert result.exit_code == 2 and said in result.stderr
    (paths.results("nano") / "scores.csv").unlink()
    assert "scores.csv is not there: run `make figures SCALE=nano`" in run_verify().stderr


def test_the_sample_is_drawn_by_the_seed_from_the_cheaper_half():
    lab = scales.get_scale("lab")
    drawn = [verify.sample(lab, 3, seed) for seed in range(5)]
    assert drawn == [verify.sample(lab, 3, seed) for seed in range(5)] and len({tuple(d) for d in drawn}) == 5
    cost = {
        (plan.task.name, *cell): sum(j.cost for j in store.with_upstream(verify.cell_jobs(plan, cell)))
        for plan in plans_of(lab)
        for cell in plan.features
    }
    middle = sorted(cost.values())[len(cost) // 2]
    assert all(cost[cell] <= middle for cells in drawn for cell in cells)
    assert len(verify.sample(lab, 240, 0)) == 240


# --- the same checkpoints and responses: what holds on any CPU ----------------------------------------------

GIVEN = Path(__file__).parents[1] / "data" / "given"  # of a finished run of mini
GIVEN_CELL = ("short", "first", "equations-40", 0.6)
WITHIN = 1e-4  # relative


def copied(out: Path, params: dict, inputs: dict[str, Path]) -> None:
    shutil.copytree(GIVEN / params["part"], out, dirs_exist_ok=True)


def test_the_committed_cell_comes_out_again_on_this_machine(tmp_path):
    """The one test that the committed tables are what this code computes, on whatever CPU it runs: from the base student,
    the teacher and the teacher's responses of a run of mini, of whose first 64 prompts 128 columns of features lie here.
    """
    plan, (_, *cell) = Plan(get_scale("mini")), GIVEN_CELL
    cell, (student, teacher, t) = tuple(cell), cell
    base, other, responses = (
        store.Job(store.Stage("given", copied), {"part": part}) for part in ("student", "teacher", "responses")
    )
    taught = replace(plan.distilled[cell], inputs={"student": base, "responses": responses})
    for jobs, key, given in (
        (plan.responses, (teacher, t), {"teacher": other}),
        (plan.teacher_accuracy, (teacher, t), {"model": other}),
        (plan.features, cell, {"student": base, "responses": responses}),
        (plan.base_accuracy, student, {"model": base}),
        (plan.student_accuracy, cell, {"model": taught}),
    ):
        jobs[key] = replace(jobs[key], inputs=jobs[key].inputs | given)
    for job in store.with_upstream(verify.cell_jobs(plan, cell), unfinished_in=tmp_path):
        store.compute(job, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "given",
        *"prompts responses features distill evaluate".split(),
    }

    table = verify.compared(plan, cell, verify.committed("mini", GIVEN_CELL), tmp_path).set_index("quantity")
    sharp = table.index.str.startswith(("features.", "scores."))
    allowed = np.where(sharp, WITHIN * table.committed.abs(), verify.STANDARD_ERRORS * table.error)
    assert not (table.difference.abs() > allowed + 1e-9 * table.committed.abs()).any(), table.to_string()
    compared = {*table.index[sharp], *table.index[table.error.notna()]}
    assert {"scores.grace", "scores.g_vendi", "features.loss", "teachers.accuracy", "students.average"} <= compared
    theirs, ours = load_features(GIVEN), load_features(plan.features[cell].folder(tmp_path), plan.scale.m)
    for name in ("g", "loss", "mean_prob", "grad_norm", "length"):  # of the worst response
        there = theirs[name].astype(float).reshape(len(theirs["g"]), -1)
        here = ours[name][: len(there)].astype(float).reshape(len(there), -1)[:, : there.shape[1]]
        moved, size = np.linalg.norm(here - there, axis=1), np.linalg.norm(there, axis=1)
        assert (moved <= WITHIN * size).all(), name
