"""A finished nano run, looked at twice: `explain` foretells what the next run does, and `verify` finds a number of the
tables that is not what the code computes, by the rule that fits the machine.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from gracelib.cli.app import app
from gracelib.experiment import extras, run, scales, verify
from gracelib.experiment import tables as pipeline
from gracelib.experiment.extras import KEPT
from gracelib.experiment.plan import Plan, accuracy_of, plans_of
from gracelib.experiment.scales import NANO, get_scale
from gracelib.features.files import load_features
from gracelib.jobs import explain, notebooks, paths, store
from gracelib.jobs.store import META, file_hash, signed, verified
from gracelib.jobs.workers import run_jobs

pytestmark = pytest.mark.slow
runner = CliRunner()
PARTS = ("teachers", "short-first", "short-second", "long-first")
CELL = ("short", "first", "reversed-64", 0.6)


def filters():
    return [job for own in extras.filter_jobs(plans_of(NANO)).values() for job in own]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs, result tables, and the rerun of one cell: computed once, copied by each test."""
    where = tmp_path_factory.mktemp("nano")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACELIB_WORKERS", "2" if "PYTEST_XDIST_WORKER" not in os.environ else "1")
        patch.setenv("GRACELIB_RUNS", str(where / "runs"))
        patch.setenv("GRACELIB_FIGURES", str(where / "figures"))
        run_jobs(run.planned(NANO, PARTS) + filters(), paths.runs(), "nano")
        for name in pipeline.names("lab-world1"):  # what every scale has
            pipeline.table("nano", name)
        verify.verify("nano", n=1, seed=SEED)
    return where


SEED = next(seed for seed in range(99) if verify.sample(NANO, 1, seed) == [CELL])


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("GRACELIB_WORKERS", "1")
    return tmp_path


# --- explain ------------------------------------------------------------------------------------------------


def rerun(verdicts) -> set[str]:
    return {v.job.key for v in verdicts if v.why}


def why(verdicts, stage: str) -> set[str]:
    return {reason for v in verdicts if v.job.stage.name == stage for reason in v.why}


def finished(root: Path) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns for path in root.glob(f"*/*/{META}") if "verify" not in path.parts
    }


def test_a_finished_run_is_reused_and_the_report_says_so(place):
    verdicts = run.explain("nano", PARTS)
    assert not rerun(verdicts) and len(verdicts) > 20
    assert explain.report(verdicts).endswith(f"0 of {len(verdicts)} jobs are run")


def test_what_is_foretold_is_what_a_run_does(place, monkeypatch):
    """Another learning rate, a result that is lost, one that is damaged, one that was removed and is not needed, one of a
    stopped run: `explain` names each reason, throws nothing away, and the run computes exactly what it said."""
    root, plan = paths.runs(), Plan(NANO)
    lost, broken = plan.features[CELL[1:]].folder(root), plan.base_accuracy["second"].folder(root)
    shutil.rmtree(lost)
    stopped = plan.base_accuracy["first"].folder(root)
    stopped.rename(stopped.with_suffix(".part"))
    (broken / "accuracy.json").write_text("{}")
    shutil.rmtree(plan.bases["64"].folder(root))  # the teacher that was made from it is finished
    monkeypatch.setitem(scales.SCALES, "nano", replace(NANO, lr=0.002))
    before = finished(root)
    verdicts = run.explain("nano", PARTS)
    told = rerun(verdicts)
    assert why(verdicts, "distill") == {"its parameters changed: lr 0.003 -> 0.002"}
    assert why(verdicts, "features") == {"never computed"}
    assert {w.split(" taught")[0] for w in why(verdicts, "evaluate")} == {
        "an input is rerun: distill first",
        "an input is rerun: distill second",
        "damaged: accuracy.json is damaged or was edited (its checksum changed)",
        "never finished (a run was stopped in it)",
    }
    assert (
        plan.bases["64"].key not in {v.job.key for v in verdicts}
        and (broken / META).is_file()
        and finished(root) == before
    )
    text = explain.report(verdicts)
    assert "3 x its parameters changed: lr 0.003 -> 0.002" in text and "3 x an input is rerun: distill" in text
    assert "9 of 23 jobs are run" in text
    assert "CELL" not in text and "reversed-64" not in text and "reversed-64" in explain.report(verdicts, each=True)

    run_jobs(run.planned(scales.SCALES["nano"], PARTS), root, "nano")
    after = finished(root)
    assert {key for key in after if after[key] != before.get(key)} == told
    assert not rerun(run.explain("nano", PARTS))


def test_the_module_and_the_package_that_changed_are_named(place, monkeypatch):
    real, found = store.fingerprint, store.versions()
    monkeypatch.setattr(
        store, "fingerprint", lambda modules: real(modules) + "x" * ("gracelib.models.training" in modules)
    )
    verdicts = run.explain("nano", ("short-second",))
    assert why(verdicts, "distill") == {
        "its code changed: gracelib.models.training",
        "an input is rerun: pretrain base student second",
        "an input is rerun: responses reversed-64 at T=0.6",
    }
    assert why(verdicts, "prompts") == set()
    monkeypatch.undo()
    monkeypatch.setenv("GRACELIB_RUNS", str(place / "runs"))
    for module in (store, explain):
        monkeypatch.setattr(module, "versions", lambda: found | {"torch": "9.9.9"})
    verdicts = run.explain("nano", ("short-second",))
    assert why(verdicts, "prompts") == {f"package torch {found['torch']} -> 9.9.9"}
    assert len(rerun(verdicts)) == len(verdicts)


def test_results_of_another_scale_are_no_older_version_of_this_one_s(place):
    """smoke has a teacher of the same name: what nano made says nothing about its results or about how long they take."""
    verdicts = run.explain("smoke")
    assert {reason for v in verdicts for reason in v.why} == {"never computed"}
    alike = {v.job.name for v in verdicts} & {v.job.name for v in run.explain("nano")}
    assert len(alike) > 10
    assert explain.report(verdicts).endswith(f"{len(verdicts)} of {len(verdicts)} jobs are run")


def test_filtered_students_are_foretold_once_the_filter_has_run(place):
    """Told that the filter left nothing, it foretells no student; told that it left four prompts, it foretells one."""

    def students(prompts_kept):
        (job,) = {job.key: job for job in filters()}.values()
        kept, meta = (job.folder(paths.runs()) / name for name in (KEPT, META))
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"prompts_kept": prompts_kept}))
        meta.write_text(signed(verified(meta.read_text()) | {"files": {KEPT: file_hash(kept)}}))
        return [
            v.job.name
            for v in run.explain("nano", ("extra",))
            if v.job.name.endswith("filtered") and v.job.stage.name in ("distill", "features")
        ]

    assert students(0) == []
    assert students(4) == ["distill reversed-64 at T=0.6, filtered", "features reversed-64 at T=0.6, filtered"]


def test_notebooks_are_explained_as_they_are_run(place, monkeypatch):
    """The reasons, one change at a time; what has none is not executed by the run that follows."""
    folder = place / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(paths, "NOTEBOOKS", folder)
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")

    def notebook(name, text):
        head = new_code_cell('scale = "mini"\nrecompute = False', metadata={"tags": ["parameters"]})
        write = f"from gracelib.jobs import paths\n(paths.figures(scale) / '{name}.csv').write_text('{text}')"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[head, new_code_cell(write)], metadata=kernel), folder / f"{name}.ipynb")

    def reasons():
        found = run.explain("nano")[-2:]
        return {v.job.params["notebook"][:2]: v.why for v in found}

    notebook("00_first", "a")
    notebook("01_second", "b")
    assert reasons() == {"00": ("never computed",), "01": ("never computed",)}
    notebooks.run("nano")
    assert reasons() == {"00": (), "01": ()} and notebooks.run("nano") == []
    (paths.figures("nano") / "01_second.csv").write_text("tampered")
    edited = "damaged: nano/01_second.csv is damaged or was edited (its checksum changed)"
    assert reasons() == {"00": (), "01": (edited,)}
    notebook("00_first", "A")
    first, second = reasons().values()
    assert len(first) == 1 and first[0].startswith("its parameters changed: cells[1][1] ")
    assert second == ("an input is rerun: notebook 00_first.ipynb at nano",)
    real = store.fingerprint
    monkeypatch.setattr(store, "fingerprint", lambda names: real(names) + "x" * ("gracelib.world.stories" in names))
    assert "its code changed: gracelib.world.stories" in reasons()["01"]


def test_the_command_explains_and_refuses(place):
    result = runner.invoke(app, ["explain", "--scale", "nano", "--part", "long-first"])
    assert result.exit_code == 0 and result.stdout.splitlines()[-1].startswith("0 of ")
    for words, said in (
        (["--part", "nonsense"], "part 'nonsense' is not one of scale 'nano'"),
        (["--scale", "nino"], "nino"),
        (["--scale", "paper"], "make plan SCALE=paper"),
    ):
        result = runner.invoke(app, ["explain", "--scale", "nano", *words])
        assert result.exit_code == 2 and result.stderr.startswith("error: ") and said in result.stderr


# --- verify -------------------------------------------------------------------------------------------------


def run_verify(*words):
    return runner.invoke(app, ["verify", "--scale", "nano", "--cells", "1", "--seed", str(SEED), *words])


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
    assert expected.startswith("equal bits (100% of the losses")
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
    for name, columns in (("features", ["loss", "mean_prob", "grad_norm"]), ("scores", scores)):
        change(name, columns, lambda values: values * (1 + 1e-7))  # nothing is equal to the last digit
    result = run_verify()
    assert result.exit_code == 0, result.stdout
    assert "expected: another CPU (0% of the losses, norms and scores are equal to the last digit)" in result.stdout
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
    assert len(outside(run_verify("--machine", "same"))) > 15


def test_bad_usage_is_refused_before_anything_is_computed(place, monkeypatch):
    monkeypatch.setattr(verify, "run_jobs", None)
    for words, said in (
        (["--cells", "9"], "--cells 9: scale 'nano' has 3 cells"),
        (["--cells", "0"], "choose 1 to 3"),
        (["--machine", "mine"], "--machine 'mine'"),
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
    assert len(verify.sample(lab, 360, 0)) == 360


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
