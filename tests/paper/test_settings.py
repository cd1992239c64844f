"""The scale `paper` is the paper's: its numbers follow from the settings, the plan's arithmetic is what it says,
nothing runs without being confirmed, and what is missing (models, access, vllm) is said before any compute.
"""

import json
from dataclasses import fields, replace
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from gracelib.cli.app import app
from gracelib.drawing import correlations
from gracelib.drawing.style import family
from gracelib.experiment import run, tables
from gracelib.experiment.plan import PaperPlan, Plan
from gracelib.experiment.scales import command_for, get_scale
from gracelib.experiment.stages import ACCELERATE_VARIABLE
from gracelib.jobs import notebooks
from gracelib.jobs.store import Needs
from gracelib.paper.cost import Assumptions, plan, plan_text
from gracelib.paper.models import STUDENTS, TEACHERS, check_access
from gracelib.paper.settings import FILE_VARIABLE, ONLY_VARIABLE, PAPER, changes, only, with_file
from gracelib.scale import EVERY_TENTH

runner = CliRunner()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in (FILE_VARIABLE, ONLY_VARIABLE):
        monkeypatch.setenv(name, "")


# --- the settings --------------------------------------------------------------------------------------------


def test_the_numbers_of_the_paper_follow_from_the_settings():
    """Pairs a student is trained on, pairs a score looks at, their ratios, cells: as the paper prints them."""
    gsm8k, math = PAPER.tasks
    assert get_scale("paper") == PAPER
    assert (gsm8k.n_train * PAPER.M, math.n_train * PAPER.M) == (119_568, 120_000)
    assert PAPER.n_prompts * PAPER.m == 2_048
    assert [round(task.n_train * PAPER.M / 2_048, 1) for task in PAPER.tasks] == [58.4, 58.6]
    assert len(PAPER.teachers) * len(gsm8k.sampled()) == 120
    assert (PAPER.d, PAPER.n_folds, PAPER.nu, gsm8k.d_kept) == (512, 10, 1e-3, 1024)
    assert PAPER.n_prompts * PAPER.m * PAPER.d * 4 / 1e6 == pytest.approx(4.2, abs=0.1)  # megabytes; the paper: 4.3
    assert (PAPER.epochs, PAPER.batch_size, PAPER.lr, PAPER.warmup) == (4, 64, 1e-5, 0.05)
    assert (PAPER.k, PAPER.test_temperature, PAPER.top_p, gsm8k.max_new_tokens) == (16, 1.0, 1.0, 4096)
    assert [(task.title, task.n_test) for task in PAPER.tasks] == [("GSM8K", 1319), ("MATH", 5000)]
    assert gsm8k.sampled() == math.sampled() == EVERY_TENTH == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def test_the_cast_is_the_papers():
    within = {budget: [m.name for m in TEACHERS if m.budget <= budget] for budget in (3, 10, 30, 70)}
    assert {budget: len(names) for budget, names in within.items()} == {3: 5, 10: 10, 30: 14, 70: 15}
    assert set(within[3]) == {"Llama-3.2-3B", "Qwen2.5-1.5B", "Qwen2.5-3B", "Qwen2.5-Math-1.5B", "Gemma-2-2B"}
    assert len({m.hub_id for m in (*STUDENTS, *TEACHERS)}) == 19
    assert {m.manner for m in TEACHERS} == {"Llama", "Qwen", "Gemma", "OLMo", "Phi"}
    assert all(family(m.manner) for m in TEACHERS)
    assert [PAPER.model(task, role).hub_id for task in PAPER.tasks for role, _ in task.casting] == [
        "meta-llama/Llama-3.2-1B",
        "allenai/OLMo-2-0425-1B",
        "google/gemma-2b",
        "meta-llama/Llama-3.2-3B",
    ]
    assert all(bool(m.terms) == m.hub_id.startswith(("meta-llama/", "google/")) for m in (*STUDENTS, *TEACHERS))


def test_other_plans_and_commands_point_to_the_papers_own():
    with pytest.raises(ValueError, match="scale 'paper' has a plan of its own: `make figures SCALE=paper CONFIRM=1`"):
        Plan(PAPER)
    assert command_for("paper") == "make figures SCALE=paper CONFIRM=1"
    result = runner.invoke(app, ["figures", "--scale", "paper", "--fig", "19"])
    assert result.exit_code == 2 and "the other options belong to the built-in world" in result.stderr
    result = runner.invoke(app, ["figures", "--scale", "nano", "--teacher", "Phi-4"])
    assert result.exit_code == 2 and "belong to scale paper" in result.stderr


# --- a part of it, and settings of one's own -----------------------------------------------------------------


def test_a_part_keeps_what_was_asked_for_and_changes_nothing_else():
    part = only(PAPER, teacher=["phi-4", "Qwen2.5-3B"], temperature=[0.6], task=["math"])
    assert [m.name for m in part.teachers] == ["Qwen2.5-3B", "Phi-4"]
    assert [task.title for task in part.tasks] == ["MATH"] and part.tasks[0].sampled() == (0.6,)
    assert part.tasks[0].d_kept == PAPER.tasks[1].d_kept  # else the cells would be others
    olmo = only(PAPER, student=["OLMo-2-1B"])
    assert [task.casting for task in olmo.tasks] == [(("second", "OLMo-2-1B"),)]
    assert only(PAPER) == PAPER


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda: replace(PAPER, n_prompts=8000), "n_prompts=8000, m=4 and n_folds=10 must not exceed n_train=7473"),
        (lambda: replace(PAPER, m=17), "m=17"),
        (lambda: replace(PAPER, d=2048), "d=2048 exceeds d_kept=1024"),
        (
            lambda: only(PAPER, teacher=["Phi-5"]),
            "teacher 'Phi-5' is not in the experiment; choose among Llama-3.2-3B, .*, Phi-4",
        ),
        (lambda: only(PAPER, temperature=[0.65]), "temperature 0.65 is not in the experiment; choose among 0.3, 0.4"),
        (
            lambda: only(PAPER, student=["OLMo-2-1B"], task=["MATH"]),
            "nothing is left: no student of OLMo-2-1B is trained on MATH; trained are "
            "Llama-3.2-1B, OLMo-2-1B, Gemma-2B on GSM8K",
        ),
        (lambda: Assumptions().with_values({"speed": 1}), "assumption = 'speed': choose one of gsm8k_response"),
        (lambda: Assumptions().with_values({"train_use": 0}), "train_use = 0: expected a number > 0"),
        (lambda: Assumptions().with_values({"train_use": float("nan")}), "train_use = nan"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


def test_models_and_settings_come_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "phi").mkdir()
    record = {
        "teachers": {"Phi-4": "~/phi", "OLMo-2-7B": "somebody/olmo"},
        "settings": {"M": 8, "lr": 5e-6, "nu": 1},
        "gsm8k": {"n_test": 100},
        "only": {"teacher": ["Phi-4", "OLMo-2-7B"], "temperature": [1]},
        "tasks": {"math": "somebody/math"},
    }
    (tmp_path / "mine.json").write_text(json.dumps(record), "utf-8-sig")  # as Windows writes it
    scale = with_file(PAPER, tmp_path / "mine.json")
    assert [m.source for m in scale.teachers] == ["somebody/olmo", str((tmp_path / "phi").resolve())]
    assert (scale.M, scale.lr, scale.nu) == (8, 5e-6, 1)
    assert [(task.n_test, task.source) for task in scale.tasks] == [(100, ""), (5000, "somebody/math")]
    # What was changed is said in the plan and in every sidecar: its numbers are not the paper's.
    assert changes(scale) == [
        "M = 8 (paper: 16)",
        "nu = 1 (paper: 0.001)",
        "lr = 5e-06 (paper: 1e-05)",
        "GSM8K: n_test = 100 (paper: 1319)",
        "MATH from math",
        "OLMo-2-7B from olmo",
        "Phi-4 from phi",
        "8 of 480 cells",
    ]
    assert f"Not the paper's: {'; '.join(changes(scale))}" in plan_text(scale)
    assert changes(PAPER) == [] and "Not the paper's" not in plan_text(PAPER)


@pytest.mark.parametrize(
    "text, said",
    [
        ('[teachers]\n"Phi-5" = "x"', r"\[teachers\] has no 'Phi-5'; it has Llama-3.2-3B"),
        ('[teachers]\n"Phi-4" = 4', "Phi-4 = 4: Input should be a valid string"),
        ("teachers = 3", r"teachers is 3; write \[teachers\]"),
        ("[setting]\nM = 8", "unknown section 'setting'; there are students"),
        ("[settings]\nN = 8", "has no 'N'; it has M, n_prompts"),
        ('[settings]\nM = "8"', "M = '8': Input should be a valid integer"),
        ("[settings]\nM = 8.5", "M = 8.5: Input should be a valid integer"),
        # What training and scoring would refuse, hours later:
        ("[settings]\nwarmup = 1", "warmup = 1: Input should be less than 1"),
        ("[settings]\nbatch_size = 50", "batch_size = 50: Input should be a multiple of 4"),
        ("[settings]\nseed = 4294967295", "seed = 4294967295: Input should be less than"),
        ("[settings]\nn_folds = 1", "n_folds = 1: Input should be greater"),
        ("[settings]\nmax_tokens = 1", "max_tokens = 1: Input should be greater"),
        ("[settings]\ntest_temperature = 0", "test_temperature = 0: Input should be greater"),
        ("[math]\ntitle = 'x'", "has no 'title'; it has n_train"),
        ("[settings\nM = 8", "not valid TOML"),
        ("[needs.sampel]\ngpus = 1", r"\[needs\] has no 'sampel'; it has problems, sample, grade"),
        ('[needs.sample."Phi-4"]\ngpu = 1', r"\[needs.sample.Phi-4\] has no 'gpu'; it has cpus, gpus, memory_gb"),
        ("[needs.sample]\ngpus = -1", r"\[needs.sample\] gpus = -1: Input should be greater"),
        ("[needs]\nsample = 4", r"needs.sample is 4; write \[needs.sample\] and lines"),
        ('[only]\ntask = ["MATH", 3]', r"\[only\] task = 3: Input should be a valid string"),
    ],
)
def test_a_settings_file_with_a_mistake_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        with_file(PAPER, path)
    assert str(path) in str(error.value)


def test_what_a_cell_needs_is_said_by_stage_and_model(tmp_path, monkeypatch):
    def needs(text=""):
        (tmp_path / "mine.toml").write_text(text)
        monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "mine.toml"))
        plan = PaperPlan(PAPER, "short")
        found = {}
        for teacher in ("Phi-4", "Llama-3.3-70B"):
            taught = plan.student_accuracy["first", teacher, 0.6]
            trained = taught.inputs["model"]
            sampled, graded = trained.inputs["responses"], plan.correct[teacher, 0.6]
            found[teacher] = [job.needs for job in (sampled, graded, trained, taught)]
        return found, plan

    usual, plan = needs()
    assert usual["Phi-4"] == [Needs(4, 1), Needs(4), Needs(4, 1), Needs(4, 1)]
    wide = PAPER.gpus
    assert usual["Llama-3.3-70B"] == [Needs(4 * wide, wide), Needs(4), Needs(4, 1), Needs(4, 1)]
    asked, other = needs('[needs.sample]\nmemory_gb = 64.0\n[needs.sample."Phi-4"]\ncpus = 9\n[needs.grade]\ncpus = 16')
    assert asked["Phi-4"][:2] == [Needs(9, 1, 64), Needs(16)] and asked["Llama-3.3-70B"][0] == Needs(4 * wide, wide, 64)
    assert [job.key for job in plan.jobs()] == [job.key for job in other.jobs()]  # no part of the experiment
    with pytest.raises(
        ValueError, match=r"\[needs.fine_tune\] asks for 8 GPUs: name an `accelerate launch` configuration"
    ):
        needs("[needs.fine_tune]\ngpus = 8")
    monkeypatch.setenv(ACCELERATE_VARIABLE, "fsdp.yaml")
    assert needs("[needs.fine_tune]\ngpus = 8")[0]["Phi-4"][2] == Needs(32, 8)


# --- the plan -------------------------------------------------------------------------------------------------


def test_the_plans_arithmetic():
    table = plan(PAPER)
    row = table.set_index(["task", "stage", "who"])
    sampled = row.loc[("GSM8K", "sample", "teachers")]
    assert (sampled["cells"], sampled["prompts"], sampled["responses"]) == (120, 7473, 119_568)
    assert sampled["tokens"] == 120 * 119_568 * 250
    trained = row.loc[("MATH", "train", "Llama-3.2-3B")]
    assert trained["tokens"] == 120 * 120_000 * (100 + 550) * 4
    assert trained["gpu_hours"] == pytest.approx(8 * 3.21e9 * trained["tokens"] / (0.3 * 989e12) / 3600)
    scored = row.loc[("GSM8K", "score", "Llama-3.2-1B")]
    assert scored["gpu_hours"] == pytest.approx(
        120 * (2 * 10 + 20 / 60) / 60
    )  # twice the rows of the paper's ten minutes
    measured = row.loc[("GSM8K", "measure", "OLMo-2-1B")]
    assert (measured["cells"], measured["responses"]) == (121, 1319 * 17)  # the base student too; 16 samples and greedy
    weights = sum(m.parameters for m in (*STUDENTS, *TEACHERS)) * 2 / 1e9
    assert row.loc[("", "download", "19 models")]["disk_gb"] == pytest.approx(weights)
    assert table["gpu_hours"].iloc[-1] == pytest.approx(table["gpu_hours"].iloc[:-1].sum())
    assert table.loc[table["stage"] == "train", "cells"].sum() == 4 * 120


@pytest.mark.parametrize("name", [f.name for f in fields(Assumptions)])
def test_every_assumption_is_printed_with_its_source_and_counts(name):
    assumed = Assumptions()
    table = assumed.table().set_index("name")
    assert table.loc[name, "unit"] and table.loc[name, "source"]
    assert f"  {name} = {getattr(assumed, name):g} {table.loc[name, 'unit']}. " in plan_text(PAPER)
    other = assumed.with_values({name: getattr(assumed, name) / 2})
    before, after = (plan(PAPER, a).drop(columns=["task", "stage", "who"]) for a in (assumed, other))
    assert not before.equals(after), "an assumption that changes nothing is none"


def test_the_plan_is_printed_and_can_be_changed():
    result = runner.invoke(app, ["plan", "--task", "GSM8K", "--teacher", "Phi-4", "--assume", "gsm8k_response=500"])
    assert result.exit_code == 0 and "gsm8k_response = 500 " in result.stdout
    assert "MATH:" not in result.stdout and "teachers: Phi-4\n" in result.stdout


# --- nothing without being asked -------------------------------------------------------------------------------


def test_figures_print_the_plan_and_stop(monkeypatch):
    monkeypatch.setattr(run, "run_paper", lambda *args, **kwargs: pytest.fail("it ran"))
    result = runner.invoke(app, ["figures", "--scale", "paper"])
    assert result.exit_code == 2
    assert "In all 480 students, about" in result.stdout and "119,568" in result.stdout
    assert "Nothing was computed. To run this: make figures SCALE=paper CONFIRM=1" in result.stderr


def test_confirmed_it_runs_what_was_asked_for(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(run, "run_paper", lambda scale, **how: ran.append((scale, how)) or [tmp_path / "table.csv"])
    monkeypatch.setattr(tables, "cells", lambda *which: None)
    monkeypatch.setattr(correlations, "from_cells_alone", lambda *given: [])
    monkeypatch.setattr(notebooks, "run", lambda *given, **how: None)  # it has tests of its own
    result = runner.invoke(app, ["figures", "--scale", "paper", "--confirm", "--drop-weights", "--teacher", "Phi-4"])
    assert result.exit_code == 0 and result.stdout.endswith("table.csv\n")
    ((scale, how),) = ran
    assert scale == only(PAPER, teacher=["Phi-4"]) and how["drop_weights"] is True


def test_without_vllm_it_says_how_to_get_it_before_anything_else(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *args: None)
    monkeypatch.setattr(run, "check_access", lambda models: pytest.fail("too late"))
    with pytest.raises(ValueError, match="needs the package vllm"):
        run.run_paper(PAPER)


# --- access ----------------------------------------------------------------------------------------------------


def hub(monkeypatch, cached=(), error=None) -> Mock:
    """Stands for the hub, without a network: who asks is let in, or gets the error."""
    import huggingface_hub

    asked = Mock(side_effect=error)
    monkeypatch.setattr(huggingface_hub, "auth_check", asked)
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda source, name: "/cache/config.json" if source in cached else None,
    )
    return asked


def hub_error(kind):
    import httpx
    from huggingface_hub import errors

    return getattr(errors, kind)(
        "no", response=httpx.Response(403, request=httpx.Request("GET", "https://hub.invalid"))
    )


def test_who_is_let_in_or_has_it_already_is_not_stopped(monkeypatch):
    asked = hub(monkeypatch, cached=["microsoft/phi-4"])
    check_access(only(PAPER, teacher=["Phi-4"], student=["OLMo-2-1B"]).models())
    asked.assert_called_once_with("allenai/OLMo-2-0425-1B")  # what is in the cache needs no network


INSTEAD = 'or name a local folder for "Phi-4"'


@pytest.mark.parametrize(
    "model, error, said",
    [
        (
            STUDENTS[0],
            hub_error("GatedRepoError"),
            (
                "1 of the models cannot be had",
                "Llama-3.2-1B: meta-llama/Llama-3.2-1B is gated: accept the Llama Community License",
                "https://huggingface.co/meta-llama/Llama-3.2-1B",
                "hf auth login",
                "HF_TOKEN",
            ),
        ),
        (TEACHERS[-1], hub_error("RepositoryNotFoundError"), ("no model 'microsoft/phi-4', or it is private", INSTEAD)),
        (
            TEACHERS[-1],
            ConnectionError("no network"),
            ("microsoft/phi-4 is not in the local cache and the hub cannot be reached", INSTEAD),
        ),
    ],
)
def test_a_model_that_cannot_be_had_is_named_with_the_remedy(monkeypatch, model, error, said):
    hub(monkeypatch, error=error)
    with pytest.raises(ValueError) as caught:
        check_access([model])
    assert [words for words in said if words not in str(caught.value)] == []


def test_a_local_folder_needs_a_model_in_it(tmp_path, monkeypatch):
    asked = hub(monkeypatch)
    model = replace(TEACHERS[-1], path=str(tmp_path))
    with pytest.raises(ValueError, match="is not a model folder"):
        check_access([model])
    (tmp_path / "config.json").write_text("{}")
    check_access([model])
    asked.assert_not_called()
