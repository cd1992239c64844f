"""What must hold where candidates are few: each restriction is the one it says (a budget, a family, one teacher), each
number is the plain statistic on exactly those cells, and random choice is its expectation. A regret over the wrong
candidates looks as good as one over the right ones, so every number is computed a second way here.
"""

import numpy as np
import pytest

from gracelib.baselines import SCORES
from gracelib.drawing import choices as choice_figures
from gracelib.drawing import marks, style
from gracelib.evidence import cells as tables
from gracelib.evidence import choices as choice_tables
from gracelib.evidence import ranks
from gracelib.evidence.choices import RANDOM
from gracelib.world.stories import MANNERS
from readable import assert_readable, notes_of
from slow_bootstrap import plain_regret, slow_bootstrap
from synthetic import MINI, synthetic_cells

FAMILIES = ("equations", "narration", "algebra", "table", "reversed", "terse")
LAB = tuple(
    (f"{m}-{w}", m)
    for m in FAMILIES
    for w in (40, 64, 96)
    if (m, w) not in {("table", 40), ("reversed", 40), ("terse", 40)}
)
SCALES = {
    "mini": (MINI, (0.4, 0.6, 0.8, 1.0)),
    "lab": (LAB, tuple(round(0.3 + 0.1 * i, 1) for i in range(8))),
    "smoke": (MINI[-3:], (0.6, 1.0)),
    "nano": (MINI[:1], (0.6,)),
}
FIGURES = {name: getattr(choice_figures, name) for name in ("figure6", "figure7", "figure13", "figure14")}
FIVE, THREE = choice_figures.FIVE, choice_figures.THREE


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(ranks, "N_BOOT", 60)


def cells_of(scale, **more):
    cells = synthetic_cells(*SCALES[scale], **more)
    return cells.assign(width=cells["teacher"].str.rsplit("-", n=1).str[1].astype(int))


def rows_of(cells):
    return choice_tables.choice_cells(cells, "first", FIVE)


def regret_of(cells, score):
    return plain_regret(cells[score], cells["average_at_k"], SCORES[score].direction)


def blind_regret(cells):
    return 100 * (cells["average_at_k"].max() - cells["average_at_k"].mean())


# --- the numbers ---------------------------------------------------------------------------------------------


def test_a_temperature_is_chosen_within_its_teacher():
    cells = cells_of("lab")
    found = choice_tables.temperature_choices(rows_of(cells), FIVE).set_index(["teacher", "score"])
    assert len(found) == 15 * 6
    for (teacher, score), row in found.iterrows():
        own = cells[cells["teacher"] == teacher].reset_index(drop=True)
        best = own["temperature"][own["average_at_k"].idxmax()]
        assert row["best"] == best and row["temperatures"] == 8
        if score == RANDOM:
            assert row["regret_points"] == pytest.approx(blind_regret(own)) and np.isnan(row["picked"])
            continue
        lower = SCORES[score].direction == "lower"
        at = own[score].idxmin() if lower else own[score].idxmax()
        assert row["picked"] == own["temperature"][at]
        assert row["coldest"] == (row["picked"] == 0.3) and row["hottest"] == (row["picked"] == 1.0)
        assert row["regret_points"] == pytest.approx(100 * (own["average_at_k"].max() - own["average_at_k"][at]))
        sign = -1 if lower else 1
        assert row["spearman"] == pytest.approx(sign * own[score].corr(own["average_at_k"], method="spearman"))


def test_a_budget_holds_the_teachers_up_to_its_width():
    cells = cells_of("lab")
    found = choice_tables.budget_rows(rows_of(cells), FIVE)
    assert dict(found.drop_duplicates("budget").set_index("budget")["teachers"]) == {40: 3, 64: 9, 96: 15}
    assert list(dict.fromkeys(found["paper_budget"])) == ["3B", "10B", "30B"]
    for row in found.to_dict("records"):
        inside = cells[cells["width"] <= row["budget"]]
        assert row["cells"] == len(inside)
        if row["score"] == RANDOM:
            assert row["regret_points"] == pytest.approx(blind_regret(inside))
        else:
            assert row["regret_points"] == pytest.approx(regret_of(inside, row["score"]))
            assert row["spearman"] == pytest.approx(
                ranks.spearman(inside[row["score"]], inside["average_at_k"], SCORES[row["score"]].direction)
            )
            assert row["low"] <= row["high"]
        assert row["regret_low"] <= row["regret_high"]


def test_a_family_is_its_own_candidate_set_and_the_mean_is_over_families():
    cells = cells_of("lab")
    found = choice_tables.family_rows(rows_of(cells), FIVE)
    for score in FIVE:
        own = found[found["score"] == score].set_index("family")
        each = [regret_of(cells[cells["manner"] == f], score) for f in FAMILIES]
        assert list(own["regret_points"][list(FAMILIES)]) == pytest.approx(each)
        assert own["regret_points"]["mean"] == pytest.approx(np.mean(each))
        grace = found[(found["score"] == "grace") & (found["family"] == "mean")]["regret_points"].item()
        assert own["first_minus_this"]["mean"] == pytest.approx(grace - np.mean(each))
        low, high = own.loc["mean", ["regret_low", "regret_high"]]
        above = (own["regret_high"] - own["regret_points"])[list(FAMILIES)]
        assert low == pytest.approx(own["regret_low"][list(FAMILIES)].mean())
        assert high == pytest.approx(np.mean(each) + np.sqrt((above**2).sum()) / len(above))  # that noise averages out
    blind = found[found["score"] == RANDOM].set_index("family")["regret_points"]
    assert blind["terse"] == pytest.approx(blind_regret(cells[cells["manner"] == "terse"]))
    assert dict(found[found["score"] == "grace"].set_index("family")["teachers"]) == {
        "equations": 3,
        "narration": 3,
        "algebra": 3,
        "table": 2,
        "reversed": 2,
        "terse": 2,
        "mean": 15,
    }


def test_a_mean_over_teachers_resamples_teachers_and_leaves_out_what_is_undefined():
    choices = choice_tables.temperature_choices(rows_of(cells_of("lab")), ("grace",))
    choices.loc[choices["teacher"] == "algebra-40", "spearman"] = np.nan
    found = choice_tables.over_teachers(choices, "spearman").set_index("score").loc["grace"]
    own = choices[choices["score"] == "grace"]
    assert found["teachers"] == 14
    assert (found["mean"], found["low"], found["high"]) == pytest.approx(
        slow_bootstrap([own["spearman"]], own["teacher"], np.nanmean, 60)
    )
    assert found["positive"] == (own["spearman"] > 0).sum()


def test_ties_cost_their_mean_and_an_undefined_cell_cannot_be_selected():
    cells = cells_of("mini")
    one = cells["teacher"] == "table-96"
    cells.loc[one, "g_vendi"] = 5.0  # all four temperatures tie
    rows = rows_of(cells)
    row = (
        choice_tables.temperature_choices(rows, ("g_vendi",)).set_index(["teacher", "score"]).loc["table-96", "g_vendi"]
    )
    assert row["regret_points"] == pytest.approx(blind_regret(cells[one])) and row["note"].startswith(
        "Spearman undefined"
    )
    best = cells[one]["average_at_k"].idxmax()
    cells.loc[best, "g_vendi"] = np.nan  # its own best cell can no longer be selected, and is still what could be had
    rest = cells[one].drop(index=best)
    expected = 100 * (cells["average_at_k"][best] - rest["average_at_k"].mean())
    rows = rows_of(cells)
    found = choice_tables.temperature_choices(rows, ("g_vendi",)).set_index(["teacher", "score"])["regret_points"]
    assert found["table-96", "g_vendi"] == pytest.approx(expected)
    families = choice_tables.family_rows(rows, ("g_vendi",)).set_index(["family", "score"])["regret_points"]
    assert families["table", "g_vendi"] == pytest.approx(expected)
    cells["g_vendi"] = np.nan
    for name in ("figure6", "figure7"):
        drawn = FIGURES[name](cells, "first", "mini")
        assert "undefined in every cell" in " ".join(drawn.table["note"].dropna())


def test_the_two_teachers_are_chosen_without_looking_at_students():
    cells = cells_of("lab")
    mean = cells.groupby("teacher")["teacher_accuracy"].mean()
    first, second = choice_tables.two_teachers(cells, "first")
    assert first == mean.idxmin()
    assert second == mean[mean.index.str.startswith(first.split("-")[0])].idxmax()
    others = [name for name in mean.index if name not in (first, second)]
    followed = cells[
        cells["teacher"].isin(others) | (cells["temperature"] == 0.6)
    ]  # these two have one temperature left
    assert not {first, second} & {*choice_tables.two_teachers(followed, "first")}
    rng = np.random.default_rng(0)
    shuffled = cells.assign(average_at_k=rng.permutation(cells["average_at_k"]), grace=rng.permutation(cells["grace"]))
    assert choice_tables.two_teachers(shuffled, "first") == [first, second]
    single = cells_of("mini")  # nobody has a relative
    mean = single.groupby("teacher")["teacher_accuracy"].mean()
    assert choice_tables.two_teachers(single, "first") == [mean.idxmin(), mean.idxmax()]
    assert choice_tables.two_teachers(cells_of("nano"), "first") == ["equations-48"]


def test_scaled_scores_are_one_where_the_score_is_best():
    values = np.array([3.0, 1.0, np.nan, 2.0])
    assert choice_tables.scaled_up(values, "grace") == pytest.approx([0, 1, np.nan, 0.5], nan_ok=True)
    assert choice_tables.scaled_up(values, "g_vendi") == pytest.approx([1, 0, np.nan, 0.5], nan_ok=True)
    assert np.isnan(choice_tables.scaled_up(np.array([2.0, 2.0]), "grace")).all()


# --- the pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_readable_at_every_scale(name, scale):
    drawn = FIGURES[name](cells_of(scale), "first", scale)
    assert_readable(drawn.fig)
    assert len(drawn.table) > 0 and len(drawn.alt) > 40
    n, temperatures = len(SCALES[scale][0]), len(SCALES[scale][1])
    said = f"{n * temperatures} cell{'s' * (n > 1)} of {n} teacher{'s' * (n > 1)}"
    assert notes_of(drawn.fig)[0].startswith(f"scale: {scale}; {said}")
    assert f"Scale {scale}" in drawn.caption and said in drawn.caption


def test_figure_6_marks_the_pick_and_the_best_temperature_of_each_teacher():
    cells = cells_of("lab", seed=4)
    drawn = choice_figures.figure6(cells, "first", "lab")
    for ax, teacher in zip(drawn.fig.axes[:2], choice_tables.two_teachers(cells, "first"), strict=True):
        own = cells[cells["teacher"] == teacher]
        assert ax.get_title(loc="left").startswith(teacher)
        (best,) = [line for line in ax.lines if line.get_gid() == "best"]
        assert best.get_xdata()[0] == own["temperature"][own["average_at_k"].idxmax()]
        for score in THREE:
            (triangle,) = [c for c in ax.collections if c.get_gid() == f"picked-{score}"]
            at = own[score].idxmin() if SCORES[score].direction == "lower" else own[score].idxmax()
            assert triangle.get_offsets().data[0] == pytest.approx([own["temperature"][at], 1.0])
    assert drawn.paper["temperature_best, Qwen2.5-3B"][""]["value"] == "0.8"
    assert drawn.paper["temperature_picked, Qwen2.5-1.5B"]["grace"]["value"] == "0.5"
    assert choice_figures.figure6(cells.assign(task="long"), "first", "lab").paper == {}


def test_figure_7_draws_the_numbers_of_its_table_and_a_violin_where_there_are_enough():
    for scale, violins in (("lab", 3), ("mini", 0)):
        drawn = choice_figures.figure7(cells_of(scale), "first", scale)
        left, right = drawn.fig.axes
        bodies = [c for c in left.collections if len(c.get_paths()) == 1 and len(c.get_paths()[0].vertices) > 100]
        assert len(bodies) == violins
        budgets = drawn.table[drawn.table["panel"] == "right"]
        for score in THREE:
            (drawn_marks,) = [c for c in right.collections if c.get_gid() == f"ours-{score}"]
            assert list(drawn_marks.get_offsets()[:, 1]) == pytest.approx(
                list(budgets[budgets["score"] == score]["spearman"])
            )
        marks = {line.get_gid(): line for line in left.lines if str(line.get_gid()).startswith("paper-")}
        assert list(marks["paper-grace"].get_ydata()) == [0.75] and set(marks) == {f"paper-{s}" for s in THREE}


def test_figure_13_draws_every_family_in_its_look_and_figure_25_says_who_is_missing():
    cells = cells_of("lab")
    drawn = choice_figures.figure13(cells, "first", "lab")
    (ax,) = drawn.fig.axes
    points = {c.get_label(): c for c in ax.collections if c.get_label() in FAMILIES}
    assert set(points) == set(FAMILIES)
    for name, drawn_marks in points.items():
        own = drawn.table[drawn.table["family"] == name].set_index("score")["regret_points"]
        assert list(drawn_marks.get_offsets()[:, 0]) == pytest.approx(list(own[[*FIVE, RANDOM]]))
    assert "equations 3" in drawn.caption and "terse 2" in drawn.caption and drawn.paper["grace"]["value"] == "~1"
    rest, left_out = tables.leave_out_teacher(cells, "first")
    without = choice_figures.figure13(rest, "first", "lab", item="figure 25", extra=left_out)
    name = tables.most_familiar(cells, "first")
    assert name in without.caption and "14 teachers" in without.caption and set(without.paper) == {"g_vendi"}
    assert without.ours["grace"]["teachers"] == 14 and name not in set(
        without.table["selected"].str.split(" at").str[0]
    )


def test_families_and_scores_are_told_apart():
    """Eleven manners, eleven markers, eleven colours: either channel alone tells them apart. The triangle is taken."""
    looks, scores = [style.family(manner) for manner in MANNERS], [look[:2] for look in marks.LOOKS]
    assert len({look.marker for look in looks}) == len({look.color for look in looks}) == len(MANNERS) == 11
    assert len(set(scores)) == len(scores) >= len(FIVE)
    assert not {"^", *(mark for mark, _ in scores)} & {f.marker for f in style.FAMILIES.values()}
    with pytest.raises(ValueError, match="family = 'poetry': choose one of equations"):
        style.family("poetry")
