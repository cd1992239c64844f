"""Each variant is the score with exactly one choice changed, and those that must agree do: leave-one-out with C = n
folds, the code's shrinkage with a rescaled nu, equal folds with the pooled mean. Four prompts instead of all inflate
the released score, as the published revision's mistake does.
"""

import numpy as np
import pytest

from gracelib.scores import grace, recalibrate, released_grace
from gracelib.variants import REFERENCES, VARIANTS, Teacher, few_prompts, variant_values


def features(seed=0, n=20, m=3, d=8, one_token=False, unequal=False):
    rng = np.random.default_rng(seed)
    ids = np.repeat([f"p{i:02d}" for i in range(n)], m)
    g = rng.standard_normal((n * m, d)) + np.repeat(rng.standard_normal((n, d)), m, axis=0) + 0.3
    length = rng.integers(5, 40, n * m)
    if one_token:
        length[[0, 7]] = 1
    made = {"g": g, "length": length, "prompt_id": ids, "grad_norm": np.linalg.norm(g, axis=1) * 3}
    return {k: v[1:] for k, v in made.items()} if unequal else made


@pytest.mark.parametrize("kind", [{}, {"one_token": True}, {"unequal": True}])
def test_every_variant_is_a_finite_number_whatever_the_rows(kind):
    values = variant_values(features(**kind), 5)
    assert set(values) == set(VARIANTS) | set(REFERENCES)
    assert all(np.isfinite(v) for v in values.values())
    assert all(v > 0 for name, v in values.items() if name != "g_vendi")


def test_default_and_options_are_those_of_grace():
    f = features()
    h, ids, values = recalibrate(f["g"], f["length"]), f["prompt_id"], variant_values(f, 5)
    assert values["grace"] == grace(h, ids, 5).total
    assert values["centred_global"] == pytest.approx(grace(h, ids, 5, centre="global").total)
    assert values["raw_matrix"] == grace(h, ids, 5, preconditioner="raw").total
    assert values["identity_matrix"] == pytest.approx(values["g_norm"])
    assert values["nu_1e-2"] == grace(h, ids, 5, nu=1e-2).total
    assert values["length_power_0"] == grace(f["g"], ids, 5).total
    assert values["released"] == released_grace(f["g"], ids) and values["released_log"] == released_grace(h, ids)
    assert values["g_vendi_bits"] == pytest.approx(values["g_vendi"] / np.log(2))
    assert values["mean_of_folds"] == pytest.approx(values["grace"])  # 20 prompts in 5 equal folds
    assert values["bias_as_printed"] == pytest.approx(
        values["grace_bias"] * 5 / len(h)
    )  # each fold once, not |D_i| times


@pytest.mark.parametrize("kind", [{}, {"one_token": True}, {"unequal": True}])
def test_leave_one_out_equals_as_many_folds_as_prompts(kind):
    f = features(**kind)
    expected = grace(recalibrate(f["g"], f["length"]), f["prompt_id"], 20, zero_rows="keep").total
    assert Teacher(f, 5, 1e-3).leave_one_out() == pytest.approx(expected, rel=1e-10)


def test_matrices_that_have_seen_the_prompt_flatter_it():
    """The fold itself < all prompts < the other folds: the more of a prompt is in its own measure, the lower."""
    values = variant_values(features(n=40, d=24), 10)
    assert values["own_fold_matrix"] < values["all_matrix"] < values["grace"]
    assert values["folds_of_responses"] < values["grace"]


def test_the_codes_shrinkage_is_a_rescaled_nu():
    f, s = features(), 1e-3
    h, ids = recalibrate(f["g"], f["length"]), f["prompt_id"]
    result = grace(h, ids, 5)
    shrunk = 0.0
    codes = np.unique(ids, return_inverse=True)[1]
    for i in range(5):
        inside = result.fold[codes] == i
        unit = h[~inside] / np.linalg.norm(h[~inside], axis=1, keepdims=True)
        lam, u = np.linalg.eigh(unit.T @ unit / len(unit))
        shrunk += (np.square(h[inside] @ u) / ((1 - s) * lam + s * lam.mean())).sum() / len(h)
    assert variant_values(f, 5, s)["shrunk_eigenvalues"] == pytest.approx(shrunk, rel=1e-10)


def test_four_prompts_inflate_the_released_score():
    found = few_prompts(features(n=64, m=4, d=64), 4)
    assert found["few_low"] <= found["few"] <= found["few_high"]
    assert found["few_low"] > 5 * found["all"]
    same = few_prompts(features(), 20, n_draws=2)  # all prompts in another order
    assert same["few_low"] == pytest.approx(same["all"]) and same["few_high"] == pytest.approx(same["all"])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"n_kept = 21: the features allow 2 <= n_kept <= 20 prompts"):
        few_prompts(features(), 21)
