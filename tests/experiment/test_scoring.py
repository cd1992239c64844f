"""What is read off the features is what is in them: bins hold every response once, means over bins are means over
responses.
"""

import numpy as np
import pytest

from gracelib.experiment.scoring import ESTIMATORS, length_bins
from gracelib.ranking.rank import PARAMS, PROJECTIONS


def test_every_labelled_alternative_is_an_estimator():
    values = [v for own in ESTIMATORS.values() for v in own.values()]
    assert sorted(values) == sorted([*PARAMS[1:], *PROJECTIONS[1:]]) and next(iter(ESTIMATORS)) == "exact"


def test_bins_hold_every_response_once_and_keep_the_means():
    rng = np.random.default_rng(1)
    length, norm = rng.integers(1, 200, 5000), rng.uniform(0.1, 5, 5000)
    bins = length_bins(length, norm)
    assert bins["count"].sum() == 5000 and (bins.bin_low[1:].to_numpy() >= bins.bin_high[:-1].to_numpy() - 1e-9).all()
    np.testing.assert_allclose(bins.bin_high / bins.bin_low, 2 ** (1 / 4))
    log = np.log(length)
    for column, values in (
        ("mean_length", length),
        ("mean_norm", norm),
        ("mean_norm_log", norm * log),
        ("mean_norm_log2", norm * log**2),
    ):
        assert np.average(bins[column], weights=bins["count"]) == pytest.approx(values.mean())
    row = bins.iloc[12]
    own = (length >= row.bin_low - 1e-9) & (length < row.bin_high - 1e-9)
    assert row["count"] == own.sum() > 0 and row.mean_norm == pytest.approx(norm[own].mean())


def test_edges_do_not_depend_on_the_data():
    """Cells can be put together only if a length falls into the same bin everywhere; powers of two open a bin."""
    every = length_bins(np.arange(1, 1025), np.ones(1024))
    for length in (1, 2, 3, 16, 24, 64, 1024):
        (row,) = length_bins([length], [1.0]).itertuples()
        assert row.bin_low <= length + 1e-9 < row.bin_high and np.isclose(every.bin_low, row.bin_low).sum() == 1
    assert {1.0, 2.0, 16.0, 1024.0} <= set(every.bin_low.round(9))


@pytest.mark.parametrize(
    "length, norm, message",
    [
        ([3, 0], [1.0, 1.0], r"length\[1\] = 0"),
        ([3, 4], [1.0, np.nan], r"norm\[1\] = nan"),
        ([3, 4], [0.0, 1.0], r"norm\[0\] = 0"),
        ([3, 4], [1.0], "expected one of each"),
        ([], [], "expected one of each"),
    ],
)
def test_bad_features_are_refused(length, norm, message):
    with pytest.raises(ValueError, match=message):
        length_bins(length, norm)
