"""Invariants of the scores: GRACE equals the formula written out densely, its parts add up, rescaling,
rotating, duplicating or reordering the rows does exactly what the algebra says, and input that has no defined
score is refused by name. Every figure is a function of these numbers, so an error of a factor here would be
invisible everywhere else.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracelib.scores import g_norm, g_var, g_vendi, grace, recalibrate, released_grace


@st.composite
def data(draw):
    """h (rows, d) with a mean and a decaying spectrum, and ids with unequal numbers of responses per
    prompt."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    count = draw(st.lists(st.integers(1, 4), min_size=4, max_size=12))
    d = draw(st.integers(1, 9))
    h = rng.standard_normal((sum(count), d)) * np.linspace(1, 0.1, d) + 0.3 * rng.standard_normal(d)
    return h, np.repeat(np.arange(len(count)), count)


folds_and_nu = {"n_folds": st.integers(2, 4), "nu": st.sampled_from([1e-4, 1e-3, 1e-1, 1.0])}


def dense_grace(h, prompt_id, n_folds, nu, seed, mode="normalised", centre="none"):
    """The definition with explicit inverses and loops over responses; shares nothing with the module."""
    ids = sorted(set(prompt_id.tolist()))
    d = h.shape[1]
    total = 0.0
    for part in np.array_split(np.random.default_rng(seed).permutation(len(ids)), n_folds):
        fold = {ids[i] for i in part}
        inside = [k for k, p in enumerate(prompt_id.tolist()) if p in fold]
        outside = [k for k, p in enumerate(prompt_id.tolist()) if p not in fold]
        sigma = np.zeros((d, d))
        for k in outside:
            x = h[k] / np.sqrt(np.sum(h[k] ** 2)) if mode == "normalised" else h[k]
            sigma += np.outer(x, x) / len(outside)
        ridge = nu / d if mode == "normalised" else nu * np.trace(sigma) / d
        inverse = np.eye(d) if mode == "identity" else np.linalg.inv(sigma + ridge * np.eye(d))
        shift = {"none": np.zeros(d), "global": h.mean(0), "fold": h[inside].mean(0)}[centre]
        total += sum((h[k] - shift) @ inverse @ (h[k] - shift) for k in inside)
    return total / len(h)


@settings(deadline=None, max_examples=40)
@given(data(), st.integers(0, 5), *folds_and_nu.values())
def test_grace_equals_the_dense_formula(pair, seed, n_folds, nu):
    h, ids = pair
    result = grace(h, ids, n_folds, nu, seed)
    assert result.total == pytest.approx(dense_grace(h, ids, n_folds, nu, seed), rel=1e-9)
    assert result.variance == pytest.approx(dense_grace(h, ids, n_folds, nu, seed, centre="global"), rel=1e-9)


@pytest.mark.parametrize("mode", ["normalised", "raw", "identity"])
@pytest.mark.parametrize("centre", ["none", "global", "fold"])
def test_every_variant_equals_the_dense_formula(mode, centre):
    rng = np.random.default_rng(1)
    h, ids = rng.standard_normal((30, 6)) + 0.5, rng.integers(0, 9, 30)
    result = grace(h, ids, 3, 1e-2, 4, preconditioner=mode, centre=centre)
    assert result.total == pytest.approx(dense_grace(h, ids, 3, 1e-2, 4, mode, centre), rel=1e-10)


@pytest.mark.parametrize("larger", [1e6, 1e9])
@pytest.mark.parametrize("mode", ["normalised", "raw"])
def test_a_prompt_that_outweighs_all_others_costs_no_digits(mode, larger):
    h, ids = np.random.default_rng(1).standard_normal((30, 6)), np.repeat(np.arange(10), 3)
    h[3:6] *= larger
    assert grace(h, ids, 5, preconditioner=mode).total == pytest.approx(dense_grace(h, ids, 5, 1e-3, 0, mode), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_tensors_of_any_kind_are_rows(dtype):
    h = torch.tensor(H, dtype=dtype, requires_grad=True)
    assert grace(h, IDS, 3).total == grace(h.detach().double().numpy(), list(IDS), 3).total


def test_two_prompts_by_hand():
    """h1 = (2, 0), h2 = (0, 3), nu = 2 so nu/d = 1, one prompt a fold, so each is judged by the other.

    Judging h1: Sigma-hat = diag(0, 1) + I = diag(1, 2); judging h2: diag(1, 0) + I = diag(2, 1).
    total: h1 gives 4/1 = 4, h2 gives 9/1 = 9, mean 6.5. mu = (1, 1.5).
    variance: (1, -1.5) gives 1 + 2.25/2 = 2.125, (-1, 1.5) gives 1/2 + 2.25 = 2.75, mean 2.4375.
    bias: mu gives 1 + 2.25/2 = 2.125 and 1/2 + 2.25 = 2.75, mean 2.4375.
    cross: 2 * (1/2) * [(1 - 2.25/2) + (-1/2 + 2.25)] = -0.125 + 1.75 = 1.625. And 2.4375 + 2.4375 + 1.625 =
    6.5. nu_share: |Sigma-hat^-1 h|^2 * nu/d = 4 and 9, so all of the score is nu's: 1.
    """
    result = grace(np.array([[2.0, 0.0], [0.0, 3.0]]), [7, 3], n_folds=2, nu=2.0)
    parts = (result.total, result.variance, result.bias, result.cross, result.nu_share)
    assert parts == pytest.approx((6.5, 2.4375, 2.4375, 1.625, 1.0), rel=1e-14)
    assert result.prompt_ids.tolist() == [3, 7] and result.per_prompt == pytest.approx([9.0, 4.0])


@settings(deadline=None, max_examples=60)
@given(data(), *folds_and_nu.values(), st.sampled_from(["normalised", "raw", "identity"]))
def test_total_is_variance_plus_bias_plus_cross(pair, n_folds, nu, mode):
    result = grace(*pair, n_folds, nu, preconditioner=mode)
    assert result.total == pytest.approx(result.variance + result.bias + result.cross, rel=1e-9)
    assert grace(*pair, n_folds, nu, preconditioner=mode, centre="global").total == pytest.approx(
        result.variance, rel=1e-12
    )
    pooled = result.count @ result.per_prompt / result.count.sum()
    assert pooled == pytest.approx(result.total, rel=1e-12)
    assert -1e-12 <= result.nu_share <= 1 + 1e-9


@settings(deadline=None, max_examples=40)
@given(data(), *folds_and_nu.values(), st.integers(0, 99))
def test_rotation_changes_no_spectral_score(pair, n_folds, nu, seed):
    h, ids = pair
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((h.shape[1],) * 2))[0]
    for score in (lambda x: grace(x, ids, n_folds, nu).total, lambda x: released_grace(x, ids), g_vendi, g_norm, g_var):
        assert score(h @ q) == pytest.approx(score(h), rel=1e-8, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(data())
def test_norm_is_variance_plus_squared_mean(pair):
    h, _ = pair
    assert g_norm(h) == pytest.approx(g_var(h) + np.sum(h.mean(axis=0) ** 2), rel=1e-12)
    assert grace(*pair, n_folds=2, preconditioner="identity").total == pytest.approx(g_norm(h), rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(data(), st.integers(2, 4))
def test_duplicating_the_data_set_changes_no_moment_score(pair, copies):
    h, _ = pair
    for score in (g_vendi, g_norm, g_var):
        assert score(np.tile(h, (copies, 1))) == pytest.approx(score(h), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(data(), st.integers(0, 99))
def test_row_order_never_matters_bitwise(pair, seed):
    h, ids = pair
    order = np.random.default_rng(seed).permutation(len(h))
    first, second = grace(h, ids, 3), grace(h[order], ids[order], 3)
    for name in ("total", "variance", "bias", "cross", "nu_share", "per_prompt", "fold", "count", "prompt_ids"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert released_grace(h, ids) == released_grace(h[order], ids[order])


def test_folds_are_the_documented_ones():
    """Sorted unique ids, default_rng(seed).permutation, numpy.array_split; strings sort as strings."""
    ids = np.array(["p10", "p2", "p1", "p30", "p4"])
    parts = np.array_split(np.random.default_rng(6).permutation(np.array(["p1", "p10", "p2", "p30", "p4"])), 2)
    result = grace(np.random.default_rng(0).standard_normal((5, 2)), ids, 2, seed=6)
    for i, part in enumerate(parts):
        assert set(result.prompt_ids[result.fold == i]) == set(part)


def test_ids_may_be_integers_strings_or_objects():
    h = np.random.default_rng(0).standard_normal((8, 3))
    ids = [0, 0, 1, 1, 2, 2, 3, 3]
    expected = grace(h, ids, 2).total
    assert grace(h, [f"q{i}" for i in ids], 2).total == expected
    assert grace(h, np.array([f"q{i}" for i in ids], dtype=object), 2).total == expected
    assert grace(h, np.array(ids, dtype=object), 2).total == expected


@pytest.mark.parametrize("rows, d", [(6, 6), (4, 9), (9, 4)])
def test_vendi_bound_is_attained_by_orthonormal_rows(rows, d):
    """min(nm, d) orthonormal directions, each equally often where rows exceed d: entropy log min(nm, d)."""
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
    h = np.tile(q, (rows, 1))[: rows * d] if rows > d else q[:rows]
    assert g_vendi(h * np.linspace(1, 5, len(h))[:, None]) == pytest.approx(np.log(min(rows, d)), abs=1e-12)


def test_recalibrate_powers():
    g = np.ones((3, 2))
    length = np.array([1, 3, 20])
    for power in (0.5, 1.0, 2.0):
        assert recalibrate(g, length, power) == pytest.approx(np.log(length)[:, None] ** power * g)
    assert np.array_equal(recalibrate(g, length, 0), g), "power 0 leaves g as it is, also for |y| = 1"
    assert np.array_equal(recalibrate(g, length)[0], [0.0, 0.0]), "|y| = 1 carries no GRACE information"
    assert np.array_equal(recalibrate(g, length.astype(float)), recalibrate(g, length))


@pytest.mark.parametrize(
    "length, power, message",
    [
        ([0, 3, 4], 1.0, r"length\[0\] = 0 \(1 such\): a length is a whole number >= 1"),
        ([2, 3.5, 4], 1.0, r"length\[1\] = 3.5"),
        ([2, 3, np.nan], 0.0, r"length\[2\] = nan"),
        ([2, 3, np.inf], 1.0, r"length\[2\] = inf"),
        ([2, 3], 1.0, r"length has shape \(2,\), expected \(3,\)"),
        ([[2], [3], [4]], 1.0, r"length has shape \(3, 1\)"),
        (["2", "3", "4"], 1.0, "lengths are whole numbers of tokens"),
        ([True, True, True], 1.0, "length has dtype bool"),
        ([2, 3, 4], -1.0, "power = -1.0: the length power must be finite and >= 0"),
        ([2, 3, 4], np.nan, "power = nan"),
    ],
)
def test_recalibrate_refuses(length, power, message):
    with pytest.raises(ValueError, match=message):
        recalibrate(np.ones((3, 2)), length, power)


def test_responses_of_one_token():
    """Refused by name unless kept; kept, they count as zeros in every mean and leave the normalised moment
    alone."""
    rng = np.random.default_rng(2)
    g, ids = rng.standard_normal((20, 3)), np.repeat(np.arange(10), 2)
    length = np.full(20, 9)
    length[[4, 11]] = 1
    h = recalibrate(g, length)
    for score in (lambda x: grace(x, ids, 5), lambda x: released_grace(x, ids), g_vendi, g_norm, g_var):
        with pytest.raises(ValueError, match=r'h has 2 zero row\(s\), first at row 4: .*zero_rows="keep"'):
            score(h)
    kept = grace(h, ids, 5, zero_rows="keep")
    assert kept.n_zero_rows == 2 and kept.per_prompt[2] > 0
    assert kept.total == pytest.approx(kept.variance + kept.bias + kept.cross, rel=1e-12)
    some = length > 1
    # With every fold fixed by the ids, dropping the zero rows changes the denominator and nothing else.
    assert kept.total * 20 == pytest.approx(grace(h[some], ids[some], 5).total * 18, rel=1e-12)
    assert g_vendi(h, zero_rows="keep") == pytest.approx(g_vendi(h[some]), abs=1e-12)
    assert g_norm(h, zero_rows="keep") * 20 == pytest.approx(g_norm(h[some]) * 18)
    assert g_var(h, "keep") == pytest.approx(g_norm(h, "keep") - np.sum(h.mean(0) ** 2))


def test_all_zero_is_always_refused():
    h = np.zeros((6, 2))
    for score in (
        lambda: grace(h, np.arange(6), 2, zero_rows="keep"),
        lambda: g_vendi(h, "keep"),
        lambda: g_norm(h, "keep"),
    ):
        with pytest.raises(ValueError, match="all 6 rows of h are zero: no response has a direction"):
            score()
    h[0] = 1.0
    with pytest.raises(ValueError, match=r"every row outside it is zero, so Sigma\(D_-\d\) has no direction"):
        grace(h, np.arange(6), 2, zero_rows="keep")


H = np.random.default_rng(3).standard_normal((12, 2))
NAN, INF = H.copy(), H.copy()
NAN[5, 1], INF[[7, 9], 0] = np.nan, -np.inf
IDS = np.arange(12)


@pytest.mark.parametrize(
    "h, ids, kwargs, message",
    [
        (H, IDS, {"n_folds": 1}, "n_folds = 1: cross-validation needs at least 2 folds"),
        (H, IDS, {"n_folds": 13}, "n_folds = 13 is more than the 12 prompts: use n_folds <= 12"),
        (H, IDS, {"n_folds": 2.0}, "n_folds = 2.0: expected a whole number"),
        (H, np.zeros(12, int), {"n_folds": 2}, "only one prompt: a single prompt cannot be cross-validated"),
        (H, IDS[:11], {}, r"prompt_id has shape \(11,\), expected \(12,\)"),
        (H, IDS.reshape(12, 1), {}, r"prompt_id has shape \(12, 1\)"),
        (H, IDS.astype(float), {}, "prompt_id has dtype float64: ids must be all strings or all integers"),
        (H, np.array(["a", 1] * 6, dtype=object), {}, "prompt_id has dtype object"),
        (H, [1, "1"] * 6, {}, "prompt_id has dtype object: ids must be all strings or all integers"),
        (H, ["a", "a\0"] * 6, {}, "an id ends in a NUL character"),
        (H * 1e-160, IDS, {}, r"h has a row, 0, whose largest entry is of size .e-160: outside 1e-100 to 1e\+100"),
        (H * 1e110, IDS, {}, r"whose largest entry is of size .e\+110"),
        (NAN, IDS, {}, r"h has NaN or Inf in 1 row\(s\), first at row 5"),
        (INF, IDS, {}, r"h has NaN or Inf in 2 row\(s\), first at row 7"),
        (H[0], IDS, {}, r"h has 1 dimension\(s\), shape \(2,\)"),
        (H[None], IDS, {}, r"h has 3 dimension\(s\)"),
        (H[:0], IDS[:0], {}, r"h is empty, shape \(0, 2\)"),
        (H.astype(str), IDS, {}, "expected real numbers"),
        (H, IDS, {"nu": -1e-3}, "nu = -0.001: the smoothing must be finite and >= 0"),
        (H, IDS, {"nu": np.nan}, "nu = nan"),
        (
            H,
            IDS,
            {"preconditioner": "whitened"},
            "preconditioner = 'whitened': choose one of normalised, raw, identity",
        ),
        (H, IDS, {"centre": "mean"}, "centre = 'mean': choose one of none, global, fold"),
        (H, IDS, {"zero_rows": "drop"}, "zero_rows = 'drop': choose one of refuse, keep"),
    ],
)
def test_grace_refuses(h, ids, kwargs, message):
    with pytest.raises(ValueError, match=message):
        grace(h, ids, **kwargs)


def test_no_smoothing_is_refused_only_when_singular():
    assert grace(H, IDS, 3, nu=0).total == pytest.approx(dense_grace(H, IDS, 3, 0.0, 0), rel=1e-9)
    for singular in (np.tile(H[:, :1], 3) * [1.0, 2.0, 3.0], np.hstack([H, np.zeros((12, 1))])):
        with pytest.raises(ValueError, match=r"fold 0: Sigma-hat is singular with nu = 0 .*use nu > 0"):
            grace(singular, IDS, 3, nu=0)


def test_it_is_said_when_nu_decides():
    rng = np.random.default_rng(0)
    h, ids = rng.standard_normal((64, 40)), np.repeat(np.arange(16), 4)
    assert grace(h, ids, 2).nu_decides.startswith("(1 - 1/C) n m = 32 <= d = 40")
    near_copies = np.repeat(h[::4], 4, axis=0) + 1e-4 * rng.standard_normal(h.shape)
    close = grace(near_copies[:, :30], ids, 2)
    assert "of its log-derivative is nu's, as when responses are near-duplicates" in close.nu_decides
    enough = grace(h[:, :10], ids, 4)
    assert enough.nu_share < 0.5 and enough.nu_decides == ""
    assert grace(h, ids, 2, preconditioner="identity").nu_decides == ""


def test_nu_share_is_the_log_derivative():
    rng = np.random.default_rng(0)
    h, ids = rng.standard_normal((60, 12)), np.repeat(np.arange(20), 3)
    up, down = (grace(h, ids, 4, nu=0.1 * np.exp(e)).total for e in (1e-4, -1e-4))
    assert grace(h, ids, 4, nu=0.1).nu_share == pytest.approx((np.log(down) - np.log(up)) / 2e-4, rel=1e-5)


@pytest.mark.parametrize(
    "case, expected",  # values of the authors' released function on synthetic rows
    [
        ((0, 40, 4, 16, 1e-3), 399.79893634492805),
        ((1, 64, 2, 32, 1e-3), 2094.595247721204),
        ((2, 100, 1, 24, 1e-2), 1065.2482853035008),
        ((3, 512, 4, 64, 1e-3), 6162.283458282315),
        ((4, 30, 4, 64, 1e-3), 15377.971687408883),
        ((5, 4, 4, 32, 1e-3), 711337.182750596),
        ((6, 128, 4, 128, 1e-1), 26036.510627142714),
    ],
)
def test_released_parity(case, expected):
    seed, n_prompts, m, d, smooth_coeff = case
    h = np.random.default_rng(seed).standard_normal((n_prompts * m, d)) * np.linspace(0.2, 2.0, d) + 0.1
    found = released_grace(h, np.repeat(np.arange(n_prompts), m), smooth_coeff)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"smooth_coeff": 0.0}, r"smooth_coeff = 0.0: the shrinkage must be in \(0, 1\]"),
        ({"smooth_coeff": 1.5}, "smooth_coeff = 1.5"),
        ({"prompt_id": np.zeros(12, int)}, "released_grace needs at least 2 prompts"),
    ],
)
def test_released_grace_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        released_grace(H, **{"prompt_id": IDS, **kwargs})
