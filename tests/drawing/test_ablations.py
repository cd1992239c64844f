"""Every number in the ablation figures is that of a slower computation: the plain Spearman of the same columns, the plain
bootstrap of `stats`, a subset taken row by row. And every figure draws, or says what is missing, at every size.
"""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from gracelib.drawing.ablations import figure19, figure20, figure23, settings
from gracelib.drawing.saving import Drawn
from gracelib.drawing.training import figure15, figure16, figure17
from gracelib.evidence import ablations as at
from gracelib.evidence import cells as tables
from gracelib.evidence import ranks
from gracelib.evidence.cells import select
from gracelib.experiment.scales import get_scale
from readable import assert_readable
from slow_bootstrap import slow_bootstrap
from synthetic import MINI, synthetic_cells

SCORES = ("grace", "g_norm", "g_vendi", "teacher_accuracy")
LAB = tuple((f"{name.split('-')[0]}-{w}", manner) for name, manner in MINI for w in (40, 64, 96))[:15]
SIZES = {
    "nano": ((MINI[5],), (0.6,)),
    "smoke": (MINI[3:], (0.6, 1.0)),
    "mini": (MINI, (0.4, 0.6, 0.8, 1.0)),
    "lab": (LAB, tuple(t / 10 for t in range(3, 11))),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(ranks, "N_BOOT", 60)


def made(size: str, task: str = "short") -> pd.DataFrame:
    teachers, temperatures = SIZES[size]
    return synthetic_cells(teachers, temperatures, task=task)


def made_filtered(cells: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    rng, own = np.random.default_rng(seed), cells[tables.KEY].iloc[::2]
    n = len(own)
    wrong = dict.fromkeys(SCORES[:3], 1.0) | {"grace": rng.lognormal(size=n), "g_norm": rng.lognormal(size=n)}
    return own.assign(
        kept_share=rng.uniform(0.3, 1, n),
        prompts=100,
        prompts_kept=90,
        average=rng.uniform(0.1, 0.6, n),
        average_se=0.02,
        **wrong,
    ).reset_index(drop=True)


def made_grid(cells: pd.DataFrame, config) -> pd.DataFrame:
    """The lines that the table `grid` has, with GRACE's noise falling as n grows."""
    base, rng = tables.default_setting(config), np.random.default_rng(2)
    lines = [base | {"n": base["n"] // i, "d": base["d"] * 2 // j} for i in (1, 2, 4) for j in (1, 2, 4)]
    lines += [base | {"n_folds": c} for c in (2, 4, 5, 6, 8, 12)] + [base | {"m": m} for m in (1, 2, 8)]
    lines += [base | {"nu": nu, "power": p} for nu in (1e-4, 1e-3, 1e-1) for p in (0.0, 1.0, 2.0)]
    settings_ = pd.DataFrame(lines).drop_duplicates()
    rows = cells[[*tables.KEY, "grace"]].merge(settings_, how="cross")
    rows["grace"] *= np.exp(rng.normal(0, 20 / rows["n"], len(rows)))
    others = dict.fromkeys(set(tables.GRID_SCORES.values()) - {"grace"}, 0.0)
    rows["nu_decides"] = rows["n"] * rows["m"] * (1 - 1 / rows["n_folds"]) <= rows["d"]
    return rows.assign(nu_share=0.1, **others)


def made_runs(teachers) -> pd.DataFrame:
    rows = [
        {
            "task": "short",
            "student": "first",
            "teacher": t,
            "temperature": 0.6,
            "axis": axis,
            "value": v,
            "usual": v == 2,
            "test": 0.2 + 0.1 * i + 0.05 * j,
            "test_se": 0.01,
            "train": 0.3 + 0.06 * j,
            "train_se": 0.01,
        }
        for i, t in enumerate(teachers)
        for axis in ("epochs", "generations")
        for j, v in enumerate((1, 2, 4))
    ]
    return pd.DataFrame(rows)


# --- numbers -------------------------------------------------------------------------------------------------


def test_a_change_is_the_plain_one_with_the_plain_bootstrap():
    """Of two correlations, over the cells that have both."""
    cells = made("mini")
    x, y, z = (cells[c].to_numpy() for c in ("grace", "average_at_k", "g_norm"))
    x = x.copy()
    x[[3, 10]] = np.nan
    there, teacher = ~np.isnan(x), cells["teacher"].to_numpy()
    change = tables.difference((z, y, "lower"), (x, y, "lower"), teacher)
    assert (change["cells"], change["teachers"]) == (22, 6)

    def slow(a, b, c):
        return ranks.spearman(a, b, "lower") - ranks.spearman(c, b, "lower")

    two = slow_bootstrap([x[there], y[there], z[there]], teacher[there], slow, 60)
    assert (change["spearman"], change["low"], change["high"]) == pytest.approx(two)


def test_filtered_students_are_paired_with_their_own_cells():
    cells = made("mini")
    filtered = made_filtered(cells)
    pairs = at.filtered_pairs(cells, filtered.sample(frac=1, random_state=0))
    for row in pairs.to_dict("records"):
        own = cells[(cells.teacher == row["teacher"]) & (cells.temperature == row["temperature"])].iloc[0]
        assert row["unfiltered"] == own.average_at_k
        assert row["change_points"] == pytest.approx(100 * (row["filtered"] - own.average_at_k))
        assert row["change_se"] == pytest.approx(100 * (0.02**2 + own.average_se**2) ** 0.5)
    with pytest.raises(ValueError, match="was filtered and is not in the table of cells"):
        at.filtered_pairs(cells[cells.teacher != filtered.teacher[0]], filtered)


def test_each_pairing_uses_its_own_scores_and_students():
    cells = made("mini")
    filtered = made_filtered(cells)
    table = at.filtered_correlations(cells, filtered, SCORES).set_index(["score", "pairing"])
    both = filtered.merge(cells, on=tables.KEY, suffixes=("_new", ""))
    for score, direction in (("grace", "lower"), ("teacher_accuracy", "higher")):
        again = both[f"{score}_new"] if score == "grace" else both[score]
        expected = {
            "unfiltered": (both[score], both["average_at_k"]),
            "filtered": (both[score], both["average"]),
            "rescored": (again, both["average"]),
        }
        for pairing, (x, y) in expected.items():
            row = table.loc[score, pairing]
            assert row["spearman"] == pytest.approx(ranks.spearman(x, y, direction))
            assert row["change"] == pytest.approx(row["spearman"] - table.loc[(score, "unfiltered"), "spearman"])
    assert np.isnan(table.loc[("g_vendi", "rescored"), "spearman"])  # constant there


def test_grid_correlations_keep_all_else_at_the_default():
    config, cells = get_scale("lab"), made("lab")
    grid, base = made_grid(cells, get_scale("lab")), tables.default_setting(get_scale("lab"))
    table = at.grid_correlations(grid, cells, "first", base, ("n", "d"))
    assert (
        len(table) == 9
        and set(table["m"]) == {config.m}
        and table["nu_decides"].any() == (table["n"] * 3.6 <= table["d"]).any()
    )
    row = table[(table["n"] == 128) & (table["d"] == 1024)].iloc[0]
    own = grid[(grid.n == 128) & (grid.d == 1024)].merge(cells, on=tables.KEY)
    assert row["spearman"] == pytest.approx(ranks.spearman(own["grace_x"], own["average_at_k"], "lower"))
    change = at.setting_change(grid, cells, "first", base, base | {"n": 128})
    values = table[table["d"] == base["d"]].set_index("n")["spearman"]
    assert change["spearman"] == pytest.approx(values[128] - values[512])
    assert at.setting_change(grid, cells, "first", base, base | {"n": 7}) is None
    assert len(at.grid_correlations(grid, cells, "first", base, ("nu", "power"))) == 9
    with pytest.raises(ValueError, match="the grid has 119 of 120 cells at"):
        at.grid_correlations(grid[1:], cells, "first", base, ("n", "d"))
    with pytest.raises(ValueError, match="no row of student 'first'"):
        at.grid_correlations(grid, cells, "first", base | {"nu": 0.5}, ("n", "d"))


def test_subsets_are_of_the_right_kind_and_ranked_by_themselves():
    rows = select(made("mini"), "first", SCORES)
    rows.loc[[2, 7], "g_norm"] = np.nan
    code = np.unique(rows["teacher"], return_inverse=True)[1]
    drawn = at._subsets(code, 6, 0.6, 30, 4)
    assert (drawn["cells"].sum(1) == 14).all() and (drawn["teachers"].sum(1) == 16).all()
    assert all(len(set(member[code == i])) == 1 for member in drawn["teachers"] for i in range(6))
    found = (
        at.subset_correlations(rows, SCORES, n_sets=30, seed=4).set_index(["reading", "score", "subset"]).sort_index()
    )
    for reading in drawn:
        for i in (0, 17):
            for score, direction in (("grace", "lower"), ("g_norm", "lower"), ("g_vendi", "higher")):
                own = rows[drawn[reading][i]].dropna(subset=[score])
                assert found.loc[(reading, score, i), "spearman"] == pytest.approx(
                    ranks.spearman(own[score], own["average_at_k"], direction)
                )
    again = at.subset_correlations(rows, SCORES, n_sets=30, seed=4)
    pd.testing.assert_frame_equal(again.set_index(["reading", "score", "subset"]).sort_index(), found)
    summary = at.subset_summary(again, rows, SCORES).set_index(["reading", "score"])
    values = found.loc[("teachers", "grace"), "spearman"]
    assert summary.loc[("teachers", "grace"), "median"] == pytest.approx(values.median())
    wide = found["spearman"].unstack("score").loc["cells"]
    assert summary.loc[("cells", "grace"), "best_share"] == (wide["grace"] >= wide.max(axis=1) - 1e-12).mean()


# --- figures -------------------------------------------------------------------------------------------------


def everything(size: str) -> dict[str, Drawn]:
    config, cells = get_scale(size), made(size)
    tasks = {"short": cells, "long": made(size, "long")}
    grid = pd.concat([made_grid(own, config) for own in tasks.values()], ignore_index=True)
    runs = made_runs([name for name, _ in SIZES[size][0]][:2])
    manner = dict(SIZES[size][0])
    return {
        "15": figure15(cells, made_filtered(cells), size),
        "16": figure16(cells, made_filtered(cells), size, scores=SCORES),
        "17": figure17(runs, manner, size),
        "18": figure17(runs, manner, size, axis="generations"),
        "19": figure19(cells, grid, config),
        "20": figure20(tasks, grid, config),
        "23": figure23(cells, "first", size, scores=SCORES),
        "settings": settings(cells, grid, config),
    }


@pytest.mark.parametrize("size", SIZES)
def test_every_figure_draws_at_every_size(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, drawn in everything(size).items():
            assert_readable(drawn.fig)
            assert size in drawn.caption and drawn.alt and not drawn.table.empty, name
            assert not re.search(r"\bnan\b", drawn.caption + drawn.alt), name
            if size == "nano" and name not in ("15", "17", "18"):
                assert "undefined" in " ".join(words(drawn)), name


def words(drawn: Drawn) -> list[str]:
    """What is written inside the axes."""
    return [t.get_text() for ax in drawn.fig.subfigs[0].axes for t in ax.texts]


def test_the_numbers_beside_a_picture_are_those_of_its_table():
    drawn = everything("mini")
    pairs = drawn["15"].table
    change, noise = pairs["change_points"], 2 * pairs["change_se"]
    assert drawn["15"].ours["mean_change_points"] == pytest.approx(change.mean())
    assert drawn["15"].ours["clearly_worse"] == (change < -noise).sum()
    assert drawn["15"].ours["low"] <= change.mean() <= drawn["15"].ours["high"]
    by_n = drawn["19"].table.set_index(["n", "d"])["spearman"]
    base = tables.default_setting(get_scale("mini"))
    larger = by_n[base["n"], 2 * base["d"]] - by_n[base["n"], base["d"]]
    assert drawn["19"].ours["larger_d"]["spearman"] == pytest.approx(larger)
    by_power = drawn["settings"].table.query("panel == 'left'").set_index(["nu", "power"])["spearman"]
    squared = by_power[base["nu"], 2.0] - by_power[base["nu"], 1.0]
    assert drawn["settings"].ours["(log |y|)²"]["spearman"] == pytest.approx(squared)
    summary = drawn["23"].table.set_index(["reading", "score"])
    assert drawn["23"].ours["cells"]["grace"]["median"] == summary.loc[("cells", "grace"), "median"]


def test_a_teacher_without_right_responses_is_in_the_picture():
    cells = made("smoke")
    filtered = made_filtered(cells)
    filtered.loc[0, ["average", "average_se", "grace", "kept_share", "prompts_kept"]] = [np.nan, np.nan, np.nan, 0, 0]
    drawn = figure15(cells, filtered, "smoke")
    assert words(drawn) == ["no right response"] and drawn.ours["cells"] == 2
    nobody = filtered.assign(average=np.nan, average_se=np.nan, kept_share=0.0)
    none = figure15(cells, nobody, "smoke")
    assert "no right response\nto train on" in words(none) and none.ours["mean_change_points"] is None
    table = figure16(cells, nobody, "smoke", scores=SCORES).table
    assert table.loc[table["pairing"] != "unfiltered", "change"].isna().all()
