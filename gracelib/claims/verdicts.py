"""The paper's claims against this world: what holds, what does not, and what these data cannot tell.

Why a table of verdicts and not a text: a text is written once and drifts; a verdict that a rule draws from the tables
stays true at every scale, and nobody can soften it. The list and its rules are in `claims.statements`; here they are applied,
over all world seeds there are: a claim that only needs the table of cells holds if the rule says so here and the value
meets the statement in every other world too, and does not hold only if it meets it in none of them. Where a claim does
not hold, or these data cannot tell, `why` gives the numbers of the reason that was looked into, or the notebook.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.claims.measured import Measured, NotHere, World, shown
from gracelib.claims.statements import CLAIMS, FAILS, HOLDS, OPEN, Claim
from gracelib.drawing.saving import Drawn
from gracelib.evidence import cells as tables
from gracelib.evidence.claim_measures import between, reliability, spearman_draws, within
from gracelib.evidence.ranks import FEW_CLUSTERS
from gracelib.experiment.scales import SCALES
from gracelib.jobs.paths import results

README_MARKS = ("<!-- claims:begin -->", "<!-- claims:end -->")  #: around `readme_block` in README.md
INPUTS = ("scores", "students", "teachers", "grid", "filtered", "training_runs", "lengths", "pathological", "cmi")


def other_worlds(scale: str) -> list[str]:
    """The same cast grown from other seeds, as far as their tables are committed: scales named <scale>-world<number>."""
    return [name for name in SCALES if name.startswith(f"{scale}-world") and (results(name) / "students.csv").is_file()]


def measure(claim: Claim, world: World) -> Measured | str:
    """What the claim is in a world; or, as text, why it cannot be measured there."""
    try:
        return claim.measure(world)
    except NotHere as reason:
        return str(reason)


def judge(claim: Claim, here: Measured | str, elsewhere: list[Measured | str]) -> tuple[str, str]:
    """(verdict, reason) from this world and the others, see the head of this module."""
    if isinstance(here, str):
        return OPEN, here
    verdict, reason = claim.rule.verdict(here)
    met = [claim.rule.meets(m.value) for m in elsewhere if isinstance(m, Measured) and np.isfinite(m.value)]
    if verdict == HOLDS and not all(met):
        return OPEN, f"holds here, and the value misses the statement in {met.count(False)} of {len(met)} other worlds"
    if verdict == FAILS and any(met):
        return (
            OPEN,
            f"does not hold here, and the value meets the statement in {met.count(True)} of {len(met)} other worlds",
        )
    return verdict, reason


def claims(scale: str) -> Drawn:
    """Every claim of `statements.CLAIMS`, measured and judged; a table without a picture.

    Columns: name, claim, paper, rule, this world (a sentence), value, low, high, one column for each other world seed
    there is (value and interval, empty where the claim needs more than the cells), verdict, why (empty where it holds).
    FileNotFoundError if a result table of the scale is missing.
    """
    world, others = World(scale), [World(name) for name in other_worlds(scale)]
    reasons, rows = _Reasons(world), []
    for claim in CLAIMS:
        here = measure(claim, world)
        elsewhere = [measure(claim, w) if claim.cells_only else "" for w in others]
        verdict, reason = judge(claim, here, elsewhere)
        known = isinstance(here, Measured)
        rows.append(
            {
                "name": claim.name,
                "claim": claim.statement,
                "paper": claim.paper,
                "rule": claim.rule.text(),
                "this world": here.sentence() if known else here,
                **{name: getattr(here, name) if known else np.nan for name in ("value", "low", "high")},
                **{w.scale: m.text() if isinstance(m, Measured) else m for w, m in zip(others, elsewhere, strict=True)},
                "verdict": verdict,
                "why": "" if verdict == HOLDS else "; ".join(filter(None, [reason, reasons[claim.look]])),
            }
        )
    table = pd.DataFrame(rows)
    counts = {v: int((table.verdict == v).sum()) for v in (HOLDS, FAILS, OPEN)}
    return Drawn(
        None,
        table,
        _caption(world, counts, others),
        "",
        {"verdicts": counts}
        | {r["name"]: {"value": r["value"], "low": r["low"], "high": r["high"], "verdict": r["verdict"]} for r in rows},
        {claim.name: {"value": claim.paper} for claim in CLAIMS},
    )


def _caption(world: World, counts: dict[str, int], others: list[World]) -> str:
    n, cells = len(world.labels), len(world.frame())
    few = f" {n} teacher{'s' * (n > 1)}: intervals are too narrow, read them as ranges." if n <= FEW_CLUSTERS else ""
    seeds = (
        f" Beside it the claims that need the cells alone, on {len(others)} other world seed{'s' * (len(others) > 1)} "
        f"({', '.join(f'{w.scale}: {len(w.frame())} cells' for w in others)})."
        if others
        else " No other world seed has been run at this scale."
    )
    fixed = "The rule of each claim was fixed before any number of the lab scale was seen."
    if not world.scale.startswith("lab"):  # the other scales are what the rules were tried on
        fixed = fixed.removesuffix(".") + ", not before those of this one."
    return (
        f"The paper's claims and what this world shows: of {sum(counts.values())}, {counts[HOLDS]} hold, "
        f"{counts[FAILS]} do not, and {counts[OPEN]} cannot be told here. Scale {world.scale}, {cells} cells of "
        f"{n} teacher{'s' * (n > 1)} for the first student; 95% intervals come from a bootstrap over teachers where "
        f"nothing else is said. {fixed}{few}{seeds}"
    )


class _Reasons(dict):
    """Short reasons by `Claim.look`, computed once each; what is no question of this module is a pointer."""

    def __init__(self, world: World):
        super().__init__()
        self.world = world

    def __missing__(self, look: str) -> str:
        self[look] = "; ".join(self._reason(one) for one in look.split("; ") if one)
        return self[look]

    def _reason(self, look: str) -> str:
        """ "<kind> [student or task] [compared] [accuracy]", asked of the cells that the claim is about."""
        kind, *of = look.split()
        makers = {"split": _split, "norm": _norm, "accuracy": _accuracy, "ceiling": _ceiling}
        if kind not in (*makers, "noise"):
            return f"see {look}"
        where = next((name for name in of if name in ("second", "long")), "first")
        frame = self.world.compared(where) if "compared" in of else self.world.frame(where)
        if kind == "noise":
            accuracy = next((name for name in of if name in tables.ACCURACIES), "average_at_k")
            return _noise(frame, accuracy, self.world.error(frame, accuracy))
        return f"{'on the longer task ' * (where == 'long')}{makers[kind](frame)}"


def _signed(score: str) -> int:
    return -1 if SCORES[score].direction == "lower" else 1


def _parts(frame: pd.DataFrame, score: str) -> tuple[float, float]:
    """Signed Spearman between teachers (of their means) and the mean one within a teacher."""
    inside = _signed(score) * within(frame, score, "average_at_k", np.unique(frame.teacher))
    there = inside[np.isfinite(inside)]
    return _signed(score) * between(frame, score, "average_at_k"), float(there.mean()) if len(there) else np.nan


def _split(frame: pd.DataFrame) -> str:
    a, b = _parts(frame, "grace")
    inside = f", within one {shown(b)}" if frame.teacher.duplicated().any() else ""
    return f"GRACE between teachers {shown(a)}{inside}; {_leave_one_family_out(frame)}"


def _overall(frame: pd.DataFrame, score: str = "grace") -> float:
    return _signed(score) * float(spearman_draws(frame[score], frame["average_at_k"], np.ones((1, len(frame))))[0])


def _leave_one_family_out(frame: pd.DataFrame) -> str:
    found = {name: _overall(frame[frame.manner != name]) for name in dict.fromkeys(frame.manner)}
    found = {name: rho for name, rho in found.items() if np.isfinite(rho)}
    if not found:
        return "no family can be left out"
    # Families that make the same difference (but for rounding): the first by name, wherever this is said.
    low, high = (pick(sorted(found), key=lambda name: round(found[name], 6)) for pick in (min, max))
    return f"{shown(found[low])} without {low} to {shown(found[high])} without {high}"


def _norm(frame: pd.DataFrame) -> str:
    pair = frame[["teacher", "grace", "g_norm"]].dropna()
    agree = float(np.corrcoef(pair.grace.rank(), pair.g_norm.rank())[0, 1]) if len(pair) > 2 else np.nan
    ratio = pair.grace / pair.g_norm
    spread = np.log(ratio).std() / np.log(pair.grace).std() if len(pair) > 2 else np.nan
    if not np.isfinite(spread):
        return "too few cells to compare GRACE with G-Norm"
    return (
        f"GRACE and G-Norm agree in rank {shown(agree)}; log(GRACE / G-Norm) varies {spread:.2f} times as much as "
        f"log GRACE"
    )


def _accuracy(frame: pd.DataFrame) -> str:
    able = frame[frame.teacher_accuracy >= 0.85]
    return (
        f"between teachers {shown(_parts(frame, 'teacher_accuracy')[0])}, within one "
        f"{shown(_parts(frame, 'teacher_accuracy')[1])}; among the {len(able)} cells of teachers at .85 or more "
        f"{shown(_overall(able, 'teacher_accuracy'))}"
    )


def _noise(frame: pd.DataFrame, accuracy: str = "average_at_k", error: pd.Series | None = None) -> str:
    top, error = frame[accuracy].nlargest(3), frame.average_se if error is None else error
    by = "" if accuracy == "average_at_k" else f"by {accuracy.replace('_', '-')} "
    return (
        f"{by}one student's SE from the test problems {100 * error.median():.1f} points, the three best "
        f"students within {100 * (top.max() - top.min()):.1f}"
    )


def _ceiling(frame: pd.DataFrame) -> str:
    inside = reliability(frame)[1]
    return (
        "one temperature a teacher"
        if not np.isfinite(inside)
        else f"with the noise of the test problems a within-teacher correlation of about {np.sqrt(inside):.2f} could be seen, "
        "a rough guide that overstates the noise: the students of a teacher answer the same problems"
    )


def readme_block(scale: str) -> str:
    """Markdown for README.md between `README_MARKS`: claim and what the paper reports, what this world shows, verdict."""
    table = claims(scale).table
    lines = ["| the paper's claim (what it reports) | this world | verdict |", "|---|---|---|"]
    for row in table.to_dict("records"):
        seeds = [f"{name.removeprefix(f'{scale}-')}: {row[name]}" for name in other_worlds(scale) if row[name]]
        shown = "; ".join([row["this world"], *seeds]).replace("|y|", "length").replace("|", "/")
        claim = row["claim"].replace("|y|", "length")
        lines.append(f"| {claim} ({row['paper']}) | {shown} | {row['verdict']} |")
    return "\n".join(lines) + "\n"
