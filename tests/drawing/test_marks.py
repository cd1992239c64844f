"""What must hold of a picture before anybody looks at it: a family has one colour and one marker whoever else
is drawn, nothing is too small to read or printed upon something else, every axis has a label, and every
number printed is the one the statistics give. A figure that breaks one of these misleads although its data
are right.
"""

import itertools

import numpy as np
import pandas as pd
import pytest

from gracelib.baselines import SCORES
from gracelib.drawing import captions, correlations, style
from gracelib.drawing import marks as plots
from gracelib.evidence import cells as tables
from gracelib.evidence import ranks
from gracelib.paper.reported import paper_values
from gracelib.world.stories import MANNERS
from readable import assert_readable, notes_of
from slow_bootstrap import plain_regret, slow_bootstrap
from synthetic import MINI, synthetic_cells

EVERYONE = tuple((f"{manner}-{width}", manner) for width in (48, 96) for manner in MANNERS)[:15]
LAB = tuple(round(0.3 + 0.1 * i, 1) for i in range(8))
SCALES = {
    "mini": (MINI, (0.4, 0.6, 0.8, 1.0)),
    "lab": (EVERYONE, LAB),
    "smoke": (MINI[-3:], (0.6, 1.0)),
    "nano": (MINI[:1], (0.6,)),
}
FIGURES = {
    "figure1": correlations.figure1,
    "figure2": correlations.figure2,
    "figure4": correlations.figure4,
    "figure5": correlations.figure5,
    "figure1, two tasks": lambda *a: correlations.figure1(*a, longer=harder(a[0])),
    "figure4, two tasks": lambda *a: correlations.figure4(*a, longer=harder(a[0])),
    "regret_bars, two tasks": lambda *a: correlations.regret_bars(*a, longer=harder(a[0])),
}


def harder(cells):
    """The longer task: other accuracies, half the temperatures, a score that one cell lacks."""
    cells = cells[cells.temperature.isin(sorted(set(cells.temperature))[::2])].reset_index(drop=True)
    cells = cells.assign(task="long", average_at_k=(cells.average_at_k**2).round(3), grace=cells.grace * 2)
    cells.loc[0, "g_vendi"] = np.nan
    return cells


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(ranks, "N_BOOT", 60)


def draw(name, scale):
    return FIGURES[name](synthetic_cells(*SCALES[scale]), "first", scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FIGURES)
def test_text_is_readable_inside_the_picture_and_nothing_overlaps(name, scale):
    assert_readable(draw(name, scale).fig)


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_is_labelled_with_unit_or_direction(name):
    fig = draw(name, "mini").fig
    for ax in fig.axes:
        assert ax.get_xlabel() and "(" in ax.get_xlabel()
        named = any(t.get_text() for t in ax.get_yticklabels())  # a panel without names reads those of the first
        shared = [a for a in fig.axes if a is ax or ax.get_shared_y_axes().joined(a, ax) or not named]
        rows = any(any(map(str.isalpha, t.get_text())) for a in shared for t in a.get_yticklabels())  # rows have names
        assert rows or any(a.get_ylabel() for a in shared)
    assert plots.accuracy_label(k=4) == "Student Average@4 (%)"
    assert plots.score_label("grace") == "GRACE (lower is better)"
    assert plots.score_label("teacher_accuracy") == "Teacher accuracy (%, higher is better)"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_its_scale_and_that_it_is_not_the_paper(name):
    drawn = draw(name, "mini")
    notes = notes_of(drawn.fig)
    n = 6 if name == "figure5" else 24
    assert len(notes) == 1 and notes[0].startswith(f"scale: mini; {n} cells of 6 teachers, short task")
    if "two tasks" in name:
        assert (
            "; 12 of 6, long task, first student" in notes[0] and "long task, first student: 12 cells" in drawn.caption
        )
    assert notes[0].endswith("built-in world, not the paper's numbers")
    assert "Scale mini" in drawn.caption and len(drawn.alt) > 40
    assert "built-in" not in captions.scale_note("paper", 120, 15)


def test_fewer_than_ten_students_are_not_drawn_and_the_picture_says_why():
    cells = synthetic_cells(MINI, (0.6,))
    drawn = correlations.figure2(cells, "first", "mini")
    (ax,) = drawn.fig.subfigs[0].axes
    (said,) = (text.get_text() for text in ax.texts)
    assert said.startswith("Not drawn: 6 students of 6 teachers cannot show an order.\nGRACE: ")
    assert not ax.collections and drawn.alt.startswith("No picture") and len(drawn.table) == 6
    assert_readable(drawn.fig)
    assert correlations.figure5(cells, "first", "mini").fig.axes[0].collections  # a choice among six is one


def drawn_looks(drawn):
    """Family -> (face colour, marker outline) as drawn, and as in the legend."""
    points = {
        c.get_label(): (tuple(c.get_facecolor()[0][:3].round(6)), c.get_paths()[0].vertices.tobytes())
        for ax in drawn.fig.axes
        for c in ax.collections
        if c.get_label() in MANNERS
    }
    handles = {
        h.get_label(): (h.get_color(), h.get_marker())
        for part in drawn.fig.subfigs
        for legend in part.legends
        for h in legend.legend_handles
        if hasattr(h, "get_marker")
    }
    return points, handles


def test_a_family_looks_the_same_in_every_figure_and_subset():
    whole, legend = drawn_looks(correlations.figure2(synthetic_cells(EVERYONE), "first", "lab"))
    assert set(whole) == set(MANNERS)
    for subset, figure in (
        (MINI, correlations.figure1),
        (EVERYONE[3:7], correlations.figure2),
        (MINI[::-1], correlations.figure5),
    ):
        points, handles = drawn_looks(figure(synthetic_cells(subset), "first", "mini"))
        assert set(points) == {manner for _, manner in subset}
        for manner, look in points.items():
            assert look == whole[manner]
            label = manner.replace("_", " ")
            assert handles[label] == legend[label] == (style.family(manner).color, style.family(manner).marker)


@pytest.mark.parametrize("value, text", [(-0.001, "+0.00"), (0.004, "+0.00"), (-0.006, "−0.01"), (0.5, "+0.50")])
def test_what_rounds_to_zero_has_no_minus(value, text):
    assert plots.number(value) == text


def test_temperature_is_shown_by_size_the_same_in_every_figure():
    areas = [style.temperature_area(t) for t in LAB]
    assert all(b > a for a, b in itertools.pairwise(areas))
    assert [h.get_label() for h in style.temperature_handles(LAB)] == ["T = 0.3", "T = 0.5", "T = 0.8", "T = 1.0"]
    assert [h.get_label() for h in style.temperature_handles([0.25, 1])] == ["T = 0.25", "T = 1.0"]
    assert style.temperature_handles([1.0])[0].get_markersize() == style.temperature_handles(LAB)[-1].get_markersize()


@pytest.mark.parametrize("name", ["figure1", "figure2", "figure5", "figure1, two tasks"])
def test_the_spearman_printed_is_the_statistic(name):
    cells = synthetic_cells()
    drawn = FIGURES[name](cells, "first", "mini")
    if name == "figure5":
        cells = cells[cells.temperature == 0.6]
    scores = {SCORES[s].label: s for s in tables.MAIN_SCORES}
    seen = 0
    for ax in drawn.fig.axes:
        if not ax.get_title(loc="left").startswith("Spearman"):
            continue
        score = scores[ax.get_xlabel().split(" (")[0]]
        rho = ranks.spearman(cells[score], cells.average_at_k, SCORES[score].direction)
        _, low, high = slow_bootstrap(
            [cells[score].to_numpy(), cells.average_at_k.to_numpy()],
            cells.teacher,
            lambda a, b, s=score: ranks.spearman(a, b, SCORES[s].direction),
            60,
        )
        text = f"Spearman {rho:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
        assert ax.get_title(loc="left").splitlines()[0] == text
        assert drawn.ours[score]["spearman"] == pytest.approx(rho, abs=1e-12)
        seen += 1
    assert seen == (1 if name.startswith("figure1") else 3)


def test_figure_5_marks_the_selected_teacher_and_its_regret():
    cells = synthetic_cells(seed=3)
    drawn = correlations.figure5(
        cells, "first", "mini", temperature=0.8, scores=("grace", "g_vendi", "teacher_accuracy")
    )
    there = cells[cells.temperature == 0.8].reset_index(drop=True)
    assert len(drawn.table) == 6
    for ax, score in zip(drawn.fig.axes, ("grace", "g_vendi", "teacher_accuracy"), strict=True):
        direction = SCORES[score].direction
        at = there[score].idxmin() if direction == "lower" else there[score].idxmax()
        (triangle,) = [c for c in ax.collections if c.get_gid() == f"selected-{score}"]
        factor = 100 if score == "teacher_accuracy" else 1
        assert triangle.get_offsets().data[0] == pytest.approx(
            [factor * there[score][at], 100 * there.average_at_k[at]]
        )
        points = plain_regret(there[score], there.average_at_k, direction)
        _, *paper, picked = ax.get_title(loc="left").splitlines()
        assert picked == f"{there.teacher[at]}: regret {points:.1f} points"
        assert paper == (["paper: 0.92, regret 0"] if score == "grace" else [])
        assert drawn.ours[score]["selected"] == f"{there.teacher[at]} at T=0.8"
    assert plain_regret(there.g_vendi, there.average_at_k, "higher") > 0  # otherwise the line was not tested


def test_bars_and_the_papers_values_are_separate_marks():
    cells = synthetic_cells()
    drawn = correlations.figure4(cells, "first", "mini")
    (ax,) = drawn.fig.axes
    names = list(drawn.table.score)
    assert set(names) == set(tables.MAIN_SCORES)  # length is a column, but not a score of the paper's list
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(list(drawn.table.spearman))
    assert sorted(drawn.table.spearman, reverse=True) == list(drawn.table.spearman)
    marks = {line.get_gid(): line for line in ax.lines if str(line.get_gid()).startswith("paper-")}
    reported = paper_values("figure 4", "spearman_abs")
    assert set(marks) == {f"paper-{score}" for score in reported}
    for score, value in reported.items():
        assert set(marks[f"paper-{score}"].get_xdata()) == {value.low, value.high}
        assert set(marks[f"paper-{score}"].get_ydata()) == {names.index(score) + 0.31}  # on the bar's edge
    assert list(marks["paper-g_norm"].get_xdata()) == [0.53, 0.55]  # a range has two ends, no middle
    labels = [t.get_text() for part in drawn.fig.subfigs for legend in part.legends for t in legend.get_texts()]
    assert "paper, Llama-3.2-1B/GSM8K, |ρ|" in labels and "this run, signed" in labels


def test_the_axis_is_logarithmic_beyond_a_decade_only():
    rows = tables.select(synthetic_cells(), "first", ["grace", "g_vendi"])
    table = tables.score_rows(rows, ["grace", "g_vendi"]).to_dict("records")
    assert rows.grace.max() > 10 * rows.grace.min()
    with style.styled():
        _, (left, right) = style.frame(style.SINGLE, 2.0, [], "scale: mini", (1, 1))
        plots.scatter(left, rows, "grace", table[0])
        plots.scatter(right, rows, "g_vendi", table[1])
    assert (left.get_xscale(), right.get_xscale()) == ("log", "linear")
    _, (ax,) = style.frame(style.SINGLE, 2.0, [], "scale: mini")
    plots.x_axis(ax, np.array([-1.0, 50.0]))  # a log axis would lose the negative value
    assert ax.get_xscale() == "linear"


def test_undefined_correlations_say_so():
    drawn = draw("figure1", "nano")
    left, right = drawn.fig.axes
    assert [t.get_text() for t in left.texts] == ["undefined"] * len(correlations.HEADLINE) and not left.patches
    assert right.get_title(loc="left") == "Spearman undefined\npaper: 0.86"
    assert (
        drawn.ours["grace"]["note"] == "one teacher: no interval; Spearman undefined: 1 cell(s): at least 3 are needed"
    )


# --- the table behind them ---


def test_the_main_table_holds_the_statistics_and_the_papers_text():
    cells = synthetic_cells()
    table = tables.main_table(cells, "first").set_index("score")
    assert tuple(table.index) == tables.MAIN_SCORES
    for score, row in table.iterrows():
        direction = SCORES[score].direction
        assert row.spearman == ranks.spearman(cells[score], cells.average_at_k, direction)
        assert row.regret_points == plain_regret(cells[score], cells.average_at_k, direction)
        first = cells.sort_values(score, ascending=direction == "lower", kind="stable").iloc[0]
        assert row.selected == f"{first.teacher} at T={first.temperature:g}"
        assert row.low <= row.high and (row.cells, row.teachers) == (24, 6)
    assert table[tables.PAPER_SPEARMAN].to_dict() == {
        "grace": "0.86",
        "grace_variance": "",
        "grace_bias": "",
        "g_vendi": "0.44",
        "g_var": "0.55",
        "g_norm": "0.53-0.55",
        "student_loss": "0.44",
        "teacher_accuracy": "0.11",
    }
    assert table[tables.PAPER_REGRET]["g_norm"] == "4.9 or 10.8"


def test_a_family_can_be_left_out():
    cells = synthetic_cells()
    table = tables.main_table(cells, "first", leave_out=["terse"]).set_index("score")
    without = cells[cells.manner != "terse"]
    assert table.spearman["grace"] == ranks.spearman(without.grace, without.average_at_k, "lower")
    assert set(table.cells) == {20} and set(table[tables.PAPER_SPEARMAN]) == {""}
    assert "5 teachers: intervals are too narrow, read them as ranges" in table.note["grace"]
    assert tables.main_table(cells, "first", leave_out=["polish"]).cells.tolist() == [24] * 8  # nobody to leave out


def test_a_caption_warns_of_narrow_intervals_where_teachers_are_few():
    many, few = (pd.DataFrame({"task": "short", "student": "first", "teacher": range(n)}) for n in (11, 10))
    assert "too narrow" not in captions.cells_sentence("mini", many)
    assert "(of 10 or fewer they are too narrow" in captions.cells_sentence("mini", many, few)


def test_a_score_that_is_undefined_somewhere_is_judged_on_the_rest():
    cells = synthetic_cells()
    cells.loc[cells.average_at_k.idxmax(), "g_vendi"] = np.nan
    (ax,) = correlations.figure4(cells, "first", "mini").fig.axes
    assert "G-Vendi (23 cells)" in [t.get_text() for t in ax.get_yticklabels()]
    cells["g_vendi"] = np.nan
    row = tables.main_table(cells, "first").set_index("score").loc["g_vendi"]
    assert np.isnan(row.spearman) and row.note.endswith("the score is undefined in every cell") and row.selected == ""


@pytest.mark.parametrize(
    "change, arguments, message",
    [
        (
            lambda c: c.drop(columns=["g_norm", "manner"]),
            {},
            r"lacks the column\(s\) manner, g_norm: use the table that tables",
        ),
        (lambda c: c.drop(columns="average_se"), {}, r"lacks the column\(s\) average_se: .*run `make figures` again"),
        (lambda c: pd.concat([c, c.assign(task="long")]), {}, r"cells of several tasks \(long, short\): keep one"),
        (lambda c: c, {"student": "third"}, "no cell of student 'third': choose one of first, second"),
        (lambda c: c, {"scores": ("grace", "luck")}, "unknown score 'luck': choose from grace"),
        (lambda c: c, {"temperature": 0.5}, "no cell at temperature 0.5: choose one of 0.4, 0.6, 0.8, 1.0"),
        (lambda c: c[c.manner == "terse"], {"leave_out": ["terse"]}, "no cell left without the families terse"),
    ],
)
def test_bad_cells_are_refused_with_the_remedy(change, arguments, message):
    given = {"student": "first", "scores": ("grace", "g_norm")} | arguments
    with pytest.raises(ValueError, match=message):
        tables.select(change(synthetic_cells(students=("first", "second"))), **given)


def test_only_the_accuracy_asked_for_needs_a_standard_error():
    rows = tables.select(synthetic_cells().drop(columns="average_se"), "first", ["grace"], accuracy="greedy")
    assert "average_se" not in rows


# --- the paper's figures: which cells, which numbers of the paper ---


def test_two_panels_hold_the_statistics_of_their_own_task():
    cells = synthetic_cells()
    longer = harder(cells)
    for name in ("figure1", "figure4"):
        drawn = FIGURES[f"{name}, two tasks"](cells, "first", "mini")
        for ax, part, task in zip(drawn.fig.axes, (cells, longer), ("short", "long"), strict=False):
            assert ax.get_title(loc="left").startswith(f"{task} task\npaper: Llama-3.2-")
            there = part.dropna(subset=["g_vendi"])
            rho = ranks.spearman(there.g_vendi, there.average_at_k, "higher")
            assert any(bar.get_width() == pytest.approx(rho, abs=1e-12) for bar in ax.patches)
        assert drawn.ours["g_vendi"]["cells"] == 24 and drawn.ours["long task: g_vendi"]["cells"] == 11
        assert drawn.paper["long task: grace"]["value"] == "0.88" and drawn.paper["grace"]["value"] == "0.86"
        texts = [t.get_text() for t in drawn.fig.axes[1].texts]
        assert sum(t.endswith("*") for t in texts) == 1
    long_rows = drawn.table[drawn.table.task == "long"]
    assert list(long_rows.score) == list(drawn.table[drawn.table.task == "short"].score)  # one order of rows


def test_regret_bars_hold_both_regrets_and_the_papers_marks():
    cells = synthetic_cells(seed=3)
    drawn = FIGURES["regret_bars, two tasks"](cells, "first", "mini")
    for ax, part, task in zip(drawn.fig.axes, (cells, harder(cells)), ("short", "long"), strict=True):
        rows = drawn.table[drawn.table.task == task]
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(list(rows.regret_points))
        for score, points in zip(rows.score, rows.regret_points, strict=True):
            if score != "g_vendi":
                assert points == plain_regret(part[score], part.average_at_k, SCORES[score].direction)
    short, longer = drawn.fig.axes
    marks = {line.get_gid(): line for line in short.lines if str(line.get_gid()).startswith("paper-")}
    assert list(marks["paper-g_norm"].get_xdata()) == [4.9, 10.8] and marks["paper-grace"].get_marker() == "D"
    (bound,) = [line for line in longer.lines if line.get_gid() == "paper-teacher_accuracy"]
    assert bound.get_marker() == ">" and list(bound.get_xdata()) == [5.9]
    labels = [t.get_text() for part in drawn.fig.subfigs for legend in part.legends for t in legend.get_texts()]
    assert labels == ["this run", "95% interval", "paper's regret", "paper's regret, at least"]
    assert short.get_xlim() == longer.get_xlim() and short.get_xlim()[0] == 0


@pytest.mark.parametrize(
    "accuracy, task, student, item, paper, where",
    [
        ("average_at_k", "short", "first", None, {"grace": "0.86", "g_norm": "0.53"}, "Llama-3.2-1B, GSM8K"),
        ("greedy", "short", "first", None, {"grace": "0.7"}, "Llama-3.2-1B, GSM8K"),
        ("best_of", "short", "first", None, {"grace": "0.64"}, "Llama-3.2-1B, GSM8K"),
        ("average_at_k", "short", "second", "figure 3", {"grace": "0.74", "g_var": "0.43"}, "OLMo-2-1B, GSM8K"),
        ("average_at_k", "long", "first", "figure 8", {"grace": "0.88", "g_var": "0.9"}, "Llama-3.2-3B, MATH"),
        ("average_at_k", "short", "second", None, {}, "OLMo-2-1B, GSM8K"),
        ("average_at_k", "other", "first", None, {}, ""),
    ],
)
def test_a_scatter_records_the_paper_for_its_own_setting(accuracy, task, student, item, paper, where):
    cells = synthetic_cells(students=("first", "second"), task=task)
    drawn = correlations.figure2(cells, student, "mini", accuracy=accuracy, item=item, extra="One more thing.")
    assert paper.items() <= {score: known["value"] for score, known in drawn.paper.items()}.items()
    assert bool(drawn.paper) == bool(paper) and (f"(in the paper: {where})" in drawn.caption) == bool(where)
    assert f". One more thing. Scale mini, {task} task, {student} student: 24 cells of 6 teachers" in drawn.caption
    own = cells[cells.student == student]
    assert drawn.ours["grace"]["spearman"] == pytest.approx(ranks.spearman(own.grace, own[accuracy], "lower"))
    assert drawn.fig.axes[0].get_ylabel() == plots.accuracy_label(accuracy)


def test_the_main_table_has_a_block_a_setting():
    cells = synthetic_cells(students=("first", "second"))
    alone = synthetic_cells((("terse-64", "terse"),), task="long")
    drawn = correlations.table_main(cells, "first", "mini", others=[(cells, "second"), (alone, "first")])
    blocks = drawn.table.groupby(["setting", "cells_used"], sort=False)
    assert list(blocks.groups) == [
        ("short task, first student", "all families"),
        ("short task, first student", "without terse"),
        ("short task, first student", "without terse and reversed"),
        ("short task, second student", "all families"),
        ("short task, second student", "without terse"),
        ("short task, second student", "without terse and reversed"),
        ("long task, first student", "all families"),
    ]
    whole = drawn.table[drawn.table.cells_used == "all families"]
    assert list(whole.drop_duplicates("setting")[tables.PAPER_SETTING]) == [
        "Llama-3.2-1B, GSM8K",
        "OLMo-2-1B, GSM8K",
        "Llama-3.2-3B, MATH",
    ]
    second = whole[(whole.setting == "short task, second student") & (whole.score == "grace")].iloc[0]
    own = cells[cells.student == "second"]
    assert (
        second.spearman == ranks.spearman(own.grace, own.average_at_k, "lower")
        and second[tables.PAPER_SPEARMAN] == "0.74"
    )
    assert set(drawn.ours) == {", ".join(key) for key in blocks.groups}
