"""Why a score does as it does: GRACE taken apart, the folds, the shape of its second moments, and what it cannot see.

All from committed tables. GRACE is G-Norm times an *inflation*, GRACE / G-Norm: what the second moments of the other folds
add to plain length. A ranking between teachers and one within a teacher (over its temperatures) are two questions, and a
correlation over all cells mixes them. Intervals resample teachers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence.cells import KEY, at_setting, difference
from gracelib.evidence.ranks import (
    N_BOOT,
    SEED,
    interval,
    mean_many,
    over_worlds,
    resamples,
    spearman_known,
    spearman_many,
)

#: GRACE's two factors, and what a user knows besides: whether the text is right, and how familiar it is to the student.
PARTS = {"grace": "lower", "g_norm": "lower", "inflation": "lower", "both": "higher"}


def with_parts(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with inflation (GRACE / G-Norm) and both (teacher accuracy over the student's loss)."""
    return cells.assign(inflation=cells.grace / cells.g_norm, both=cells.teacher_accuracy / cells.student_loss)


def between_and_within(cells: pd.DataFrame, parts: Mapping[str, str] = PARTS) -> pd.DataFrame:
    """Signed Spearman of each part with the students, over all cells, between teachers (means over temperatures) and within
    a teacher (mean over teachers of its own correlation); one row a (part, level), with 95% intervals.

    `cells` of one task and student, `with_parts`; `parts` gives each column's better end. Columns: part, level ("all",
    "between", "within"), spearman, low, high, teachers (where it is defined), spread (sd of log between teachers' means, or
    the mean sd within one).
    """
    mean, made = cells.groupby("teacher")[[*parts, "average_at_k"]].mean(), []
    for part, better in parts.items():
        own = cells.groupby("teacher")
        inside = pd.Series({t: spearman_known(rows[part], rows.average_at_k, better)[0] for t, rows in own})
        logs = np.log(cells[part])
        levels = {
            "all": (lambda c: spearman_many(cells[part], cells.average_at_k, better, c), cells.teacher, logs.std()),
            "between": (
                lambda c: spearman_many(mean[part], mean.average_at_k, better, c),
                mean.index,
                np.log(mean[part]).std(),
            ),
            "within": (lambda c: mean_many(inside, c), inside.index, logs.groupby(cells.teacher).std().mean()),
        }
        for level, (statistic, teacher, spread) in levels.items():
            value = statistic(np.ones((1, len(teacher))))[0]
            low, high = interval(statistic, teacher) if np.isfinite(value) else (np.nan, np.nan)
            known = (inside if level == "within" else mean[part]).count()
            made.append((part, level, value, low, high, known, spread))
    return pd.DataFrame(made, columns=["part", "level", "spearman", "low", "high", "teachers", "spread"])


def several_worlds(worlds: Mapping[str, pd.DataFrame], parts: Mapping[str, str] = PARTS) -> pd.DataFrame:
    """Signed Spearman of each part over all cells, by world and pooled, and GRACE's minus it, on the same resamples.

    `worlds` by name, each as in `between_and_within`, of one cast. One row a part: part, a column for each world, pooled (the
    mean), low, high (`ranks.over_worlds`), ahead (GRACE's minus this one's, pooled), ahead_low, ahead_high.
    """
    draws = {}
    for part, better in parts.items():
        for name, cells in worlds.items():
            counts = resamples(cells.teacher, N_BOOT, np.random.default_rng(SEED))
            counts = np.concatenate([np.ones((1, len(cells))), counts])
            draws[part, name] = spearman_many(cells[part], cells.average_at_k, better, counts)
    made = []
    for part in parts:
        own, grace = (np.stack([draws[one, name] for name in worlds]) for one in (part, "grace"))
        row = {"part": part, **dict(zip(worlds, own[:, 0], strict=True))}
        for value, ends in ((own, ("pooled", "low", "high")), (grace - own, ("ahead", "ahead_low", "ahead_high"))):
            row |= dict(zip(ends, (value[:, 0].mean(), *over_worlds(value[:, 1:])), strict=True))
        made.append(row)
    return pd.DataFrame(made)


def folds_cost(cells: pd.DataFrame, variants: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """What other second moments would do in place of the other folds': Spearman of a variant minus GRACE's, paired.

    `variants` as the table of that name, `names` its columns; world seeds have no such table yet. Columns: variant, value, and those of `difference`.
    """
    both = cells[[*KEY, "average_at_k"]].merge(variants, on=KEY, validate="1:1")
    rows = []
    for name in names:
        pair = [(both[column], both.average_at_k, "lower") for column in ("grace", name)]
        rows.append({"variant": name, "value": spearman_known(*pair[1])[0]} | difference(*pair, both.teacher))
    return pd.DataFrame(rows)


def by_rows(cells: pd.DataFrame, grid: pd.DataFrame, default: Mapping[str, float]) -> pd.DataFrame:
    """The inflation per dimension against rows / d, the gradients in a second moment over its dimensions, a row a (n, d).

    `grid` as the table of that name, at the `default_setting` of all else. Were all directions alike, it would be 1 / (1 -
    d / rows): sampling noise alone. Columns: n, d, rows_over_d, inflation (median over cells of GRACE / (d G-Norm)), spread
    (sd over teachers of its mean log), spearman (GRACE's, signed), nu_share (mean).
    """
    own = at_setting(grid, {k: v for k, v in default.items() if k not in ("n", "d")})
    both = own.merge(cells[[*KEY, "average_at_k"]], on=KEY)
    made = []
    for (n, d), rows in both.groupby(["n", "d"]):
        inflation = rows.grace / rows.g_norm / d
        made.append(
            {
                "n": n,
                "d": d,
                "rows_over_d": (1 - 1 / default["n_folds"]) * n * default["m"] / d,
                "inflation": inflation.median(),
                "spread": np.log(inflation).groupby(rows.teacher).mean().std(),
                "spearman": spearman_known(rows.grace, rows.average_at_k, "lower")[0],
                "nu_share": rows.nu_share.mean(),
            }
        )
    return pd.DataFrame(made).sort_values(["rows_over_d", "d"]).reset_index(drop=True)


def strong_cells(cells: pd.DataFrame, least: float = 0.98) -> pd.DataFrame:
    """The cells whose teacher is right at least `least` of the time: teacher accuracy cannot tell them apart, so what does?

    One row per score of `SCORES` (and PARTS) that is defined there, best first: signed Spearman over these cells; `cells`, and
    `lowest` and `highest`, the accuracies of their students.
    """
    able = cells[cells.teacher_accuracy >= least]
    rules = {name: score.direction for name, score in SCORES.items() if name in able} | PARTS
    found = {name: spearman_known(able[name], able.average_at_k, rule)[0] for name, rule in rules.items()}
    rows = (
        pd.Series(found, name="spearman")
        .dropna()
        .sort_values(ascending=False, kind="stable")
        .rename_axis("part")
        .reset_index()
    )
    return rows.assign(cells=len(able), lowest=able.average_at_k.min(), highest=able.average_at_k.max())
