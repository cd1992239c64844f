"""The law of norm against length: made-up responses that follow a law give its power back, within teachers whatever
lies between them; and figures 21 and 22 are drawn from one teacher to thirty, saying what is missing.
"""

import numpy as np
import pandas as pd
import pytest

from gracelib.drawing import lengths as length_figures
from gracelib.evidence import lengths as length_tables
from gracelib.experiment.measurements import length_bins
from gracelib.experiment.scales import get_scale
from readable import assert_readable


def made_lengths(scale, within=1.0, between=0.0, noise=0.0, task="short"):
    """The table `lengths` of a scale's first student on one task: |g| = level (log|y|)^-within, and a teacher's level goes
    with its mean length as ^-between. Temperatures are copies.
    """
    config, rng, rows = get_scale(scale), np.random.default_rng(0), []
    there = dict(config.task(task).temperatures)["first"]
    for i, spec in enumerate(config.teachers):
        centre = 12 * 1.25 ** (i % 8)
        length = rng.integers(round(0.7 * centre), round(1.4 * centre) + 1, 300)
        level = 5 * np.log(centre) ** -(between - within) if between else 5.0
        norm = level * np.log(length) ** -within * np.exp(rng.normal(0, noise, 300))
        bins = length_bins(length, norm)
        rows += [bins.assign(task=task, student="first", teacher=spec.name, temperature=t) for t in there]
    return pd.concat(rows, ignore_index=True)


def manners(scale):
    return {spec.name: spec.manner for spec in get_scale(scale).teachers}


def test_squared_spreads_add_up_and_the_true_power_is_flattest():
    bins = length_tables.teacher_bins(made_lengths("lab", 1.0, between=2.0, noise=0.05), "first", "short")
    rows = length_tables.length_relation(bins).set_index("level")
    for p in length_tables.POWERS:
        parts = rows[f"spread_{p}"] ** 2
        assert parts["within"] + parts["between"] == pytest.approx(parts["all"])
    assert rows.loc["within", "flattest"] == 1 and rows.loc["within", "flattest_share"] > 0.95
    assert rows.loc["between", "flattest"] == 2
    own = bins[bins.teacher == bins.teacher[0]]  # spread over all, computed another way
    y, w = np.log(bins.mean_norm), bins.weight / bins.teacher.nunique()
    assert rows.loc["all", "spread_0"] == pytest.approx(np.sqrt((w * y**2).sum() - (w * y).sum() ** 2))
    assert own.weight.sum() == pytest.approx(1)


def test_exponent_agrees_with_least_squares_with_a_constant_a_teacher():
    bins = length_tables.teacher_bins(made_lengths("mini", 1.3, noise=0.3), "first", "short")
    dummies = pd.get_dummies(bins.teacher).to_numpy(float)
    x = np.log(np.log(bins.mean_length)).to_numpy()[:, None]
    root = np.sqrt(bins.weight.to_numpy())[:, None]
    solution = np.linalg.lstsq(
        np.hstack([x, dummies]) * root, np.log(bins.mean_norm).to_numpy() * root[:, 0], rcond=None
    )[0]
    assert length_tables.length_relation(bins).exponent[0] == pytest.approx(-solution[0])


def test_temperatures_are_put_together_and_rare_bins_and_single_tokens_left_out():
    key = {"task": "short", "student": "first", "teacher": "a"}
    one = length_bins([1] * 50 + [16] * 100 + [40] * 99, np.r_[np.ones(50), np.full(100, 2.0), np.ones(99)]).assign(
        temperature=0.4, **key
    )
    two = length_bins([16] * 300 + [60], np.r_[np.full(300, 4.0), 9.0]).assign(temperature=1.0, **key)
    bins = length_tables.teacher_bins(pd.concat([one, two]), "first", "short")
    assert bins["count"].tolist() == [400, 99] and bins.mean_length.tolist() == pytest.approx([16, 40])
    assert bins.mean_norm.tolist() == pytest.approx([3.5, 1.0]) and bins.weight.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="no lengths of task 'long', student 'first': choose one of short / first"):
        length_tables.teacher_bins(one, "first", "long")
    with pytest.raises(ValueError, match="every response has one token"):
        length_tables.teacher_bins(one[:1], "first", "short")


def test_the_pooled_line_is_the_mean_over_responses_and_its_band_over_teachers():
    lengths = made_lengths("mini", 1.0, between=3.0, noise=0.1)
    bins = length_tables.teacher_bins(lengths, "first", "short")
    pool = length_tables.pooled(bins)
    assert pool["count"].sum() == bins["count"].sum()
    row = pool[pool["count"] == pool["count"].max()].iloc[0]
    own = bins[np.isclose(bins.bin_low, row.bin_low)]
    assert row.mean_norm == pytest.approx(np.average(own.mean_norm, weights=own["count"]))
    shown = pool.dropna(subset=["low"])
    assert len(shown) and (shown.low <= shown.mean_norm + 1e-12).all() and (shown.mean_norm <= shown.high + 1e-12).all()
    again = length_tables.pooled(bins.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(again, pool)  # the order of the rows does not matter


def test_reference_curves_fit_what_they_describe():
    length = np.arange(10, 90, dtype=float)
    for i, shape in enumerate((1 / np.log(length), np.log(length) ** -2, length**-0.7)):
        pool = pd.DataFrame({"count": 5, "mean_length": length, "mean_norm": 3 * shape})
        fits = length_tables.curves(pool)
        assert fits.factor[i] == pytest.approx(3) and fits.r_squared[i] == pytest.approx(1)
        assert fits.r_squared.drop(i).max() < 0.9999
    assert fits.exponent[2] == pytest.approx(0.7)
    assert length_tables.curves(pool[:2]).r_squared.isna().all()


def test_profiles_are_flat_at_the_true_power_alone():
    flat = length_tables.profiles(length_tables.teacher_bins(made_lengths("lab", 1.0, between=4.0), "first", "short"))
    span = flat.groupby("power").relative.agg(lambda r: r.max() - r.min())
    assert span[1] < 0.02 and span[0] > 0.1 and span[2] > 0.1
    falls = flat[flat.power == 0].sort_values("relative_length").relative
    assert falls.is_monotonic_decreasing


@pytest.mark.parametrize("scale, teachers", [("nano", 1), ("smoke", 3), ("mini", 6), ("lab", 30)])
@pytest.mark.parametrize("item, task", [("figure 21", "short"), ("figure 22", "long")])
def test_both_figures_are_drawn_at_every_size(scale, teachers, item, task):
    lengths = made_lengths(scale, 1.0, between=2.0, noise=0.1, task=task)
    drawn = length_figures.figure21(lengths, "first", task, scale, manners(scale), item=item)
    assert_readable(drawn.fig)
    ends = f"{teachers} teacher{'s' * (teachers > 1)}."
    assert drawn.caption.endswith(ends) and f"task {task}" in drawn.caption
    title = drawn.fig.subfigs[0].axes[1].get_title(loc="left")
    assert f"q = {drawn.ours['levels'][0]['exponent']:.2f}" in title and drawn.ours["levels"][0]["flattest"] == 1
    thin = drawn.fig.subfigs[0].axes[0].get_lines()
    assert len(thin) == 1 + 3 + teachers  # mean, three curves, a line per teacher
    assert drawn.paper["power"]["value"] == {"figure 21": "1", "figure 22": "2"}[item]
    assert set(drawn.table.panel) == {"left", "right"} and drawn.alt
    if teachers == 1:
        assert drawn.table.low.isna().all()


def test_lengths_that_do_not_vary_are_said_and_not_crashed_on():
    key = {"task": "short", "student": "first", "temperature": 0.6}
    cells = [
        length_bins([20] * 10, [1.0 + i] * 10).assign(teacher=t, **key) for i, t in enumerate(("terse-64", "table-64"))
    ]
    drawn = length_figures.figure21(pd.concat(cells), "first", "short", "mini", manners("mini"))
    left, right = drawn.fig.subfigs[0].axes
    assert "q = undefined: lengths do not vary" in right.get_title(loc="left")
    assert len(left.get_lines()) == 1 + 2 and pd.isna([fit["r_squared"] for fit in drawn.ours["curves"]]).all()
