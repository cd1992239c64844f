"""The benchmark runs every way on the same student and responses, and says what it scaled or left out. Seconds themselves are
nobody's test."""

import json
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch

from gracelib.bench import gpu, measure, methods, report
from gracelib.bench.methods import gradient_of, gsm8k_examples, random_examples, random_student, student_of
from gracelib.features.gradients import response_features
from gracelib.features.per_response import parameter_names
from gracelib.jobs import progress
from gracelib.jobs.paths import ROOT
from gracelib.jobs.store import file_hash
from gracelib.projection import signs

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_way_is_run_end_to_end(tmp_path, monkeypatch, capsys):
    """A student of 12,000 parameters; the others' packages are not there, which is said."""
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path))
    monkeypatch.setattr(methods, "PEERS", dict.fromkeys(methods.PEERS, "no_such_package"))
    monkeypatch.setattr(measure, "QUICK", (measure.Setting(12_000, 6, 32, 8, "Dnd"),))
    table = measure.main(["--quick"])
    own = table.set_index("method")
    assert set(own.index) == {m.name for m in methods.METHODS} | {report.FLOOR, report.BACKWARD}
    assert own.loc[list(methods.PEERS), "note"].str.contains("no_such_package is not installed: make bench").all()
    measured = own.drop(list(methods.PEERS))
    assert (measured.seconds > 0).all() and (measured.responses_run == 6).all()
    assert own.seconds[report.BACKWARD] < own.seconds[report.PASSES] < own.seconds[report.FLOOR]
    assert own.times_floor["ours"] == pytest.approx(own.seconds["ours"] / own.seconds[report.FLOOR])
    out = capsys.readouterr().out
    assert "6 responses of about 8 tokens, d = 32, 1 threads" in out and "written: bench/features.csv" in out
    files = {path.suffix: path for path in (tmp_path / "bench").glob("features.*")}
    assert set(files) == {".csv", ".json", ".svg", ".png"}
    assert json.loads(files[".json"].read_text("utf-8"))["parameters"]["settings"][0]["n"] == 6
    pd.testing.assert_frame_equal(
        pd.read_csv(files[".csv"], keep_default_na=False)[["method", "note"]], table[["method", "note"]]
    )

    def refuse(*_):
        raise AssertionError("a finished setting is measured again")

    monkeypatch.setattr(measure, "measure", refuse)
    pd.testing.assert_frame_equal(measure.main(["--quick"]), table)


def test_the_ways_compute_the_same_thing():
    """What the careful user multiplies is the gradient whose projection is ours, so that times are compared at equal
    results; and D is counted once for a tied tensor."""
    model, d = student_of(12_000), 16
    examples = random_examples(3, 4, 6, 160)
    work = methods.Work(model, examples, d)
    kept = torch.cat([signs(0, name, 0, p.numel(), d) for p, name in parameter_names(model).items()])
    g = torch.stack([gradient_of(model, e) for e in examples])
    assert g.shape == (3, work.n_parameters) and work.n_parameters == sum(p.numel() for p in model.parameters())
    ours = response_features(model, examples, d=d, device="cpu", progress=False)["g"]
    np.testing.assert_allclose((g @ kept).numpy() / work.n_parameters**0.5, ours, rtol=2e-4, atol=1e-6)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("parameters", [30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000])
def test_students_are_of_the_size_asked_for(parameters):
    with torch.device("meta"):
        model = student_of(parameters)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.03)


@pytest.mark.parametrize(
    "method, setting, note",
    [
        (report.CAREFUL, measure.Setting(3_000_000), "left out: it keeps 5.[0-9] GiB"),
        (report.PAPER, measure.Setting(3_000_000, d=2048), "left out: one run takes about 9[0-9] s"),
        (report.DATTRI, measure.Setting(30_000_000, 64), "left out: it keeps 14.8 GiB"),
    ],
)
def test_what_would_not_fit_or_end_is_left_out_and_said(method, setting, note, monkeypatch):
    monkeypatch.setattr(methods, "missing", lambda name: None)
    with torch.device("meta"):
        work = methods.Work(student_of(setting.parameters), [([1], [2])] * setting.n, setting.d)
    (way,) = (m for m in methods.METHODS if m.name == method)
    assert pd.Series([measure._alone(way, work, 5)["note"]]).str.fullmatch(note).all()


def test_a_slow_way_is_scaled_from_few_responses(monkeypatch):
    calls = []
    way = methods.Method("slow", lambda work: lambda k: calls.append(k), each=3)
    work = methods.Work(student_of(12_000), [([1], [2])] * 10, 4)
    bench_clock = iter([0.0, 9.0, 9.0, 18.0])  # 9 s for 3 responses: no time for another repeat, nor for more
    with monkeypatch.context() as patch:  # pytest reads the clock, too
        patch.setattr(progress.time, "perf_counter", lambda: next(bench_clock))
        row = measure._alone(way, work, 5)
    assert calls == [3, 3] and row["seconds"] == pytest.approx(30.0) and row["repeats"] == 1
    assert row["extrapolated"] and row["note"] == "scaled from 3 of 10 responses"


def test_the_committed_table_is_whole_and_readme_says_its_numbers():
    """A table replaced without its picture, its record or the guide's sentences is found here; and features that became slow."""
    folder = ROOT / "figures" / "published" / "bench"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", str(folder)], cwd=ROOT, capture_output=True)
    if changed.returncode == 1:
        pytest.skip("figures/published/bench was measured on this machine and is not committed")
    record = json.loads((folder / "features.json").read_text("utf-8"))
    assert {name: file_hash(folder / name) for name in record["files"]} == record["files"]
    table = pd.read_csv(folder / "features.csv")
    ours = table[(table.method == report.OURS) & (table.d == 512)]
    large = ours[ours.responses >= 128]
    assert large.times_floor.max() < 1.5
    assert large.parameters.min() < 1e5 < 2.9e7 < large.parameters.max() and (large.repeats == 5).all()
    text = " ".join((ROOT / "notebooks" / "rank_your_own.md").read_text("utf-8").split())
    low, high = re.search(r"on two cores ([\d.]+) to ([\d.]+) times that, from a hundred thousand to 30", text).groups()
    assert (float(low), float(high)) == (round(large.times_floor.min(), 1), round(large.times_floor.max(), 1))
    for method, pattern in (
        (report.PAPER, r"`traker`'s projector takes (\d+) times as long at a million"),
        (report.CAREFUL, r"made once and kept ([\d.]+) times"),
    ):
        (row,) = table[(table.method == method) & table.parameters.between(8e5, 2e6)].to_dict("records")
        assert float(re.search(pattern, text)[1]) == pytest.approx(row["times_ours"], rel=0.01)


# --- a GPU ---------------------------------------------------------------------------------------------------


def test_what_is_measured_on_a_gpu_runs_at_a_tiny_shape(tmp_path, monkeypatch, capsys):
    """So that it is known to run before somebody lends a GPU to it."""
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path))
    gpu.main(["--dry-run"])
    table = pd.read_csv(tmp_path / "bench" / "gpu.csv").set_index("what")
    assert len(table) == 3 and not table["failed"].eq(True).any()
    for dtype in ("float32", "bfloat16"):
        row = table.loc[f"features, {dtype}"]
        assert row["seconds"] > 0 and row["times_passes"] > 0 and row["peak_mib"] > 0 and "16 responses" in row["note"]
    assert 0.5 < table.loc["order of teachers, bfloat16 with float32", "value"] <= 1
    assert "written to bench/gpu.csv" in capsys.readouterr().out


def test_the_shape_and_the_lengths_are_those_of_the_paper():
    with torch.device("meta"):
        model = random_student(**gpu.SHAPES["llama-3.2-1b"])
    assert sum(p.numel() for p in model.parameters()) == 1_235_814_400
    responses = np.array([len(y) for _, y in gsm8k_examples(2048, 50)])
    assert 115 < np.median(responses) < 130 and 190 < np.quantile(responses, 0.9) < 230
    assert random_student(**gpu.SHAPES["tiny"], dtype="bfloat16").dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device: nothing to refuse")
def test_no_gpu_is_said(capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu.main([])
    assert stopped.value.code == 2 and "no CUDA device is present; --dry-run" in capsys.readouterr().err
