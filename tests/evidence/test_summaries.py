"""Summaries are pure functions of the tables: what they print can be checked on tables made up for the purpose, and a
cell or setting that is missing is an error, not a gap.
"""

import numpy as np
import pandas as pd
import pytest

from gracelib.evidence import summaries
from gracelib.variants import REFERENCES, VARIANTS
from synthetic import synthetic_cells

KEY = summaries.KEY


def variants_of(cells: pd.DataFrame) -> pd.DataFrame:
    table = cells[KEY].copy()
    for i, name in enumerate(dict.fromkeys([*VARIANTS, *REFERENCES])):
        table[name] = cells["grace"] * (i + 1)  # every variant orders the cells as GRACE does
    table["nu_1e-1"] = -table["grace"]  # and one exactly the other way round
    return table


def test_ratios_and_agreement_against_the_reference():
    cells = synthetic_cells()
    variants = variants_of(cells)
    summary = summaries.variant_summary(variants).set_index("variant")
    assert "grace" not in summary.index and set(summary.index) == set(VARIANTS) - {"grace"}
    assert summary.loc["nu_1e-1", "rank_agreement"] == -1 and summary.loc["nu_1e-1", "median_ratio"] == -1
    ratio = variants["second_half"][0] / variants["first_half"][0]  # its own reference, not GRACE
    assert summary.loc["second_half", ["lowest", "median_ratio", "highest"]].astype(float).tolist() == pytest.approx(
        [ratio] * 3
    )
    assert (summary.drop("nu_1e-1").rank_agreement == 1).all()
    assert summaries.variant_summary(variants[:2]).rank_agreement.isna().all()  # two cells have no order to speak of


def test_inconsistencies_have_a_decision_and_a_measured_difference():
    table = summaries.inconsistencies(variants_of(synthetic_cells()))
    assert len(table) == sum(bool(v.sources) for v in VARIANTS.values()) >= 15
    assert table[["sources", "ours", "alternative"]].map(bool).all(axis=None)
    assert table[["median_change", "largest_change", "rank_agreement"]].notna().all(axis=None)


def test_agreement_with_accuracy_is_signed_by_the_direction():
    cells = synthetic_cells()
    table = summaries.variant_accuracy(variants_of(cells), cells).set_index("variant")
    assert table.loc["grace", "spearman"] > 0.8 and table.loc["nu_1e-1", "spearman"] == -table.loc["grace", "spearman"]
    assert table.loc["g_vendi_bits", "spearman"] == -table.loc["grace", "spearman"]  # higher is better there
    assert table.loc["grace", "without_terse"] != table.loc["grace", "spearman"]
    with pytest.raises(ValueError, match=r"no variants of equations-48 at T=0.4 \(task short, student first\)"):
        summaries.variant_accuracy(variants_of(cells)[1:], cells)


def test_variants_belong_to_one_task_and_student():
    """A table made for the first task and student does not stand in for another's cells."""
    variants = variants_of(synthetic_cells())
    for other in (synthetic_cells(task="long"), synthetic_cells(students=("first", "second"))):
        with pytest.raises(ValueError, match="give the cells of the first task and student only"):
            summaries.variant_accuracy(variants, other)


def test_the_sentence_names_neighbours_that_are_not_told_apart():
    table = pd.DataFrame(
        {
            "student": "first",
            "temperature": 0.6,
            "better": ["a", "b"],
            "worse": ["b", "c"],
            "p_better": [0.71, 1.0],
            "apart": [False, True],
        }
    )
    assert summaries.neighbours_sentence(table, "first", 0.6) == (
        "At T = 0.6 the data cannot tell apart 1 of 2 neighbours: a and b (71% of resamples keep this order)."
    )
    assert "all 1 neighbours in the ranking are told apart" in summaries.neighbours_sentence(table[1:], "first", 0.6)
    assert "nothing to compare" in summaries.neighbours_sentence(table, "first", 1.0)


def test_the_sentence_names_the_most_concentrated_cell():
    table = pd.DataFrame(
        {
            "student": "first",
            "teacher": ["a", "b", "c"],
            "temperature": [0.6, 1.0, 0.6],
            "grace": [30.0, 200.0, 40.0],
            "grace_low": [28.0, 35.0, 38.0],
            "grace_high": [31.0, 450.0, 42.0],
            "top3_share": [0.05, 0.8, 0.1],
            "grace_without_top3": [29.0, 40.0, 37.0],
            "nu_share": 0.1,
        }
    )
    assert summaries.concentration_sentence(table, "first") == (
        "Most concentrated: b at T = 1, where three prompts carry 80% of GRACE (200, interval 35 to 450; 40 without them). "
        "Median over 3 cells: 10%."
    )
    with pytest.raises(ValueError, match="no cell of student 'second': choose one of first"):
        summaries.concentration_sentence(table, "second")


def test_flags_are_shares_of_real_cells_that_a_score_prefers():
    real = pd.DataFrame(
        {
            "task": "short",
            "student": "first",
            "grace": [1.0, 2.0, 3.0, 4.0],
            "grace_bias": [0.1] * 4,
            "g_vendi": [1.0, 2, 3, np.nan],
        }
    )
    odd = pd.DataFrame(
        {
            "student": "first",
            "teacher": ["self", "random"],
            "grace": [2.5, 9.0],
            "grace_bias": [1.0, 0.0],
            "g_vendi": [0.5, np.nan],
        }
    )
    table = summaries.flags(odd, real).set_index("score")
    assert table.loc["GRACE"].tolist() == [0.5, 1.0]  # lower is better
    assert table.loc["G-Vendi", "self"] == 1.0 and np.isnan(table.loc["G-Vendi", "random"])
    assert table.loc["bias share"].tolist() == [1.0, 0.0]
    others = real.assign(student="second", grace=0.0)  # another student's cells do not count
    again = summaries.flags(odd, pd.concat([real, others], ignore_index=True)).set_index("score")
    pd.testing.assert_frame_equal(again, table)
    with pytest.raises(ValueError, match="cells of the tasks long, short: give those of one"):
        summaries.flags(odd, pd.concat([real, real.assign(task="long")], ignore_index=True))


def cmi_table():
    terms = dict.fromkeys(summaries.CMI_TERMS, 1.0)
    rows = [
        {
            "task": "short",
            "student": "s",
            "teacher": t,
            "temperature": 0.6,
            "space": "h",
            "preconditioner": p,
            "nu": 1e-3,
            "n": 8,
            "log_n": np.log(8),
            **terms,
            "gradient": 6.0,
            "stability": 0.0 if p == "identity" else 2.0,
        }
        for t in ("a", "b")
        for p in ("smoothed", "identity")
    ]
    return pd.DataFrame(rows)


def test_noise_scales_every_term_and_no_ratio():
    one, two = summaries.with_noise(cmi_table(), 1, 1), summaries.with_noise(cmi_table(), 2, 1)
    for term in summaries.CMI_TERMS:
        np.testing.assert_allclose(two[term], 4 * one[term])
    smoothed = one.preconditioner == "smoothed"
    assert (one.ratio[smoothed] == 3).all() and one.ratio[~smoothed].isna().all()
    assert not one.vacuous_tight.any() and two.vacuous_tight.all()  # 1 and 4 against log 8 = 2.08
    assert len(summaries.cmi_at(one, 8, 1e-3)) == 2
    with pytest.raises(ValueError, match="no bound for n = 9"):
        summaries.cmi_at(one, 9, 1e-3)
    for eta, sigma in ((0, 1), (1, float("nan"))):
        with pytest.raises(ValueError, match="expected a finite number > 0"):
            summaries.with_noise(cmi_table(), eta, sigma)


def test_constants_of_the_lemma():
    table = summaries.cmi_constants(cmi_table()[:1], eta=0.5).set_index("ratio")["median"]
    assert (
        table.iloc[0] == 2 and table.iloc[1] == 1 and table.iloc[2] == 4 and table.iloc[3] == 2 and table.iloc[5] == 4
    )


def test_agreement_of_the_bound_joins_cells_of_one_task():
    """The bound's own order is compared with the scores of the same cells; another task's scores are left alone."""
    cells = synthetic_cells()
    cmi = cells[KEY].assign(space="h", preconditioner="smoothed", gradient=cells.grace, tight=-cells.grace)
    both = pd.concat([cells, cells.assign(task="long", grace=-cells.grace)], ignore_index=True)
    table = summaries.cmi_agreement(cmi, both).set_index("bound")["GRACE"]
    assert table["gradient"] == 1 and table["tight"] == -1
    shuffled = summaries.cmi_agreement(cmi.sample(frac=1, random_state=0), both).set_index("bound")["GRACE"]
    assert shuffled.equals(table)
