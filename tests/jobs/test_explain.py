"""A changed stage, module or knob of a scale makes new keys for exactly what depends on it: less would be stale results
taken for new ones, more would be hours of work thrown away. And what decides a result is in its key.

Last, what `explain` says of a finished nano run that was changed is compared with what the next run does.
"""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gracelib.cli.app import app
from gracelib.experiment import extras, run, scales, stages
from gracelib.experiment.plan import Plan, plans_of
from gracelib.experiment.scales import NANO
from gracelib.jobs import explain, paths, store
from gracelib.jobs.running import run_jobs
from gracelib.jobs.store import META, Job
from gracelib.scale import ModelSpec, Scale
from nano_for_tests import NOTEBOOKS, Nano, write_notebook

#: stage -> every stage that one of its jobs stands on: the chain of the paper, by hand.
_TAUGHT = {"pretrain", "prompts", "teacher", "responses"}
STANDS_ON = {
    "pretrain": set(),
    "prompts": set(),
    "teacher": {"pretrain"},
    "responses": _TAUGHT | {"distill"},  # an assistant's, which is a student of the grid
    "made_responses": _TAUGHT,
    "filtered_responses": _TAUGHT,
    "mixed_responses": _TAUGHT | {"features"},
    "features": _TAUGHT | {"made_responses"},
    "distill": _TAUGHT | {"made_responses"},
    "taught": _TAUGHT,
    "regenerated": _TAUGHT | {"budgeted"},
    "budgeted": _TAUGHT | {"distill", "features", "mixed_responses", "regenerated", "budgeted"},
    "evaluate": _TAUGHT
    | {"made_responses", "mixed_responses", "features", "distill", "taught", "regenerated", "budgeted"},
    **dict.fromkeys(("estimator", "further"), _TAUGHT),
    **dict.fromkeys(
        ("variants", "few_prompts", "contributions", "grid", "cmi", "timing", "race"), _TAUGHT | {"features"}
    ),
}


def graph(config: Scale) -> dict[str, Job]:
    """Every job of a scale's plan by a name that does not hang on its key."""
    found = {}

    def visit(name: str, job: Job) -> None:
        while name in found and found[name] is not job:
            name += "'"
        if name not in found:
            found[name] = job
            for way, upstream in job.inputs.items():
                visit(f"{name} <- {way}", upstream)

    for part, jobs in run.jobs(config).items():
        for job in jobs:
            visit(f"{part}: {job.stage.name} {job.label}", job)
    return found


def on(job: Job) -> list[Job]:
    return [job, *(below for upstream in job.inputs.values() for below in on(upstream))]


def changed(before: dict[str, str], now: dict[str, Job]) -> set[str]:
    return {name for name in before if name in now and now[name].key != before[name]}


@pytest.fixture(scope="module")
def plan():
    jobs = graph(NANO)
    return jobs, {name: job.key for name, job in jobs.items()}


STAGES = {job.stage.name: job.stage for job in graph(NANO).values()}
MODULES = sorted({module for stage in STAGES.values() for module in stage.modules})


def test_every_stage_stands_on_what_the_chain_says(plan):
    found = {name: set() for name in STAGES}
    for job in plan[0].values():
        found[job.stage.name] |= {below.stage.name for below in on(job)[1:]}
    assert found == STANDS_ON


@pytest.mark.parametrize("stage", STAGES)
def test_a_changed_stage_invalidates_itself_and_what_stands_on_it(plan, stage, monkeypatch):
    jobs, before = plan
    real = store._deciding
    monkeypatch.setattr(
        store, "_deciding", lambda own: (real(own)[0], (*real(own)[1], *["more"] * (own is STAGES[stage].run)))
    )
    expected = {name for name, job in jobs.items() if any(below.stage.name == stage for below in on(job))}
    assert changed(before, graph(NANO)) == expected and expected
    assert {jobs[name].stage.name for name in expected} == {stage} | {s for s in STAGES if stage in STANDS_ON[s]}


@pytest.mark.parametrize("module", MODULES)
def test_a_changed_module_invalidates_the_stages_that_use_it_and_what_stands_on_them(plan, module, monkeypatch):
    jobs, before = plan
    real = store.fingerprint
    monkeypatch.setattr(store, "fingerprint", lambda modules: real(modules) + "more" * (module in modules))
    expected = {name for name, job in jobs.items() if any(module in below.stage.modules for below in on(job))}
    assert changed(before, graph(NANO)) == expected and 0 < len(expected)
    assert len(expected) < len(jobs) or module in (
        "gracelib.world.stories",
        "gracelib.text.formats",
    )  # which everything stands on


ONE = next(iter(NANO.students.items()))
#: knob -> (another value, the stages that take it as a parameter of their own), by hand.
KNOBS = {
    "students": (NANO.students | {ONE[0]: (ModelSpec(24), ONE[1][1])}, {"pretrain"}),
    "teacher_bases": ({k: (m, replace(d, lr=0.01)) for k, (m, d) in NANO.teacher_bases.items()}, {"pretrain"}),
    "teachers": (tuple(replace(t, n_texts=99) for t in NANO.teachers), {"teacher"}),
    "tasks": (
        tuple(replace(t, max_new_tokens=t.max_new_tokens + 1) for t in NANO.tasks),
        {"responses", "evaluate", "regenerated"},
    ),
    "n_train": (20, {"prompts", "filtered_responses"}),
    "M": (1, {"distill", "filtered_responses", "responses"}),
    "n_prompts": (
        12,
        {*"features grid cmi estimator further race mixed_responses regenerated budgeted".split()},
    ),  # nano filters as many prompts for both uses: a job more
    "m": (1, {*"features variants few_prompts contributions grid cmi timing estimator further race".split()}),
    "d": (8, {*"features variants few_prompts contributions grid cmi timing estimator race".split()}),
    "n_folds": (2, {"variants", "contributions", "grid", "timing", "estimator", "race"}),
    "n_test": (9, {"prompts"}),
    "M_kept": (4, {"responses"}),
    "m_kept": (2, set()),
    "d_kept": (64, {"features", "grid"}),
    "k": (3, {"evaluate"}),
    "epochs": (4, {"distill"}),
    "batch_size": (32, {"distill"}),
    "warmup": (0.1, {"distill", "taught", "budgeted"}),
    "lr": (1e-3, {"distill", "taught", "budgeted"}),
    "nu": (1e-2, {"variants", "contributions", "grid", "cmi", "timing", "estimator", "race"}),
    "n_again": (1, set()),  # of the second world
    "n_doubled": (1, set()),
    "seed": (
        50,
        {
            "pretrain",
            "prompts",
            "teacher",
            "responses",
            "made_responses",
            "filtered_responses",
            "features",
            "distill",
            "taught",
            "regenerated",
            "budgeted",
            "evaluate",
            "estimator",
        },
    ),
}


def test_every_knob_of_a_scale_is_tried():
    assert set(KNOBS) == {f.name for f in fields(Scale)} - {"name"}


@pytest.mark.parametrize("knob", KNOBS)
def test_a_changed_knob_invalidates_what_takes_it_and_what_stands_on_that(plan, knob):
    jobs, before = plan
    value, takers = KNOBS[knob]
    more = {"m": {"m": 1}, "M": {"M": 1, "m": 1, "m_kept": 1, "M_kept": 1}}.get(knob, {knob: value})
    now = graph(replace(NANO, **more))
    direct = {name for name in before if name in now and now[name].params != jobs[name].params}
    own = {jobs[name].stage.name for name in direct}
    if knob == "M":  # m must not exceed it
        own -= KNOBS["m"][1]
    assert own == takers
    changed_jobs = {id(now[name]) for name in direct}
    expected = {name for name in before if name in now and any(id(below) in changed_jobs for below in on(now[name]))}
    assert changed(before, now) == expected
    assert len(set(before) & set(now)) > 0.8 * len(before)


# --- what is in a key ---------------------------------------------------------------------------------------

PAPER = {stage.name: stage for stage in vars(stages).values() if isinstance(stage, store.Stage)}


@pytest.mark.parametrize("stage", [*STAGES, *PAPER])
def test_what_keeps_results_or_puts_pieces_together_is_in_no_key(stage):
    """It decides no number: a change there must not throw hours of work away."""
    assert not [
        name for name in (STAGES | PAPER)[stage].modules if name.startswith(("gracelib.jobs.", "gracelib.experiment."))
    ]


# --- words --------------------------------------------------------------------------------------------------


def test_changes_are_named_by_leaf():
    old = {"lr": 0.001, "data": {"shares": [["a", 1.0], ["b", 2.0]]}, "gone": 1}
    new = {"lr": 0.002, "data": {"shares": (("a", 1.0), ("b", 3.0))}, "more": None}
    assert explain.changes(json.loads(json.dumps(old)), json.loads(json.dumps(new))) == [
        "data.shares[1][1] 2.0 -> 3.0",
        'gone 1 -> "(none)"',
        "lr 0.001 -> 0.002",
        'more "(none)" -> null',
    ]
    assert explain.changes(old, old) == [] and len(explain.changes({"x": "a" * 99}, {"x": 1})[0]) < 80


# --- a finished run, changed --------------------------------------------------------------------------------

PARTS = ("teachers", "short-first", "short-second", "long-first")
CELL = ("first", "reversed-64", 0.6)


@pytest.fixture
def place(undisturbed, tmp_path, monkeypatch):
    return Nano(tmp_path).copy_of(undisturbed).here(monkeypatch)


def rerun(verdicts) -> set[str]:
    return {v.job.key for v in verdicts if v.why}


def why(verdicts, stage: str) -> set[str]:
    return {reason for v in verdicts if v.job.stage.name == stage for reason in v.why}


def finished(root: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob(f"*/*/{META}")}


@pytest.mark.slow
def test_a_finished_run_is_reused_and_the_report_says_so(place):
    verdicts = run.explain("nano", PARTS)
    assert not rerun(verdicts) and len(verdicts) > 20
    assert explain.report(verdicts).endswith(f"0 of {len(verdicts)} jobs are run")


@pytest.mark.slow
def test_what_is_said_is_what_a_run_does(place, monkeypatch):
    """Another learning rate, a result that is lost, one that is damaged, one that was removed and is not needed, one of a
    stopped run: `explain` names each reason, throws nothing away, and the run computes exactly what it said."""
    root, plan = paths.runs(), Plan(NANO)
    lost, broken = plan.features[CELL].folder(root), plan.base_accuracy["second"].folder(root)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_results_of_another_scale_are_no_older_version_of_this_one_s(place):
    """smoke has a teacher of the same name: what nano made says nothing about its results or about how long they take."""
    verdicts = run.explain("smoke")
    assert {reason for v in verdicts for reason in v.why} == {"never computed"}
    alike = {v.job.name for v in verdicts} & {v.job.name for v in run.explain("nano")}
    assert len(alike) > 10
    assert explain.report(verdicts).endswith(f"{len(verdicts)} of {len(verdicts)} jobs are run")


@pytest.mark.slow
def test_filtered_students_are_announced_once_the_filter_has_run(place):
    """Told that the filter left nothing, it announces no student; told that it left four prompts, it announces one."""
    (job,) = {job.key: job for own in extras.filter_jobs(plans_of(NANO)).values() for job in own}.values()
    kept, meta = (store.compute(job, paths.runs()) / name for name in (extras.KEPT, META))

    def students(prompts_kept):
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"prompts_kept": prompts_kept}))
        meta.write_text(store.signed(store.verified(meta.read_text()) | {"files": {kept.name: store.file_hash(kept)}}))
        return [
            v.job.name
            for v in run.explain("nano", ("extra",))
            if v.job.name.endswith("filtered") and v.job.stage.name in ("distill", "features")
        ]

    assert students(0) == []
    assert students(4) == ["distill reversed-64 at T=0.6, filtered", "features reversed-64 at T=0.6, filtered"]


@pytest.mark.slow
def test_notebooks_are_explained_one_change_at_a_time(place, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", place / "notebooks")

    def reasons():
        return {v.job.params["notebook"][:2]: v.why for v in run.explain("nano") if v.job.stage.name == "notebook"}

    assert reasons() == dict.fromkeys(("01", "02", "05", "06"), ())
    write_notebook(place / "notebooks" / "07_new.ipynb", "1 + 1", tags=("only-reads",))
    (paths.figures("nano") / "drawn.csv").write_text("tampered")
    edited = "damaged: nano/drawn.csv is damaged or was edited (its checksum changed)"
    assert reasons() == {"01": (), "02": (), "05": (edited,), "06": (), "07": ("never computed",)}
    write_notebook(place / "notebooks" / "01_teachers.ipynb", "2 + 2", NOTEBOOKS["01_teachers"][1][1])
    (changed,), after, *_ = reasons().values()
    assert changed.startswith("its parameters changed: cells[1][1] ")
    assert after == ("an input is rerun: notebook 01_teachers.ipynb at nano",)
    real = store.fingerprint
    monkeypatch.setattr(store, "fingerprint", lambda names: real(names) + "x" * ("gracelib.world.stories" in names))
    assert "its code changed: gracelib.world.stories" in reasons()["02"]


@pytest.mark.slow
def test_the_command_explains_and_refuses(place):
    result = CliRunner().invoke(app, ["explain", "--scale", "nano", "--part", "long-first"])
    assert result.exit_code == 0 and result.stdout.splitlines()[-1].startswith("0 of ")
    for words, said in (
        (["--part", "nonsense"], "part (of scale nano) = 'nonsense': choose one of"),
        (["--scale", "nino"], "nino"),
        (["--scale", "paper"], "make plan SCALE=paper"),
    ):
        result = CliRunner().invoke(app, ["explain", "--scale", "nano", *words])
        assert result.exit_code == 2 and result.stderr.startswith("error: ") and said in result.stderr
