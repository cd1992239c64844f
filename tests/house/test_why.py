"""What notebook 05b says in words is what the published tables say: each sentence with a number is made from them here."""

import pandas as pd

import lab_for_tests
from gracelib.evidence import reasons
from gracelib.evidence.cells import default_setting, select
from gracelib.evidence.objectives import by_objective, by_sample
from gracelib.experiment import tables
from gracelib.experiment.scales import get_scale
from gracelib.jobs import paths

FOUR = ["grace", "g_norm", "student_loss", "g_vendi"]


def said() -> list[str]:
    settings = {key: reasons.with_parts(own) for key, own in lab_for_tests.settings().items()}
    split = pd.concat({key: reasons.between_and_within(own) for key, own in settings.items()}, names=["a", "b", "c"])
    split = split.reset_index().set_index(["part", "level", "a", "b", "c"]).sort_index()
    between, within = (split.loc["inflation", level].dropna() for level in ("between", "within"))
    key, n = ("lab", "short", "first"), len(settings)
    first, clear = settings[key], (between.high < 0).sum()
    spread = split.spread.xs(key, level=("a", "b", "c"))
    assert (between.spearman < 0).all() and [*within.index] == [key]  # the others have two temperatures
    within = lab_for_tests.WITH_ENDS.format(**within.loc[key])
    cost = reasons.folds_cost(first, tables.table("lab", "variants", recompute=False), ["all_matrix", "raw_matrix"])
    every, raw = cost.itertuples()
    grid = tables.table("lab", "grid", recompute=False)
    curve = reasons.by_rows(first, grid, default_setting(get_scale("lab")))
    at = dict(list(curve.groupby("rows_over_d")))
    span = {
        x: " to ".join(dict.fromkeys(f"{end:.1f}" for end in (own.inflation.min(), own.inflation.max())))
        for x, own in at.items()
    }
    worst = [own.spearman.idxmin() == own.spread.idxmax() for _, own in curve.groupby("d")]
    dips = [own.loc[own.spearman.idxmin()].rows_over_d for _, own in curve.groupby("d")]
    edge = sum(1.8 in (own.rows_over_d.min(), own.rows_over_d.max()) for _, own in curve.groupby("d"))
    picks = [row for score in ("g_norm", "student_loss") for row in lab_for_tests.dearer(score).values()]
    told = sum(low * high > 0 for _, low, high in picks)
    assert not any(high < 0 for _, _, high in picks)
    blind = sum(high < 0 for _, _, high in lab_for_tests.dearer("random").values())
    worst_at = {d: own.set_index("rows_over_d").spearman for d, own in curve.groupby("d")}
    whole = split.spearman.xs("all", level="level")
    ahead = sum(whole["both"][k] > whole["grace"][k] for k in settings)
    alone = {
        key: max(
            reasons.between_and_within(own, {"student_loss": "lower", "teacher_accuracy": "higher"})
            .query("level == 'all'")
            .spearman
        )
        for key, own in settings.items()
    }
    better = sum(whole["both"][k] > alone[k] for k in settings)
    among = reasons.strong_cells(first).set_index("part")
    one = among.iloc[0]
    rho = {part: f"{value:+.2f}" for part, value in among.spearman.items()}
    rules = {"g_norm": "lower", "student_loss": "lower", "g_vendi": "higher", "grace": "lower", "both": "higher"}
    three = {name: reasons.with_parts(own) for name, own in lab_for_tests.seeds().items()}
    pooled = {row.part: row for row in reasons.several_worlds(three, rules).itertuples()}
    ends = {part: f"{row.pooled:.2f} ({row.low:.2f} to {row.high:.2f})" for part, row in pooled.items()}
    assert pooled["g_norm"].ahead_high < 0 < pooled["student_loss"].ahead_high and blind == clear == n
    room = pooled["student_loss"].ahead_high, -pooled["student_loss"].ahead_low
    apart = {part: f"{row.ahead:+.2f} ({row.ahead_low:+.2f} to {row.ahead_high:+.2f})" for part, row in pooled.items()}
    rises = {
        column: [
            sum(t[column].corr(t.temperature, "spearman") > 0 for _, t in own.groupby("teacher"))
            for own in settings.values()
        ]
        for column in ("g_norm", "student_loss", "inflation", "average_at_k")
    }
    norm, loss, inflated, students = (
        f"{min(n)} to {max(n)}" if min(n) < max(n) else f"{min(n)}" for n in rises.values()
    )
    return [
        f"the norm rises for {norm} of {first.teacher.nunique()} teachers, the loss for {loss}, the inflation for {inflated}, while the students' accuracy rises for {students}",
        f"Over the three worlds GRACE is at {ends['grace']}, G-Norm at {ends['g_norm']} and the loss at {ends['student_loss']}: GRACE "
        f"minus G-Norm {apart['g_norm']}, minus the loss {apart['student_loss']}",
        f"minus G-Vendi {apart['g_vendi']}",
        f"in all {n} settings (three of `lab`, two of its other seeds) the inflation orders *teachers* the wrong way ({between.spearman.min():+.2f} to "
        f"{between.spearman.max():+.2f}; every interval stays below zero)",
        f"and *temperatures* at {within}",
        f"clearly in all {n} settings; where the norm's or the loss's pick is told apart from it ({told} of {len(picks)} differences), it is the better one",
        f"for GRACE that is clear in all {n} settings",
        f"of the {len(picks)} differences from the norm and from the loss, {told} have an interval without zero",
        f"the formula says {1 / (1 - 1 / 3.6):.1f}",
        f"for $d$ = 1024 by {abs(worst_at[1024].diff().iloc[-1]):.2f}",
        f"GRACE may be ahead by up to {room[0]:.2f} or behind by up to {room[1]:.2f}",
        f"Between teachers the norm varies {spread['g_norm', 'between'] / spread['inflation', 'between']:.1f} times as much as the "
        f"inflation ({spread['g_norm', 'between']:.2f} against {spread['inflation', 'between']:.2f} in log)",
        f"within a teacher the inflation varies more than the norm ({spread['inflation', 'within']:.2f} against "
        f"{spread['g_norm', 'within']:.2f})",
        f"with the matrix of all prompts the correlation is {every.value:.2f}, {every.spearman:+.2f} against GRACE's "
        f"({every.low:+.2f} to {every.high:+.2f})",
        f"raw gradients leave nothing of it ({abs(raw.value):.2f})",
        f"{span[1.8]} at 1.8 rows per dimension, {span[3.6]} at 3.6, {span[7.2]} at 7.2",
        f"For all {len(dips)} values of $d$ the correlation is lowest there (for {edge} that is an edge of the grid)"
        if set(dips) == {1.8}
        else "no dip",
        f"in {sum(worst)} of {len(worst)} the spread over teachers is then largest",
        f"ahead of GRACE in {'all' if ahead == n else f'{ahead} of the'} {n} settings ({min(whole['both'][k] for k in settings):.2f} to "
        f"{max(whole['both'][k] for k in settings):.2f} against {min(whole['grace'][k] for k in settings):.2f} to "
        f"{max(whole['grace'][k] for k in settings):.2f})",
        f"and ahead of either factor alone in {better}; over the three worlds of the first picture GRACE minus it is {apart['both']}",
        f"{int(one.cells)} cells have a teacher that is right at least 98% of the time, and their students range from "
        f"{100 * one.lowest:.0f} to {100 * one.highest:.0f}%",
        f"Among them the student's loss orders best of what is shown ({rho['student_loss']}), then G-Norm ({rho['g_norm']}) and GRACE "
        f"({rho['grace']}); teacher accuracy says little ({rho['teacher_accuracy']}), and the inflation points the wrong way "
        f"({rho['inflation']})",
    ]


def to_the_end() -> str:
    """Of the students that were trained for up to eight times the usual epochs."""
    rows = select(lab_for_tests.settings()["lab", "short", "first"], "first", FOUR, temperature=0.6)
    students = tables.table("lab", "epochs", recompute=False)
    found = by_objective(rows, students, FOUR, by="epochs").set_index(["score", "epochs"])
    moved = found.loc[["grace", "g_norm"]].query("epochs > 4")
    assert (moved.change_low < 0).all() and (moved.change_high > 0).all()
    rho = {score: ", ".join(f"{value:.2f}" for value in found.spearman[score]) for score in FOUR}
    mean = ", ".join(f"{value:.0%}" for value in students.groupby("epochs").average.mean())
    return (
        f"After 4, 8, 16 and 32 epochs the students of {students.teacher.nunique()} teachers are at {mean} on average. GRACE orders them at {rho['grace']}, the norm at {rho['g_norm']}, "
        f"the loss at {rho['student_loss']}. No change of GRACE or of the norm has an interval without zero"
    )


def small_sample() -> str:
    """Of the students of many more prompts than a score reads."""
    sample = tables.table("lab", "small_sample", recompute=False)
    found = by_sample(lab_for_tests.settings()["lab", "short", "first"], sample, FOUR).set_index(["score", "n"])
    moved = found.loc[FOUR[:3]]
    assert (moved.change_low <= 0).all() and (moved.change_high >= 0).all()
    assert found.share["grace", 512] == 1 / 8
    rho = {
        score: "{:.2f}, {:.2f} and {:.2f}".format(*(found.spearman[score, n] for n in (512, 64, 32))) for score in FOUR
    }
    return (
        f"With 4,096 prompts the students are at {sample.average.mean():.0%} on average. From an eighth of what they read, a 64th and a 128th GRACE orders them at {rho['grace']}, "
        f"the norm at {rho['g_norm']}, the loss at {rho['student_loss']}. No change of these three has an interval without zero"
    )


def test_notebook_05b_says_what_the_tables_say(monkeypatch):
    monkeypatch.setenv("GRACELIB_FIGURES", str(paths.published("")))
    assert lab_for_tests.unsaid("05b_why", [*said(), to_the_end(), small_sample()]) == []
