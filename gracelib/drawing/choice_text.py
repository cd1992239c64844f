"""Sentences about constrained choice, written from the tables of `evidence.choices`, so that they stay true at every scale.

Why not prose in a notebook: what a world shows depends on its scale and seed, and a typed sentence would go on claiming
it. Each function here says what was measured and, where an interval includes zero, that these data cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.evidence.choices import RANDOM, over_teachers
from gracelib.paper.reported import PaperValue


def with_interval(value: float, low: float, high: float, signed: bool = True) -> str:
    """A number as "+0.61 [+0.40, +0.83]" or "1.2 [0.3, 2.0]", "undefined" where it is NaN."""
    if np.isnan(value):
        return "undefined"
    form = "{:+.2f}" if signed else "{:.1f}"
    text = form.format(value)
    return text if np.isnan(low) else f"{text} [{form.format(low)}, {form.format(high)}]"


def teachers_text(n: int) -> str:
    """ "1 teacher", "5 teachers"."""
    return f"{n} teacher" if n == 1 else f"{n} teachers"


def budget_name(table: pd.DataFrame, width: int) -> str:
    """A budget with what it stands for and how many teachers it has, on two lines."""
    row = table[table["budget"] == width].iloc[0]
    paper = f" ({row['paper_budget']})" if row["paper_budget"] else ""
    return f"≤ {width}{paper}\n{teachers_text(row['teachers'])}"


def temperature_sentence(choices: pd.DataFrame, noise: float) -> str:
    """What each score's temperature costs, how often it is the best, and whether norm and diversity disagree."""
    costs, parts = over_teachers(choices, "regret_points").to_dict("records"), []
    n = choices["teacher"].nunique()
    if choices["temperatures"].max() < 2:
        return "There is one temperature a teacher, so none can be chosen."
    for row in costs:
        cost = f"{row['label']} {with_interval(row['mean'], row['low'], row['high'], signed=False)}"
        own = choices[choices["score"] == row["score"]]
        hits = f" (the best one for {(own['regret_points'] == 0).sum()} of {n})" if row["score"] != RANDOM else ""
        parts.append(cost + hits)
    text = f"Mean regret in points of the temperature picked, over {teachers_text(n)}: {'; '.join(parts)}; "
    text += f"one standard error of a difference is {noise:.1f}. "
    ends = choices.groupby("score")[["coldest", "hottest"]].sum()
    names = choices.drop_duplicates("score").set_index("score")["label"]
    picks = [
        f"{names[s]} picks the coldest for {row.coldest} and the hottest for {row.hottest}"
        for s, row in ends.loc[[s for s in names.index if s != RANDOM]].iterrows()
    ]
    return text + f"Of {n}, {'; '.join(picks)}."


def within_sentence(means: pd.DataFrame, choices: pd.DataFrame) -> str:
    """The mean within-teacher correlation of each score, and for how many teachers its sign is right."""
    defined = means[means["teachers"] > 0]
    if defined.empty:
        return f"Within a teacher no correlation is defined: {choices['note'].iloc[0]}."
    parts = [
        f"{r.label} {with_interval(r.mean, r.low, r.high)}, positive for {r.positive} of {r.teachers}"
        for r in defined.itertuples()
    ]
    return f"Mean Spearman over the temperatures of one teacher: {'; '.join(parts)}."


def budget_sentence(table: pd.DataFrame, quantity: str) -> str:
    """Each score over the budgets, smallest first; `quantity` "spearman" or "regret_points"."""
    low, high = ("low", "high") if quantity == "spearman" else ("regret_low", "regret_high")
    parts = []
    for width, own in table.groupby("budget", sort=True):
        found = [
            f"{r['label']} {with_interval(r[quantity], r[low], r[high], quantity == 'spearman')}"
            for r in own.to_dict("records")
        ]
        n = own["teachers"].iloc[0]
        parts.append(f"width ≤ {width}, {teachers_text(n)}: {', '.join(found)}")
    if quantity == "spearman":
        return f"Spearman by budget. {'; '.join(parts)}."
    smallest = [
        own.loc[own["regret_points"] == own["regret_points"].min(), "label"] for _, own in table.groupby("budget")
    ]
    names = [label for label in dict.fromkeys(table["label"]) if all(label in set(best) for best in smallest)]
    least = " No score has the smallest in every budget."
    if names:
        least = f" The smallest regret in every budget: {', '.join(names)}."
    return f"Regret in points. {'; '.join(parts)}.{least if len(table['label'].unique()) > 1 else ''}"


def family_sentence(table: pd.DataFrame) -> str:
    """Mean regrets over families, and how the first score compares with each other one on the same resamples."""
    means = table[table["family"] == "mean"].to_dict("records")
    n = table[table["family"] != "mean"]["family"].nunique()
    costs = [
        f"{r['label']} {with_interval(r['regret_points'], r['regret_low'], r['regret_high'], signed=False)}"
        for r in means
    ]
    first, others = means[0]["label"], means[1:]
    verdicts = {"costs less than": [], "costs more than": [], "cannot be told from": []}
    for r in others:
        kind = (
            "costs less than"
            if r["minus_high"] < 0
            else "costs more than"
            if r["minus_low"] > 0
            else "cannot be told from"
        )
        verdicts[kind].append(r["label"])
    told = "; ".join(f"{kind} {', '.join(names)}" for kind, names in verdicts.items() if names)
    families = f"{n} families" if n > 1 else "1 family"
    if np.isnan(means[0]["regret_low"]):
        return f"Mean regret in points over {families}: {'; '.join(costs)}. One teacher: no interval, nothing can be told apart."
    return (
        f"Mean regret in points over {families}: {'; '.join(costs)}. On the same resampled teachers {first} {told} "
        f"(95% interval of the difference)."
    )


def paper_sentence(values: Mapping[str, PaperValue], setting: str, what: str, unit: str) -> str:
    """What the paper reports: "The paper (Llama-3.2-1B/GSM8K, every budget): GRACE <1 points." """
    if not values:
        return (
            f"The paper prints no such number for {setting}."
            if setting
            else "No setting of the paper stands beside this one."
        )
    said = ", ".join(f"{SCORES[s].label} {v.text}" for s, v in values.items())
    return f"The paper ({setting}, {what}, {unit}): {said}."


def without_sentence(everyone: pd.DataFrame, rest: pd.DataFrame) -> str:
    """How each score's correlation and regret change when a teacher is left out; both from `cells.score_rows`."""
    after, parts = rest.set_index("score"), []
    for row in everyone.to_dict("records"):
        there = after.loc[row["score"]]
        rho = [with_interval(r["spearman"], r["low"], r["high"]) for r in (row, there)]
        parts.append(
            f"{row['label']} {rho[0]} to {rho[1]}, regret {row['regret_points']:.1f} to {there['regret_points']:.1f} points"
        )
    return f"From all {teachers_text(int(everyone['teachers'].max()))} to {int(rest['teachers'].max())}: {'; '.join(parts)}."
