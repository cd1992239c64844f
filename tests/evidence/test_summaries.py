"""Summaries are pure functions of the tables: what they print can be checked on tables made up for the purpose, and a
cell or setting that is missing is an error, not a gap.
"""

import numpy as np
import pandas as pd
import pytest

from gracelib.evidence import summaries
from gracelib.evidence.cells import KEY
from gracelib.variants import REFERENCES, VARIANTS
from synthetic import synthetic_cells


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
