"""Table 1 divides what was measured and invents nothing: ratios by hand, empty where training was not measured, and the
same bytes whenever it is drawn from the same table.
"""

import numpy as np
import pandas as pd
import pytest

from gracelib.drawing import costs


def made_cost(cells=3):
    settings = (("short", "first", 200), ("short", "second", 100), ("long", "first", 100))
    return pd.DataFrame(
        [
            {
                "task": task,
                "student": student,
                "teacher": f"t{i}",
                "temperature": 0.6,
                "parameters": 5000,
                "responses": kept,
                "feature_seconds": 20.0 + i,
                "needed": 100,
                "score_seconds": 0.5,
                "feature_bytes": 4_000_000,
                "train_seconds": 30.0 + i if i else np.nan,
                "test_seconds": 3.0 if i else np.nan,
                "device": "cpu",
                "volatile": True,
            }
            for task, student, kept in settings
            for i in range(cells)
        ]
    )


def test_only_the_responses_a_score_needs_are_counted():
    cells = costs.cell_costs(made_cost())
    assert cells["features (s per teacher)"][1] == 10.5  # 21 seconds for twice as many responses
    assert cells["features (s per teacher)"][4] == 21.0
    assert cells["responses (per second)"][1] == pytest.approx(200 / 21)
    assert cells["training and testing / features and GRACE"][1] == pytest.approx(34 / 11)


def test_the_table_says_what_another_machine_would_repeat():
    drawn = costs.table1(made_cost(), "mini")
    table = drawn.table.set_index(["task", "student", "quantity"])
    assert drawn.fig is None and len(table) == 3 * 8
    counted = table[~table.volatile].reset_index().quantity.unique()
    assert set(counted) == {"size of features (MB per teacher)", "student's parameters (D)"}
    row = table.loc[("short", "first", "training a student (s)")]
    assert (row["median"], row.lowest, row.highest, row.cells) == (
        31.5,
        31.0,
        32.0,
        2,
    )  # not measured in the first cell
    assert table.loc[("short", "first", "GRACE (s per teacher)"), "paper"] == "under 10"
    assert (drawn.table[8:].paper == "").all()  # the paper's table is about one setting
    pd.testing.assert_frame_equal(costs.table1(made_cost(), "mini").table, drawn.table)
    assert set(drawn.paper) == set(costs.PAPER) and "9 cells of 3 settings" in drawn.caption
