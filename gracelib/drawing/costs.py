"""Table 1: what the features and the scores of a teacher cost, beside the paper's numbers and beside training.

Why from a committed table: seconds change with the machine and with what else it does, so a table that measured them
again whenever it is drawn would never be the same twice. The table `cost` holds what each job took when it ran;
this module only divides and takes medians, and says of every row whether another machine would repeat it.
"""

import pandas as pd

from gracelib.drawing import captions
from gracelib.drawing.saving import Drawn

#: The paper's Table 1 (submission; Llama-3.2-1B on GSM8K, n = 512, m = 4, d = 512, one H100 with 80 GB), in our units.
PAPER = {
    "features (s per teacher)": "about 600",
    "GRACE (s per teacher)": "under 10",
    "size of features (MB per teacher)": "4.3",
}
SOURCE = "submission, table 1: about 10 minutes per teacher for gradients on one H100, under 10 seconds for the metric, 4.3 MB"
_COUNTED = ("size of features (MB per teacher)", "student's parameters (D)")


def cell_costs(cost: pd.DataFrame) -> pd.DataFrame:
    """One row per cell with the quantities of the table as columns; NaN for training where it was not measured.

    `cost` as the table `cost`. Features are counted for the n m responses that a score needs; where more were
    kept for the ablations, in proportion to the responses.
    """
    features = cost["feature_seconds"] * cost["needed"] / cost["responses"]
    return pd.DataFrame(
        {
            "features (s per teacher)": features,
            "responses (per second)": cost["responses"] / cost["feature_seconds"],
            "GRACE (s per teacher)": cost["score_seconds"],
            "size of features (MB per teacher)": cost["feature_bytes"] / 1e6,
            "student's parameters (D)": cost["parameters"],
            "training a student (s)": cost["train_seconds"],
            "testing a student (s)": cost["test_seconds"],
            "training and testing / features and GRACE": (cost["train_seconds"] + cost["test_seconds"])
            / (features + cost["score_seconds"]),
        }
    )


def table1(cost: pd.DataFrame, scale: str) -> Drawn:
    """Table 1: one row a (task, student, quantity) with the median, lowest and highest over cells, and the paper's
    value beside the first setting.

    Columns: task, student, quantity, median, lowest, highest, cells (in which it was measured), volatile (seconds: not
    the same on another machine, nor in another run), paper.
    """
    by_setting = cell_costs(cost).groupby([cost["task"], cost["student"]], sort=False)
    table = by_setting.agg(["median", "min", "max", "count"]).stack(0, future_stack=True)
    table = table.set_axis(["median", "lowest", "highest", "cells"], axis=1)
    table = table.rename_axis(["task", "student", "quantity"]).reset_index()
    first = (table["task"] == table["task"][0]) & (table["student"] == table["student"][0])
    table["volatile"] = ~table["quantity"].isin(_COUNTED)
    table["paper"] = table["quantity"].map(PAPER).where(first).fillna("")
    ratio = table.loc[first & table["quantity"].str.contains(" / "), "median"]
    return Drawn(
        None,
        table,
        caption=(
            f"Training and testing a student takes {ratio.iloc[0]:.1f} times as long as features and GRACE of its teacher. "
            f"What one teacher at one temperature costs: gradients of {cost['needed'].iloc[0]} responses, GRACE from them, and "
            f"for comparison training and testing the student that GRACE is meant to spare. Seconds are those of each job in "
            f"its worker process on this run's machine ({', '.join(sorted(set(cost['device'])))}), with what else ran at the "
            "time; they include loading the model, and for features all dimensions that the ablations keep, and differ between "
            "machines (column volatile). Sampling the teacher is in neither. The paper's column is its Table 1, for another "
            f"student on an H100. Scale {scale}: {captions.counted(len(cost), 'cell')} of "
            f"{captions.counted(by_setting.ngroups, 'setting')}."
        ),
        alt="",
        ours=table[first].set_index("quantity")[["median", "lowest", "highest"]].to_dict("index"),
        paper={q: {"value": v, "source": SOURCE} for q, v in PAPER.items()},
    )
