"""What came out, as the first sentence of a caption: made from the numbers drawn, so that every scale says its own.

Why first: a reader looks at a picture for its finding, and reads how it was drawn afterwards. No sentence here judges; each
says a number, what it is compared with, and its interval where it has one.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from gracelib.evidence.choices import RANDOM
from gracelib.paper.reported import PaperValue

MANY = 4  #: scores that a sentence still lists one by one


def order(table: pd.DataFrame, known: Mapping[str, PaperValue] = MappingProxyType({}), where: str = "") -> str:
    """How well the scores order the students. `table`: rows of `cells.score_rows`; `known`: the paper's numbers by score."""
    rows = table.dropna(subset=["spearman"]).set_index("score")
    if "grace" not in rows.index:
        return f"GRACE's correlation is undefined{where}."
    grace, others = rows.loc["grace"], rows.drop("grace").sort_values("spearman", ascending=False, kind="stable")
    paper = f"; the paper: {known['grace']}" if "grace" in known else ""
    rho = _between(grace["spearman"], grace["low"], grace["high"], paper)
    said = f"GRACE orders the students{where} with a correlation of {rho}"
    if len(rows) > MANY:
        place, best = 1 + (others["spearman"] > grace["spearman"]).sum(), others.iloc[0]
        return f"{said}, place {place} of {len(rows)}; {best['label']} reaches {best['spearman']:.2f}."
    return ", ".join([said, *(f"{r.label} {r.spearman:.2f}" for r in others.itertuples())]) + "."


def picks(table: pd.DataFrame, column: str = "regret_points", where: str = "") -> str:
    """What following each score costs, in points. `table`: one row per score, random choice among them or not."""
    rows = table.dropna(subset=[column]).set_index("score")
    if "grace" not in rows.index:
        return f"GRACE picks nothing{where}: it is undefined."
    others = rows.drop("grace").sort_values(column, kind="stable")
    listed = [f"{'a random one' if r.name == RANDOM else r['label']} {r[column]:.1f}" for _, r in others.iterrows()]
    return f"GRACE's pick{where} loses {rows.loc['grace', column]:.1f} points against the best; {', '.join(listed)}."


def within(means: pd.DataFrame) -> str:
    """How well a score follows the accuracy over one teacher's temperatures. `means`: `choices.over_teachers`."""
    known = means.dropna(subset=["mean"])
    if known.empty:
        return "No correlation over one teacher's temperatures is defined."
    listed = [f"{r.label} {_between(r.mean, r.low, r.high)}" for r in known.itertuples(index=False)]
    return f"Over one teacher's temperatures the mean correlation is: {', '.join(listed)}."


def filtering(change: Mapping, cells: int) -> str:
    """What training on right responses alone changed: `training.mean_change`."""
    if change["mean_change_points"] is None:
        return "No teacher has a right response to train on."
    low, high = (np.nan if change[end] is None else change[end] for end in ("low", "high"))
    return (
        f"Training on right responses alone changes a student by {_between(change['mean_change_points'], low, high, form='+.1f')} "
        f"points on average; it is clearly worse in {change['clearly_worse']} and clearly better in {change['clearly_better']} of "
        f"{cells} cells."
    )


def when_filtered(table: pd.DataFrame) -> str:
    """GRACE's correlation with filtered students beside that with unfiltered ones: `ablations.filtered_correlations`."""
    own = table[table["score"] == "grace"].set_index("pairing")
    if own["spearman"].isna().any():
        return "GRACE's correlation with filtered students is undefined."
    row = own.loc["filtered"]
    return (
        f"GRACE orders filtered students at {row['spearman']:.2f} and unfiltered ones at {own.loc['unfiltered', 'spearman']:.2f}, a "
        f"change of {_between(row['change'], row['change_low'], row['change_high'], form='+.2f')}."
    )


def from_to(runs: pd.DataFrame, thing: str) -> str:
    """What the last step along an axis of training gives each teacher's student. `runs`: teacher, value, test, test_se."""
    said = []
    for teacher, rows in runs.groupby("teacher", sort=False):
        before, last = rows.iloc[max(0, len(rows) - 2)], rows.iloc[-1]
        said.append(f"{teacher} {100 * before['test']:.1f} to {100 * last['test']:.1f}%")
    return f"From {before['value']:g} to {last['value']:g} {thing} held-out accuracy goes from {', '.join(said)}."


def over_settings(table: pd.DataFrame, names: str, where: str = "") -> str:
    """The range of GRACE's correlation over settings. `table`: `ablations.grid_correlations`."""
    rho = table["spearman"].dropna()
    if rho.empty:
        return f"GRACE's correlation is undefined for every {names}{where}."
    return f"Over {names} GRACE's correlation lies between {rho.min():.2f} and {rho.max():.2f}{where}."


def dip(table: pd.DataFrame) -> str:
    """For how many d the correlation is lowest at n = d/2. `table`: n, d, spearman."""
    wide = table.pivot(index="n", columns="d", values="spearman").dropna(axis=1)
    asked = [d for d in wide if d // 2 in wide.index]
    if not asked:
        return ""
    lowest = sum(wide[d].idxmin() == d // 2 for d in asked)
    return f" At n = d/2 it is the lowest of its column for {lowest} of {len(asked)} values of d; the paper finds its best there."


def subsets(table: pd.DataFrame) -> str:
    """How often GRACE is the best score of a subset of teachers. `table`: `ablations.subset_summary`."""
    own = table[table["reading"] == "teachers"].set_index("score")
    if np.isnan(own["median"].get("grace", np.nan)):
        return "GRACE's correlation is undefined in the subsets."
    best = own["best_share"].idxmax()
    often = f"; {own.loc[best, 'label']} is it in {own.loc[best, 'best_share']:.0%}" if best != "grace" else ""
    return (
        f"Over subsets of the teachers GRACE's correlation has the median {own.loc['grace', 'median']:.2f} and is the best in "
        f"{own.loc['grace', 'best_share']:.0%} of them{often}."
    )


def length(level: pd.Series) -> str:
    """How a teacher's gradient norms fall with length. `level`: the row "within" of `lengths.length_relation`."""
    if not np.isfinite(level["exponent"]):
        return "Lengths do not vary within a teacher."
    return (
        f"Within a teacher the norm falls as log|y| to the power -{_between(level['exponent'], level['low'], level['high'])}; of p = 0, 1 "
        f"and 2, p = {level['flattest']:.0f} makes the product the flattest."
    )


def bound(ratio: pd.Series, claimed: Sequence[float]) -> str:
    """The gradient term of the bound over its stability term, over teachers."""
    return (
        f"The gradient term is {ratio.min():.1f} to {ratio.max():.1f} times the stability term; the paper claims {claimed[0]:g} to "
        f"{claimed[1]:g} times."
    )


def _between(value: float, low: float, high: float, more: str = "", form: str = ".2f") -> str:
    """ "0.72 (0.43 to 0.84; the paper: .86)"."""
    ends = "" if np.isnan(low) else f"{low:{form}} to {high:{form}}"
    inside = f"{ends}{more}" if ends else more.removeprefix("; ")
    return f"{value:{form}}" + (f" ({inside})" if inside else "")
