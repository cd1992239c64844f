"""Every result table at `nano`, through the function that the notebooks call: complete, made once, read back the same;
and what is committed is enough to draw everything. (Runs that are killed, starved and damaged: tests/faults.)
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from gracelib.baselines import SINCE
from gracelib.claims.measured import World
from gracelib.drawing.captions import regret_ends
from gracelib.evidence.cells import score_rows, select
from gracelib.experiment import extras, measurements, tables
from gracelib.experiment.mixtures import CHAIN, CHOICES, REGENERATION
from gracelib.experiment.plan import KEY, Plan, compared_at, plans_of
from gracelib.experiment.scales import TABLES_ONLY, get_scale
from gracelib.features.files import load_features
from gracelib.jobs import notebooks, paths, running
from gracelib.jobs.store import with_upstream
from gracelib.ranking.rank import PARAMS, PROJECTIONS
from gracelib.scores import grace, recalibrate
from gracelib.variants import VARIANTS
from nano_for_tests import Nano

ROOT = Path(__file__).resolve().parents[2]
NANO = get_scale("nano")
NAMES = tables.names("nano")
DRAWN = sorted({path.parent.name for path in (ROOT / "figures/published").glob("*/results")} - set(TABLES_ONLY))
SCRIPT = f"""
from gracelib.experiment import run, tables
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths, running
if __name__ == "__main__":
    running.run_jobs(run.planned(get_scale("nano")), paths.runs(), "nano")  # in one go: torch is loaded once
    for name in {NAMES}:
        tables.table("nano", name)
"""


def committed(name: str) -> pd.DataFrame:
    return tables.table("nano", name, recompute=False)


def jobs():
    groups = [
        group
        for plan in plans_of(NANO)
        for group in (plan.student_accuracy, plan.features, plan.base_accuracy, plan.teacher_accuracy)
    ]
    return with_upstream([job for group in groups for job in group.values()])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    where = tmp_path_factory.mktemp("nano")
    (where / "main.py").write_text(SCRIPT)
    places = {"GRACELIB_RUNS": str(where / "runs"), "GRACELIB_FIGURES": str(where / "figures")}
    env = {**os.environ, **places, "GRACELIB_WORKERS": "2", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "main.py"], cwd=where, env=env, check=True, timeout=900)
    return where


@pytest.fixture
def here(undisturbed, monkeypatch):
    return Nano(undisturbed).here(monkeypatch)


# --- made once, the same whatever happens -------------------------------------------------------------------


@pytest.mark.slow
def test_the_cells_are_complete(here):
    cells, longer = tables.cells("nano"), tables.cells("nano", "long")
    assert len(cells) == len(NANO.students) * len(NANO.teachers) * len(NANO.temperatures)
    assert set(longer["task"]) == {"long"} and set(longer["student"]) == {"first"}
    assert len(longer) + len(cells) == len(committed("scores"))
    assert longer["grace"].iloc[0] != cells["grace"].iloc[0]  # another task is another run
    numbers = cells.select_dtypes("number").drop(columns=["correct_prob", "difference_prob"])  # nobody is right at nano
    assert numbers.notna().all(axis=None) and len(numbers.columns) > 15
    total = cells["grace_variance"] + cells["grace_bias"] + cells["grace_cross"]
    pd.testing.assert_series_equal(cells["grace"], total, check_names=False, rtol=1e-9)
    assert cells[["average_at_k", "teacher_accuracy", "best_of", "greedy"]].stack().between(0, 1).all()
    assert all(job.done(paths.runs()) for job in jobs())


@pytest.mark.slow
def test_a_small_sample_is_the_first_prompts_of_many(here):
    """All the prompts that are read, and half of them: what the scores of these features say."""
    found, plan = tables.collect(plans_of(NANO), "small_sample"), Plan(NANO)
    assert list(found.n) == [4, 8, 16] and list(found.share) == [2 * n / (8 * 16 * 2) for n in (4, 8, 16)]
    ((_, features),) = extras.more_prompts_jobs([plan]).values()
    f = load_features(features.folder(paths.runs()), NANO.m, 8)
    few = recalibrate(f["g"], f["length"])[f["prompt"] < 8]
    assert found.grace[1] == grace(few, f["prompt_id"][f["prompt"] < 8], n_folds=4, nu=NANO.nu, zero_rows="keep").total


def test_training_that_was_repeated_is_in_the_noise_of_cells_and_claims(monkeypatch, tmp_path):
    """Planted seeds: four cells whose two further students are three points above and below the first."""
    shutil.copytree(paths.published("lab"), tmp_path / "lab")
    (tmp_path / "lab" / "results" / "repeats.csv").unlink()
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path))
    assert tables.repeats("lab") is None and "training_sd" not in tables.cells("lab")
    before, world = tables.cells("lab"), World("lab")
    noise = world.noise(world.frame())
    first = before[before.student == "first"].head(4).rename(columns={"average_at_k": "average"})
    seeds = [first.assign(average=first.average + s, greedy=first.greedy + s / 3) for s in (-0.03, 0.03)]
    again = pd.concat([own.assign(what=f"again {k}") for k, own in enumerate(seeds)])
    again[[*KEY, "what", "average", "average_se", "best_of", "greedy", "truncated"]].to_csv(
        tmp_path / "lab/results/repeats.csv", index=False
    )
    cells, long = tables.cells("lab"), tables.cells("lab", "long")
    assert np.allclose(cells.training_sd, 0.03) and np.allclose(long.training_sd, 0.03)
    rows, plain = (select(own, "second", ["grace"]) for own in (cells, before))
    assert (
        np.allclose(rows.average_se, np.hypot(plain.average_se, 0.03)) and (cells.average_se == before.average_se).all()
    )
    assert score_rows(rows, ["grace"]).regret_high[0] > score_rows(plain, ["grace"]).regret_high[0]
    assert "of training" in regret_ends(rows) and "training is not in it" in regret_ends(plain)
    world = World("lab")
    frame = world.frame()
    assert np.allclose(world.noise(frame), np.hypot(frame.average_se, 0.03)) and (world.noise(frame) > noise).all()
    greedy = np.hypot(world.error(frame, "greedy"), 0.01)
    assert np.allclose(world.noise(frame, accuracy="greedy"), greedy)


@pytest.mark.parametrize("scale, name", [("lab", "estimators"), ("lab-world1", "grid"), ("mini", "gird")])
def test_a_table_that_a_scale_does_not_have_is_refused(scale, name):
    with pytest.raises(ValueError, match=f"scale {scale}.* = '{name}': choose one of teachers, "):
        tables.table(scale, name)


# --- what is committed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", DRAWN)
def test_every_table_that_a_notebook_reads_is_committed(scale):
    sources = [cell.source for path in notebooks.numbered() for cell in nbformat.read(path, as_version=4).cells]
    read = set(re.findall(r'\.(?:table|of_all_seeds)\(\w+, "(\w+)"', "\n".join(sources)))
    assert read == {*tables.names("mini"), *tables.names("coverage-mini")} >= set(tables.names(scale))
    tables.check(scale)


def test_published_tables_are_read_until_a_run_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path))
    assert len(tables.table("mini", "students", recompute=False)) > 1
    tables.write("mini", "students", pd.read_csv(paths.tables("mini") / "students.csv").head(1))
    assert len(tables.table("mini", "students", recompute=False)) == 1
    with pytest.raises(FileNotFoundError, match=r"scores\.csv is not there: run `make figures"):  # never one of each
        tables.table("mini", "scores", recompute=False)


@pytest.mark.slow
@pytest.mark.parametrize("scale", DRAWN)
def test_every_drawn_scale_is_drawn_again_from_the_committed_tables_alone(scale, tmp_path):
    Nano(tmp_path, scale, full=True).finish("figures", "--scale", scale, "--no-recompute")
    before, now = (
        {path.name: path.read_bytes() for path in (folder / scale).glob("*.csv")}
        for folder in (ROOT / "figures/published", tmp_path / "figures")
    )
    assert before and before == now


# --- what the tables say ------------------------------------------------------------------------------------


def test_the_share_of_the_largest_prompts_is_of_the_sum():
    """One prompt a hundred times as large as the others; prompts weigh as many responses as they have."""
    rng = np.random.default_rng(0)
    h, ids = rng.normal(size=(30, 3)), np.repeat(np.arange(10), 3)
    h[ids == 4] *= 10
    result = grace(h, ids, n_folds=5)
    part = result.count * result.per_prompt
    share, rest = tables.top_share(result, 1)
    assert share == part[4] / part.sum() > 0.7
    assert rest == pytest.approx(np.delete(result.per_prompt, 4).mean())
    assert tables.top_share(result)[0] > share


@pytest.mark.slow
def test_the_tables_agree_with_each_other_and_with_the_scores(here):
    everywhere = committed("scores")
    scores = everywhere[(everywhere.task == "short") & (everywhere.student == "first")]
    variants, grid, few = committed("variants"), committed("grid"), committed("concentration")
    assert set(VARIANTS) <= set(variants) and len(variants) == len(scores) < len(everywhere)
    for table in (variants, committed("intervals"), few):
        np.testing.assert_allclose(table.grace, scores.grace, rtol=1e-9)
    assert few.top3_share.between(0, 1).all() and (few.grace_without_top3 <= few.grace).all()
    plan = Plan(NANO)
    for row in few.itertuples():
        texts = (plan.responses[row.teacher, row.temperature].folder(here / "runs") / "responses.jsonl").read_text()
        assert str(row.largest_response) in texts
    setting = {"n": NANO.n_prompts, "m": NANO.m, "d": NANO.d, "n_folds": NANO.n_folds, "nu": NANO.nu, "power": 1}
    full = grid[(grid[list(setting)] == pd.Series(setting)).all(axis=1)]
    np.testing.assert_allclose(full.grace, everywhere.grace, rtol=1e-5)
    first = full[(full.task == "short") & (full.student == "first")]
    np.testing.assert_allclose(first.nu_share, few.nu_share, rtol=1e-4)
    assert not grid.duplicated([*KEY, *setting]).any()
    assert grid.notna().all(axis=None)
    cmi = committed("cmi")
    assert set(cmi.preconditioner) == {"smoothed", "identity"} and set(cmi.space) == {"g", "h"}
    assert (cmi.stability[cmi.preconditioner == "identity"] == 0).all()


@pytest.mark.slow
def test_the_scores_since_are_of_the_same_cells_and_so_are_their_comparators(here):
    since, scores = committed("since"), committed("scores").query("task == 'short' and student == 'first'")
    full = since[since.n == NANO.n_prompts]
    assert set(since.n) == {4, 8, 16} and set(SINCE) < set(since) and len(full) == len(scores)
    np.testing.assert_allclose(full[["grace", "g_norm"]], scores[["grace", "g_norm"]], rtol=1e-5)
    np.testing.assert_allclose(full.grape, -scores.student_loss, rtol=1e-5)
    assert (full[["ifd", "rsr"]] > 0).all(axis=None) and (full.lalp < 0).all()
    passes, races = committed("passes"), committed("races")
    assert passes.volatile.all() and (passes.filter(like="_seconds") > 0).all(axis=None)
    assert (passes.responses == NANO.n_prompts).all()
    assert races.stayed.all() and len(races) == measurements.DRAWS and (races.left == 0).all()  # of one teacher
    students = committed("students").query("task == 'short' and student == 'first'").average.tolist()
    assert committed("smoke_test").query("epochs == epochs.max()").average.tolist() == students
    mixtures = committed("mixtures").set_index("mixture")
    (teacher,) = {spec.name for spec in NANO.teachers}
    assert list(mixtures.index) == [teacher, *CHOICES, CHAIN, REGENERATION] and list(
        mixtures[mixtures.alone].index
    ) == [teacher]
    chosen = mixtures.loc[[teacher, *CHOICES]]  # of one teacher: it, every time
    assert (mixtures.most == teacher).all() and len(set(chosen.average)) == 1


@pytest.mark.slow
def test_every_cell_is_binned_and_costed(here):
    cells = set(map(tuple, committed("features")[KEY].to_numpy()))
    lengths, features, cost = committed("lengths"), committed("features").set_index(KEY), committed("cost")
    assert set(map(tuple, lengths[KEY].to_numpy())) == set(map(tuple, cost[KEY].to_numpy())) == cells
    for cell, own in lengths.groupby(KEY):
        assert own["count"].sum() == NANO.n_prompts * NANO.m
        mean = np.average(own.mean_norm, weights=own["count"])
        assert mean == pytest.approx(features.grad_norm[cell], rel=1e-5)  # six digits are kept
    assert cost.volatile.all() and (cost.score_seconds >= 0).all() and (cost.parameters > 1000).all()
    assert (cost.needed == NANO.n_prompts * NANO.m).all()
    assert (cost.feature_bytes == NANO.n_prompts * NANO.m * NANO.d * 4).all()
    for column, group in (
        ("feature_seconds", "features"),
        ("train_seconds", "distilled"),
        ("test_seconds", "student_accuracy"),
    ):
        took = [tables.seconds_of(job) for plan in plans_of(NANO) for job in getattr(plan, group).values()]
        assert cost[column].tolist() == took and min(took) > 0


@pytest.mark.slow
def test_a_model_removed_to_save_space_leaves_its_cost_empty(undisturbed, tmp_path, monkeypatch):
    Nano(tmp_path).copy_of(Nano(undisturbed)).here(monkeypatch)
    shutil.rmtree(next(iter(Plan(NANO).distilled.values())).folder(paths.runs()))
    monkeypatch.setattr(running, "executor_of_run", None)
    table = tables.table("nano", "cost")
    assert np.isnan(table.train_seconds[0]) and table.train_seconds[1:].notna().all()
    assert table.test_seconds.notna().all()


@pytest.mark.slow
def test_the_exact_estimator_is_the_pipelines(here):
    table, scores = committed("estimators"), committed("scores")
    first = (scores.task == NANO.tasks[0].name) & (scores.student == NANO.student)
    own = scores[first & (scores.temperature == compared_at(NANO))].set_index(KEY)
    assert len(table) == len(own) * len(measurements.ESTIMATORS) and table.volatile.all()
    wide = table.pivot(index=KEY, columns="estimator", values="grace")
    np.testing.assert_allclose(wide["exact"], own.grace.reindex(wide.index), rtol=2e-3)
    for name in list(measurements.ESTIMATORS)[1:]:
        assert np.isfinite(wide[name]).all() and (wide[name] > 0).all()
        assert not np.allclose(wide[name], wide["exact"], rtol=1e-2), name
    assert (table.seconds > 0).all() and (table.groupby("estimator").parameters.nunique() == 1).all()


@pytest.mark.slow
def test_absurd_teachers_are_measured_and_stay_out_of_the_cells(here):
    odd, plans = committed("pathological"), plans_of(NANO)
    assert odd.teacher.tolist() == list(extras.KINDS) and set(odd.student) == {"first"}
    assert odd[["grace", "g_vendi", "average_at_k"]].notna().all(axis=None)
    pd.testing.assert_frame_equal(odd[[*committed("pathological_scores")]], committed("pathological_scores"))
    assert not set(extras.KINDS) & set(tables.cells("nano").teacher)
    keys = {features.key for _, features, _ in extras.absurd_jobs(plans).values()}
    assert len(keys) == 3 and not keys & {job.key for job in plans[0].features.values()}


@pytest.mark.slow
def test_extra_students(here):
    """Nano's teacher may well have no right response: then the row says so, and there is no student."""
    filtered, runs = committed("filtered"), committed("training_runs")
    assert filtered.kept_share.item() == committed("teachers").set_index("task").train_accuracy["short"]
    assert np.isnan(filtered.average.item()) == (filtered.prompts_kept.item() == 0)
    students = committed("students")
    own = students[(students.task == "short") & (students.student == "first")].average.item()
    assert (runs[runs.usual].test == own).all() and runs.usual.sum() == 2
    assert runs[["test", "train"]].stack().between(0, 1).all()


@pytest.mark.slow
def test_the_released_protocol(here):
    table = committed("protocol")
    assert list(table.setting) == [*extras.TEMPLATES, "the released script's training"]
    usual = table[table.setting == "the paper's"]
    assert (usual.points == 0).all() and table.average.between(0, 1).all() and table.average_se.between(0, 1).all()
    np.testing.assert_allclose(table.points, 100 * (table.average - usual.average.item()))


# --- lengths are put into bins: every response once, and means over bins are means over responses -----------


def test_every_labelled_alternative_is_an_estimator():
    values = [v for own in measurements.ESTIMATORS.values() for v in own.values()]
    assert sorted(values) == sorted([*PARAMS[1:], *PROJECTIONS[1:]]) and next(iter(measurements.ESTIMATORS)) == "exact"


def test_bins_hold_every_response_once_and_keep_the_means():
    rng = np.random.default_rng(1)
    length, norm = rng.integers(1, 200, 5000), rng.uniform(0.1, 5, 5000)
    bins = measurements.length_bins(length, norm)
    assert bins["count"].sum() == 5000 and (bins.bin_low[1:].to_numpy() >= bins.bin_high[:-1].to_numpy() - 1e-9).all()
    np.testing.assert_allclose(bins.bin_high / bins.bin_low, 2 ** (1 / 4))
    log = np.log(length)
    for column, values in (
        ("mean_length", length),
        ("mean_norm", norm),
        ("mean_norm_log", norm * log),
        ("mean_norm_log2", norm * log**2),
    ):
        assert np.average(bins[column], weights=bins["count"]) == pytest.approx(values.mean())
    row = bins.iloc[12]
    own = (length >= row.bin_low - 1e-9) & (length < row.bin_high - 1e-9)
    assert row["count"] == own.sum() > 0 and row.mean_norm == pytest.approx(norm[own].mean())
