"""What to look at before a ranking is believed: a few numbers of the user's own data, each with what to do about it.

One list, `SIGNS`. The limits say where a score stops to mean what it should (nu above one half, fewer gradients than
dimensions), or where it failed in the built-in worlds (notebooks 05b and 12); none was fitted to a ranking's success.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gracelib.evidence.regimes import COPY
from gracelib.scores import NU_DECIDES


@dataclass(frozen=True)
class Sign:
    """A column of the ranking (or rows_over_d, which all teachers share) that warns above `above` and up to `to`."""

    column: str
    above: float
    to: float
    said: str
    shown: str  #: the format of its number
    remedy: str


_MORE = "use more prompts or responses, or a smaller d (the paper: 3.6, from d = n and m = 4)"
SIGNS = (
    Sign("rows_over_d", 0, 1, "nu decides these scores: gradients per dimension outside a fold", "{:.1f}", _MORE),
    Sign(
        "rows_over_d",
        1,
        2.99,
        "gradients per dimension outside a fold (near two of them GRACE ordered students worst, notebook 05b)",
        "{:.1f}",
        _MORE,
    ),
    Sign(
        "near_copies",
        1 / 4,
        1,
        f"near-copies, the share of responses whose gradient is at a cosine of {COPY} or more to another's of the same "
        "prompt (they raise GRACE whether they are right or wrong)",
        "{:.0%}",
        "sample at a higher temperature, or grade answers: where copies were many, neither GRACE nor the norm nor the loss ordered students (notebook 12)",
    ),
    Sign(
        "nu_share",
        NU_DECIDES,
        1,
        "nu decides GRACE, its share of the log-derivative",
        "{:.0%}",
        "use more prompts or a smaller d, and look for near-copies",
    ),
    Sign(
        "one_token",
        0,
        np.inf,
        "responses of one token (log|y| = 0, so they count as zero and lower GRACE)",
        "{:.0f}",
        "leave these prompts out, or cut less",
    ),
    Sign(
        "grace_low",
        -np.inf,
        0,
        "intervals that reach below zero, where GRACE cannot be",
        "{:.2g}",
        "these prompts are too few for this d: use more of them, or a smaller d",
    ),
)


def notes_on(table: pd.DataFrame, n: int, m: int, d: int, n_folds: int) -> list[str]:
    """What a ranking's table says of itself: a line for each of `SIGNS` that shows, with its numbers and what to do."""
    shared, notes = {"rows_over_d": (1 - 1 / n_folds) * n * m / d}, []
    for sign in SIGNS:
        values = table[sign.column] if sign.column in table else pd.Series([shared[sign.column]])
        found = values[(values > sign.above) & (values <= sign.to)]
        if found.empty or sign.column == "nu_share" and shared["rows_over_d"] <= 1:  # of all teachers, and said already
            continue
        numbers = [sign.shown.format(value) for value in found]
        if sign.column in table and len(found) <= 3:
            numbers = [f"{name} {number}" for name, number in zip(table.teacher[found.index], numbers, strict=True)]
        elif sign.column in table:
            low, high = (sign.shown.format(end) for end in (found.min(), found.max()))
            numbers = [f"{len(found)} teachers, {low} to {high}"]
        notes.append(f"{sign.said}: {', '.join(numbers)}; {sign.remedy}")
    return notes
