"""What notebook 10 says in words is what the published tables say: each sentence with a number is made from them here."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from gracelib.baselines import SCORES, SINCE
from gracelib.evidence import reasons
from gracelib.evidence.cells import KEY, difference
from gracelib.evidence.ranks import spearman
from gracelib.experiment import tables
from gracelib.experiment.plan import compared_at
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths
from lab_for_tests import WORDS, unsaid

SEEDS = [f"mini-seed{k}" for k in range(1, 9) if (paths.published(f"mini-seed{k}") / "results" / "since.csv").is_file()]
FAMILY = ["mini", *SEEDS]
GRADIENTS = ["grace", "g_norm", "g_vendi"]
RULES = {name: SCORES[name].direction for name in (*GRADIENTS, *SINCE, "teacher_accuracy")}


def table(world: str, name: str) -> pd.DataFrame:
    return pd.read_csv(paths.published(world) / "results" / f"{name}.csv")


def cells(world: str, share: float) -> pd.DataFrame:
    every = table(world, "since")
    most = every.n.max()
    own = every[every.n == most].drop(columns=GRADIENTS)
    own = own.merge(every.loc[every.n == most * share, KEY + GRADIENTS], on=KEY)
    return tables.cells(world)[[*KEY, "average_at_k", "teacher_accuracy"]].merge(own, on=KEY, validate="1:1")


def ends(row, value="pooled", low="low", high="high") -> str:
    return f"{row[value]:+.2f} ({row[low]:+.2f} to {row[high]:+.2f})"


def sentences() -> list[str]:
    """One for each "We see", after the head's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACELIB_FIGURES", str(paths.published("")))
        equal, matched = (
            reasons.several_worlds({name: cells(name, share) for name in FAMILY}, RULES).set_index("part")
            for share in (1, 1 / 4)
        )
        whole = {name: cells(name, 1) for name in FAMILY}
    order = equal.pooled.sort_values(ascending=False, kind="stable").index
    better, better_then, worse, wrong = (
        [s for s in order if there(s)]
        for there in (
            lambda s: equal.ahead_high[s] < 0,
            lambda s: matched.ahead_high[s] < 0,
            lambda s: equal.ahead_low[s] > 0,
            lambda s: equal.high[s] < 0,
        )
    )
    apart = {*better, *worse, "grace"}
    level = [s for s in order if s not in apart]
    assert not better and "grape" in level  # else the sentence after next says too much
    assert not better_then and len(level) + len(worse) == len(order) - 1
    head = (
        f"Over {len(FAMILY)} worlds of one cast GRACE orders the students at {ends(equal.loc['grace'])}. Nothing is clearly ahead of it, at equal responses or at matched "
        f"cost: that would take an interval of the paired difference without zero. {WORDS[len(level)].capitalize()} scores are not told apart from it, among them {SCORES[order[0]].label} at "
        f"{ends(equal.loc[order[0]])}, G-Norm at {ends(equal.loc['g_norm'])} and the student's loss (GRAPE) at {ends(equal.loc['grape'])}, which needs no gradient. {WORDS[len(worse)].capitalize()} are clearly behind, and "
        f"{WORDS[len(wrong)]} of these point the wrong way with an interval below zero: {'; '.join(SCORES[name].label for name in wrong)}. With thirty teachers "
        f"(`lab`, three seeds, first student) the norm is clearly ahead of GRACE (GRACE minus it is {ends(thirty().loc['g_norm'], 'ahead', 'ahead_low', 'ahead_high')}); of the scores published since none is. {elsewhere()}"
    )
    top, rsr = order[0], equal.loc["rsr"]
    against_loss = np.mean([spearman(own.rsr, -own.grape, "higher") for own in whole.values()])
    where = (
        f"{SCORES[top].label} leads with {ends(equal.loc[top])}; GRACE minus it is {ends(equal.loc[top], 'ahead', 'ahead_low', 'ahead_high')}, at matched cost "
        f"{ends(matched.loc[top], 'ahead', 'ahead_low', 'ahead_high')}. G-Norm is at {ends(equal.loc['g_norm'])}, the loss (GRAPE) at {ends(equal.loc['grape'])}, "
        f"the teacher's accuracy at {ends(equal.loc['teacher_accuracy'])}. RSR, ahead of GRACE on long chains of thought, is at {ends(rsr)} here: it falls where the "
        f"loss rises (rank correlation over cells {against_loss:+.2f}), so it recommends what is strange to the student."
    )
    passes, cost = table("mini", "passes"), table("mini", "cost").query("task == 'short' and student == 'first'")
    gradient = (cost.feature_seconds * cost.needed / cost.responses).median()
    once = passes[["forward_seconds", "alone_loss_seconds", "local_loss_seconds"]].median()
    cost_said = (
        f"A pass without gradients takes {4 * once.forward_seconds / gradient:.0%} of the time of GRACE's; IFD with one response per prompt "
        f"{(once.forward_seconds + once.alone_loss_seconds) / gradient:.0%}, LALP {once.local_loss_seconds / gradient:.0%}."
    )
    curve = [np.mean([at_beta(own, beta) for own in whole.values()]) for beta in (0, 1, 100)]
    assert curve[0] < curve[1] < curve[2]
    beta = f"From {curve[0]:.2f} for the answers alone through {curve[1]:.2f} at beta = 1 to {curve[2]:.2f} at 100: the more the loss decides, the better here."
    sizes = {
        n: {s: np.mean([at_n(name, s, n) for name in FAMILY]) for s in ("grace", "g_norm", "grape")} for n in (32, 256)
    }
    few = (
        f"From 32 prompts GRACE is at {sizes[32]['grace']:.2f}, from all 256 at {sizes[256]['grace']:.2f}; the norm at {sizes[32]['g_norm']:.2f} and "
        f"{sizes[256]['g_norm']:.2f}, the loss at {sizes[32]['grape']:.2f} and {sizes[256]['grape']:.2f}. Among all cells 32 prompts nearly do: these differ much."
    )
    races = pd.concat([table(name, "races") for name in FAMILY])
    lost, saved, there = (~races.stayed).sum(), races.saved.mean(), table("coverage-lab", "races")
    assert lost <= 0.05 * len(races) and saved >= 0.5
    race = (
        f"In {lost} of {len(races)} races ({lost / len(races):.1%}) the first of the full ranking was let go, and {saved:.0%} of the gradients were saved. "
        "(Eight orders of the same prompts are no eight data sets.) In `coverage-lab`, with 64 prompts and so a single look, "
        f"{(~there.stayed).sum()} of {len(there)} races lost the first, and {there.saved.mean():.0%} were saved."
    )
    trained = table("mini", "smoke_test").pivot(index="teacher", columns="epochs", values="average")
    spent, stay = 0, list(trained.index)
    for epochs in trained.columns[:2]:
        spent += epochs * len(stay)
        stay = list(trained.loc[stay, epochs].sort_values(ascending=False, kind="stable").index[: len(stay) // 2])
    final = 100 * trained.iloc[:, -1]
    behind = final.max() - final
    since = table("mini", "since")
    here = since[(since.n == 256) & (since.temperature == compared_at(get_scale("mini")))].set_index("teacher")
    picks = {
        s: here[s].idxmin() if RULES[s] == "lower" else here[s].idxmax() for s in ("grace", "g_norm", "grape", "rsr")
    }
    smoke = (
        f"For {spent} of {trained.columns[-1] * len(trained)} epochs it picks `{stay[0]}`, {behind[stay[0]]:.1f} points behind the best. GRACE picks `{picks['grace']}` "
        f"({behind[picks['grace']]:.1f} points behind), G-Norm `{picks['g_norm']}` ({behind[picks['g_norm']]:.1f}), the loss `{picks['grape']}` ({behind[picks['grape']]:.1f}), "
        f"RSR `{picks['rsr']}` ({behind[picks['rsr']]:.1f}). It needs graded problems, and here six teachers at one temperature: one race, not a law."
    )
    return [head, where, cost_said, beta, few, race, smoke]


def coverage() -> tuple[pd.DataFrame, dict]:
    """Correlations of the world where coverage decides, best first, and GRACE's minus each of the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACELIB_FIGURES", str(paths.published("")))
        there = cells("coverage-lab", 1)
    of = {name: (there[name], there.average_at_k, direction) for name, direction in RULES.items()}
    found = pd.DataFrame({name: difference(one, None, there.teacher) for name, one in of.items()}).T
    found = found.sort_values("spearman", ascending=False, kind="stable")
    return found, {name: difference(of[name], of["grace"], there.teacher) for name in found.index}


@cache
def thirty() -> pd.DataFrame:
    """Correlations over lab and its two other seeds, and GRACE's minus each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACELIB_FIGURES", str(paths.published("")))
        labs = {name: cells(name, 1) for name in ("lab", "lab-world1", "lab-world2")}
        return reasons.several_worlds(labs, RULES).set_index("part")


def more_teachers(found: pd.DataFrame) -> str:
    """What is said under the table of lab's worlds."""
    best = found.pooled.sort_values(ascending=False, kind="stable").index
    better, worse = found.ahead_high < 0, found.ahead_low > 0
    assert [*found.index[better]] == ["g_norm"]
    return (
        f"With thirty teachers {SCORES[best[0]].label} is at {ends(found.loc[best[0]])}, G-Norm at {ends(found.loc['g_norm'])}, the loss (GRAPE) at {ends(found.loc['grape'])} and GRACE at "
        f"{ends(found.loc['grace'])}. Clearly ahead of it is the norm alone (GRACE minus it is {ends(found.loc['g_norm'], 'ahead', 'ahead_low', 'ahead_high')}), and {WORDS[worse.sum()]} of {len(found) - 1} are clearly behind."
    )


def elsewhere() -> str:
    """What the head says of that world."""
    found, ahead = coverage()
    better = [name for name in found.index if ahead[name]["high"] < 0]
    return (
        f"In a world that was made so that coverage should count, and where cold teachers repeat themselves (`coverage-lab`, first student) GRACE is at {ends(found.loc['grace'], 'spearman')}, and {WORDS[len(better)]} of the "
        f"{len(found) - 1} others are clearly ahead of it, among them G-Norm at {ends(found.loc['g_norm'], 'spearman')} and the loss at {ends(found.loc['grape'], 'spearman')}. Two worlds have an answer each, not the last word."
    )


def another_world() -> str:
    """What is said under its table."""
    found, ahead = coverage()
    better = [name for name in found.index if ahead[name]["high"] < 0]
    first, second, third = found.index[:3]
    wrong = [SCORES[name].label for name in found.index if found.high[name] < 0]
    return (
        f"{SCORES[first].label} is at {ends(found.loc[first], 'spearman')}, {SCORES[second].label} at {ends(found.loc[second], 'spearman')}, {SCORES[third].label} at {ends(found.loc[third], 'spearman')}; GRACE at "
        f"{ends(found.loc['grace'], 'spearman')}. Clearly ahead of GRACE are {len(better)} of {len(found) - 1}: {'; '.join(SCORES[name].label for name in better)}. With an interval below zero, so the wrong way round: {'; '.join(wrong)}."
    )


def at_beta(own: pd.DataFrame, beta: float) -> float:
    return spearman(own.car * (1 - own.grape) / (1 - beta * own.grape), own.average_at_k, "higher")


def at_n(world: str, score: str, n: int) -> float:
    own = table(world, "since").query("n == @n").merge(table(world, "students"), on=KEY)
    return spearman(own[score], own.average, RULES[score])


def test_notebook_10_says_what_the_tables_say():
    head, *seen = sentences()
    more = more_teachers(thirty())
    assert (
        unsaid(
            "10_beyond",
            [
                f"**In short.** {head}",
                *(f"**We see.** {said}" for said in seen),
                f"**We see.** {more}",
                another_world(),
            ],
        )
        == []
    )
