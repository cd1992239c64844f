"""A slice must change what it says and nothing else: scores at another d are those of the grid at exactly the scale's
other settings, accuracies stay, and the teacher left out is chosen without looking at any accuracy.
"""

import itertools

import numpy as np
import pandas as pd
import pytest

from gracelib.drawing.marks import number
from gracelib.evidence import ranks, slices
from gracelib.experiment.scales import get_scale
from synthetic import synthetic_cells

CONFIG = get_scale("mini")
KEY = ["task", "student", "teacher", "temperature"]


def grid_of(cells, students=("first", "second")):
    """A grid whose numbers tell where they come from: score = 1000 d + row of the cell, others only off the default."""
    rows = []
    here = cells[cells.student.isin(students)]
    for (place, cell), (d, n, nu) in itertools.product(
        here.iterrows(), ((256, 256, 1e-3), (512, 256, 1e-3), (512, 128, 1e-3), (512, 256, 1e-2))
    ):
        default = n == CONFIG.n_prompts and nu == CONFIG.nu
        scores = dict.fromkeys(slices.GRID_SCORES.values(), 1000 * d + place if default else -1.0)
        rows.append(
            {**cell[KEY], "n": n, "m": CONFIG.m, "d": d, "n_folds": CONFIG.n_folds, "nu": nu, "power": 1.0, **scores}
        )
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_the_scores_are_the_grids_and_the_rest_is_untouched():
    cells = synthetic_cells(students=("first", "second"))
    found = slices.at_d(cells, grid_of(cells), CONFIG, 512)
    assert len(found) == len(cells)
    for column in slices.GRID_SCORES:
        assert (found[column] == 512000 + np.arange(len(cells))).all()
    for column in ("average_at_k", "average_se", "teacher_accuracy", "student_loss", "manner", "greedy", "best_of"):
        pd.testing.assert_series_equal(found[column], cells[column])
    assert not [c for c in found if c.endswith("_default")]


def test_scores_that_the_grid_does_not_have_are_dropped():
    cells = synthetic_cells().assign(badge=1.0)
    assert "badge" not in slices.at_d(cells, grid_of(cells), CONFIG, 512)


def test_a_student_without_a_grid_is_dropped_and_a_lost_cell_is_an_error():
    cells = synthetic_cells(students=("first", "second"))
    found = slices.at_d(cells, grid_of(cells, ("second",)), CONFIG, 512)
    assert set(found.student) == {"second"} and len(found) == 24
    with pytest.raises(ValueError, match=r"the grid has no row with d = 1024 .*: it has d = \[256, 512\]"):
        slices.at_d(cells, grid_of(cells), CONFIG, 1024)
    stale = grid_of(cells)
    with pytest.raises(ValueError, match="the grid has 44 of 48 cells at d = 512"):
        slices.at_d(cells, stale[~((stale.teacher == "terse-96") & (stale.student == "first"))], CONFIG, 512)


def test_the_most_familiar_teacher_is_left_out():
    cells = synthetic_cells(students=("first", "second"))
    cells.loc[(cells.teacher == "table-96") & (cells.student == "second"), "student_loss"] = 0.01
    own = cells[cells.student == "first"]
    expected = min(set(own.teacher), key=lambda t: own.student_loss[own.teacher == t].mean())
    rest, said = slices.leave_out_teacher(cells, "first")
    assert expected != "table-96" and set(cells.teacher) - set(rest.teacher) == {expected}
    assert said.startswith(f"Left out: {expected}, the teacher whose responses") and "Qwen2.5-1.5B" in said
    assert slices.most_familiar(cells, "second") == "table-96"  # another student, another teacher
    assert slices.most_familiar(cells.assign(average_at_k=1 - cells.average_at_k), "first") == expected


def test_a_single_teacher_is_kept_and_an_unknown_student_refused():
    cells = synthetic_cells((("terse-64", "terse"),), (0.6,))
    rest, said = slices.leave_out_teacher(cells, "first")
    assert rest.equals(cells) and said == "terse-64 is the only teacher: nothing was left out."
    with pytest.raises(ValueError, match="no cell of student 'third': choose one of first"):
        slices.most_familiar(cells, "third")


def test_the_change_with_d_is_the_difference_of_two_correlations():
    cells = synthetic_cells()
    same = slices.change_at_d(cells, cells, "first")
    assert "change +0.00, 95% interval over teachers [+0.00, +0.00]: these data cannot tell" in same
    turned = slices.change_at_d(cells, cells.assign(grace=-cells.grace), "first")
    rho = ranks.spearman(cells.grace, cells.average_at_k, "lower")
    assert f"{number(rho)} before, {number(-rho)} after, change {number(-2 * rho)}" in turned and turned.endswith(
        "them worse."
    )
    alone = synthetic_cells((("terse-64", "terse"),), (0.6,))
    assert "cannot be told (1 cell(s): at least 3 are needed)" in slices.change_at_d(alone, alone, "first")
