"""The measured tables at `nano`, through the functions that the notebooks call: complete, made once, read back the same;
and the absurd teachers are what they say and stay out of the cells that correlations are computed on.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gracelib.experiment import measures, tables
from gracelib.experiment.pathological import KINDS, PathologicalPlan, random_responses, repeated_response
from gracelib.experiment.plan import KEY
from gracelib.experiment.scales import get_scale
from gracelib.jobs import workers
from gracelib.scores import grace
from gracelib.variants import VARIANTS

pytestmark = pytest.mark.filterwarnings("ignore:nu = ")
ROOT = Path(__file__).resolve().parents[2]
TABLES = (
    "variants",
    "few_prompts",
    "intervals",
    "concentration",
    "neighbours",
    "coverage",
    "grid",
    "cmi",
    "pathological_scores",
    "pathological",
)
SCRIPT = f"""
from gracelib.experiment import measures
from gracelib.experiment import tables as pipeline
if __name__ == "__main__":
    for name in ("teacher_data", "student_features", "score_table", "distilled_students"):
        getattr(pipeline, name)("nano")
    for name in {TABLES}:
        getattr(measures, name)("nano")
"""
ROWS = [
    {"id": "a", "question": "q", "answer": "1", "responses": ["", "one two three"]},
    {"id": "b", "question": "r", "answer": "2", "responses": ["four", "five six"]},
]


def test_random_words_have_real_lengths_and_are_keyed_by_prompt_and_sample():
    words = ["x", "y", "z"]
    made = random_responses(ROWS, words, 0)
    assert [[len(r.split()) for r in row["responses"]] for row in made] == [[1, 3], [1, 2]]
    assert all(word in words for row in made for r in row["responses"] for word in r.split())
    assert random_responses(ROWS[1:], words, 0) == made[1:] and random_responses(ROWS, words, 1) != made
    assert ROWS[0]["responses"] == ["", "one two three"]  # the source is not touched
    with pytest.raises(ValueError, match="no words"):
        random_responses(ROWS, [], 0)


def test_the_repeated_response_is_the_first_real_one():
    assert [row["responses"] for row in repeated_response(ROWS)] == [["one two three"] * 2] * 2
    with pytest.raises(ValueError, match="every response is empty"):
        repeated_response([{"id": "a", "question": "q", "responses": [" "]}])


def test_the_share_of_the_largest_prompts_is_of_the_sum():
    """One prompt a hundred times as large as the others; prompts weigh as many responses as they have."""
    rng = np.random.default_rng(0)
    h, ids = rng.normal(size=(30, 3)), np.repeat(np.arange(10), 3)
    h[ids == 4] *= 10
    result = grace(h, ids, n_folds=5)
    part = result.count * result.per_prompt
    share, rest = measures.top_share(result, 1)
    assert share == part[4] / part.sum() > 0.7
    assert rest == pytest.approx(np.delete(result.per_prompt, 4).mean())
    assert measures.top_share(result)[0] > share
    with pytest.raises(ValueError, match="k = 10: expected 1 to 9, with 10 prompts"):
        measures.top_share(result, 10)


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    where = tmp_path_factory.mktemp("measures")
    (where / "main.py").write_text(SCRIPT)
    env = {
        **os.environ,
        "GRACELIB_RUNS": str(where / "runs"),
        "GRACELIB_FIGURES": str(where / "figures"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, "main.py"], cwd=where, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""
    return where


@pytest.fixture
def here(nano, monkeypatch):
    monkeypatch.setenv("GRACELIB_RUNS", str(nano / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(nano / "figures"))
    return nano


@pytest.mark.slow
def test_a_second_call_does_no_work_and_gives_the_same_table(here, monkeypatch):
    before = {p.name: p.read_bytes() for p in (here / "figures/nano/results").iterdir()}
    monkeypatch.setattr(workers, "ProcessPoolExecutor", None)
    for name in TABLES:
        made = getattr(measures, name)("nano")
        pd.testing.assert_frame_equal(getattr(measures, name)("nano", recompute=False), made, check_dtype=False)
    assert before == {p.name: p.read_bytes() for p in (here / "figures/nano/results").iterdir()}


@pytest.mark.slow
def test_the_tables_agree_with_each_other_and_with_the_scores(here):
    scale, scores = get_scale("nano"), tables.score_table("nano", recompute=False)
    everywhere, scores = scores, scores[(scores.task == "short") & (scores.student == "first")]
    variants, grid = measures.variants("nano", recompute=False), measures.grid("nano", recompute=False)
    assert set(VARIANTS) <= set(variants) and len(variants) == len(scores) < len(everywhere)
    np.testing.assert_allclose(variants.grace, scores.grace, rtol=1e-9)
    np.testing.assert_allclose(measures.intervals("nano", recompute=False).grace, scores.grace, rtol=1e-9)
    few = measures.concentration("nano", recompute=False)
    np.testing.assert_allclose(few.grace, scores.grace, rtol=1e-9)
    assert few.top3_share.between(0, 1).all() and (few.grace_without_top3 <= few.grace).all()
    plan = tables.Plan(scale)
    for row in few.itertuples():
        texts = (plan.responses[row.teacher, row.temperature].folder(here / "runs") / "responses.jsonl").read_text()
        assert str(row.largest_response) in texts
    full = grid[
        (grid.n == scale.n_prompts)
        & (grid.m == scale.m)
        & (grid.d == scale.d)
        & (grid.n_folds == scale.n_folds)
        & (grid.nu == scale.nu)
        & (grid.power == 1)
    ]
    np.testing.assert_allclose(full.grace, everywhere.grace, rtol=1e-5)
    np.testing.assert_allclose(
        full[(full.task == "short") & (full.student == "first")].nu_share, few.nu_share, rtol=1e-4
    )
    assert not grid.duplicated([*KEY, "n", "m", "d", "n_folds", "nu", "power"]).any()
    assert grid.notna().all(axis=None)
    cmi = measures.cmi("nano", recompute=False)
    assert set(cmi.preconditioner) == {"smoothed", "identity"} and set(cmi.space) == {"g", "h"}
    assert (cmi.stability[cmi.preconditioner == "identity"] == 0).all()


@pytest.mark.slow
def test_absurd_teachers_are_measured_and_stay_out_of_the_cells(here):
    odd = measures.pathological("nano", recompute=False)
    assert odd.teacher.tolist() == list(KINDS)
    assert odd[["grace", "g_vendi", "average_at_k"]].notna().all(axis=None)
    assert not set(KINDS) & set(tables.cells("nano").teacher)
    plan = tables.Plan(get_scale("nano"))
    assert set(odd.student) == {"first"}
    keys = {job.key for job in PathologicalPlan(plan).features.values()}
    assert len(keys) == 3 and not keys & {job.key for job in plan.features.values()}


@pytest.mark.slow
def test_without_recompute_a_missing_table_is_an_error(here, monkeypatch, tmp_path):
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path))
    for name in TABLES:
        with pytest.raises(FileNotFoundError, match=f"{name}.csv is not there: run `make figures SCALE=nano`"):
            getattr(measures, name)("nano", recompute=False)
