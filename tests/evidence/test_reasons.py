"""Each reason is found where it was planted: an inflation that is wrong between teachers and right within one, folds that
cost or do not, an inflation that depends on rows per dimension alone, and what tells perfect teachers apart."""

import numpy as np
import pandas as pd
import pytest

from gracelib.evidence import reasons
from gracelib.evidence.cells import KEY


@pytest.fixture
def cells():
    """Eight teachers at four temperatures: the norm orders teachers rightly; the inflation rises with the better teacher and
    with heat, and heat makes worse students."""
    rows = [
        {
            "task": "short",
            "student": "first",
            "teacher": f"t{i}",
            "temperature": t,
            "average_at_k": 0.1 + 0.1 * i - 0.05 * t,
        }
        | {"g_norm": np.exp(-i), "grace": np.exp(-i) * np.exp(0.1 * i + t), "student_loss": np.exp(-i / 8)}
        | {"teacher_accuracy": 0.99 if i % 2 else 0.9}
        for i in range(8)
        for t in (0.2, 0.4, 0.6, 0.8)
    ]
    return reasons.with_parts(pd.DataFrame(rows))


def test_an_inflation_that_is_wrong_between_teachers_and_right_within_one(cells):
    found = reasons.between_and_within(cells).set_index(["part", "level"])
    rho = found.spearman
    assert rho["inflation", "between"] == -1 and rho["inflation", "within"] == 1
    assert rho["g_norm", "between"] == rho["grace", "between"] == 1 and np.isnan(
        rho["g_norm", "within"]
    )  # constant there
    assert rho["grace", "all"] > 0.9 and (found.low <= rho).loc["grace"].all()
    assert found.spread["g_norm", "between"] == pytest.approx(np.std(range(8), ddof=1))
    assert found.spread["inflation", "within"] == pytest.approx(np.std([0.2, 0.4, 0.6, 0.8], ddof=1))
    assert found.teachers["g_norm", "within"] == 0 and found.teachers["grace", "within"] == 8


def test_several_worlds_are_pooled_pair_by_pair(cells):
    turned = cells.assign(g_norm=1 / cells.g_norm)
    found = reasons.several_worlds({"here": cells, "there": turned}).set_index("part")
    assert found.here["g_norm"] == pytest.approx(-found.there["g_norm"]) and found.pooled["g_norm"] == pytest.approx(0)
    assert found.low["g_norm"] < -0.9 and found.high["g_norm"] > 0.9  # both worlds may be drawn twice
    assert (found.ahead["grace"], found.ahead_low["grace"], found.ahead_high["grace"]) == (0, 0, 0)
    assert found.ahead["g_norm"] == pytest.approx(found.pooled["grace"])


def test_what_the_folds_cost(cells):
    variants = cells[KEY].assign(grace=cells.grace, same=cells.grace, best=-cells.average_at_k)
    found = reasons.folds_cost(cells.drop(columns="grace"), variants, ["same", "best"]).set_index("variant")
    assert found.spearman["same"] == 0 and found.value["best"] == 1
    assert found.spearman["best"] == pytest.approx(1 - found.value["same"]) and found.low["best"] >= 0


def test_an_inflation_that_depends_on_rows_per_dimension_alone(cells):
    default = {"n": 64, "m": 4, "d": 32, "n_folds": 10, "nu": 1e-3, "power": 1.0}
    grid = pd.concat(
        cells[[*KEY, "g_norm"]].assign(
            grace=cells.g_norm * d / (1 - d / rows), **(default | {"n": n, "d": d}), nu_share=0.1
        )
        for n in (32, 64)
        for d in (16, 32)
        for rows in [0.9 * n * 4]
    )
    found = reasons.by_rows(cells, pd.concat([grid, grid.assign(nu=1.0, grace=1.0)]), default)
    assert found.rows_over_d.tolist() == pytest.approx([3.6, 7.2, 7.2, 14.4])
    assert found.inflation.tolist() == pytest.approx((1 / (1 - 1 / found.rows_over_d)).tolist())
    assert found.spread.max() == pytest.approx(0) and found.nu_share.tolist() == pytest.approx([0.1] * 4)


def test_what_tells_perfect_teachers_apart(cells):
    found = reasons.strong_cells(cells).set_index("part")
    assert set(found.cells) == {16} and found.lowest.iloc[0] == cells[cells.teacher_accuracy > 0.98].average_at_k.min()
    assert "teacher_accuracy" not in found.index  # the same in all of them
    assert found.spearman["student_loss"] > 0.9 and found.spearman["inflation"] < 0
    assert found.spearman.is_monotonic_decreasing
