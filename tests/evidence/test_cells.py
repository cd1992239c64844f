"""The tables behind figures and captions hold up where a score is undefined in some cells, and say how noisy a regret is:
a lost cell must not stop a whole figure, and a regret of zero must not look exact.
"""

import itertools

import numpy as np
import pandas as pd
import pytest

from gracelib.baselines import SCORES
from gracelib.drawing.correlations import table_main
from gracelib.evidence import cells as tables
from gracelib.evidence import ranks
from gracelib.evidence.objectives import by_objective, by_sample, orders_agree, over_best, over_seeds
from gracelib.experiment.scales import get_scale
from synthetic import synthetic_cells


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(ranks, "N_BOOT", 60)


def three_teachers(**columns) -> pd.DataFrame:
    """Three teachers at two temperatures, the columns given in the order A, A, B, B, C, C."""
    cells = synthetic_cells((("A", "equations"), ("B", "algebra"), ("C", "terse")), (0.6, 1.0))
    return cells.assign(**columns)


def test_a_score_that_two_teachers_lack_here_and_there_has_an_interval():
    """A resample of teacher A alone has two cells: it is redrawn, not fatal."""
    nan = np.nan
    cells = three_teachers(incorrect_prob=[nan, 0.3, 0.2, 0.1, nan, nan], average_at_k=[0.1, 0.2, 0.5, 0.4, 0.3, 0.6])
    rows = tables.select(cells, "first", ["incorrect_prob"])
    row = tables.score_rows(rows, ["incorrect_prob"]).iloc[0]
    assert row.spearman == ranks.spearman([0.3, 0.2, 0.1], [0.2, 0.5, 0.4], "lower") == 0.5
    assert -1 <= row.low <= row.high <= 1 and (row.cells, row.teachers) == (3, 2)
    assert row.note.startswith("defined in 3 of 6 cells; 2 teachers")
    assert row.regret_points == pytest.approx(100 * (0.6 - 0.4))


def test_an_interval_that_no_resample_allows_is_a_note(monkeypatch):
    """Of three teachers with one cell each only a resample of all three has three different cells; a score with
    a constant half leaves the statistic undefined far too often."""
    cells = three_teachers(incorrect_prob=[0.1, np.nan, 0.1, np.nan, 0.3, np.nan])
    cells["average_at_k"] = [0.5, 0.1, 0.4, 0.1, 0.3, 0.1]

    def refuse(*_, **__):
        raise ranks.DegenerateError("541 of 542 resamples of 3 clusters are degenerate")

    monkeypatch.setattr(tables, "bootstrap", refuse)
    row = tables.score_rows(tables.select(cells, "first", ["incorrect_prob"]), ["incorrect_prob"]).iloc[0]
    assert np.isfinite(row.spearman) and np.isnan(row.low)
    assert "no interval: 541 of 542 resamples" in row.note


def test_the_noise_of_a_regret_is_that_of_both_cells():
    se = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    cells = three_teachers(average_at_k=[0.1, 0.2, 0.5, 0.4, 0.3, 0.6], average_se=se, grace=[6.0, 5, 1, 4, 3, 2])
    rows = tables.select(cells, "first", ["grace"])
    row = tables.score_rows(rows, ["grace"]).iloc[0]
    assert row.regret_points == pytest.approx(10) and row.selected == "B at T=0.6"
    assert row.regret_se_points == pytest.approx(100 * np.hypot(0.03, 0.06))
    best = tables.score_rows(rows.assign(grace=-rows.average_at_k), ["grace"]).iloc[0]
    assert best.regret_points == 0 and best.regret_se_points == pytest.approx(
        100 * np.hypot(0.06, 0.03)
    )  # the runner-up
    tied = tables.score_rows(rows.assign(grace=1.0), ["grace"]).iloc[0]
    assert np.isnan(tied.regret_se_points)  # all are selected: no other cell
    assert np.isnan(tables.regret_se(rows, rows[:1], "greedy"))


def test_the_main_table_says_what_its_intervals_leave_out():
    drawn = table_main(synthetic_cells(), "first", "mini")
    assert (drawn.table.regret_se_points > 0).all()
    assert "noise of the students' training is not in it" in drawn.caption and "conservative" in drawn.caption


def pair(cells, a, b):
    return [(cells[name], cells.average_at_k, SCORES[name].direction) for name in (b, a)]


def test_two_scores_are_compared_on_the_same_resamples():
    cells = synthetic_cells()
    same = tables.difference(*pair(cells.assign(g_norm=2 * cells.grace), "grace", "g_norm"), cells.teacher)
    assert (same["spearman"], same["low"], same["high"]) == (0, 0, 0)
    worse = tables.difference(*pair(cells.assign(g_norm=-cells.grace), "grace", "g_norm"), cells.teacher)
    assert worse["low"] > 0 and worse["spearman"] == pytest.approx(
        2 * ranks.spearman(cells.grace, cells.average_at_k, "lower")
    )
    turned = tables.difference(*pair(cells.assign(g_vendi=-cells.grace), "grace", "g_vendi"), cells.teacher)
    assert turned["spearman"] == pytest.approx(0)  # each by its own direction: higher is better there


@pytest.mark.parametrize(
    "change, note",
    [
        (lambda c: c[c.teacher == "terse-96"], "one teacher: no interval"),
        (lambda c: c.assign(g_norm=1.0), "undefined: score is constant"),
        (lambda c: c.assign(g_norm=np.nan), "at least 3 are needed"),
    ],
)
def test_where_two_scores_cannot_be_compared_the_note_says_so(change, note):
    cells = change(synthetic_cells())
    row = tables.difference(*pair(cells, "grace", "g_norm"), cells.teacher)
    assert np.isnan([row["low"], row["high"]]).all() and note in row["note"]


# --- the cells of a setting, seen otherwise -------------------------------------------------------------------------

CONFIG = get_scale("mini")
USUAL = tables.default_setting(CONFIG)


def grid_of(cells, students=("first", "second")):
    """A grid whose numbers tell where they come from: score = 1000 d + row of the cell, others only off the default."""
    rows = []
    here = cells[cells.student.isin(students)]
    for (place, cell), (d, n, nu) in itertools.product(
        here.iterrows(), ((256, 256, 1e-3), (512, 256, 1e-3), (512, 128, 1e-3), (512, 256, 1e-2))
    ):
        default = n == CONFIG.n_prompts and nu == CONFIG.nu
        scores = dict.fromkeys(tables.GRID_SCORES.values(), 1000 * d + place if default else -1.0)
        rows.append(
            {
                **cell[tables.KEY],
                "n": n,
                "m": CONFIG.m,
                "d": d,
                "n_folds": CONFIG.n_folds,
                "nu": nu,
                "power": 1.0,
                "nu_decides": False,
                **scores,
            }
        )
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_the_scores_are_the_grids_and_the_rest_is_untouched():
    cells = synthetic_cells(students=("first", "second"))
    found = tables.at_d(cells.assign(badge=1.0), grid_of(cells), USUAL, 512)
    assert len(found) == len(cells)
    for column in tables.GRID_SCORES:
        assert (found[column] == 512000 + np.arange(len(cells))).all()
    for column in ("average_at_k", "average_se", "teacher_accuracy", "student_loss", "manner", "greedy", "best_of"):
        pd.testing.assert_series_equal(found[column], cells[column])
    assert not [c for c in found if c.endswith("_default")] and "badge" not in found  # a score that the grid lacks


def test_a_student_without_a_grid_is_dropped_and_a_lost_cell_is_an_error():
    cells = synthetic_cells(students=("first", "second"))
    found = tables.at_d(cells, grid_of(cells, ("second",)), USUAL, 512)
    assert set(found.student) == {"second"} and len(found) == 24
    with pytest.raises(ValueError, match=r"the grid has no row with d = 1024 .*: it has d = \[256, 512\]"):
        tables.at_d(cells, grid_of(cells), USUAL, 1024)
    stale = grid_of(cells)
    with pytest.raises(ValueError, match="the grid has 44 of 48 cells at d = 512"):
        tables.at_d(cells, stale[~((stale.teacher == "terse-96") & (stale.student == "first"))], USUAL, 512)


def test_the_most_familiar_teacher_is_left_out():
    cells = synthetic_cells(students=("first", "second"))
    cells.loc[(cells.teacher == "table-96") & (cells.student == "second"), "student_loss"] = 0.01
    own = cells[cells.student == "first"]
    expected = min(set(own.teacher), key=lambda t: own.student_loss[own.teacher == t].mean())
    rest, said = tables.leave_out_teacher(cells, "first")
    assert expected != "table-96" and set(cells.teacher) - set(rest.teacher) == {expected}
    assert said.startswith(f"Left out: {expected}, the teacher whose responses") and "Qwen2.5-1.5B" in said
    assert tables.most_familiar(cells, "second") == "table-96"  # another student, another teacher
    assert tables.most_familiar(cells.assign(average_at_k=1 - cells.average_at_k), "first") == expected


def test_a_single_teacher_is_kept_and_an_unknown_student_refused():
    cells = synthetic_cells((("terse-64", "terse"),), (0.6,))
    rest, said = tables.leave_out_teacher(cells, "first")
    assert rest.equals(cells) and said == "terse-64 is the only teacher: nothing was left out."
    with pytest.raises(ValueError, match="no cell of student 'third': choose one of first"):
        tables.most_familiar(cells, "third")


def test_another_objective_is_compared_with_the_first_on_the_same_teachers():
    """Turned round, the students of another objective change a correlation to its opposite; seeds are averaged."""
    names = [("A", "equations"), ("B", "algebra"), ("C", "terse"), ("D", "table"), ("E", "check")]
    cells = synthetic_cells(names, (0.6,)).assign(grace=[5.0, 1, 2, 3, 4], average_at_k=[0.1, 0.4, 0.5, 0.3, 0.2])
    rows = tables.select(cells, "first", ["grace"])
    students = pd.DataFrame(
        [
            {"objective": name, "teacher": teacher, "seed": seed, "average": value + 0.1 * seed, "average_se": 0.01}
            for name, sign in (("sequence", 1), ("other", -1))
            for teacher, value in zip(rows.teacher, 0.5 + sign * (rows.average_at_k - 0.3), strict=True)
            for seed in (-1, 1)
        ]
    )
    first, other = by_objective(rows, students, ["grace"]).to_dict("records")
    assert (first["objective"], first["change"], first["agreement"]) == ("sequence", 0, 1)
    assert first["spearman"] == tables.score_rows(rows, ["grace"]).spearman.item() == 0.9 == -other["spearman"]
    assert other["agreement"] == -1 and other["change"] == pytest.approx(-1.8)
    assert other["change_low"] <= other["change"] <= other["change_high"] and first["change_high"] == 0
    assert first["regret_points"] == pytest.approx(10) and other["regret_points"] == pytest.approx(30)
    assert orders_agree(students) == pytest.approx((1, -1))  # of two seeds, of two objectives


def test_the_spread_of_seeds_is_pooled_over_teachers_and_not_over_objectives():
    """Of the steady objective nothing but the problems' error is left; of the other A's variance of .08, B's of none, half in a mean."""
    rows = [("steady", "A", 0.3), ("steady", "B", 0.3), ("wild", "A", 0.3), ("wild", "B", 0.3)]
    columns = ["objective", "teacher", "average"]
    twice = [pd.DataFrame(rows, columns=columns).assign(average_se=0.03, seed=seed) for seed in (0, 1)]
    twice[1].loc[2, "average"] = 0.7
    found = over_seeds(pd.concat(twice), "teacher", ["objective"]).average_se
    assert found["steady"].tolist() == pytest.approx([0.03] * 2)
    assert found["wild"].tolist() == pytest.approx([np.sqrt(0.03**2 + 0.04 / 2)] * 2)


def test_a_smaller_sample_is_compared_with_the_largest_beside_the_same_students():
    """Planted: 512 prompts order five teachers rightly, 32 the other way round."""
    names = [("A", "equations"), ("B", "algebra"), ("C", "terse"), ("D", "table"), ("E", "check")]
    cells = synthetic_cells(names, (0.6, 1.0))
    own = cells[cells.temperature == 0.6].sort_values("teacher")[tables.KEY]
    sizes = [
        own.assign(n=n, share=n / 4096, grace=order, average=[0.5, 0.4, 0.3, 0.2, 0.1], average_se=0.01)
        for n, order in ((32, [5, 4, 3, 2, 1]), (512, [1, 2, 3, 4, 5]))
    ]
    most, few = (
        by_sample(cells, pd.concat(sizes), ["grace", "teacher_accuracy"]).query("score == 'grace'").to_dict("records")
    )
    assert [(row["n"], row["share"], row["spearman"], row["change"]) for row in (most, few)] == [
        (512, 1 / 8, 1, 0),
        (32, 1 / 128, -1, -2),
    ]
    assert (most["regret_points"], few["regret_points"]) == (0, pytest.approx(40))


def test_several_teachers_are_held_against_the_best_of_one():
    """Of means over seeds; the interval has both students' standard errors, of the problems and of the spread of seeds, here
    of A's two alone: a variance of .08, half of it in a mean."""
    rows = [("A", True, 0.1, 0.03), ("A", True, 0.5, 0.03), ("B", True, 0.2, 0.01), ("both", False, 0.4, 0.04)]
    columns = ["mixture", "alone", "average", "average_se"]
    table = pd.DataFrame(rows, columns=columns).assign(most="A", most_share=1.0, correct=0.5)
    found = over_best(table)
    assert list(found.index) == ["A", "B", "both"] and found.points.tolist() == pytest.approx([0, -10, 10])
    assert found.loc["A", ["low", "high"]].tolist() == [0, 0]  # the best against itself
    noise = 196 * np.sqrt(0.03**2 + 0.04**2 + 2 * 0.08 / 2)
    assert found.loc["both", ["low", "high"]].tolist() == pytest.approx([10 - noise, 10 + noise])
    one_each = over_best(table.drop(1)).loc["both"]
    assert one_each.high - one_each.points == pytest.approx(196 * np.hypot(0.04, 0.01))
