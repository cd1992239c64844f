"""Reading the measured tables: what a variant changes, which teachers cannot be told apart, what the bound says.

Why apart from the notebooks: each summary is a pure function of committed tables, so a notebook prints the same text
whether the tables were just computed or came with the clone, and a test can check it on made-up tables.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence.ranks import DegenerateError, spearman
from gracelib.variants import REFERENCES, VARIANTS

KEY = ["task", "student", "teacher", "temperature"]  #: of a cell
ENOUGH = 3  #: cells below which no rank correlation is computed


def _agreement(a: pd.Series, b: pd.Series) -> float:
    """Spearman correlation of two columns, NaN for fewer than three cells or a constant column."""
    if len(a) < ENOUGH:
        return float("nan")
    try:
        return spearman(a, b, "higher")
    except DegenerateError:
        return float("nan")


def variant_summary(variants: pd.DataFrame) -> pd.DataFrame:
    """One row a variant: what it replaces, its value's median ratio to that (and range), rank agreement over cells.

    `variants` as `measures.variants`. Columns: variant, label, compared_with, median_ratio, lowest, highest,
    rank_agreement (Spearman; NaN below three cells).
    """
    rows = []
    for name, v in VARIANTS.items():
        if name == v.reference:
            continue
        ratio = variants[name] / variants[v.reference]
        rows.append(
            (
                name,
                v.label,
                v.reference,
                ratio.median(),
                ratio.min(),
                ratio.max(),
                _agreement(variants[name], variants[v.reference]),
            )
        )
    return pd.DataFrame(
        rows, columns=["variant", "label", "compared_with", "median_ratio", "lowest", "highest", "rank_agreement"]
    )


def inconsistencies(variants: pd.DataFrame) -> pd.DataFrame:
    """Where the sources disagree and a number changes: the disagreement, what we do, and its measured effect here.

    Columns: sources, ours, alternative, median_change (of the value, the alternative against ours, in percent),
    largest_change, rank_agreement.
    """
    summary = variant_summary(variants).set_index("variant")
    rows = []
    for name, v in VARIANTS.items():
        if v.sources:
            s = summary.loc[name]
            change = 100 * (s[["lowest", "median_ratio", "highest"]].astype(float) - 1)
            rows.append(
                (
                    v.sources,
                    v.ours,
                    v.label,
                    change["median_ratio"],
                    change.loc[change.abs().idxmax()],
                    s["rank_agreement"],
                )
            )
    return pd.DataFrame(
        rows, columns=["sources", "ours", "alternative", "median_change", "largest_change", "rank_agreement"]
    )


def variant_accuracy(variants: pd.DataFrame, cells: pd.DataFrame, accuracy: str = "average_at_k") -> pd.DataFrame:
    """Signed Spearman of every variant with the trained students, all cells and without the terse family.

    `cells` as `tables.cells`, of the task and student that `variants` was made for. Columns: variant, label, spearman,
    without_terse, cells. Positive means that it ranks as its direction says; NaN where fewer than three cells are left.
    ValueError if a cell has no variant.
    """
    both = cells[[*KEY, "manner", accuracy]].merge(variants, on=KEY, how="left", validate="1:1")
    lost = both[both["grace"].isna()]
    if len(lost):
        row = lost.iloc[0]
        raise ValueError(
            f"no variants of {row.teacher} at T={row.temperature:g} (task {row.task}, student {row.student}): "
            "give the cells of the first task and student only, or make the table variants again"
        )
    rest = both[both["manner"] != "terse"]
    rows = []
    for name, v in VARIANTS.items():
        sign = 1 if REFERENCES[v.reference] == "higher" else -1
        rows.append(
            (name, v.label, *(_agreement(sign * part[name], part[accuracy]) for part in (both, rest)), len(both))
        )
    return pd.DataFrame(rows, columns=["variant", "label", "spearman", "without_terse", "cells"])


def neighbours_sentence(neighbours: pd.DataFrame, student: str, temperature: float) -> str:
    """Which neighbours in the ranking the prompts cannot tell apart, in a sentence."""
    own = neighbours[(neighbours.student == student) & np.isclose(neighbours.temperature, temperature)]
    if own.empty:
        return f"One teacher at T = {temperature:g}: there is nothing to compare."
    close = own[~own.apart]
    if close.empty:
        return f"At T = {temperature:g} all {len(own)} neighbours in the ranking are told apart."
    pairs = "; ".join(
        f"{r.better} and {r.worse} ({r.p_better:.0%} of resamples keep this order)" for r in close.itertuples()
    )
    return f"At T = {temperature:g} the data cannot tell apart {len(close)} of {len(own)} neighbours: {pairs}."


def concentration_sentence(concentration: pd.DataFrame, student: str) -> str:
    """Which cell's GRACE rests most on its three largest prompts, and what is left without them, in a sentence."""
    own = concentration[concentration.student == student]
    if own.empty:
        raise ValueError(
            f"no cell of student {student!r}: choose one of {', '.join(sorted(set(concentration.student)))}"
        )
    row = own.loc[own.top3_share.idxmax()]
    return (
        f"Most concentrated: {row.teacher} at T = {row.temperature:g}, where three prompts carry {row.top3_share:.0%} of "
        f"GRACE ({row.grace:.4g}, interval {row.grace_low:.4g} to {row.grace_high:.4g}; {row.grace_without_top3:.4g} "
        f"without them). Median over {len(own)} cells: {own.top3_share.median():.0%}."
    )


def flags(odd: pd.DataFrame, cells_scores: pd.DataFrame) -> pd.DataFrame:
    """For each score and odd teacher, the share of real cells that the score prefers to it (1.0: flagged outright).

    `odd` as `measures.pathological_scores`, `cells_scores` the rows of one task of `tables.score_table`. One row a
    score, one column an odd teacher; the row "bias share" is GRACE-Bias/GRACE, the final version's sign of a pathological teacher (the share
    of real cells with less of it). Empty (NaN) where the score is undefined for the odd teacher. ValueError for the cells
    of several tasks: texts of different tasks are not to be compared.
    """
    if cells_scores["task"].nunique() > 1:
        raise ValueError(f"cells of the tasks {', '.join(sorted(set(cells_scores['task'])))}: give those of one")
    rows = {}
    names = [s for s in SCORES if s in odd and s in cells_scores]
    parts = [(SCORES[s].label, odd[s], cells_scores[s], SCORES[s].direction) for s in names]
    parts.append(("bias share", odd.grace_bias / odd.grace, cells_scores.grace_bias / cells_scores.grace, "lower"))
    for label, mine, real, direction in parts:
        row = {}
        for i, kind in odd["teacher"].items():
            own = real[cells_scores.student == odd.loc[i, "student"]].dropna()
            better = own < mine[i] if direction == "lower" else own > mine[i]
            row.setdefault(kind, []).append(float(better.mean()) if np.isfinite(mine[i]) and len(own) else np.nan)
        rows[label] = {kind: float(np.mean(shares)) for kind, shares in row.items()}
    return pd.DataFrame(rows).T.rename_axis("score").reset_index()


CMI_TERMS = ("gradient", "stability", "stability_proof", "cross", "lemma", "proof", "tight")


def with_noise(cmi: pd.DataFrame, eta: float, sigma: float) -> pd.DataFrame:
    """The terms of `measures.cmi` (made with eta = sigma = 1) for a step size and a noise level, and what they mean.

    Adds ratio (gradient / stability, whatever eta and sigma) and vacuous_lemma, vacuous_proof, vacuous_tight (bound at
    or above log n). ValueError unless both are finite and > 0.
    """
    for name, value in (("eta", eta), ("sigma", sigma)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value}: expected a finite number > 0")
    table = cmi.assign(ratio=cmi.gradient / cmi.stability.where(cmi.stability > 0))
    table[list(CMI_TERMS)] *= eta**2 / sigma**2
    return table.assign(**{f"vacuous_{b}": table[b] >= table.log_n for b in ("lemma", "proof", "tight")})


def cmi_at(cmi: pd.DataFrame, n: int, nu: float, preconditioner: str = "smoothed", space: str = "h") -> pd.DataFrame:
    """The rows of one setting. ValueError naming the settings that are there if it is none of them."""
    own = cmi[
        (cmi.n == n) & np.isclose(cmi.nu, nu, rtol=1e-9) & (cmi.preconditioner == preconditioner) & (cmi.space == space)
    ]
    if own.empty:
        there = cmi[["n", "nu", "preconditioner", "space"]].drop_duplicates().to_dict("records")
        raise ValueError(f"no bound for n = {n}, nu = {nu:g}, {preconditioner}, {space}; there are {there}")
    return own


def cmi_constants(cmi: pd.DataFrame, eta: float) -> pd.DataFrame:
    """What the lemma's variants differ by on the given rows: median and range of each ratio (columns ratio, median,
    lowest, highest)."""
    parts = {
        "stability term with mu_-x (lemma) over mu(D) (proof)": cmi.stability / cmi.stability_proof,
        "dropped cross term over the lemma's bound": cmi.cross / cmi.lemma,
        "informal lemma A.1 (constant 2, no stability) over the lemma": 2 / 3 * cmi.gradient / cmi.lemma,
        "informal lemma 2.1 (constant 1, no stability) over the tight bound": cmi.gradient / 3 / cmi.tight,
        "lemma over the tight bound": cmi.lemma / cmi.tight,
        "no eta^2 (noise inside the step) over with eta^2": cmi.lemma * 0 + 1 / eta**2,
    }
    return pd.DataFrame(
        [(name, r.median(), r.min(), r.max()) for name, r in parts.items()],
        columns=["ratio", "median", "lowest", "highest"],
    )


def cmi_agreement(cmi: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Rank agreement (Spearman over cells) of the tight bound and its gradient term with four scores, by setting.

    `cmi` at one n and nu; `scores` as `tables.score_table`.
    """
    rows = []
    for (space, preconditioner), own in cmi.groupby(["space", "preconditioner"]):
        both = own.merge(scores, on=KEY, validate="1:1")
        for term in ("gradient", "tight"):
            rows.append(
                {"space": space, "preconditioner": preconditioner, "bound": term}
                | {
                    SCORES[s].label: _agreement(both[term], both[s])
                    for s in ("grace", "grace_variance", "g_var", "g_norm")
                }
            )
    return pd.DataFrame(rows)
