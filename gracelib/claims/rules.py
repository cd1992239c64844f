"""The rule of a claim: which value meets the statement, and what its interval must not reach.

A rule has two parts: the *statement*, a range in which the value must lie, and the *contrary reference*, which the 95%
interval must not reach for the claim to hold. A claim does not hold when the whole interval lies outside the statement;
between the two there are too few data.
"""

import math
from dataclasses import dataclass

from gracelib.claims.measured import Measured
from gracelib.evidence.ranks import FEWEST

INF = float("inf")
#: What came out: the last two are undecided, for want of teachers (or test problems), or of what the claim is about.
HOLDS, FAILS, OPEN, LACKS = "holds", "does not hold", "too few data", "not in this world"


@dataclass(frozen=True)
class Rule:
    """Statement: `low` <= value <= `high`. Contrary reference: anything at or outside (`outer_low`, `outer_high`)."""

    low: float = -INF
    high: float = INF
    outer_low: float = -INF
    outer_high: float = INF

    def __post_init__(self):
        if not self.outer_low <= self.low < self.high <= self.outer_high:
            raise ValueError(f"{self}: the statement must lie inside the contrary references")

    def meets(self, value: float) -> bool:
        return bool(self.low <= value <= self.high)

    def verdict(self, m: Measured) -> tuple[str, str]:
        """(verdict, reason): by the value and its interval as the head of this module says."""
        if not math.isfinite(m.value):
            return OPEN, "undefined on these cells"
        if not math.isfinite(m.low + m.high):
            return OPEN, "no interval: too few teachers, or picks, to see how they differ"
        if 0 < m.teachers < FEWEST:
            return OPEN, f"{m.teachers} teachers are too few for an interval that means anything"
        if m.high < self.low or m.low > self.high:
            return FAILS, "the whole interval is outside the statement"
        if not self.meets(m.value):
            return OPEN, "the value misses the statement, its interval reaches it"
        if m.low <= self.outer_low or m.high >= self.outer_high:
            reached = self.outer_low if m.low <= self.outer_low else self.outer_high
            return OPEN, f"the value meets the statement, but the interval reaches the contrary reference {reached:g}"
        return HOLDS, ""

    @property
    def direction(self) -> "Rule | None":
        """Its contrary references as a statement: what is left of it without the paper's magnitudes. None where it is a
        direction already."""
        loose = Rule(self.outer_low, self.outer_high, self.outer_low, self.outer_high)
        return None if loose == self else loose

    def text(self) -> str:
        """The rule in words."""

        def span(low: float, high: float) -> str:
            if low == -INF:
                return f"at most {high:g}"
            return f"at least {low:g}" if high == INF else f"{low:g} to {high:g}"

        if self == above(self.low) or self == under(self.high):
            return f"value and interval {f'above {self.low:g}' if self.low > -INF else f'below {self.high:g}'}"
        ends = [f"above {self.outer_low:g}"] * (self.outer_low > -INF)
        ends += [f"below {self.outer_high:g}"] * (self.outer_high < INF)
        return f"value {span(self.low, self.high)}, interval {' and '.join(ends)}"


def above(bound: float, contrary: float | None = None) -> Rule:
    """The value is at least `bound`; the interval excludes `contrary` (the bound itself if None)."""
    return Rule(low=bound, outer_low=bound if contrary is None else contrary)


def under(bound: float, contrary: float | None = None) -> Rule:
    """The value is at most `bound`; the interval excludes `contrary` (the bound itself if None)."""
    return Rule(high=bound, outer_high=bound if contrary is None else contrary)
