"""Whether the choice of a teacher survives another objective: the scores beside the students of each."""

from collections.abc import Sequence

import pandas as pd

from gracelib.evidence.cells import difference, score_rows
from gracelib.evidence.ranks import spearman_known


def by_objective(rows: pd.DataFrame, students: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """`score_rows` for the students of each objective, and what changes against the first objective.

    `rows` from `cells.select`, one temperature; `students` the table `objectives`: accuracies are means over seeds, standard
    errors those of one seed. Columns, beside those of `score_rows`: objective; change, change_low, change_high (Spearman minus
    the first objective's, on the same resamples of teachers); agreement (Spearman of the two orders of students).
    """
    means = students.groupby(["objective", "teacher"])[["average", "average_se"]].mean()
    columns = {"average_at_k": "average", "average_se": "average_se"}
    of = {
        name: rows.assign(**{to: rows["teacher"].map(means.loc[name][column]) for to, column in columns.items()})
        for name in students["objective"].unique()
    }
    first, made = next(iter(of.values())), []
    for name, own in of.items():
        agreement, _ = spearman_known(first["average_at_k"], own["average_at_k"], "higher")
        for row in score_rows(own, scores).to_dict("records"):
            pair = [(rows[row["score"]], each["average_at_k"], row["direction"]) for each in (first, own)]
            change = difference(*pair, rows["teacher"])
            moved = {"change": change["spearman"], "change_low": change["low"], "change_high": change["high"]}
            made.append({"objective": name, **row, **moved, "agreement": agreement})
    return pd.DataFrame(made)
