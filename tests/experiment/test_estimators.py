"""The table of estimators: the exact one gives the pipeline's own GRACE, the others something else, every cell has
each, and agreement is rank correlation by hand.
"""

import numpy as np
import pandas as pd
import pytest

from gracelib.experiment import estimators, tables
from gracelib.experiment.plan import KEY, compared_at
from gracelib.experiment.scales import get_scale
from gracelib.features.estimators import PARAMS
from gracelib.ranking.rank import PROJECTIONS


def test_every_labelled_alternative_is_in_the_table():
    values = [v for own in estimators.ESTIMATORS.values() for v in own.values()]
    assert sorted(values) == sorted([*PARAMS[1:], *PROJECTIONS[1:]]) and next(iter(estimators.ESTIMATORS)) == "exact"


def made_table():
    cells = [("short", "first", f"t{i}", t) for t in (0.4, 0.6) for i in range(4)]
    exact = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    by_name = {
        "exact": exact,
        "last-layer": exact * 10,
        "lora-b": exact[::-1],
        "sjlt": np.r_[2.0, 1, 3, 4, 5, 6, 7, 8],
        "two-sided": np.ones(8),
    }
    return pd.DataFrame(
        [
            dict(zip(KEY, cell, strict=True))
            | {
                "estimator": name,
                "parameters": 100,
                "responses": 8,
                "seconds": 2.0 if name == "exact" else 1.0 + i,
                "peak_mib": 5.0,
                "grace": grace[i],
                "device": "cpu",
                "volatile": True,
            }
            for name, grace in by_name.items()
            for i, cell in enumerate(cells)
        ]
    )


def test_agreement_is_rank_correlation_with_the_exact_one():
    made = estimators.agreement(made_table())
    assert list(made.index) == list(estimators.ESTIMATORS)
    assert made.agreement["exact"] == made.agreement["last-layer"] == 1 and made.agreement["lora-b"] == -1
    assert made.agreement["sjlt"] == pytest.approx(1 - 6 * 2 / (8 * 63)) and np.isnan(made.agreement["two-sided"])
    assert made.times_exact["exact"] == 1 and made.times_exact["sjlt"] == 4.5 / 2 and (made.cells == 8).all()


@pytest.mark.slow
def test_at_nano_the_exact_estimator_is_the_pipelines(tmp_path, monkeypatch):
    monkeypatch.setenv("GRACELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GRACELIB_FIGURES", str(tmp_path / "figures"))
    config = get_scale("nano")
    scores = tables.score_table("nano")
    table = estimators.estimators("nano")
    here = (scores.task == config.tasks[0].name) & (scores.student == config.student)
    own = scores[here & (scores.temperature == compared_at(config))].set_index(KEY)
    assert len(table) == len(own) * len(estimators.ESTIMATORS) and table.volatile.all()
    wide = table.pivot(index=KEY, columns="estimator", values="grace")
    np.testing.assert_allclose(wide["exact"], own.grace.reindex(wide.index), rtol=2e-3)
    for name in list(estimators.ESTIMATORS)[1:]:
        assert np.isfinite(wide[name]).all() and (wide[name] > 0).all()
        assert not np.allclose(wide[name], wide["exact"], rtol=1e-2), name
    assert (table.seconds > 0).all() and (table.groupby("estimator").parameters.nunique() == 1).all()
    pd.testing.assert_frame_equal(table, estimators.estimators("nano", recompute=False))
    made = estimators.agreement(table)  # one cell: no ranks to agree on
    assert made.agreement.isna().all() and made.times_exact["exact"] == 1 and (made.cells == len(own)).all()
