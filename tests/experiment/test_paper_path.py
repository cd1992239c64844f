"""The paper's whole path on two problems of GSM8K with tiny random models, through the functions of SCALE=paper: load
the task, sample teachers, grade, take gradients, distil, evaluate, write the tables, draw.

Why: the real thing takes GPU months, so whatever breaks in it must break here first. The numbers mean nothing; that
the pieces fit, that the tables have the columns of the built-in world's, that nothing is computed twice and that a
part of the cells shares its work with the whole, is what is checked.
"""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from checkpoints_for_tests import make_checkpoint
from gracelib.drawing import correlations
from gracelib.experiment import run, tables
from gracelib.experiment.plan import PaperPlan, compared_at
from gracelib.experiment.scales import get_scale
from gracelib.experiment.stages import spread_features
from gracelib.features import files, gradients
from gracelib.jobs import paths
from gracelib.jobs.workers import worker_pool
from gracelib.models.checkpoints import load_student
from gracelib.paper.settings import FILE_VARIABLE, ONLY_VARIABLE

EXCERPT = Path(__file__).parents[1] / "data" / "gsm8k_excerpt"
SETTINGS = """
[students]
"Llama-3.2-1B" = "student"
[teachers]
"Llama-3.1-8B" = "teacher-a"
"Qwen2.5-1.5B" = "teacher-b"
[tasks]
gsm8k = "problems.jsonl"
[settings]
backend = "transformers"
n_prompts = 2
m = 2
M = 2
d = 8
n_folds = 2
k = 2
lr = 1e-3
[gsm8k]
n_train = 2
n_test = 2
max_new_tokens = 8
d_kept = 16
[only]
task = ["GSM8K"]
student = ["Llama-3.2-1B"]
teacher = ["Llama-3.1-8B", "Qwen2.5-1.5B"]
temperature = [0.6]
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run of one student and two teachers; the folder, and the files it wrote."""
    where = tmp_path_factory.mktemp("paper")
    rows = [
        json.loads(line) for line in sorted(EXCERPT.glob("*.jsonl"))[0].read_text(encoding="utf-8").splitlines()[:2]
    ]
    problems = [{"question": row["question"], "answer": row["answer"]} for row in rows]
    (where / "problems.jsonl").write_text("".join(json.dumps(p) + "\n" for p in problems), encoding="utf-8")
    for seed, (name, kind) in enumerate((("student", "llama"), ("teacher-a", "llama"), ("teacher-b", "qwen2"))):
        make_checkpoint(where / name, kind, seed=seed)
    (where / "paper.toml").write_text(SETTINGS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            (FILE_VARIABLE, where / "paper.toml"),
            (ONLY_VARIABLE, ""),
            ("GRACELIB_RUNS", where / "runs"),
            ("GRACELIB_FIGURES", where / "figures"),
            ("HF_HUB_OFFLINE", "1"),
        ):
            patch.setenv(name, str(value))
        patch.setattr(
            run, "executor_of_run", lambda *_, **__: worker_pool(1)
        )  # torch is loaded once, and not for each cell
        scale = get_scale("paper")
        written = run.run_paper(scale)
        yield (
            where,
            [*written, *correlations.from_cells_alone(scale, {"short": tables.cells("paper")}, compared_at(scale))],
        )


def table(where: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(where / "figures" / "paper" / "results" / f"{name}.csv")


def test_every_stage_left_a_row(ran):
    where, files = ran
    assert all(path.is_file() for path in files)
    teachers, students, scores = (table(where, name) for name in ("teachers", "students", "scores"))
    assert list(teachers["teacher"]) == ["Llama-3.1-8B", "Qwen2.5-1.5B"] and list(teachers["manner"]) == [
        "Llama",
        "Qwen",
    ]
    assert list(teachers["width"]) == [10, 3]  # the paper's size budgets
    for cells in (students, scores):
        assert cells[["task", "student", "temperature"]].drop_duplicates().values.tolist() == [["short", "first", 0.6]]
    assert (
        students[["average", "average_se", "best_of", "greedy", "truncated"]]
        .apply(lambda c: c.between(0, 1))
        .all()
        .all()
    )
    assert (scores["grace"] > 0).all() and scores["grace"].nunique() == 2
    parts = scores["grace_variance"] + scores["grace_bias"] + scores["grace_cross"]
    assert parts.to_numpy() == pytest.approx(scores["grace"].to_numpy(), rel=1e-8)
    cast = table(where, "cast")
    assert cast.loc[cast["kind"] == "student", ["task", "name", "model", "data"]].values.tolist() == [
        ["short", "first", "Llama-3.2-1B", "GSM8K"]
    ]


def test_the_tables_have_the_columns_of_the_built_in_worlds(ran):
    for name in ("teachers", "base_students", "features", "scores", "students"):
        world = pd.read_csv(paths.published("mini") / "results" / f"{name}.csv")
        assert set(table(ran[0], name)) == set(world), name


def test_a_row_of_the_main_table_and_the_figures_stand_beside_the_papers_numbers(ran):
    where, files = ran
    main = pd.read_csv(where / "figures" / "paper" / "table_main.csv").set_index("score")
    assert main.loc["grace", "paper setting"] == "Llama-3.2-1B, GSM8K" and main.loc["grace", "cells"] == 2
    assert str(main.loc["grace", "paper spearman |rho|"]) == "0.86"
    assert {"fig01_correlations.svg", "fig02_scatter.csv", "regret_bars.json"} <= {path.name for path in files}
    sidecar = json.loads((where / "figures" / "paper" / "table_main.json").read_text(encoding="utf-8"))
    assert "Llama-3.2-1B from student" in sidecar["parameters"]["not the paper's"]
    drawn = correlations.figure2(tables.cells("paper"), "first", "paper")
    assert "not the paper's numbers" not in drawn.caption and "Scale paper, short task, first student" in drawn.caption


def test_students_were_trained_on_what_their_teacher_said(ran):
    where, _ = ran
    plan = PaperPlan(get_scale("paper"))
    for (_, teacher, t), job in plan.distilled.items():
        about = json.loads((job.folder(paths.runs()) / "training.json").read_text(encoding="utf-8"))
        assert about["n_examples"] == 4 and about["steps"] == 4  # 2 prompts x 2 responses, one batch an epoch, 4 epochs
        rows = [
            json.loads(line)
            for line in (plan.responses[teacher, t].folder(paths.runs()) / "responses.jsonl")
            .read_text("utf-8")
            .splitlines()
        ]
        assert len(rows) == 2 and all(len(row["responses"]) == 2 for row in rows)
    assert not list((where / "runs").rglob("*.scratch")) and not list((where / "runs").rglob("*.bin"))


def test_the_same_command_again_and_a_part_of_it_compute_nothing(ran, monkeypatch):
    where, files = ran
    tables_of = [path for path in files if path.parent.name == "results"]
    before = {path: path.read_bytes() for path in tables_of}
    stamps = {path: path.stat().st_mtime_ns for path in (where / "runs").rglob("meta.json")}
    assert run.run_paper(get_scale("paper")) == tables_of
    assert before == {path: path.read_bytes() for path in tables_of}
    monkeypatch.setenv(ONLY_VARIABLE, json.dumps({"teacher": ["qwen2.5-1.5b"]}))
    run.run_paper(get_scale("paper"))
    assert list(table(where, "scores")["teacher"]) == ["Qwen2.5-1.5B"]
    assert stamps == {path: path.stat().st_mtime_ns for path in (where / "runs").rglob("meta.json")}


def test_a_students_weights_may_go_once_it_is_measured(ran, monkeypatch):
    """Another learning rate is another student: only that one is trained, measured and removed, and nothing comes
    twice.
    """
    scale = replace(get_scale("paper"), lr=2e-3, teachers=get_scale("paper").teachers[:1])
    run.run_paper(scale, drop_weights=True)
    plan = PaperPlan(scale)
    (trained,), (measured,) = plan.distilled.values(), plan.student_accuracy.values()
    assert not trained.folder(paths.runs()).exists() and measured.done(paths.runs())
    kept = PaperPlan(get_scale("paper"))
    assert all(job.done(paths.runs()) for job in kept.distilled.values())
    run.run_paper(scale, drop_weights=True)
    assert not trained.folder(paths.runs()).exists()


def test_features_of_several_gpus_are_those_of_one(ran, tmp_path, monkeypatch, one_thread):
    """GPUs that are nothing but numbers, and a second process that takes the second of three pieces."""
    rows, student = [], str(ran[0] / "student")
    params = {"model": student, "content": "its weights", "device": "cpu", "dtype": "float32"}
    examples = [([3 + i % 5, 4], [5 + i % 7, 6 + i % 3, 1][i % 2 :]) for i in range(2 * files.MOST + 6)]
    given = [load_student(student, device="cpu")[0], params, examples, [*map(str, range(len(examples)))]]
    how = {"seed": 0, "special": [], "d": 8, "dtype": "float32"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # a stage that ran in this process may have left it
    one = spread_features(*given, tmp_path / "one", how)
    computed = gradients.response_features
    monkeypatch.setattr(
        gradients, "response_features", lambda m, own, **how: rows.append(len(own)) or computed(m, own, **how)
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    two = spread_features(*given, tmp_path / "two", how)
    assert rows == [files.MOST, 6] and len(one["g"]) == len(examples)
    assert one.keys() == two.keys() and all(one[name].tobytes() == two[name].tobytes() for name in one)
    pieces = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert len(pieces[0]) == 3 and pieces[0] == pieces[1]
