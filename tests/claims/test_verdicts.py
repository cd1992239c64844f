"""A verdict is only worth something if it would have come out otherwise in another world, and if nobody can nudge it.

So: the resamples are those of `stats` and the weighted statistics equal the plain ones on repeated cells; a rule's
verdict follows from value and interval alone, at its edges too; on planted worlds where GRACE orders the students, or
orders them backwards, or where the norm falls with a known power, the claims say so; other worlds can only take a
verdict back; a missing table is an error, never a silent gap.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from claim_tables_for_tests import write_tables
from gracelib.claims import verdicts
from gracelib.claims.measured import Measured, World
from gracelib.claims.rules import FAILS, HOLDS, OPEN, Rule, above, under
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
    within = verdicts.reliability(pd.DataFrame(rows, columns=["teacher", "average_at_k", "average_se"]))
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
    assert above(0).verdict(m(2, 1, 3, teachers=2, over="noise of the test problems alone"))[0] == HOLDS
    with pytest.raises(ValueError, match="the statement must lie inside"):
        above(0.5, 0.8)


def test_other_worlds_can_only_take_a_verdict_back():
    claim, good, bad, straddling = BY_NAME["grace_first"], m(0.9, 0.8, 0.95), m(0.3, 0.1, 0.5), m(0.7, 0.5, 0.9)
    assert verdicts.judge(claim, good, [])[0] == verdicts.judge(claim, good, [good, m(0.81, 0.1, 0.9)])[0] == HOLDS
    assert verdicts.judge(claim, good, [good, straddling]) == (
        OPEN,
        "holds here, and the value misses the statement in 1 of 2 other worlds",
    )
    assert verdicts.judge(claim, bad, [straddling, bad])[0] == FAILS
    assert verdicts.judge(claim, bad, [good])[0] == OPEN
    assert verdicts.judge(claim, straddling, [good, good])[0] == OPEN
    assert verdicts.judge(claim, "no such thing", [good]) == (OPEN, "no such thing")


# --- worlds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["nano", "smoke", "mini", "lab"])
def test_every_claim_is_judged_at_every_scale(scale):
    write_tables(scale)
    table = verdicts.claims(scale).table
    assert list(table.name) == [c.name for c in CLAIMS] and len(set(table.name)) == len(table)
    assert set(table.verdict) <= {HOLDS, FAILS, OPEN}
    assert ((table.why == "") == (table.verdict == HOLDS)).all() and (table["this world"] != "").all()
    assert not table["this world"].str.contains("nan").any() and not table.why.str.contains("nan").any()
    assert not [c for c in table if c.startswith("lab-world")]
    if scale == "nano":
        assert set(table.verdict[table.name != "epochs"]) == {OPEN}  # one teacher: nothing to resample


def test_the_caption_counts_the_verdicts(lab):
    drawn = verdicts.claims("lab")
    counts = drawn.table.verdict.value_counts()
    said = f"of {len(CLAIMS)}, {counts[HOLDS]} hold, {counts.get(FAILS, 0)} do not, and {counts[OPEN]} cannot be told"
    assert said in drawn.caption
    assert drawn.ours["verdicts"][HOLDS] == counts[HOLDS] and drawn.fig is None


def test_a_world_that_contradicts_the_paper_is_reported_as_such():
    write_tables("lab", noise=0.01)
    assert judged().verdict["grace_first"] == HOLDS
    change("scores", lambda t: t.assign(grace=1 / t.grace))
    turned = judged()
    assert (turned.verdict[["grace_first", "grace_second", "grace_long", "subsets", "regret_first"]] == FAILS).all()
    assert "GRACE between teachers -1.00" in turned.why["grace_first"]


def test_lengths_filters_and_folds_are_read_as_planted(lab):
    change("lengths", lambda t: t.assign(mean_norm=3 / np.log(t.mean_length) ** np.where(t.task == "long", 2, 1)))
    change("filtered", lambda t: t.assign(average=t.average + 0.05))  # 3 points better than unfiltered
    rows = judged()
    assert rows.value[["norm_short", "norm_long"]].tolist() == pytest.approx([1, 2], abs=1e-6)
    assert (rows.verdict[["norm_short", "norm_long"]] == HOLDS).all()
    assert rows.value["filtering"] == pytest.approx(3) and rows.verdict["filtering"] == FAILS
    cells = [lab.at("first", "n_folds", c) for c in (6, 8, 10, 12, 16, 20)]
    rho = [ranks.spearman(own.grace, own.average_at_k, "lower") for own in cells]
    assert rows.value["folds"] >= max(rho) - min(rho) - 1e-12


def test_the_ablation_claims_are_about_what_they_say(lab):
    """The change with the same scores (figure 16), the norm within teachers (figure 21), the least gain (figure 17)."""
    same = verdicts.measure(BY_NAME["filtered_correlation"], lab).value
    change("filtered", lambda t: t.assign(grace=t.grace.sample(frac=1, random_state=0).to_numpy()))
    assert verdicts.measure(BY_NAME["filtered_correlation"], World("lab")).value == same
    odd = lab.table("lengths").assign(mean_norm=lambda t: t.mean_norm * np.where(t.teacher < "narration", 9, 1))
    odd.to_csv(paths.results("lab") / "lengths.csv", index=False)
    assert verdicts.measure(BY_NAME["norm_short"], World("lab")).value == pytest.approx(
        1
    )  # between teachers it is not 1
    change(
        "training_runs",
        lambda t: t.assign(
            test=np.where((t.teacher == t.teacher.iloc[0]) & ~t.usual & (t.value == t.value.max()), 0.1, t.test)
        ),
    )
    found = verdicts.measure(BY_NAME["epochs"], World("lab"))
    assert found.value < 0 and "the smallest of 2 teachers" in found.what and "one seed of training" in found.extra


def test_half_as_many_is_compared_where_the_smoothing_does_not_decide(lab):
    found = verdicts.measure(BY_NAME["half_as_many"], lab)
    assert "n = 256 less n = 512, the best other" in found.what
    assert "the smoothing decides at n = 64 and n = 128" in found.extra
    assert "the smoothing decides at n = 64" in verdicts.measure(BY_NAME["more_prompts"], lab).extra
    change("grid", lambda t: t.assign(nu_decides=True))
    assert "there is nothing to compare" in verdicts.measure(BY_NAME["half_as_many"], World("lab"))


def test_self_distillation_must_be_diverse_and_a_bad_teacher(lab):
    change("pathological", lambda t: t.assign(g_vendi=99, average_at_k=0))
    assert verdicts.measure(BY_NAME["self"], World("lab")).value == 1
    change("pathological", lambda t: t.assign(average_at_k=1))
    assert verdicts.measure(BY_NAME["self"], World("lab")).value == 0


def test_temperature_claims_on_a_planted_world(lab):
    change("scores", lambda t: t.assign(g_norm=1 + t.temperature, g_vendi=2 + t.temperature, grace=1 / t.temperature))
    change("students", lambda t: t.assign(average=0.1 + 0.5 * t.temperature))
    rows = judged()
    assert rows.value[["both_rise", "opposite", "warmer", "within_teacher"]].tolist() == pytest.approx([1, 1, 1, 1])
    assert rows.value["temperature_regret"] == pytest.approx(0, abs=1e-9)
    assert rows.value["temperature_gain"] == pytest.approx(100 * 0.5 * (1 - 0.65))
    assert (rows.verdict[["both_rise", "opposite", "warmer", "within_teacher", "temperature_regret"]] == HOLDS).all()


def test_other_worlds_have_a_column_only_where_their_tables_are(lab):
    write_tables("lab-world1", seed=3)
    drawn = verdicts.claims("lab")
    table = drawn.table.set_index("name")
    assert "lab-world1" in table and "lab-world2" not in table and "lab-world1: 60 cells" in drawn.caption
    cells_only = [c.name for c in CLAIMS if c.cells_only]
    assert (table["lab-world1"][cells_only] != "").all() and (table["lab-world1"].drop(cells_only) == "").all()


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


def test_a_regret_fails_only_beyond_the_noise_of_the_test_problems(lab):
    """It is a maximum over noisy accuracies: its interval excludes zero whatever the score."""
    assert under(1, 4.9).verdict(m(4, 2, 6, noise=1.0))[0] == FAILS
    for noise in (1.6, NAN):
        found, reason = under(1, 4.9).verdict(m(4, 2, 6, noise=noise))
        assert found == OPEN and "could account for it" in reason
    frame = lab.frame()
    picked, p = frame.loc[frame.grace.idxmin()], frame.greedy
    other = p[frame.index != picked.name].max()
    assert lab.regret_noise(frame, accuracy="greedy") == pytest.approx(
        100 * np.sqrt((picked.greedy * (1 - picked.greedy) + other * (1 - other)) / lab.config.n_test)
    )
    own = tables.score_rows(tables.select(lab.cells, "first", ("grace",)), ("grace",)).iloc[0]
    assert verdicts.measure(BY_NAME["regret_first"], lab).noise == pytest.approx(own.regret_se_points)


def test_what_random_choice_meets_too_does_not_hold(lab):
    assert under(2, 3).verdict(m(1, 0.5, 1.5, chance=(4, -0.1)))[0] == HOLDS
    assert under(2, 3).verdict(m(1, 0.5, 1.5, chance=(1.5, 0.1))) == (OPEN, "random choice would meet it too")
    assert under(2, 3).verdict(m(1, 0.5, 1.5, chance=(4, 0.1))) == (
        OPEN,
        "it is not clearly better than a random choice",
    )
    change("students", lambda t: t.assign(average=0.5 + 0.001 * t.temperature))
    rows = judged()
    assert (rows.verdict[["family_regret", "temperature_regret", "regret_long"]] == OPEN).all()
    assert (
        rows.why[["family_regret", "temperature_regret", "regret_long"]].str.startswith("random choice would")
    ).all()


def test_the_strongest_teacher_is_the_one_that_is_most_accurate_over_its_temperatures(lab):
    frame = lab.frame()
    name = frame.groupby("teacher").teacher_accuracy.mean().idxmax()
    lucky = frame.teacher[frame.teacher != name].iloc[0]
    change(
        "teachers",
        lambda t: t.assign(
            accuracy=np.where((t.teacher == lucky) & (t.temperature == t.temperature.min()), 0.9999, t.accuracy * 0.9)
        ),
    )
    best = 100 * frame.average_at_k[frame.teacher == name].max()
    world = World("lab")
    gain, strong = (verdicts.measure(BY_NAME[n], world) for n in ("gain", "strongest"))
    assert name in strong.extra and f"{best:.1f} %, of {name}" in gain.extra
    pick = 100 * frame.average_at_k[frame.grace.idxmin()]
    assert gain.value == pytest.approx(pick - best)


def test_the_smallest_budget_and_subset_must_have_enough_teachers(lab):
    write_tables("mini")
    table = judged("mini")
    assert table.verdict["subsets"] == OPEN and "too few for an interval" in table.why["subsets"]
    found = verdicts.measure(BY_NAME["budgets"], World("mini"))
    assert found.teachers == 6 and "up to 40, 2 teachers: " in found.extra and found.extra.count("not counted") == 1
    write_tables("smoke")  # three teachers in all: no budget has enough
    table = judged("smoke")
    assert (table.verdict[["budgets", "budget_regret"]] == OPEN).all()
    assert table.why[["budgets", "budget_regret"]].str.contains("too few for an interval").all()
    subsets = subset_figures.figure23(lab.cells, "first", "lab").table.set_index(["reading", "score"])
    found = verdicts.measure(BY_NAME["subsets"], lab)
    assert [found.value, found.low, found.high] == subsets.loc[
        ("teachers", "grace"), ["median", "low", "high"]
    ].tolist()
    assert "no fewer than 36 teachers" in verdicts.measure(BY_NAME["warmer"], lab).extra


def test_the_rival_on_both_tasks_is_chosen_once(lab):
    for name in ("short", "long"):  # a rival that is GRACE itself: never ahead, never behind
        change("scores", lambda t, task=name: t.assign(g_norm=np.where(t.task == task, t.grace, t.g_norm)))
    found = verdicts.measure(BY_NAME["only_one_on_both"], World("lab"))
    assert (found.value, found.low, found.high) == (0, 0, 0) and "G-Norm" in found.extra


def test_reasons_are_about_the_cells_of_the_claim(lab):
    at = lab.frame(at_compared=True)
    assert f"{100 * at.average_se.median():.1f} points" in verdicts.why(lab, "noise compared") and len(at) == 15
    assert f"{100 * lab.error(at, 'greedy').median():.1f} points" in verdicts.why(lab, "noise compared greedy")
    split = verdicts.why(lab, "split compared")
    assert split.startswith("GRACE between") and "within one" not in split
    assert "; on the longer task GRACE and G-Norm" in verdicts.why(lab, "norm; norm long")
    assert verdicts.why(lab, "notebook 07") == "see notebook 07" and verdicts.why(lab, "") == ""
