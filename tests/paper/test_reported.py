"""The paper's numbers can be checked only against their source, so each must have one, belong to something that is
drawn, and come back exactly as it was reported: a range stays a range and a bound stays a bound.
"""

import math

import pytest

from gracelib.baselines import SCORES
from gracelib.experiment.scales import SCALES
from gracelib.paper import reported as paper
from gracelib.paper.figures import FIGURES


def test_every_number_of_the_paper_belongs_to_an_item_we_draw_and_has_a_source():
    drawn = {item.paper_item for item in FIGURES.values()} | set(FIGURES)
    seen = set()
    for row in paper.rows():
        assert row["item"] in drawn
        assert row["score"] in {"", *SCORES} and row["quantity"] in paper.QUANTITIES and row["source"]
        assert (row["student"], row["task"]) in paper.SETTINGS.values()
        value = paper.value_of(row)
        assert 0 <= value.low <= value.high <= (1 if row["quantity"].startswith("spearman") else 100)
        seen.add(tuple(row[k] for k in ("item", "case", "score", "quantity", "student", "task")))
    assert len(seen) == len(paper.rows())  # nothing twice
    assert {row["quantity"] for row in paper.rows()} == set(paper.QUANTITIES)  # none listed in vain


@pytest.mark.parametrize(
    "figure, setting, reported",
    [
        ("figure 2", ("short", "first"), {"grace": 0.86, "g_var": 0.55, "g_vendi": 0.44, "g_norm": 0.53}),
        ("figure 3", ("short", "second"), {"grace": 0.74, "g_var": 0.43, "g_vendi": 0.48}),
        ("figure 8", ("long", "first"), {"grace": 0.88, "g_var": 0.90, "g_vendi": 0.74}),
        ("figure 9", ("short", "first"), {"grace": 0.90, "g_var": 0.55, "g_vendi": 0.47}),
        ("figure 10", ("short", "second"), {"grace": 0.81, "g_var": 0.43, "g_vendi": 0.50}),
        ("figure 11", ("short", "first"), {"grace": 0.70}),
        ("figure 12", ("short", "first"), {"grace": 0.64}),
        ("figure 23", ("short", "first"), {}),
        ("figure 2", ("short", "third"), {}),
    ],
)
def test_correlations_by_our_setting(figure, setting, reported):
    values = paper.setting_values(figure, "spearman_abs", *setting)
    assert {score: value.low for score, value in values.items()} == reported


def test_every_setting_of_the_scales_stands_for_one_of_the_papers():
    ours = {(task.name, student) for task in SCALES["lab"].tasks for student, _ in task.temperatures}
    assert set(paper.SETTINGS) == ours
    assert paper.setting_name("long", "first") == "Llama-3.2-3B, MATH" and paper.setting_name("long", "second") == ""


@pytest.mark.parametrize(
    "values, score, said",
    [
        (
            paper.paper_values("main table", "regret_points"),
            "g_norm",
            {"text": "4.9 or 10.8", "low": 4.9, "high": 10.8},
        ),
        (paper.paper_values("main table", "regret_points"), "grace", {"low": 0.3, "high": 0.3}),
        (
            paper.setting_values("main table", "regret_points", "long", "first"),
            "teacher_accuracy",
            {"text": ">=5.9", "low": 5.9, "bound": "at least"},
        ),
        (
            paper.paper_values("figure 14", "regret_budget_points"),
            "g_vendi",
            {"low": 2.5, "high": 5, "bound": "at least"},
        ),
        (paper.paper_values("figure 13", "regret_family_points"), "grace", {"bound": "about"}),
        (paper.paper_values("table 1", "score_seconds"), "grace", {"bound": "at most"}),
        *(
            (paper.paper_values("settings", "spearman_abs", case=f"m = {m}"), "grace", {"low": low})
            for m, low in ((2, 0.70), (4, 0.86), (8, 0.87))
        ),
        (paper.paper_values("figure 6", "temperature_best", case="Qwen2.5-3B"), "", {"low": 0.8}),
        (paper.paper_values("figure 6", "temperature_picked", case="Qwen2.5-3B"), "grace", {"low": 0.9}),
    ],
)
def test_the_reader_keeps_ranges_bounds_and_cases(values, score, said):
    assert {name: getattr(values[score], name) for name in said} == said


def test_what_is_not_reported_has_no_value():
    assert "g_var" not in paper.paper_values("main table", "regret_points")
    assert str(paper.paper_values("figure 4", "spearman_abs")["g_norm"]) == "0.53-0.55"
    assert not any(math.isnan(v.low) for v in paper.paper_values("claims", "gain_over_strongest_points").values())


@pytest.mark.parametrize(
    "wrong, message",
    [
        *(
            (lambda arguments=arguments: paper.paper_values(*arguments), message)
            for arguments, message in (
                (("figure 99", "spearman_abs"), r"item .* = 'figure 99': choose one of figure 1, "),
                (("figure 1", "kendall"), r"quantity .* = 'kendall': choose one of spearman_abs"),
                (("figure 1", "spearman_abs", "GPT-2"), r"student .* = 'GPT-2': choose one of Llama-3.2-1B, "),
                (("figure 1", "spearman_abs", "OLMo-2-1B", "BBH"), r"task .* = 'BBH': choose one of GSM8K, MATH"),
                (
                    ("settings", "spearman_abs", "OLMo-2-1B", "GSM8K", "m = 3"),
                    r"case .* = 'm = 3': choose one of .*m = 2, m = 4",
                ),
            )
        ),
        (
            lambda: paper.value_of({"value": "about 3", "item": "figure 1", "score": "grace", "source": "s"}),
            "value 'about 3' .figure 1, grace. is neither a number",
        ),
    ],
)
def test_the_reader_refuses_what_it_does_not_have(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
