"""A verdict is only worth something if it would have come out otherwise in another world, and if nobody can nudge it.

So: the resamples are those of `stats` and the weighted statistics equal the plain ones on repeated cells; a rule's
verdict follows from value and interval alone, at its edges too; on planted worlds where GRACE orders the students, or
orders them backwards, or where the norm falls with a known power, the claims say so; more worlds make a true claim more
likely to hold; what a world lacks is not judged in it; a missing table is an error, never a silent gap.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from claim_tables_for_tests import write_tables
from gracelib.claims import verdicts
from gracelib.claims.ingredients import INGREDIENTS, reliability
from gracelib.claims.measured import LUCK, NOISE, WORLDS, Measured, NotHere, World
from gracelib.claims.rules import FAILS, HOLDS, LACKS, OPEN, Rule, above, under
from gracelib.claims.statements import CLAIMS
from gracelib.drawing import ablations as subset_figures
from gracelib.evidence import cells as tables
from gracelib.evidence import ranks
from gracelib.jobs import paths

BY_NAME = {claim.name: claim for claim in CLAIMS}
NAN = float("nan")
ENDS = ["value", "low", "high"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty figures folder and a fast bootstrap."""
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(paths, "published", lambda scale: tmp_path / "published" / scale)
    monkeypatch.setattr(ranks, "N_BOOT", 60)


@pytest.fixture
def lab(folder):
    """The tables of scale lab; what is asked of it is read once, so after the changes of a test."""
    write_tables("lab")
    return World("lab")


def change(name, function):
    """Rewrite a result table of scale lab."""
    path = paths.results("lab") / f"{name}.csv"
    function(pd.read_csv(path)).to_csv(path, index=False)


def judged(scale="lab") -> pd.DataFrame:
    return verdicts.claims(scale).table.set_index("name")


def measure(name, world):
    try:
        return BY_NAME[name].measure(world)
    except NotHere as reason:
        return str(reason)


def m(value, low, high, **more):
    return Measured(value, low, high, "x", **({"teachers": 15} | more))


# --- statistics ---------------------------------------------------------------------------------------------


def test_reliability_recovers_a_planted_share_of_noise():
    rng = np.random.default_rng(2)
    rows = [
        (f"t{i}", q + e + rng.normal(0, 0.03), 0.03)
        for i, q in enumerate(rng.normal(0.5, 0.1, 200))
        for e in rng.normal(0, 0.04, 8)
    ]
    within = reliability(pd.DataFrame(rows, columns=["teacher", "average_at_k", "average_se"]))
    assert within == pytest.approx(0.04**2 / (0.04**2 + 0.03**2), abs=0.03)


# --- rules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "measured", "verdict"),
    [
        (above(0.8, 0.55), (0.85, 0.6, 0.95), HOLDS),
        (above(0.8, 0.55), (0.85, 0.5, 0.95), OPEN),  # the interval reaches the contrary reference
        (above(0.8, 0.55), (0.7, 0.6, 0.9), OPEN),  # misses the statement, the interval reaches it
        (above(0.8, 0.55), (0.7, 0.6, 0.79), FAILS),
        (above(0.8, 0.55), (NAN, NAN, NAN), OPEN),
        (above(0.8, 0.55), (0.9, NAN, NAN), OPEN),
        (above(0), (0.1, 0.01, 0.2), HOLDS),
        (above(0), (0.1, -0.01, 0.2), OPEN),
        (above(0), (-0.1, -0.2, -0.01), FAILS),
        (under(1, 4.9), (0.5, 0, 4), HOLDS),
        (under(1, 4.9), (0.5, 0, 5), OPEN),
        (under(1, 4.9), (3, 1.5, 4), FAILS),
        (Rule(-0.3, 0.3, -0.55, 0.55), (0.1, -0.5, 0.5), HOLDS),
        (Rule(-0.3, 0.3, -0.55, 0.55), (0.1, -0.6, 0.5), OPEN),
        (Rule(-0.3, 0.3, -0.55, 0.55), (-0.6, -0.8, -0.31), FAILS),
    ],
)
def test_a_verdict_follows_from_value_and_interval(rule, measured, verdict):
    found, reason = rule.verdict(m(*measured))
    assert found == verdict and (reason == "") == (verdict == HOLDS)


def test_few_teachers_give_no_verdict_and_a_rule_lies_inside_its_references():
    assert above(0.8, 0.55).verdict(m(1, 1, 1, teachers=4)) == (
        OPEN,
        "4 teachers are too few for an interval that means anything",
    )
    assert above(0).verdict(m(2, 1, 3, teachers=0, over=NOISE))[0] == HOLDS  # of two students, say
    assert above(0.8, 0.55).direction == Rule(low=0.55, outer_low=0.55) and above(0).direction is None
    with pytest.raises(ValueError, match="the statement must lie inside"):
        above(0.5, 0.8)


def world_of(rho: float, rng, teachers: int = 15) -> Measured:
    """A world in which a score has that correlation with the students, over teachers."""
    x, e = rng.normal(size=(2, teachers))
    counts = np.concatenate([np.ones((1, teachers)), ranks.resamples(range(teachers), 200, np.random.default_rng(0))])
    draws = ranks.spearman_many(x, rho * x + np.sqrt(1 - rho**2) * e, "higher", counts)
    return m(draws[0], *ranks.percentiles(draws[1:]), draws=draws)


def test_more_worlds_make_a_true_claim_more_likely_to_hold_and_a_false_one_less():
    """The rule is "above .8, and .55 excluded"; the true correlation is .9 or so, or .55. The pooled interval contains the
    truth (of so few teachers: the mean of many worlds) as often as it should."""
    rule, rng = above(0.8, 0.55), np.random.default_rng(1)
    held = {}
    for rho in (0.93, 0.6):
        truth = np.mean([world_of(rho, rng).value for _ in range(400)])
        runs = [[world_of(rho, rng) for _ in range(3)] for _ in range(150)]
        pooled = [verdicts.pooled(own) for own in runs]
        held[rho] = [
            np.mean([rule.verdict(one)[0] == HOLDS for one in ones]) for ones in ([own[0] for own in runs], pooled)
        ]
        assert np.mean([one.low <= truth <= one.high for one in pooled]) >= 0.92
    assert held[0.93][1] > held[0.93][0] + 0.1 and held[0.6][1] <= held[0.6][0]


def test_worlds_are_pooled_by_what_their_interval_is_over():
    noise = [m(v, v - 1, v + 2, over=NOISE) for v in (2, 4)]
    assert [getattr(verdicts.pooled(noise), end) for end in ENDS] == pytest.approx([3, 2, 3 + np.sqrt(2)])
    picks = [m(v, NAN, NAN, over=WORLDS) for v in (1.0, 2.0, 6.0)]
    assert [getattr(verdicts.pooled(picks), end) for end in ENDS] == pytest.approx([3, *ranks.mean_interval([1, 2, 6])])
    luck = [m(1, -1, 3, over=LUCK, draws=np.r_[1, np.linspace(-1, 3, 99)]) for _ in range(2)]
    assert verdicts.pooled(luck).low == pytest.approx(
        luck[0].draws[1:].mean() - 0.95 * 2, abs=0.05
    )  # no world left out
    assert verdicts.pooled(noise[:1]) == noise[0]


def test_what_a_world_lacks_is_not_judged_and_a_direction_is_judged_apart():
    claim, good, weak = BY_NAME["grace_first"], m(0.9, 0.8, 0.95), m(0.4, 0.1, 0.6)
    found = verdicts.judge(claim, [good], [good], "")
    assert (found["direction"], found["size"], found["reason"]) == (HOLDS, HOLDS, "")
    found = verdicts.judge(claim, [weak], [weak], "")
    assert (found["direction"], found["size"]) == (HOLDS, FAILS) and found["reason"].startswith("size: the whole")
    lacking = verdicts.judge(claim, [good], [good], "no spread")
    assert (lacking["direction"], lacking["size"], lacking["reason"]) == (LACKS, LACKS, "no spread")
    assert verdicts.judge(BY_NAME["ahead_of_g_norm"], [good], [good], "")["size"] == ""  # it claims none
    assert verdicts.judge(claim, ["no such thing"], ["no such thing"], "")["direction"] == OPEN


@pytest.mark.parametrize(
    ("name", "table", "columns"),
    [
        ("copies", "teachers", {"distinct": 1.0}),
        ("strong", "teachers", {"accuracy": 0.9}),
        ("spread", "students", {"average_se": 0.5}),
        ("heat", "students", {"average_se": 0.5}),
        ("ceiling", "students", {"best_of": 1.0}),
        ("wrong", "filtered", {"kept_share": 1.0}),
        ("ended", "training_runs", {"test": lambda t: t.value / 10}),
        ("lengths", "lengths", {"mean_length": 9.0}),
    ],
)
def test_an_ingredient_is_seen_where_it_is_planted(name, table, columns):
    """The made-up world of these tests has it or not; the planted columns turn that round."""
    write_tables("lab")
    has, said = INGREDIENTS[name].judge(World("lab"), "first")
    change(table, lambda t: t.assign(**columns))
    assert INGREDIENTS[name].judge(World("lab"), "first")[0] != has and "needed at" in said


# --- worlds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["nano", "smoke", "mini", "lab"])
def test_every_claim_is_judged_at_every_scale(scale):
    write_tables(scale)
    table = verdicts.claims(scale).table
    assert list(table.name) == [c.name for c in CLAIMS] and len(set(table.name)) == len(table)
    assert set(table.direction) <= {HOLDS, FAILS, OPEN, LACKS} and set(table["size"]) <= {HOLDS, FAILS, OPEN, LACKS, ""}
    held = table.direction.eq(HOLDS) & table["size"].isin([HOLDS, ""])
    assert ((table.why == "") == held).all() and (table["this world"] != "").all()
    assert not table["this world"].str.contains("nan").any() and not table.why.str.contains("nan").any()
    assert not [c for c in table if c.startswith("lab-world")]
    if scale == "nano":
        assert set(table.direction[table.name != "epochs"]) <= {OPEN, LACKS}  # one teacher: nothing to resample


def test_the_caption_counts_the_verdicts(lab):
    drawn = verdicts.claims("lab")
    counts = drawn.table.direction.value_counts()
    assert (
        f"In direction, of the paper's {len(CLAIMS)} claims, {counts[HOLDS]} hold, {counts.get(FAILS, 0)} do not"
        in drawn.caption
    )
    assert "about 1 could be decided wrongly by chance" in drawn.caption
    assert drawn.ours["verdicts"]["direction"][HOLDS] == counts[HOLDS] and drawn.fig is None


def test_a_world_that_contradicts_the_paper_is_reported_as_such():
    write_tables("lab", noise=0.01)
    assert judged()["size"]["grace_first"] == HOLDS
    change("scores", lambda t: t.assign(grace=1 / t.grace))
    turned = judged()
    names = ["grace_first", "grace_second", "grace_long", "subsets", "regret_first"]
    assert (turned.loc[names, ["direction", "size"]] == FAILS).to_numpy().all()
    assert "GRACE between teachers -1.00" in turned.why["grace_first"]


def test_lengths_filters_and_folds_are_read_as_planted(lab):
    change("lengths", lambda t: t.assign(mean_norm=3 / np.log(t.mean_length) ** np.where(t.task == "long", 2, 1)))
    change("filtered", lambda t: t.assign(average=t.average + 0.05))  # 3 points better than unfiltered
    rows = judged()
    assert rows.value[["norm_short", "norm_long"]].tolist() == pytest.approx([1, 2], abs=1e-6)
    assert (rows["size"][["norm_short", "norm_long"]] == HOLDS).all()
    assert rows.value["filtering"] == pytest.approx(3) and rows.direction["filtering"] == FAILS
    cells = [lab.at("first", "n_folds", c) for c in (6, 8, 10, 12, 16, 20)]
    rho = [ranks.spearman(own.grace, own.average_at_k, "lower") for own in cells]
    assert rows.value["folds"] >= max(rho) - min(rho) - 1e-12


def test_the_ablation_claims_are_about_what_they_say(lab):
    """The change with the same scores (figure 16), the norm within teachers (figure 21), the least gain (figure 17)."""
    same = measure("filtered_correlation", lab).value
    change("filtered", lambda t: t.assign(grace=t.grace.sample(frac=1, random_state=0).to_numpy()))
    assert measure("filtered_correlation", World("lab")).value == same
    odd = lab.table("lengths").assign(mean_norm=lambda t: t.mean_norm * np.where(t.teacher < "narration", 9, 1))
    odd.to_csv(paths.results("lab") / "lengths.csv", index=False)
    assert measure("norm_short", World("lab")).value == pytest.approx(1)  # between teachers it is not 1
    change(
        "training_runs",
        lambda t: t.assign(
            test=np.where((t.teacher == t.teacher.iloc[0]) & ~t.usual & (t.value == t.value.max()), 0.1, t.test)
        ),
    )
    found = measure("epochs", World("lab"))
    assert found.value < 0 and "the smallest of 2 teachers" in found.what and "one seed of training" in found.extra


def test_half_as_many_is_compared_where_the_smoothing_does_not_decide(lab):
    found = measure("half_as_many", lab)
    assert "n = 256 minus n = 512, the best other" in found.what
    assert "the smoothing decides at n = 64 and n = 128" in found.extra
    assert "the smoothing decides at n = 64" in measure("more_prompts", lab).extra
    change("grid", lambda t: t.assign(nu_decides=True))
    assert "there is nothing to compare" in measure("half_as_many", World("lab"))


def test_self_distillation_must_be_diverse_and_a_bad_teacher(lab):
    change("pathological", lambda t: t.assign(g_vendi=99, average_at_k=0))
    assert measure("self", World("lab")).value == 1
    change("pathological", lambda t: t.assign(average_at_k=1))
    assert measure("self", World("lab")).value == 0


def test_temperature_claims_on_a_planted_world(lab):
    change("scores", lambda t: t.assign(g_norm=1 + t.temperature, g_vendi=2 + t.temperature, grace=1 / t.temperature))
    change("students", lambda t: t.assign(average=0.1 + 0.5 * t.temperature))
    rows = judged()
    assert rows.value[["both_rise", "opposite", "warmer", "within_teacher"]].tolist() == pytest.approx([1, 1, 1, 1])
    assert rows.value["temperature_regret"] == pytest.approx(0, abs=1e-9)
    left = [1 - own.temperature.mean() for _, own in lab.frame().groupby("teacher")]
    assert rows.value["temperature_gain"] == pytest.approx(100 * 0.5 * np.mean(left))
    assert (rows.direction[["both_rise", "opposite", "warmer", "within_teacher", "temperature_regret"]] == HOLDS).all()


def test_a_teacher_without_a_choice_of_temperature_tells_nothing_of_it(lab):
    """Of the others the coldest is picked: 35 points behind the warmest of eight temperatures, 30 of three."""
    alone = (lab.cells.teacher == lab.teachers[0]) & (lab.cells.temperature > 0.3)
    planted = {"grace": lambda c: c.temperature, "average_at_k": lambda c: 0.1 + 0.5 * c.temperature}
    lab.cells = lab.cells[~alone].assign(**planted)
    found = measure("temperature_regret", lab)
    eight = [teacher for teacher in lab.config.tasks[0].curves if teacher != lab.teachers[0]]
    assert found.value == pytest.approx(np.mean([35] * len(eight) + [30] * (len(lab.teachers) - 1 - len(eight))))
    assert np.isfinite(found.low + found.high)


def test_other_worlds_have_a_column_only_where_their_tables_are(lab):
    write_tables("lab-world1", seed=3)
    drawn = verdicts.claims("lab")
    table = drawn.table.set_index("name")
    assert "lab-world1" in table and "lab-world2" not in table and "lab-world1: 60 cells" in drawn.caption
    cells_only = [c.name for c in CLAIMS if c.cells_only]
    both = table[["lab-world1", "all worlds"]]
    assert (both.loc[cells_only] != "").to_numpy().all() and (both.drop(cells_only) == "").to_numpy().all()


def test_a_world_of_another_kind_counts_for_what_it_has(lab):
    """Cold copies are in the other world alone, best-of-k below its ceiling in `lab` alone; the rest is pooled."""
    write_tables("coverage-lab", seed=3)
    change("teachers", lambda t: t.assign(distinct=1.0))
    students = paths.results("coverage-lab") / "students.csv"
    pd.read_csv(students).assign(best_of=1.0).to_csv(students, index=False)
    rows = judged()
    assert rows.direction["warmer"] != LACKS and rows["all worlds"]["warmer"] == rows["coverage-lab"]["warmer"]
    assert rows["all worlds"]["best_of_k"] == measure("best_of_k", World("lab")).text()
    both = [measure("grace_first", World(name)).value for name in ("lab", "coverage-lab")]
    assert rows["all worlds"]["grace_first"].startswith(f"{np.mean(both):+.2f}")
    assert rows["all worlds"]["grace_long"] == "" and "coverage-lab: " in verdicts.claims("lab").caption


def test_epochs_are_those_of_the_longest_training_that_was_done(lab):
    """Planted: from 16 to 32 epochs nobody gains, from 4 to 32 the fifth teacher loses two points, the others gain."""
    teachers = pd.DataFrame({"teacher": lab.teachers, "end": np.where(np.arange(len(lab.teachers)) == 4, -0.02, 0.1)})
    rows = teachers.merge(pd.DataFrame({"epochs": [4, 8, 16, 32], "of": [0, 0.5, 1, 1]}), how="cross")
    key = {"task": "short", "student": "first", "temperature": 0.6, "average_se": 0.001}
    rows.assign(average=0.5 + rows.end * rows["of"], **key).to_csv(paths.results("lab") / "epochs.csv", index=False)
    world = World("lab")
    assert INGREDIENTS["ended"].judge(world, "first")[0]
    found = measure("epochs", world)
    assert found.value == pytest.approx(-2) and found.what.startswith("32 minus 4 epochs, the smallest of 30 teachers")


def test_a_missing_table_is_an_error():
    write_tables("smoke")
    (paths.results("smoke") / "lengths.csv").unlink()
    with pytest.raises(FileNotFoundError, match="lengths.csv is not there"):
        verdicts.claims("smoke")


def test_reasons_are_numbers_of_the_cells():
    write_tables("mini")
    world = World("mini")
    own = world.frame()
    means = own.groupby("teacher")[["grace", "average_at_k"]].mean()
    between = -spearmanr(means.grace, means.average_at_k)[0]
    assert f"GRACE between teachers {between:+.2f}" in verdicts.why(world, "split")
    without = {f: -spearmanr(p.grace, p.average_at_k)[0] for f in set(own.manner) for p in [own[own.manner != f]]}
    assert all(
        f"{end:+.2f} without" in verdicts.why(world, "split") for end in (min(without.values()), max(without.values()))
    )


def test_a_regret_has_the_noise_of_training_in_its_interval(lab):
    """Students scatter about a smooth curve in temperature by more than the test problems make them."""
    frame = lab.frame()
    rest = [
        own.greedy - np.polyval(np.polyfit(own.temperature, own.greedy, 2), own.temperature)
        for _, own in frame.groupby("teacher")
    ]
    scatter = np.sqrt(np.square(np.concatenate(rest)).sum() / (len(frame) - 3 * len(rest)))
    binomial = np.sqrt(frame.greedy * (1 - frame.greedy) / lab.config.n_test)
    assert lab.noise(frame, accuracy="greedy") == pytest.approx(np.maximum(scatter, binomial))
    found = measure("regret_first", lab)
    wanted = ranks.regret_interval(frame.grace, frame.average_at_k, lab.noise(frame), "lower")
    assert (found.low, found.high, found.over) == (*wanted, NOISE)
    own = tables.score_rows(tables.select(lab.cells, "first", ("grace",)), ("grace",)).iloc[0]
    assert found.value == own.regret_points and own.regret_low >= found.low and own.regret_high < found.high


@pytest.mark.parametrize(("place", "verdict"), [(107, OPEN), (119, HOLDS)])
def test_a_pick_must_beat_the_draw_of_a_cell(lab, place, verdict):
    """GRACE's pick is at a known place of 120: one draw in ten is above it, or none."""
    change("students", lambda t: t.assign(average=np.arange(len(t)) / len(t)))
    students = lab.table("students")
    rows = students.index[(students.task == "short") & (students.student == "first")]
    change("scores", lambda t: t.assign(grace=np.abs(t.index - rows[place])))
    sign, rule = BY_NAME["regret_first"].direction
    found = sign(World("lab"))
    assert rule.verdict(found)[0] == verdict
    assert found.value == pytest.approx(100 * (rows[place] - np.mean(rows)) / len(students))


def test_the_strongest_teacher_is_that_of_the_main_table(lab):
    """Where several cells tie for the most accurate, the mean over them, and not the best in hindsight, nor the first row."""
    change(
        "teachers",
        lambda t: t.assign(accuracy=np.where(t.teacher.isin(["terse-64", "table-64"]), 1.0, t.accuracy * 0.9)),
    )
    world = World("lab")
    frame = world.frame()
    tied = 100 * frame.average_at_k[frame.teacher.isin(["terse-64", "table-64"])].mean()
    main = (
        tables.main_table(world.cells, "first", scores=("grace", "teacher_accuracy")).set_index("score").regret_points
    )
    strong, gain = measure("strongest", world), measure("gain", world)
    assert strong.value == pytest.approx(100 * frame.average_at_k.max() - tied) == pytest.approx(main.teacher_accuracy)
    assert gain.value == pytest.approx(main.teacher_accuracy - main.grace)
    assert f"{tied:.1f} %, of table-64, terse-64" in gain.extra


def test_the_smallest_budget_and_subset_must_have_enough_teachers(lab):
    write_tables("mini")
    table = judged("mini")
    assert table["size"]["subsets"] == OPEN and "too few for an interval" in table.why["subsets"]
    found = measure("budgets", World("mini"))
    assert found.teachers == 6 and "up to 40" not in found.extra  # two teachers are not counted
    write_tables("smoke")  # three teachers in all: no budget has enough
    table = judged("smoke")
    assert (table["size"][["budgets", "budget_regret"]] == OPEN).all()
    assert table.why[["budgets", "budget_regret"]].str.contains("too few for an interval").all()
    subsets = subset_figures.figure23(lab.cells, "first", "lab").table.set_index(["reading", "score"])
    found = measure("subsets", lab)
    assert [found.value, found.low, found.high] == subsets.loc[
        ("teachers", "grace"), ["median", "low", "high"]
    ].tolist()
    assert "no fewer than 36 teachers" in measure("warmer", lab).extra


def test_the_rival_on_both_tasks_is_chosen_once(lab):
    for name in ("short", "long"):  # a rival that is GRACE itself: never ahead, never behind
        change("scores", lambda t, task=name: t.assign(g_norm=np.where(t.task == task, t.grace, t.g_norm)))
    found = measure("only_one_on_both", World("lab"))
    assert (found.value, found.low, found.high) == (0, 0, 0) and "G-Norm" in found.extra


def test_reasons_are_about_the_cells_of_the_claim(lab):
    at = lab.frame(at_compared=True)
    assert f"{100 * at.average_se.median():.1f} points" in verdicts.why(lab, "noise compared") and len(at) == 30
    assert f"{100 * lab.error(at, 'greedy').median():.1f} points" in verdicts.why(lab, "noise compared greedy")
    split = verdicts.why(lab, "split compared")
    assert split.startswith("GRACE between") and "within one" not in split
    assert "; on the longer task what GRACE adds" in verdicts.why(lab, "norm; norm long")
    assert verdicts.why(lab, "notebook 07") == "see notebook 07" and verdicts.why(lab, "") == ""
