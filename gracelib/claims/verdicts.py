"""The paper's claims against this world: what holds, what does not, and what these data cannot tell.

Why a table of verdicts and not a text: a text is written once and drifts; a verdict that a rule draws from the tables
stays true at every scale, and nobody can soften it. The list and its rules are in `claims.statements`; here they are applied.
A claim that only needs the table of cells is judged by its mean over all worlds there are (`pooled`), each beside it: more
worlds make the interval narrower, and a true claim more likely to hold. A world without the ingredient of a claim
(`claims.ingredients`) has no say in it; where none has it, the claim is not judged at all. Where a claim does not hold, or these data cannot tell, `why` gives
the numbers of the reason that was looked into, or the notebook.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from gracelib.baselines import SCORES
from gracelib.claims.ingredients import INGREDIENTS, reliability
from gracelib.claims.measured import NOISE, WORLDS, Measure, Measured, NotHere, World, shown, within
from gracelib.claims.rules import FAILS, HOLDS, LACKS, OPEN
from gracelib.claims.statements import CLAIMS, Claim
from gracelib.drawing.saving import Drawn
from gracelib.evidence.cells import ACCURACIES
from gracelib.evidence.ranks import FEW_CLUSTERS, mean_interval, mean_regret, over_worlds, percentiles, spearman_known
from gracelib.evidence.reasons import between_and_within, with_parts
from gracelib.experiment.scales import SCALES
from gracelib.jobs.paths import tables

INPUTS = ("scores", "students", "teachers", "grid", "filtered", "training_runs", "lengths", "pathological", "cmi")
VERDICTS = ("direction", "size")


def other_worlds(scale: str) -> list[str]:
    """What a scale's claims are judged with beside it, as far as its tables are committed: the same cast grown from other seeds
    (<scale>-world<number>), and for `lab` the world in which it counts what a teacher covers.

    That this one is pooled with `lab` was fixed before it had been computed.
    """
    beside = (f"{scale}-world", *["coverage-lab"] * (scale == "lab"))
    return [name for name in SCALES if name.startswith(beside) and (tables(name) / "students.csv").is_file()]


def pooled(found: list[Measured]) -> Measured:
    """The mean over worlds, with one interval; a single world's own.

    Over teachers: worlds are drawn with replacement and teachers within them, the same ones in every world of one cast. A
    pick's luck: as many random picks as there are worlds. Two picks that are compared: Student's t over
    worlds. Regrets: as the mean of independent ones. Any other interval: the mean of the worlds' ends.
    """
    first = found[0]
    if len(found) == 1:
        return first
    value = float(np.mean([m.value for m in found]))
    if first.over == WORLDS:
        low, high = mean_interval([m.value for m in found])
    elif all(m.draws is not None for m in found):
        draws = np.stack([m.draws[1:] for m in found])  # (worlds, resamples)
        low, high = over_worlds(draws) if first.over == "teachers" else percentiles(draws.mean(0))
    elif first.over == NOISE:
        _, low, high = mean_regret(np.array([(m.value, m.low, m.high) for m in found]))
    else:
        low, high = np.mean([(m.low, m.high) for m in found], axis=0)
    return replace(first, value=value, low=float(low), high=float(high), extra="", draws=None)


def judge(claim: Claim, found: list[Measured | str], signs: list[Measured | str], lacking: str) -> dict[str, str]:
    """direction, size ("" where the claim is a direction only), all worlds, sign and reason, from what was measured in this
    world (first) and in others; `lacking` is the ingredient that this world has not, "" if none."""
    if isinstance(found[0], str):
        return {"direction": OPEN, "size": "", "all worlds": "", "sign": "", "reason": found[0]}
    own, sign = (
        pooled([m for m in worlds if isinstance(m, Measured) and np.isfinite(m.value)] or worlds[:1])
        for worlds in (found, signs)
    )
    rule = claim.direction[1] if claim.direction else claim.rule.direction or claim.rule
    verdicts = {"direction": rule.verdict(sign), "size": claim.rule.verdict(own) if rule != claim.rule else ("", "")}
    if lacking:
        verdicts = {name: (LACKS if verdict else "", lacking) for name, (verdict, _) in verdicts.items()}
    said = {f"{name}: {reason}": None for name, (_, reason) in verdicts.items() if reason and not lacking}
    return {name: verdict for name, (verdict, _) in verdicts.items()} | {
        "all worlds": own.text(),
        "sign": f"{sign.sentence()}; {rule.text()}",
        "reason": lacking or "; ".join(said),
    }


def claims(scale: str) -> Drawn:
    """Every claim of `statements.CLAIMS`, measured and judged; a table without a picture.

    Columns: name, claim, paper, rule, this world (a sentence), value, low, high, one column for each of `other_worlds`
    (value and interval, empty where the claim needs more than the cells), those of `judge` (sign: what decides
    the direction), ingredient (what the world must have, with the number), why (empty where all that is claimed holds).
    FileNotFoundError if a result table of the scale is missing.
    """
    world, others = World(scale), [World(name) for name in other_worlds(scale)]
    rows = []
    for claim in CLAIMS:
        worlds = [world, *(others if claim.cells_only else [])]
        found = [_measured(claim.measure, w) for w in worlds]
        signs = found
        if claim.direction and claim.direction[0]:
            signs = [_measured(claim.direction[0], w) for w in worlds]
        known, there, ingredient = isinstance(found[0], Measured), [True] * len(worlds), ""
        if known:
            has, ingredient = _ingredient(claim, world)
            # Other seeds of a cast have what it has; a world of another kind is asked itself, and left out if it has not.
            there = [has if w.scale.startswith(scale) else _ingredient(claim, w)[0] for w in worlds]
        kept = np.flatnonzero(there) if any(there) else range(len(worlds))
        judged = judge(claim, *([own[i] for i in kept] for own in (found, signs)), "" if any(there) else ingredient)
        judged["all worlds"] *= len(worlds) > 1
        reason = judged.pop("reason")
        decided = {judged["direction"], judged["size"]} <= {HOLDS, ""}
        elsewhere = [m.text() if isinstance(m, Measured) else m for m in found[1:]] or [""] * len(others)
        rows.append(
            {
                "name": claim.name,
                "claim": claim.statement,
                "paper": claim.paper,
                "rule": claim.rule.text(),
                "this world": found[0].sentence() if known else found[0],
                **{name: getattr(found[0], name) if known else np.nan for name in ("value", "low", "high")},
                **{w.scale: said for w, said in zip(others, elsewhere, strict=True)},
                **judged,
                "ingredient": ingredient,
                "why": "" if decided else "; ".join(filter(None, [reason, why(world, claim.look)])),
            }
        )
    table = pd.DataFrame(rows)
    seeds = ", ".join(f"{w.scale}: {len(w.frame())} cells" for w in others) or "none has been run at this scale"
    counts = {what: {v: int((table[what] == v).sum()) for v in (HOLDS, FAILS, OPEN, LACKS)} for what in VERDICTS}
    return Drawn(
        None,
        table,
        (
            f"In direction, of the paper's {len(table)} claims, {in_words(counts['direction'])}. In "
            f"size, of {sum(counts['size'].values())} that claim one, {in_words(counts['size'])}. Scale {world.scale}, "
            f"{len(world.frame())} cells of {len(world.teachers)} teacher(s) for the first student; 95% intervals come from a "
            f"bootstrap over teachers where nothing else is said, and from {FEW_CLUSTERS} teachers or fewer they are too narrow. "
            f"Nothing is corrected for the number of claims: of {len(table)} that are judged at 95% each, about "
            f"{0.025 * len(table):.0f} could be decided wrongly by chance. The rules for size were fixed before any number of the "
            f"lab scale was seen, on smaller scales they were tried; those for direction and the ingredients came after. Other "
            f"worlds, for the claims that need the cells alone: {seeds}."
        ),
        "",
        {"verdicts": counts} | {r["name"]: {c: r[c] for c in ("value", "low", "high", *VERDICTS)} for r in rows},
        {claim.name: {"value": claim.paper} for claim in CLAIMS},
    )


def in_words(counts: dict[str, int]) -> str:
    """Verdicts counted, as a sentence's end."""
    return (
        f"{counts[HOLDS]} hold, {counts[FAILS]} do not, {counts[OPEN]} have too few data, and {counts[LACKS]} are about "
        "something that is not in this world"
    )


def _ingredient(claim: Claim, world: World) -> tuple[bool, str]:
    """Whether a world has what a claim needs, and the number in words."""
    kind, *where = claim.needs.split()
    return INGREDIENTS[kind].judge(world, *(where or ["first"]))


def _measured(measure: Measure, world: World) -> Measured | str:
    """What a claim is in a world; or, as text, why it cannot be measured there."""
    try:
        return measure(world)
    except NotHere as reason:
        return str(reason)


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
    rows = between_and_within(with_parts(frame), {"inflation": "lower"}).set_index("level").spearman
    inside = f" and one teacher's temperatures {shown(rows['within'])}" if frame.teacher.duplicated().any() else ""
    return f"what GRACE adds to G-Norm, their ratio, orders teachers {shown(rows['between'])}{inside}, see notebook 05b"


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


def _ceiling(frame: pd.DataFrame) -> str:
    inside = reliability(frame)
    if not np.isfinite(inside):
        return "one temperature a teacher"
    return (
        f"with the noise of the test problems a within-teacher correlation of about {np.sqrt(inside):.2f} could be seen, "
        "a rough guide that overstates the noise: the students of a teacher answer the same problems"
    )
