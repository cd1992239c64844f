"""A finished nano run, looked at twice: `explain` foretells what the next run does, and `verify` finds a number of the
tables that is not what the code computes, by the rule that fits the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from gracelib.cli.app import app
from gracelib.experiment import extras, given, run, scales, verify
from gracelib.experiment import tables as pipeline
from gracelib.experiment.extras import KEPT
from gracelib.experiment.plan import Plan, accuracy_of, plans_of
from gracelib.experiment.scales import NANO
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


def fates(verdicts) -> dict[str, set[str]]:
    return {fate: {v.job.key for v in verdicts if v.fate == fate} for fate in ("reused", "rerun", "not needed")}


def why(verdicts, stage: str) -> set[str]:
    return {reason for v in verdicts if v.job.stage.name == stage for reason in v.why}


def finished(root: Path) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns for path in root.glob(f"*/*/{META}") if "verify" not in path.parts
    }


def test_a_finished_run_is_reused_and_the_report_says_so(place):
    verdicts = run.explain("nano", PARTS)
    assert {v.fate for v in verdicts} == {"reused"} and len(verdicts) > 20
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
    told = fates(verdicts)
    assert why(verdicts, "distill") == {"its parameters changed: lr 0.003 -> 0.002"}
    assert why(verdicts, "features") == {"never computed"}
    assert {w.split(" taught")[0] for w in why(verdicts, "evaluate")} == {
        "an input is rerun: distill first",
        "an input is rerun: distill second",
        "damaged: accuracy.json is damaged (its checksum changed)",
        "never finished (a run was stopped in it)",
    }
    assert told["not needed"] == {plan.bases["64"].key} and (broken / META).is_file() and finished(root) == before
    text = explain.report(verdicts)
    assert "3 x its parameters changed: lr 0.003 -> 0.002" in text and "3 x an input is rerun: distill" in text
    assert "(1 gone and not needed)" in text and "9 of 24 jobs are run: about 0 min" in text
    assert "CELL" not in text and "reversed-64" not in text and "reversed-64" in explain.report(verdicts, each=True)

    run_jobs(run.planned(scales.SCALES["nano"], PARTS), root, "nano")
    after = finished(root)
    assert {key for key in after if after[key] != before.get(key)} == told["rerun"]
    assert {v.fate for v in run.explain("nano", PARTS)} == {"reused", "not needed"}


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
    assert why(verdicts, "prompts") == set() and {v.fate for v in verdicts if v.job.stage.name == "prompts"} == {
        "reused"
    }
    monkeypatch.undo()
    monkeypatch.setenv("GRACELIB_RUNS", str(place / "runs"))
    for module in (store, explain):
        monkeypatch.setattr(module, "versions", lambda: found | {"torch": "9.9.9"})
    verdicts = run.explain("nano", ("short-second",))
    assert why(verdicts, "prompts") == {f"package torch {found['torch']} -> 9.9.9"}
    assert {v.fate for v in verdicts} == {"rerun"}


def test_results_of_another_scale_are_no_older_version_of_this_one_s(place):
    """smoke has a teacher of the same name: what nano made says nothing about its results or about how long they take."""
    verdicts = run.explain("smoke")
    assert {reason for v in verdicts for reason in v.why} == {"never computed"}
    alike = {v.name for v in verdicts} & {v.name for v in run.explain("nano")}
    assert len(alike) > 10 and {v.seconds for v in verdicts} == {None}
    assert explain.report(verdicts).endswith(f"{len(verdicts)} of {len(verdicts)} jobs are run")


def test_filtered_students_are_foretold_once_the_filter_has_run(place):
    """Told that the filter left nothing, it foretells no student; told that it left four prompts, it foretells one."""

    def students(prompts_kept):
        (job,) = {job.key: job for job in filters()}.values()
        kept, meta = (job.folder(paths.runs()) / name for name in (KEPT, META))
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"prompts_kept": prompts_kept}))
        meta.write_text(signed(verified(meta.read_text()) | {"files": {KEPT: file_hash(kept)}}))
        return [
            v.name
            for v in run.explain("nano", ("extra",))
            if v.name.endswith("filtered") and v.job.stage.name in ("distill", "features")
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
        return dict(explain.explain_notebooks("nano"))

    notebook("00_first", "a")
    notebook("01_second", "b")
    assert reasons() == {"00_first": ["never executed"], "01_second": ["never executed"]}
    notebooks.run("nano")
    assert reasons() == {"00_first": [], "01_second": []} and notebooks.run("nano") == []
    (paths.figures("nano") / "01_second.csv").write_text("tampered")
    assert reasons() == {"00_first": [], "01_second": ["01_second.csv is not what it wrote"]}
    notebook("00_first", "A")
    assert reasons() == {"00_first": ["its cells changed"], "01_second": ["a notebook before it is executed"]}
    real = store.fingerprint
    monkeypatch.setattr(notebooks, "fingerprint", lambda names: real(names) + "x" * ("gracelib.world.stories" in names))
    assert reasons()["01_second"] == ["gracelib's code changed: gracelib.world.stories"]
    stamp = json.loads((place / "runs/notebooks/nano/01_second.json").read_text())
    assert "never" not in str(stamp["made_from"]) and "tampered" not in str(stamp)


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


def change(name: str, column: str, change) -> None:
    path = paths.results("nano") / f"{name}.csv"
    table = pd.read_csv(path)
    table[column] = change(table[column])
    table.to_csv(path, index=False, float_format="%.10g")


def test_the_same_machine_gives_the_same_numbers(place):
    """A whole chain from nothing, in a folder of its own: every number of the cell comes out again."""
    report = verify.verify("nano", 1, SEED)
    assert report.expected == "equal bits" and "equal to the last digit" in report.because
    assert set(report.table.verdict) == {"equal"} and (report.table.difference.fillna(0) == 0).all()
    assert {q.split(".")[0] for q in report.table.quantity} == set(verify.KEYS) and len(report.table) == 42
    assert report.kind["cpu"] and report.kind["threads"] == 1 and report.kind["torch"]
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


def everything_moved(by: float) -> None:
    """As another CPU leaves the tables: nothing is equal to the last digit."""
    for name, columns in {
        "features": ["loss", "mean_prob", "grad_norm"],
        "scores": list(
            pd.read_csv(paths.results("nano") / "scores.csv").select_dtypes("float").columns.drop("temperature")
        ),
    }.items():
        for column in columns:
            change(name, column, lambda values: values * (1 + by))


def test_tables_of_another_cpu_are_compared_within_their_errors(place, monkeypatch):
    everything_moved(1e-7)
    about = {"versions": store.versions() | {"machine": "Linux aarch64"}}
    (paths.figures("nano") / "table_main.json").write_text(json.dumps(about))
    result = run_verify()
    assert result.exit_code == 0, result.stdout
    assert "expected: another CPU (machine Linux aarch64 there, Linux x86_64 here" in result.stdout
    table = verify.verify("nano", 1, SEED).table.set_index("quantity")
    assert table.verdict["features.loss"] == table.verdict["scores.grace"] == "within"
    assert table.verdict["scores.badge"] == "not compared" and "scores.badge" not in result.stdout
    assert table.tolerance["scores.grace"] > table.tolerance["features.loss"] > 0
    shares = [
        store_error["average_se"] for store_error in [accuracy_of(Plan(NANO).teacher_accuracy[CELL[2:]], paths.runs())]
    ]
    assert table.tolerance["teachers.accuracy"] == pytest.approx(3 * 2**0.5 * shares[0])
    assert "no tables of lab, lab-world1, lab-world2 are here" in result.stdout
    with monkeypatch.context() as patch:
        patch.setattr(verify, "spread", lambda: {"teachers.accuracy": 0.25, "scores.grace": 0.5})
        wider = verify.verify("nano", 1, SEED).table.set_index("quantity")
    assert wider.tolerance["teachers.accuracy"] == pytest.approx(3 * np.hypot(2**0.5 * shares[0], 0.25))
    assert wider.tolerance["scores.grace"] == pytest.approx(
        np.hypot(table.tolerance["scores.grace"], 1.5 * table.committed["scores.grace"])
    )
    assert wider.tolerance["students.average"] == table.tolerance["students.average"]
    change("features", "loss", lambda values: values * 1.5)
    change("students", "average", lambda values: values + 0.5)
    result = run_verify()
    assert result.exit_code == 1 and len(outside(result)) == 2
    assert len(outside(run_verify("--machine", "same"))) > 15


def test_an_error_of_nothing_is_an_error_and_none_is_none():
    runs, right = {"teachers.accuracy": 0.2}, verify.Row(1.0, 1.0, 0.0)
    assert verify.allowance("teachers.accuracy", right, runs) == pytest.approx(0.6)
    assert verify.allowance("students.average", right, runs) == 0
    assert verify.allowance("teachers.accuracy", right._replace(error=None), runs) is None


def test_a_record_remembers_the_machine_that_gave_the_tables_back(place):
    result = run_verify("--record")
    assert result.exit_code == 0
    csv, sidecar = (paths.figures("nano") / f"verify.{ending}" for ending in ("csv", "json"))
    record = json.loads(sidecar.read_text())
    assert record["verdicts"] == {"equal": 42} and record["files"] == {"verify.csv": file_hash(csv)}
    assert record["kinds"] == [record["kind"]] and len(pd.read_csv(csv)) == 42
    assert "verify.json names this kind of machine" in verify.verify("nano", 1, SEED).because
    change("features", "loss", lambda values: values * 1.001)  # other tables: the record is not of them
    assert "verify.json" not in verify.verify("nano", 1, SEED).because
    assert run_verify("--record").exit_code == 1 and json.loads(sidecar.read_text())["kinds"] == []


def test_bad_usage_is_refused_before_anything_is_computed(place, monkeypatch):
    monkeypatch.setattr(verify, "run_jobs", None)
    for words, said in (
        (["--cells", "9"], "--cells 9: scale 'nano' has 3 cells"),
        (["--cells", "0"], "choose 1 to 3"),
        (["--machine", "mine"], "--machine 'mine'"),
        (["--scale", "paper"], "make plan SCALE=paper"),
        (["--runs", "x", "--record"], "--record"),
        (["--runs", "x", "--given"], "stand alone"),
        (["--pack", "short,first"], "--pack 'short,first': write TASK,STUDENT,TEACHER,TEMPERATURE"),
        (["--pack", "short,first,x,hot"], "--pack 'short,first,x,hot': write"),
        (["--pack", "short,first,nobody,0.6"], "is not one of scale 'nano'; its cells are [('first', "),
        (["--given"], "has no committed cell; `gracelib verify --scale nano` trains instead"),
        (["--runs", str(place)], "is not there: "),
    ):
        result = run_verify(*words)
        assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.output, result.output
    change("students", "teacher", lambda values: values.replace("reversed-64", "other"))
    result = run_verify()
    assert (
        result.exit_code == 2 and "students.csv: 0 rows of short first reversed-64 0.6, expected one" in result.stderr
    )
    (paths.results("nano") / "scores.csv").unlink()
    assert "scores.csv is not there; `make figures SCALE=nano` makes it" in run_verify().stderr


OTHER_CPU = """
from pathlib import Path
import sys
from gracelib.experiment.scales import NANO
from gracelib.experiment.plan import Plan
from gracelib.jobs.store import compute
compute(Plan(NANO).features[{cell!r}], Path(sys.argv[1]))
"""


def test_features_of_another_cpu_agree_given_its_checkpoints_and_responses(place, tmp_path):
    """Torch without vector instructions stands for another CPU: other last bits, the same features to 1e-4."""
    other, job = tmp_path / "other", Plan(NANO).features[CELL[1:]]
    for upstream in job.inputs.values():
        shutil.copytree(upstream.folder(paths.runs()), upstream.folder(other))
    done = subprocess.run(
        [sys.executable, "-c", OTHER_CPU.format(cell=CELL[1:]), str(other)],
        capture_output=True,
        text=True,
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"},
        cwd=paths.ROOT,
    )
    assert done.returncode == 0, done.stderr
    report = given.against("nano", other, 1, SEED)
    found = report.table.set_index(report.table.quantity.str.split("[.,]").str[1])
    assert report.expected == "another CPU" and report.outside == 0
    assert found.verdict["g"] == "within" and 0 < found.difference["g"] < 1e-5 and found.verdict["length"] == "equal"

    ours = given.against("nano", paths.runs(), 1, SEED)  # a run of this very kind of machine: not a bit may differ
    assert ours.expected == "equal bits" and set(ours.table.verdict) == {"equal"}

    file = job.folder(other) / "features.safetensors"
    with safe_open(file, framework="numpy") as f:
        about = f.metadata()
    save_file(
        {name: values * np.float32(1.001) if name == "g" else values for name, values in load_file(file).items()},
        file,
        metadata=about,
    )
    with pytest.raises(ValueError, match="features.safetensors is damaged"):
        given.against("nano", other, 1, SEED)
    meta = job.folder(other) / META
    meta.write_text(signed(verified(meta.read_text()) | {"files": {file.name: file_hash(file)}}))
    assert given.against("nano", other, 1, SEED).outside == 1
    result = run_verify("--runs", str(other))
    assert result.exit_code == 1 and "features.g, worst response, relative" in result.stdout
    student = job.inputs["student"].folder(other) / "model.safetensors"
    student.write_bytes(student.read_bytes()[:-1])
    result = run_verify("--runs", str(other))
    assert result.exit_code == 2 and "model.safetensors is damaged" in result.stderr


# --- given ---------------------------------------------------------------------------------------------------


def test_a_packed_cell_comes_out_again_from_its_checkpoints_and_responses(place):
    """Nothing is trained before it but the student; every number of the tables, and each response's gradient."""
    assert run_verify("--pack", ",".join(map(str, CELL))).exit_code == 0
    (paths.runs() / "responses").rename(place / "gone")
    report = given.committed_cell("nano")
    assert report.expected == "equal bits" and "packed on this kind" in report.because
    assert set(report.table.verdict) == {"equal"} and len(report.table) == 42 + 5
    made_here = {path.name for path in (paths.runs() / "verify/nano-given").iterdir()}
    assert made_here == {"given", "prompts", "responses", "features", "distill", "evaluate"}
    change("scores", "grace", lambda values: values * (1 + 1e-8))
    assert [line.split()[-1] for line in outside(run_verify("--given"))] == ["OUTSIDE"]
    other = run_verify("--given", "--machine", "other")
    assert other.exit_code == 0 and "expected: another CPU (--machine other)" in other.stdout
    change("scores", "badge", lambda values: values * (1 + 3e-4))  # on another CPU too: scores of the same responses
    (row,) = outside(run_verify("--given", "--machine", "other"))
    assert " scores.badge " in row


@pytest.mark.parametrize("harm", ["student/model.safetensors", "responses/responses.jsonl", "features.safetensors"])
def test_a_damaged_packed_cell_is_named(place, harm):
    folder = given.pack("nano", CELL)
    data = (folder / harm).read_bytes()
    (folder / harm).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = run_verify("--given")
    assert result.exit_code == 2 and f"{folder / harm} is damaged" in result.stderr and "git checkout" in result.stderr


def test_other_gradients_in_a_packed_cell_are_found(place):
    """One response's gradient off by a thousandth, under a right checksum: a change of the code would look so."""
    folder = given.pack("nano", CELL)
    file, about = folder / given.FEATURES, folder / given.ABOUT
    with safe_open(file, framework="numpy") as f:
        metadata = f.metadata()
    arrays = load_file(file)
    arrays["g"][3] *= np.float32(1.001)
    save_file(arrays, file, metadata=metadata)
    record = verified(about.read_text())
    record["files"][""][file.name] = file_hash(file)
    about.write_text(signed(record))
    (row,) = outside(run_verify("--given", "--machine", "other"))
    assert " features.g, worst response, relative " in row


def test_only_the_run_of_the_tables_is_packed(place):
    change("students", "average", lambda values: values + 0.125)
    with pytest.raises(ValueError, match=r"results is not of the run in .*runs: students.average .* in the run"):
        given.pack("nano", CELL)
    assert not (paths.figures("nano") / given.FOLDER).exists()
    shutil.rmtree(Plan(NANO).features[CELL[1:]].folder(paths.runs()))
    with pytest.raises(ValueError, match="features .* is not in .*runs; `make figures SCALE=nano` makes it"):
        given.pack("nano", CELL)


def test_the_committed_cell_comes_out_again_on_this_machine(tmp_path, monkeypatch):
    """The one test that the committed tables are what this code computes, on whatever CPU it runs."""
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path))
    monkeypatch.setenv("GRACELIB_WORKERS", "1")
    table = given.committed_cell("mini", "other").table.set_index("quantity")
    assert not (table.verdict == "OUTSIDE").any(), table.to_string()
    compared = table[table.verdict != "not compared"].index
    assert {f"features.{name}, worst response, relative" for name in ("g", "loss", "grad_norm")} <= set(compared)
    assert {"scores.grace", "scores.g_vendi", "features.loss", "teachers.accuracy", "students.average"} <= set(compared)
    assert table.tolerance["scores.grace"] == pytest.approx(1e-4 * table.committed["scores.grace"])


def test_another_training_run_is_allowed_what_the_worlds_differ_by():
    """The lab and its two worlds of other seeds: a weak teacher moves by .2 between runs, a student's loss by a tenth."""
    found = verify.spread()
    tables = [
        pd.read_csv(paths.results(scale) / "students.csv").set_index(verify.KEYS["students"])["average"]
        for scale in verify.OTHER_SEEDS
    ]
    runs = pd.concat(tables, axis=1, join="inner")
    assert len(runs) == 60 and found["students.average"] == pytest.approx(float(np.sqrt(runs.var(axis=1).mean())))
    assert 0.1 < found["teachers.accuracy"] < 0.3 and 0.02 < found["features.loss"] < 0.2
    loss = pd.concat(
        [
            pd.read_csv(paths.results(scale) / "features.csv").set_index(verify.KEYS["features"])["loss"]
            for scale in verify.OTHER_SEEDS
        ],
        axis=1,
        join="inner",
    )
    assert found["features.loss"] == pytest.approx(float(np.sqrt((loss.var(axis=1) / loss.mean(axis=1) ** 2).mean())))


def test_the_sample_is_drawn_by_the_seed_from_the_cheaper_half():
    lab = scales.get_scale("lab")
    drawn = [verify.sample(lab, 3, seed) for seed in range(5)]
    assert drawn == [verify.sample(lab, 3, seed) for seed in range(5)] and len({tuple(d) for d in drawn}) == 5
    cost = {
        (plan.task.name, *cell): sum(j.cost for j in store.with_upstream(verify.cell_jobs(plan, cell)))
        for plan in (Plan(lab, task.name) for task in lab.tasks)
        for cell in plan.features
    }
    middle = sorted(cost.values())[len(cost) // 2]
    assert all(cost[cell] <= middle for cells in drawn for cell in cells)
    assert len(verify.sample(lab, 360, 0)) == 360
