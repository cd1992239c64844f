"""The paper's claims against this world: what holds, what does not, and what these data cannot tell.

Why a table of verdicts and not a text: a text is written once and drifts; a verdict that a rule draws from the tables
stays true at every scale, and nobody can soften it. The list and its rules are in `claims.statements`; here they are applied,
over all world seeds there are: a claim that only needs the table of cells holds if the rule says so here and the value
meets the statement in every other world too, and does not hold only if it meets it in none of them. Where a claim does
not hold, or these data cannot tell, `why` gives the numbers of the reason that was looked into, or the notebook.
"""

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.claims.measured import Measured, NotHere, World, shown, within
from gracelib.claims.rules import FAILS, HOLDS, OPEN
from gracelib.claims.statements import CLAIMS, Claim
from gracelib.drawing.saving import Drawn
from gracelib.evidence.cells import ACCURACIES
from gracelib.evidence.ranks import FEW_CLUSTERS, spearman_known
from gracelib.experiment.scales import SCALES
from gracelib.jobs.paths import tables

INPUTS = ("scores", "students", "teachers", "grid", "filtered", "training_runs", "lengths", "pathological", "cmi")


def other_worlds(scale: str) -> list[str]:
    """The same cast grown from other seeds, as far as their tables are committed: scales named <scale>-world<number>."""
    return [name for name in SCALES if name.startswith(f"{scale}-world") and (tables(name) / "students.csv").is_file()]


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
    rows = []
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
                "why": "" if verdict == HOLDS else "; ".join(filter(None, [reason, why(world, claim.look)])),
            }
        )
    table = pd.DataFrame(rows)
    seeds = ", ".join(f"{w.scale}: {len(w.frame())} cells" for w in others) or "none has been run at this scale"
    counts = {v: int((table.verdict == v).sum()) for v in (HOLDS, FAILS, OPEN)}
    return Drawn(
        None,
        table,
        (
            f"The paper's claims and what this world shows: of {sum(counts.values())}, {counts[HOLDS]} hold, "
            f"{counts[FAILS]} do not, and {counts[OPEN]} cannot be told here. Scale {world.scale}, {len(world.frame())} cells of "
            f"{len(world.teachers)} teacher(s) for the first student; 95% intervals come from a bootstrap over teachers where "
            f"nothing else is said, and from {FEW_CLUSTERS} teachers or fewer they are too narrow. The rule of each claim was "
            f"fixed before any number of the lab scale was seen; on the smaller scales the rules were tried. Other world seeds, "
            f"for the claims that need the cells alone: {seeds}."
        ),
        "",
        {"verdicts": counts}
        | {r["name"]: {"value": r["value"], "low": r["low"], "high": r["high"], "verdict": r["verdict"]} for r in rows},
        {claim.name: {"value": claim.paper} for claim in CLAIMS},
    )


def why(world: World, look: str) -> str:
    """The answers to the questions of a `Claim.look`: numbers of the cells that it is about, or where to read on."""
    return "; ".join(_answer(world, *one.split()) for one in look.split("; ") if one)


def _answer(world: World, kind: str, *of: str) -> str:
    """ "<kind> [second or long] [compared] [accuracy]", asked of these cells; what is no question is a pointer."""
    answers = {"split": _split, "norm": _norm, "accuracy": _accuracy, "ceiling": _ceiling}
    if kind not in (*answers, "noise"):
        return f"see {' '.join([kind, *of])}"
    where = next((name for name in of if name in ("second", "long")), "first")
    frame = world.frame(where, at_compared="compared" in of)
    if kind == "noise":
        accuracy = next((name for name in of if name in ACCURACIES), "average_at_k")
        return _noise(frame, accuracy, world.error(frame, accuracy))
    return f"{'on the longer task ' * (where == 'long')}{answers[kind](frame)}"


def _overall(frame: pd.DataFrame, score: str = "grace") -> float:
    return spearman_known(frame[score], frame.average_at_k, SCORES[score].direction)[0]


def _between(frame: pd.DataFrame, score: str) -> float:
    """Signed Spearman of the teachers' means."""
    return _overall(frame[["teacher", score, "average_at_k"]].dropna().groupby("teacher").mean(), score)


def _within(frame: pd.DataFrame, score: str) -> float:
    """The mean Spearman over the temperatures of one teacher."""
    return within(frame, score, "average_at_k", SCORES[score].direction).mean()


def _split(frame: pd.DataFrame) -> str:
    inside = f", within one {shown(_within(frame, 'grace'))}" if frame.teacher.duplicated().any() else ""
    return f"GRACE between teachers {shown(_between(frame, 'grace'))}{inside}; {_leave_one_family_out(frame)}"


def _leave_one_family_out(frame: pd.DataFrame) -> str:
    found = pd.Series({name: _overall(frame[frame.manner != name]) for name in sorted(set(frame.manner))}).dropna()
    if found.empty:
        return "no family can be left out"
    same = found.round(6)  # families that make the same difference but for rounding: the first by name
    low, high = same.idxmin(), same.idxmax()
    return f"{shown(found[low])} without {low} to {shown(found[high])} without {high}"


def _norm(frame: pd.DataFrame) -> str:
    pair = frame[["grace", "g_norm"]].dropna()
    spread = np.log(pair.grace / pair.g_norm).std() / np.log(pair.grace).std() if len(pair) > 2 else np.nan
    if not np.isfinite(spread):
        return "too few cells to compare GRACE with G-Norm"
    agree = shown(pair.grace.corr(pair.g_norm, "spearman"))
    return f"GRACE and G-Norm agree in rank {agree}; log(GRACE / G-Norm) varies {spread:.2f} times as much as log GRACE"


def _accuracy(frame: pd.DataFrame) -> str:
    able, parts = (
        frame[frame.teacher_accuracy >= 0.85],
        [part(frame, "teacher_accuracy") for part in (_between, _within)],
    )
    return (
        f"between teachers {shown(parts[0])}, within one {shown(parts[1])}; among the {len(able)} cells of teachers at "
        f".85 or more {shown(_overall(able, 'teacher_accuracy'))}"
    )


def _noise(frame: pd.DataFrame, accuracy: str, error: pd.Series) -> str:
    top, by = frame[accuracy].nlargest(3), f"by {accuracy.replace('_', '-')} " * (accuracy != "average_at_k")
    return (
        f"{by}one student's SE from the test problems {100 * error.median():.1f} points, the three best "
        f"students within {100 * (top.max() - top.min()):.1f}"
    )


def reliability(frame: pd.DataFrame) -> float:
    """The share of the variance of accuracies over a teacher's temperatures that is not noise of the test problems.

    A share below zero is given as zero; NaN where nothing varies. Its root is the highest correlation that any score could
    be expected to reach.
    """
    of = frame.assign(square=frame.average_se**2).groupby("teacher")
    spread, lost = of.average_at_k.var().mean(), of.square.mean().mean()
    return max(0.0, 1 - lost / spread) if spread > 0 else np.nan


def _ceiling(frame: pd.DataFrame) -> str:
    inside = reliability(frame)
    if not np.isfinite(inside):
        return "one temperature a teacher"
    return (
        f"with the noise of the test problems a within-teacher correlation of about {np.sqrt(inside):.2f} could be seen, "
        "a rough guide that overstates the noise: the students of a teacher answer the same problems"
    )
