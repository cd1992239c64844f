"""Table 1: what the features and the scores of a teacher cost, beside the paper's numbers and beside training.

Why from a committed table: seconds change with the machine and with what else it does, so a table that measured them
again whenever it is drawn would never be the same twice. `feature_measures.cost` holds what each job took when it ran;
this module only divides and takes medians, and says of every row whether another machine would repeat it.
"""

from __future__ import annotations

import pandas as pd

from gracelib.drawing.saving import Drawn

#: The paper's Table 1 (submission; Llama-3.2-1B on GSM8K, n = 512, m = 4, d = 512, one H100 with 80 GB), in our units.
PAPER = {
    "features (s a teacher)": "about 600",
    "GRACE (s a teacher)": "under 10",
    "size of features (MB a teacher)": "4.3",
}
SOURCE = (
    "submission, table 1: about 10 minutes a teacher for gradients on one H100, under 10 seconds for the metric, 4.3 MB"
)
_NEEDED = (
    "task",
    "student",
    "parameters",
    "responses",
    "feature_seconds",
    "needed",
    "score_seconds",
    "feature_bytes",
    "train_seconds",
    "test_seconds",
    "device",
)


def cell_costs(cost: pd.DataFrame) -> pd.DataFrame:
    """One row a cell with the quantities of the table as columns; NaN for training where it was not measured.

    `cost` as `feature_measures.cost`. Features are counted for the n m responses that a score needs; where more were
    kept for the ablations, in proportion to the responses. ValueError for a column that is missing.
    """
    missing = [c for c in _NEEDED if c not in cost]
    if missing:
        raise ValueError(f"the table of costs lacks the column(s) {', '.join(missing)}: make the table cost again")
    features = cost["feature_seconds"] * cost["needed"] / cost["responses"]
    training = cost["train_seconds"] + cost["test_seconds"]
    return pd.DataFrame(
        {
            "features (s a teacher)": features,
            "responses (per second)": cost["responses"] / cost["feature_seconds"],
            "GRACE (s a teacher)": cost["score_seconds"],
            "size of features (MB a teacher)": cost["feature_bytes"] / 1e6,
            "student's parameters (D)": cost["parameters"],
            "training a student (s)": cost["train_seconds"],
            "testing a student (s)": cost["test_seconds"],
            "training and testing / features and GRACE": training / (features + cost["score_seconds"]),
        }
    )


_COUNTED = ("size of features (MB a teacher)", "student's parameters (D)")


def table1(cost: pd.DataFrame, scale: str) -> Drawn:
    """Table 1: one row a (task, student, quantity) with the median, lowest and highest over cells, and the paper's
    value beside the first setting.

    Columns: task, student, quantity, median, lowest, highest, cells (in which it was measured), volatile (seconds: not
    the same on another machine, nor in another run), paper.
    """
    per_cell, rows, first = cell_costs(cost), [], (cost["task"].iloc[0], cost["student"].iloc[0])
    for (task, student), own in per_cell.groupby([cost["task"], cost["student"]], sort=False):
        for quantity, values in own.items():
            values = values.dropna()
            stats = (values.median(), values.min(), values.max()) if len(values) else (float("nan"),) * 3
            rows.append(
                (
                    task,
                    student,
                    quantity,
                    *stats,
                    len(values),
                    quantity not in _COUNTED,
                    PAPER.get(quantity, "") if (task, student) == first else "",
                )
            )
    table = pd.DataFrame(
        rows, columns=["task", "student", "quantity", "median", "lowest", "highest", "cells", "volatile", "paper"]
    )
    own = table[(table["task"] == first[0]) & (table["student"] == first[1])]
    devices = ", ".join(sorted(set(cost["device"])))
    needed = cost["needed"].iloc[0]
    caption = (
        f"What one teacher at one temperature costs: gradients of {needed} responses, GRACE from them, and for "
        "comparison training and testing the student that GRACE is meant to spare. Seconds are those of each job in "
        f"its worker process on this run's machine ({devices}), with what else ran at the time; they include loading "
        "the model, and for features all dimensions that the ablations keep, and differ between machines (column "
        f"volatile). Sampling the teacher is in neither. {cost_sentence(table)} The paper's column is its Table 1, for "
        f"another student on an H100. Scale {scale}: {len(cost)} cells of "
        f"{len(table[['task', 'student']].drop_duplicates())} setting(s)."
    )
    ours = {
        row.quantity: {"median": row.median, "lowest": row.lowest, "highest": row.highest} for row in own.itertuples()
    }
    return Drawn(None, table, caption, "", ours, {q: {"value": v, "source": SOURCE} for q, v in PAPER.items()})


def cost_sentence(table: pd.DataFrame) -> str:
    """How much cheaper the score is than the training it spares, for the first setting, in a sentence."""
    first = table[(table["task"] == table["task"].iloc[0]) & (table["student"] == table["student"].iloc[0])]
    row = first.set_index("quantity").loc["training and testing / features and GRACE"]
    if not row["cells"]:
        return "Training was not measured in this run."
    return (
        f"Training and testing a student took {row['median']:.2g} times as long as features and GRACE together (task "
        f"{first['task'].iloc[0]}, student {first['student'].iloc[0]}: median of {row['cells']} "
        f"cell{'' if row['cells'] == 1 else 's'}, {row['lowest']:.2g} to {row['highest']:.2g})."
    )
