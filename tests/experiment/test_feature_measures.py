"""What is read off the features is what is in them: bins hold every response once, means over bins are means over
responses, and a cell's costs are those its jobs recorded. The folders of a nano run are written by hand, so that every
number is known.
"""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from gracelib.experiment import feature_measures
from gracelib.experiment.plan import KEY, Plan
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths
from gracelib.jobs.store import META, compute, signed

CONFIG = get_scale("nano")


def finished(job, seconds):
    folder = job.folder(paths.runs())
    folder.mkdir(parents=True)
    (folder / META).write_text(signed({"key": job.key, "files": {}, "seconds": seconds}))
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Finished folders of every cell; only the timing of GRACE is left to be done, and is done here instead of in workers."""
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    rng, data = np.random.default_rng(0), {}
    for task in CONFIG.tasks:
        plan = Plan(CONFIG, task.name)
        for name, job in plan.students.items():
            if not job.done(paths.runs()):
                folder = finished(job, 1.0)
                save_file(
                    {"a": np.zeros((3, 4 if name == "first" else 5), np.float32), "b": np.zeros(7, np.float32)},
                    folder / "model.safetensors",
                )
        for i, (cell, job) in enumerate(plan.features.items()):
            n, m, d = (job.params[k] for k in ("n_prompts", "m", "d"))
            f = {
                "g": rng.normal(size=(n * m, d)).astype(np.float32),
                "length": rng.integers(3, 90, n * m),
                "grad_norm": rng.uniform(0.5, 3, n * m),
                "prompt": np.repeat(np.arange(n), m),
                "loss": np.ones(n * m),
                "mean_prob": np.full(n * m, 0.5),
            }
            about = json.dumps({"prompt_ids": [f"p{k}" for k in range(n)]})
            save_file(f, finished(job, 10.0 + i) / "features.safetensors", metadata={"about": about})
            data[task.name, *cell] = f
            finished(plan.distilled[cell], 30.0)
            finished(plan.student_accuracy[cell], 4.0)

    def finish(groups, description):
        for job in (job for group in groups for job in group.values()):
            compute(job, paths.runs())  # all but the timing is there

    monkeypatch.setattr(feature_measures, "_finish", finish)
    return data


def test_bins_hold_every_response_once_and_keep_the_means():
    rng = np.random.default_rng(1)
    length, norm = rng.integers(1, 200, 5000), rng.uniform(0.1, 5, 5000)
    bins = feature_measures.length_bins(length, norm)
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


def test_edges_do_not_depend_on_the_data():
    """Cells can be put together only if a length falls into the same bin everywhere; powers of two open a bin."""
    every = feature_measures.length_bins(np.arange(1, 1025), np.ones(1024))
    for length in (1, 2, 3, 16, 24, 64, 1024):
        (row,) = feature_measures.length_bins([length], [1.0]).itertuples()
        assert row.bin_low <= length + 1e-9 < row.bin_high and np.isclose(every.bin_low, row.bin_low).sum() == 1
    assert {1.0, 2.0, 16.0, 1024.0} <= set(every.bin_low.round(9))


@pytest.mark.parametrize(
    "length, norm, message",
    [
        ([3, 0], [1.0, 1.0], r"length\[1\] = 0"),
        ([3, 4], [1.0, np.nan], r"norm\[1\] = nan"),
        ([3, 4], [0.0, 1.0], r"norm\[0\] = 0"),
        ([3, 4], [1.0], "expected one of each"),
        ([], [], "expected one of each"),
    ],
)
def test_bad_features_are_refused(length, norm, message):
    with pytest.raises(ValueError, match=message):
        feature_measures.length_bins(length, norm)


def test_every_cell_of_every_task_is_binned(runs):
    table = feature_measures.lengths("nano")
    key = KEY
    assert [*table.columns[:4]] == key and set(map(tuple, table[key].to_numpy())) == set(runs)
    for cell, own in table.groupby(key):
        assert own["count"].sum() == len(runs[cell]["length"])
        mean = np.average(own.mean_norm, weights=own["count"])
        assert mean == pytest.approx(runs[cell]["grad_norm"].mean(), rel=1e-5)  # six digits are kept
    pd.testing.assert_frame_equal(table, feature_measures.lengths("nano", recompute=False))


def test_costs_are_what_the_jobs_recorded(runs):
    table = feature_measures.cost("nano")
    assert len(table) == len(runs) and table.volatile.all() and (table.score_seconds >= 0).all()
    assert (
        set(table.train_seconds) == {30.0} and set(table.test_seconds) == {4.0} and table.feature_seconds.min() == 10.0
    )
    assert dict(zip(table.student, table.parameters, strict=True)) == {"first": 19, "second": 22}
    assert (table.needed == CONFIG.n_prompts * CONFIG.m).all()
    assert (table.feature_bytes == CONFIG.n_prompts * CONFIG.m * CONFIG.d * 4).all()
    again = feature_measures.cost("nano")  # the same runs: the same seconds, GRACE's too
    pd.testing.assert_frame_equal(table, again)


def test_a_model_removed_to_save_space_leaves_its_cost_empty(runs):
    plan = Plan(CONFIG)
    cell = next(iter(plan.features))
    (plan.distilled[cell].folder(paths.runs()) / META).unlink()
    table = feature_measures.cost("nano")
    assert (
        np.isnan(table.train_seconds[0]) and table.test_seconds.notna().all() and table.train_seconds[1:].notna().all()
    )
