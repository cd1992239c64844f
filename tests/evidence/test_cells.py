"""The tables behind figures and captions hold up where a score is undefined in some cells, and say how noisy a regret is:
a lost cell must not stop a whole figure, and a regret of zero must not look exact.
"""

import numpy as np
import pandas as pd
import pytest

from gracelib.drawing.correlations import table_main
from gracelib.evidence import cells as tables
from gracelib.evidence import ranks
from synthetic import synthetic_cells


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(tables, "N_BOOT", 60)


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


def test_an_interval_that_no_resample_allows_is_a_note():
    """Of three teachers with one cell each only a resample of all three has three different cells; a score with
    a constant half leaves the statistic undefined far too often."""
    cells = three_teachers(incorrect_prob=[0.1, np.nan, 0.1, np.nan, 0.3, np.nan])
    cells["average_at_k"] = [0.5, 0.1, 0.4, 0.1, 0.3, 0.1]
    tables._statistics.cache_clear()
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_, **__):
            raise ranks.DegenerateError("541 of 542 resamples of 3 clusters are degenerate")

        patch.setattr(tables, "teacher_interval", refuse)
        row = tables.score_rows(tables.select(cells, "first", ["incorrect_prob"]), ["incorrect_prob"]).iloc[0]
    tables._statistics.cache_clear()
    assert np.isfinite(row.spearman) and np.isnan(row.low) and np.isnan(row.regret_low)
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


def test_cells_without_a_standard_error_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"lacks the column\(s\) average_se: .*run `make figures` again"):
        tables.select(synthetic_cells().drop(columns="average_se"), "first", ["grace"])
    rows = tables.select(synthetic_cells().drop(columns="average_se"), "first", ["grace"], accuracy="greedy")
    assert "average_se" not in rows


def test_cells_of_two_tasks_are_refused():
    both = pd.concat([synthetic_cells(), synthetic_cells(task="long")])
    with pytest.raises(ValueError, match=r"cells of several tasks \(long, short\): keep one"):
        tables.select(both, "first", ["grace"])
    assert set(tables.select(synthetic_cells(task="long"), "first", ["grace"]).task) == {"long"}


def test_the_main_table_says_what_its_intervals_leave_out():
    drawn = table_main(synthetic_cells(), "first", "mini")
    assert (drawn.table.regret_se_points > 0).all()
    assert "seed of the students' training is not in them" in drawn.caption and "conservative" in drawn.caption


def test_two_scores_are_compared_on_the_same_resamples():
    cells = synthetic_cells()
    same = tables.paired_spearman_difference(cells.assign(g_norm=2 * cells.grace), "first", "grace", "g_norm")
    assert (same.agreement, same.difference, same.low, same.high) == pytest.approx((1, 0, 0, 0)) and not same.apart
    assert "cannot tell which one" in str(same)
    worse = tables.paired_spearman_difference(cells.assign(g_norm=-cells.grace), "first", "grace", "g_norm")
    assert worse.agreement == pytest.approx(-1) and worse.spearman_b == pytest.approx(-worse.spearman_a)
    assert worse.apart and "GRACE orders the students better here" in str(worse)
    vendi = tables.paired_spearman_difference(cells.assign(g_vendi=-cells.grace), "first", "grace", "g_vendi")
    assert vendi.agreement == pytest.approx(1) and vendi.difference == pytest.approx(0)  # oriented: higher is better
    rest = cells[cells.manner != "terse"]
    without = tables.paired_spearman_difference(cells, "first", "grace", "g_norm", leave_out="terse")
    assert without.cells == len(rest) and without.spearman_a == ranks.spearman(rest.grace, rest.average_at_k, "lower")


@pytest.mark.parametrize(
    "change, note",
    [
        (lambda c: c[c.teacher == "terse-96"], "1 teacher(s), nothing to resample"),
        (lambda c: c.assign(g_norm=1.0), "score is constant"),
        (lambda c: c.assign(g_norm=np.nan), "0 teacher(s)"),
    ],
)
def test_where_two_scores_cannot_be_compared_the_sentence_says_so(change, note):
    pair = tables.paired_spearman_difference(change(synthetic_cells()), "first", "grace", "g_norm")
    assert np.isnan(pair.difference) and note in pair.note and not pair.apart
    assert str(pair).startswith("GRACE and G-Norm cannot be compared on these cells: ")
