"""A run's end: its numbers beside the published ones."""

import shutil

import pandas as pd
import pytest

from gracelib.experiment import reference
from gracelib.experiment.reference import beside_published
from gracelib.jobs import paths


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The published run of mini as if it were one's own."""
    published = paths.published("mini")
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path))
    shutil.copytree(published / "results", paths.results("mini"))
    shutil.copy(published / "table_main.csv", paths.figures("mini"))
    return paths.results("mini")


def test_equal_tables_are_said_to_be_equal_whatever_their_seconds(own):
    cost = pd.read_csv(own / "cost.csv")
    cost.assign(feature_seconds=cost.feature_seconds + 1).to_csv(own / "cost.csv", index=False)
    assert beside_published("mini") == "mini: all 27 result tables are the published ones, to the last digit"


def test_other_numbers_are_named_with_the_reason_and_the_headline_numbers(own, monkeypatch):
    scores = pd.read_csv(own / "scores.csv")
    scores.assign(grace=scores.grace * (1 + 1e-9)).to_csv(own / "scores.csv", index=False)
    main = pd.read_csv(own.parent / "table_main.csv")
    main.assign(spearman=0.125).to_csv(own.parent / "table_main.csv", index=False)
    monkeypatch.setattr(reference, "arithmetic", lambda: "native")
    lines = beside_published("mini").splitlines()
    assert lines[0] == "mini: 1 of 27 result tables differ from the published ones: scores"
    assert lines[1] == "published -> yours: arithmetic portable-1 -> native"
    grace = next(line.split() for line in lines if line.startswith("GRACE "))
    assert grace[1] == "0.12" and float(grace[2]) != 0.12


def test_nothing_is_said_where_nothing_is_published(monkeypatch, tmp_path):
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path))
    assert beside_published("nano") == ""
    monkeypatch.setenv("GRACELIB_FIGURES", str(paths.published("mini").parent))
    assert beside_published("mini") == ""


def test_the_range_over_seeds_is_that_of_the_published_runs(tmp_path, monkeypatch):
    here = paths.published("mini")
    assert reference.over_seeds("nano").empty
    monkeypatch.setattr(paths, "published", lambda scale: tmp_path / scale)
    for k, turned in ((1, False), (2, True)):
        shutil.copytree(here / "results", tmp_path / f"mini-seed{k}" / "results")
        path = tmp_path / f"mini-seed{k}" / "results" / "scores.csv"
        scores = pd.read_csv(path)
        scores.assign(grace=1 / scores.grace if turned else scores.grace).to_csv(path, index=False)
    row = reference.over_seeds("mini").set_index("score").loc["grace"]
    assert row["spearman least"] == pytest.approx(-row["spearman most"]) and row["spearman most"] > 0
