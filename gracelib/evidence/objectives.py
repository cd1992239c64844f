"""Whether the choice of a teacher survives other training, or a smaller sample: the scores beside the students of each. And
whether several teachers beat the best one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gracelib.evidence.cells import KEY, difference, score_rows
from gracelib.evidence.ranks import spearman_known


def over_seeds(students: pd.DataFrame, of: str, within: Sequence[str] = ()) -> pd.DataFrame:
    """Means of average and average_se over the seeds of training, by the columns `within` and `of`; where there are several, the
    standard error holds what their spread leaves of doubt in a mean: pooled over `of` (teachers, mixtures), and not over
    `within`, since some objectives train less steadily than others."""
    each = students.groupby([*within, of], sort=False)
    means, spread = each[["average", "average_se"]].mean(), each["average"].var() / each.size()
    pooled = spread.groupby(list(within)).transform("mean") if within else spread.mean()
    return means.assign(average_se=np.hypot(means["average_se"], np.sqrt(np.nan_to_num(pooled))))


def orders_agree(students: pd.DataFrame) -> tuple[float, float]:
    """Mean Spearman correlation of two orders of teachers: of two seeds of one objective, and of two objectives at two
    seeds (so that both have the noise of training)."""
    found = students.pivot(index="teacher", columns=["objective", "seed"], values="average").corr("spearman")
    objective, seed = (found.index.get_level_values(name).to_numpy() for name in ("objective", "seed"))
    same, apart = objective[:, None] == objective, seed[:, None] != seed
    return found.to_numpy()[same & apart].mean(), found.to_numpy()[~same & apart].mean()


def by_objective(
    rows: pd.DataFrame, students: pd.DataFrame, scores: Sequence[str], by: str = "objective"
) -> pd.DataFrame:
    """`score_rows` for the students of each objective (or of other values of the column `by`, such as epochs), and what changes
    against the first.

    `rows` from `cells.select`, one temperature, of which those with a student are kept; `students` the table `objectives` (or
    `epochs`): accuracies and standard errors as `over_seeds`. Columns, beside those of `score_rows`: `by`;
    change, change_low, change_high (Spearman minus the first one's, on the same resamples of teachers); agreement (Spearman
    of the two orders of students).
    """
    means = over_seeds(students, "teacher", [by])
    columns = {"average_at_k": "average", "average_se": "average_se"}
    rows = rows[rows["teacher"].isin(students["teacher"])].reset_index(drop=True)
    of = {
        name: rows.assign(**{to: rows["teacher"].map(means.loc[name][column]) for to, column in columns.items()})
        for name in students[by].unique()
    }
    made, first = compared(of, scores, by), next(iter(of.values()))
    agreement = {
        name: spearman_known(first["average_at_k"], own["average_at_k"], "higher")[0] for name, own in of.items()
    }
    return made.assign(agreement=made[by].map(agreement))


def by_sample(cells: pd.DataFrame, sample: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """`score_rows` from the first n prompts of many more, against the students of all, and what changes against the most.

    `cells` of one student (for what needs no gradient), `sample` the table `small_sample`. Columns, beside those of
    `score_rows`: n, share (of the training responses, that a score reads), change, change_low, change_high.
    """
    own = sample.rename(columns={"average": "average_at_k"}).merge(cells[[*KEY, "teacher_accuracy"]], on=KEY)
    of = {n: own[own["n"] == n].reset_index(drop=True) for n in sorted(own["n"].unique(), reverse=True)}
    made = compared(of, scores, "n")
    return made.assign(share=made["n"].map(own.groupby("n")["share"].first()))


def compared(of: Mapping[object, pd.DataFrame], scores: Sequence[str], by: str) -> pd.DataFrame:
    """`score_rows` of each, under its name in the column `by`, and Spearman minus that of the first."""
    first, made = next(iter(of.values())), []
    for name, own in of.items():
        for row in score_rows(own, scores).to_dict("records"):
            pair = [(each[row["score"]], each["average_at_k"], row["direction"]) for each in (first, own)]
            change = difference(*pair, own["teacher"])
            moved = {"change": change["spearman"], "change_low": change["low"], "change_high": change["high"]}
            made.append({by: name, **row, **moved})
    return pd.DataFrame(made)


def over_best(mixtures: pd.DataFrame) -> pd.DataFrame:
    """Table `mixtures` with a row per mixture, means over seeds: alone, most, most_share, correct, average, average_se, and
    points over the best student of one teacher alone, with low and high.

    The interval is 1.96 standard errors of both, as if they answered different problems: what they share cancels in the
    difference, so it is too wide (of the best against itself: nothing). The best of several measured students is partly lucky,
    so points are a little too low.
    """
    columns = {"alone": "first", "most": "first", "most_share": "mean", "correct": "mean"}
    found = mixtures.groupby("mixture", sort=False).agg(columns).join(over_seeds(mixtures, "mixture"))
    best = found[found["alone"]]["average"].idxmax()
    points = 100 * (found["average"] - found["average"][best])
    spread = (196 * np.hypot(found["average_se"], found["average_se"][best])).where(found.index != best, 0.0)
    return found.assign(points=points, low=points - spread, high=points + spread)
