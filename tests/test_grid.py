"""The grid is a shortcut and must be only that: every cell equals `grace` and the plain scores on the same
subset, subsets are nested, and sizes that the features do not have are refused. An ablation whose cells drift
from the score they ablate would explain the shortcut instead of the score.
"""

import itertools

import numpy as np
import pytest

from gracelib.grid import score_grid
from gracelib.scores import g_norm, g_var, g_vendi, grace, recalibrate


def teacher(one_token=()):
    rng = np.random.default_rng(0)
    order = rng.permutation(48)  # rows of a prompt are not neighbours
    length = rng.integers(2, 50, 48)
    length[list(one_token)] = 1
    ids = np.array([f"q{i}" for i in np.repeat(np.arange(16), 3)])[order]
    return {"g": rng.standard_normal((48, 8)) + 0.3, "length": length, "prompt_id": ids}


@pytest.mark.parametrize("one_token", [(), (3, 40)])
def test_every_cell_equals_grace_on_its_subset(one_token):
    f = teacher(one_token)
    grid = {"n": [6, 16], "m": [1, 3], "d": [4, 8], "n_folds": [2, 5], "nu": [1e-3, 0.1], "power": [0.0, 1.0, 2.0]}
    rows = score_grid(f, **grid, seed=5)
    keys = list(grid)
    assert sorted(tuple(r[k] for k in keys) for r in rows) == sorted(itertools.product(*grid.values()))
    taken = np.unique(f["prompt_id"])[np.random.default_rng(5).permutation(16)]
    for r in rows:
        subset = [k for p in taken[: r["n"]] for k in np.flatnonzero(f["prompt_id"] == p)[: r["m"]]]
        g = f["g"][subset, : r["d"]]
        h = recalibrate(g, f["length"][subset], r["power"])
        one = grace(h, f["prompt_id"][subset], r["n_folds"], r["nu"], 5, zero_rows="keep")
        expected = (one.total, one.variance, one.bias, one.nu_share)
        assert [r[k] for k in ("grace", "variance", "bias", "nu_share")] == pytest.approx(expected, rel=1e-9), r
        assert r["cross"] == pytest.approx(one.cross, rel=1e-8, abs=1e-9 * one.total)
        assert r["g_vendi"] == pytest.approx(g_vendi(h, "keep"), abs=1e-10)
        assert (r["g_norm"], r["g_var"]) == pytest.approx((g_norm(h, "keep"), g_var(h, "keep")))
        assert r["nu_decides"] == ((1 - 1 / r["n_folds"]) * r["n"] * r["m"] <= r["d"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n": [17]}, "n = 17: the features allow 1 <= n <= 16"),
        ({"m": [0]}, "m = 0: the features allow 1 <= m <= 3"),
        ({"d": [4, 9]}, "d = 9: the features allow 1 <= d <= 8"),
        ({"d": [2.5]}, "d = 2.5: expected a whole number"),
        ({"n_folds": [1]}, "n_folds = 1: cross-validation needs at least 2 folds"),
        ({"n": [4], "n_folds": [5]}, "n_folds = 5 is more than the 4 prompts"),
        ({"nu": [-1.0]}, "nu = -1.0"),
        ({"power": [-1.0]}, "power = -1.0"),
        ({"power": []}, "power is empty"),
        ({"n": [6], "m": [1], "nu": [0.0]}, "n_folds = 5, d = 8, fold 0: Sigma-hat is singular with nu = 0"),
    ],
)
def test_grid_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        score_grid(teacher(), **{"n": [16], "m": [3], "d": [8], "n_folds": [5], **change})


def test_dead_gradients_and_one_token_teachers_are_refused():
    f = teacher()
    f["g"][9] = 0
    with pytest.raises(ValueError, match=r"g\[9\] is zero \(1 such\): a dead gradient"):
        score_grid(f, [16], [3], [8])
    with pytest.raises(ValueError, match="every response has one token: no response has a direction"):
        score_grid(teacher(one_token=range(48)), [16], [3], [8])
