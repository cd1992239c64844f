"""The commands behind the Makefile: a wrong name is one clear line and exit status 2, not a traceback."""

import pytest
from typer.testing import CliRunner

from gracelib import notebooks
from gracelib.cli import app
from gracelib.pipeline import Plan
from gracelib.scales import get_scale

runner = CliRunner()


@pytest.mark.parametrize("text, message", [
    ("devise=cuda", "no notebook takes the parameter 'devise' (value 'cuda'); they declare"),
    ("scale=mini", "no notebook takes the parameter 'scale'"),
    ("device", "--parameter 'device' is not of the form NAME=VALUE"),
])
def test_a_misspelled_parameter_is_refused_before_anything_runs(text, message, tmp_path, monkeypatch):
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    result = runner.invoke(app, ["figures", "--scale", "nano", "--parameter", text])
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_scale_is_one_clear_line():
    result = runner.invoke(app, ["figures", "--scale", "nope"])
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in result.output
    assert lines[0].startswith("error: scale 'nope' is not known; choose one of ['nano', 'smoke', 'mini'")
    assert result.stdout == ""


@pytest.mark.parametrize(
    "error",
    [RuntimeError("teacher t failed: no memory"), FileNotFoundError("no table"), ValueError("n_folds = 1")],
)
def test_errors_of_a_run_are_one_line_too(monkeypatch, error):
    def fails(scale, recompute, parameters):
        raise error

    monkeypatch.setattr(notebooks, "run", fails)
    result = runner.invoke(app, ["figures", "--scale", "nano"])
    assert result.exit_code == 2 and result.stderr == f"error: {error}\n"


def test_bugs_keep_their_traceback(monkeypatch):
    def fails(scale, recompute, parameters):
        raise KeyError("a bug")

    monkeypatch.setattr(notebooks, "run", fails)
    assert isinstance(runner.invoke(app, ["figures"]).exception, KeyError)


def test_options_reach_the_notebooks(monkeypatch):
    calls = []
    monkeypatch.setattr(notebooks, "run", lambda scale, recompute, parameters: calls.append(("run", scale, recompute)))
    monkeypatch.setattr(notebooks, "commit_outputs", lambda scale: calls.append(("save", scale)))
    assert runner.invoke(app, ["figures"]).exit_code == 0
    assert runner.invoke(app, ["figures", "--scale", "nano", "--no-recompute"]).exit_code == 0
    assert runner.invoke(app, ["figures", "--scale", "mini", "--save"]).exit_code == 0
    assert calls == [("run", "mini", True), ("run", "nano", False), ("run", "mini", True), ("save", "mini")]


def test_help_lists_the_command_and_wrong_commands_are_refused():
    assert "figures" in runner.invoke(app, ["--help"]).output
    assert runner.invoke(app, ["figurs"]).exit_code == 2


def test_only_the_committed_scale_is_saved():
    result = runner.invoke(app, ["figures", "--scale", "smoke", "--save"])
    assert result.exit_code == 2 and "which show scale mini, not 'smoke'" in result.stderr


def test_planned_scales_say_that_they_are_not_there_yet():
    result = runner.invoke(app, ["figures", "--scale", "lab"])
    assert result.exit_code == 2 and "scale 'lab' is planned and not there yet" in result.stderr


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "file"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    result = runner.invoke(app, ["figures", "--scale", "nano"])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and str(tmp_path / "file") in result.stderr


def test_stopping_says_how_to_go_on(monkeypatch):
    def stopped(scale, recompute, parameters):
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "run", stopped)
    result = runner.invoke(app, ["figures", "--scale", "nano"])
    assert result.exit_code == 130 and "run the same command again to go on" in result.stderr


def test_device_and_precision_are_settings_of_the_whole_run(monkeypatch):
    """Every notebook after the one that takes gradients must look for the same features."""
    for name in ("GRACELIB_DEVICE", "GRACELIB_DTYPE"):
        monkeypatch.setenv(name, "")  # restored afterwards
    seen = []
    monkeypatch.setattr(notebooks, "run", lambda scale, recompute, parameters: seen.append(
        next(iter(Plan(get_scale(scale)).features.values())).params))
    assert runner.invoke(app, ["figures", "--scale", "nano", "--device", "cpu", "--dtype", "float64"]).exit_code == 0
    assert (seen[0]["device"], seen[0]["dtype"]) == ("cpu", "float64")
