"""Reading the measured tables: what a variant changes, which odd teachers a score flags, what the bound says.

Why apart from the notebooks: each summary is a pure function of committed tables, so a notebook prints the same text
whether the tables were just computed or came with the clone, and a test can check it on made-up tables.
"""

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence.ranks import spearman_known
from gracelib.variants import VARIANTS


def variant_summary(variants: pd.DataFrame) -> pd.DataFrame:
    """One row a variant: what it replaces, its value's median ratio to that (and range), rank agreement over cells.

    `variants` as the table `variants`. Columns: variant, label, compared_with, median_ratio, lowest, highest,
    rank_agreement (Spearman; NaN below three cells).
    """
    rows = []
    for name, v in VARIANTS.items():
        if name == v.reference:
            continue
        ratio = variants[name] / variants[v.reference]
        agreement, _ = spearman_known(variants[name], variants[v.reference], "higher")
        rows.append((name, v.label, v.reference, ratio.median(), ratio.min(), ratio.max(), agreement))
    return pd.DataFrame(
        rows, columns=["variant", "label", "compared_with", "median_ratio", "lowest", "highest", "rank_agreement"]
    )


def flags(odd: pd.DataFrame, cells_scores: pd.DataFrame) -> pd.DataFrame:
    """For each score and odd teacher, the share of real cells that the score prefers to it (1.0: flagged outright).

    `odd` as the table `pathological_scores`, `cells_scores` the rows of one task of the table `scores`. One row per
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
    """The terms of the table `cmi` (made with eta = sigma = 1) for a step size and a noise level, and what they mean.

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
