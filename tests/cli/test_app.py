"""The commands behind the Makefile: a wrong name is one clear line and exit status 2, not a traceback; where a full run
takes hours, drawing never starts one.
"""

import os
import re
import shutil
import subprocess
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from gracelib.cli.app import app
from gracelib.experiment import extras, measurements, run, tables
from gracelib.experiment.plan import Plan, plans_of
from gracelib.experiment.scales import SCALES, get_scale
from gracelib.jobs import notebooks, paths
from gracelib.paper.figures import FIGURES, figures_named

runner = CliRunner()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Folders of its own, with the tables that every figure is drawn from."""
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    for scale in ("mini", "lab", "coverage-mini"):
        paths.results(scale).mkdir(parents=True)
        for name in tables.names(scale):
            shutil.copy(paths.published(scale) / "results" / f"{name}.csv", paths.results(scale))
    return tmp_path


@pytest.fixture
def calls(place, monkeypatch):
    """What the notebooks are run with; each "draws" what the registry says it makes."""
    seen = []

    def draw(scale, recompute=True, chosen=None, parameters=None, before=None):
        if before:
            before()
        stems = [path.stem for path in chosen] if chosen is not None else None
        seen.append((scale, recompute, stems))
        paths.figures(scale).mkdir(parents=True, exist_ok=True)
        for name, item in FIGURES.items():
            if stems is None or item.notebook in stems:
                for ending in item.endings:
                    (paths.figures(scale) / f"{name}{ending}").touch()

    monkeypatch.setattr(run, "run_jobs", lambda jobs, root, description, pool=None: None)
    monkeypatch.setattr(tables, "table", lambda scale, name: None)
    monkeypatch.setattr(notebooks, "run", draw)
    monkeypatch.setattr(notebooks, "commit_outputs", lambda scale, recompute: seen.append(("save", scale)))
    monkeypatch.setattr(run, "publish_bases", lambda scale: seen.append(("bases", scale)))
    return seen


def line(result) -> str:
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(
    "error", [RuntimeError("teacher t failed: no memory"), FileNotFoundError("no table"), ValueError("n_folds = 1")]
)
def test_errors_of_a_run_are_one_line_too(monkeypatch, error):
    monkeypatch.setattr(notebooks, "run", Mock(side_effect=error))
    assert line(runner.invoke(app, ["figures", "--scale", "nano"])) == f"error: {error}\n"


def test_what_stdout_cannot_encode_is_escaped(monkeypatch):
    monkeypatch.setattr(run, "figures", lambda *_: ["老师.png"])
    result = CliRunner(charset="cp1252").invoke(app, ["figures"])
    assert (result.exit_code, result.stdout) == (0, "\\u8001\\u5e08.png\n")


def test_without_a_clone_what_needs_one_says_so_and_finished_pieces_lie_where_one_works(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.delenv("GRACELIB_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    for command in ("figures", "recompute", "explain", "verify"):
        assert "this needs a clone of the repository" in line(runner.invoke(app, [command, "--scale", "nano"]))
    assert runner.invoke(app, ["plan"]).exit_code == 0 and paths.runs() == tmp_path / "runs"


def test_bugs_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(notebooks, "run", Mock(side_effect=KeyError("a bug")))
    assert isinstance(runner.invoke(app, ["figures"]).exception, KeyError)


def test_options_reach_the_notebooks(calls):
    for options in ([], ["--scale", "nano"], ["--no-recompute"], ["--save"]):
        result = runner.invoke(app, ["figures", *options])
        assert result.exit_code == 0 and result.stdout == ""
    assert calls == [
        ("mini", True, None),
        ("nano", True, None),
        ("mini", False, None),
        ("mini", True, None),
        ("save", "mini"),
        ("bases", "mini"),
    ]


# --- which are drawn from tables ----------------------------------------------------------------------------


def test_what_takes_hours_is_redrawn_unless_asked_otherwise(calls):
    assert {*run.REDRAWN, *run.TABLES_ONLY} == {
        name for name in SCALES if name.startswith(("lab", "mini-seed", "coverage"))
    }
    assert runner.invoke(app, ["figures", "--scale", "lab"]).exit_code == 0
    assert runner.invoke(app, ["figures", "--scale", "lab", "--recompute"]).exit_code == 0
    assert calls == [("lab", False, None), ("lab", True, None)]


@pytest.mark.parametrize(
    "options, command",
    [
        (["--scale", "lab"], "make recompute SCALE=lab"),
        (["--scale", "mini", "--no-recompute"], "make figures SCALE=mini"),
        (["--scale", "mini", "--fig", "19"], "make figures SCALE=mini"),
    ],
)
def test_without_tables_there_is_nothing_to_draw_and_the_command_that_makes_them_is_named(calls, options, command):
    (paths.results(options[1]) / "scores.csv").unlink()
    text = line(runner.invoke(app, ["figures", *options]))
    assert "nothing to draw from" in text and "has no scores.csv;" in text and f"`{command}` makes them" in text
    assert calls == []


# --- one figure ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, found",
    [
        ("19", ["fig19_n_and_d"]),
        ("fig19", ["fig19_n_and_d"]),
        ("Figure 5", ["fig05_one_temperature"]),
        ("05", ["fig05_one_temperature"]),
        ("fig19_n_and_d", ["fig19_n_and_d"]),
        ("table01", ["table01_cost"]),
        ("table 1", ["table01_cost"]),
        ("main", ["table_main"]),
        ("regret_bars", ["regret_bars"]),
        ("20, 19,regret_bars,20", ["fig20_folds", "fig19_n_and_d", "regret_bars"]),
    ],
)
def test_figures_have_short_names(text, found):
    assert figures_named(text) == found


def test_every_figure_is_found_by_its_name_and_every_number_by_its_digits():
    assert [figures_named(name) for name in FIGURES] == [[name] for name in FIGURES]
    assert [figures_named(str(n))[0][:6] for n in range(1, 26)] == [f"fig{n:02d}_" for n in range(1, 26)]


@pytest.mark.parametrize("text", ["26", "fig0", "table7", "19,mane", "", "1,", "19-20", "fig"])
def test_an_unknown_figure_lists_the_known_ones(text):
    with pytest.raises(ValueError, match="is not known; choose among fig01_correlations, .*, or a number such as 19"):
        figures_named(text)


def test_one_figure_runs_its_notebook_alone_from_the_tables(calls, monkeypatch, place):
    (place / "notebooks").mkdir()
    for item in FIGURES.values():
        (place / "notebooks" / f"{item.notebook}.ipynb").touch()
    monkeypatch.setattr(paths, "NOTEBOOKS", place / "notebooks")
    result = runner.invoke(app, ["figures", "--scale", "lab", "--fig", "19,main,20"])
    folder = paths.figures("lab")
    drawn = ("fig19_n_and_d.png", "table_main.csv", "fig20_folds.png")
    assert result.stdout.splitlines() == [str(folder / name) for name in drawn]
    assert calls == [("lab", False, ["05_which_teacher", "07_ablations"])]
    assert runner.invoke(app, ["figures", "--fig", "main", "--recompute"]).exit_code == 0
    assert calls[1:] == [("mini", True, ["05_which_teacher"])]


# --- recompute ----------------------------------------------------------------------------------------------


@pytest.fixture
def work(calls, monkeypatch):
    """Everything `recompute` sets going, in order: (description, stages and cells of its jobs), tables by name."""

    def run_jobs(jobs, root, description, pool=None):
        assert root == paths.runs()
        calls.append((description, sorted({job.stage.name for job in jobs}), jobs))

    monkeypatch.setattr(run, "run_jobs", run_jobs)
    monkeypatch.setattr(tables, "table", lambda scale, name: calls.append((name, scale)))
    return calls


def test_the_lab_is_recomputed_part_by_part(work):
    result = runner.invoke(app, ["recompute", "--scale", "lab"])
    assert result.exit_code == 0 and re.fullmatch(r"lab: finished; this call took 0 min 0\d s\n", result.stdout)
    assert [entry[:2] for entry in work] == [
        ("teachers", ["evaluate", "responses"]),
        ("short task, first student", ["evaluate", "features"]),
        ("short task, second student", ["evaluate", "features"]),
        ("long task, first student", ["evaluate", "features"]),
        ("filtered", "lab"),
        ("training_runs", "lab"),
        ("smoke_test", "lab"),
        (
            "lab: models and gradients",
            ["evaluate", "features", "filtered_responses", "made_responses", "pretrain", "responses"],
        ),
        (
            "lab: filtered students, ablations",
            ["cmi", "contributions", "few_prompts", "further", "grid", "race", "timing", "variants"],
        ),
        ("lab", True),
    ]
    assert "lab: part short-first (2 of 6)" in result.stderr
    cells = [6 * 8 + 24 * 3, 30 * 2, 30 * 2]  # teachers x temperatures: short task, its second student, long task
    assert len(work[0][2]) == 2 * (cells[0] + cells[2]) + 3 and [len(entry[2]) for entry in work[1:4]] == [
        2 * own for own in cells
    ]


@pytest.mark.parametrize("scale", run.TABLES_ONLY)
def test_other_worlds_make_their_tables_and_nothing_else(work, scale):
    assert runner.invoke(app, ["recompute", "--scale", scale]).exit_code == 0
    students = [f"short task, {student} student" for student in get_scale(scale).students]
    extra = ["checks"] * scale.startswith("coverage")
    assert [entry[0] for entry in work] == ["teachers", *students, *extra, *tables.names(scale)]
    assert all(entry[1] == scale for entry in work[1 + len(students) :])


def test_elsewhere_the_models_are_made_in_one_go_and_the_notebooks_do_the_rest(work):
    assert runner.invoke(app, ["recompute", "--scale", "smoke"]).exit_code == 0
    assert runner.invoke(app, ["recompute"]).exit_code == 0
    goes = ("models and gradients", "filtered students, ablations")
    assert [entry[0] for entry in work] == [
        *(f"smoke: {go}" for go in goes),
        "smoke",
        *(f"mini: {go}" for go in goes),
        *tables.names("coverage-mini"),
        "mini",
    ]
    asked = {job.key for job in work[3][2]}
    config = get_scale("mini")
    plans = plans_of(config)
    for plan in plans:
        for group in (plan.teacher_accuracy, plan.base_accuracy, plan.features, plan.student_accuracy):
            assert {job.key for job in group.values()} <= asked
    assert {test.key for test, _ in extras.training_jobs(plans).values()} <= asked
    # Whether a filtered student can be trained is known only when the filter has run: here it has not.
    scored = {job.key for job in work[4][2]}
    assert not {accuracy.key for accuracy, _ in extras.filtered_students(plans).values()} & (asked | scored)
    assert {
        job.key for jobs in (measurements.grid_jobs, measurements.timing_jobs) for (job,) in jobs(plans).values()
    } <= scored


def test_a_part_alone(work):
    result = runner.invoke(app, ["recompute", "--scale", "lab", "--part", "extra"])
    assert result.stdout.startswith("lab, extra: finished; this call took")
    result = runner.invoke(app, ["recompute", "--scale", "nano", "--part", "long-first", "--part", "teachers"])
    assert result.exit_code == 0
    assert [entry[0] for entry in work] == [
        "filtered",
        "training_runs",
        "smoke_test",
        "teachers",
        "long task, first student",
    ]


def test_times_are_said_in_words():
    assert [run.in_words(s) for s in (0.4, 61, 3599.6, 3725, 11000)] == [
        "0 min 00 s",
        "1 min 01 s",
        "1 h 00 min",
        "1 h 02 min",
        "3 h 03 min",
    ]


# --- the rest -----------------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_wrong_ones_are_refused():
    assert all(word in runner.invoke(app, ["--help"]).output for word in ("figures", "recompute", "explain"))
    assert runner.invoke(app, ["figurs"]).exit_code == 2


@pytest.mark.parametrize(
    "variables, command",
    [
        (["figures", "SCALE=lab"], "gracelib figures --scale lab"),
        (["figures", "FIG=19,main"], 'gracelib figures --scale mini --fig "19,main"'),
        (["recompute", "SCALE=lab", "PART=extra"], 'gracelib recompute --scale lab --part "extra"'),
        (["publish"], "gracelib figures --scale mini --save"),
        (["plan", "SCALE=paper"], "gracelib plan --scale paper"),
        (["figures", "SCALE=paper"], "gracelib figures --scale paper"),
        (["figures", "SCALE=paper", "CONFIRM=0"], "gracelib figures --scale paper"),  # confirmed only when told to
        (
            ["figures", "SCALE=paper", "CONFIRM=1", "OPTIONS=--teacher Phi-4"],
            "gracelib figures --scale paper --confirm --teacher Phi-4",
        ),
    ],
)
def test_make_calls_the_commands(variables, command):
    # Under `make test` this make would think that it is that one's child, and print where it enters and leaves.
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "--dry-run", *variables], cwd=paths.ROOT, capture_output=True, text=True, check=True, env=alone
    )
    assert " ".join(done.stdout.strip().splitlines()[-1].split()).endswith(command)


def test_only_the_committed_scale_is_saved():
    for options, shown in ((["--scale", "smoke"], "smoke"), (["--fig", "19"], "19")):
        assert f"which show mini or lab, not '{shown}'" in line(runner.invoke(app, ["figures", "--save", *options]))
    refused = line(runner.invoke(app, ["figures", "--save", "--parameter", "sigma=0.1"]))
    assert "not with sigma=0.1" in refused


@pytest.mark.parametrize("command", ["figures", "recompute"])
def test_stopping_says_how_to_go_on(monkeypatch, command):
    monkeypatch.setattr(notebooks, "run", Mock(side_effect=KeyboardInterrupt))
    result = runner.invoke(app, [command, "--scale", "nano"])
    assert result.exit_code == 130 and "run the same command again to go on" in result.stderr


@pytest.mark.parametrize("command", ["figures", "recompute"])
def test_device_and_precision_are_settings_of_the_whole_run(monkeypatch, command):
    """Every notebook after the one that takes gradients must look for the same features."""
    for name in ("GRACELIB_DEVICE", "GRACELIB_DTYPE"):
        monkeypatch.setenv(name, "")  # restored afterwards
    seen = []
    monkeypatch.setattr(
        notebooks,
        "run",
        lambda scale, *others: seen.append(next(iter(Plan(get_scale(scale)).features.values())).params),
    )
    assert runner.invoke(app, [command, "--scale", "nano", "--device", "cpu", "--dtype", "float64"]).exit_code == 0
    assert (seen[0]["device"], seen[0]["dtype"]) == ("cpu", "float64")
