"""Invariants of the baselines: each equals its definition written with loops, prompts that lack what a score
needs are skipped *and counted*, and the registry is the single place that says which end of a score is good.
A direction that a table and a figure could disagree on, or a prompt that vanished silently, would change a
conclusion unnoticed.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gracelib.baselines import SCORES, SINCE, badge, best_prob, compute_scores, determinant, graded_prob, inner_product
from gracelib.scores import g_norm, g_var, g_vendi, grace, recalibrate

GRADED = {"correct_prob", "incorrect_prob", "difference_prob", "teacher_accuracy"}  # which need a verifier


def teacher(seed=0, n=20, m=3, d=6):
    """Features of one graded teacher; the length is never 1."""
    rng = np.random.default_rng(seed)
    rows = n * m
    return {
        "g": rng.standard_normal((rows, d)) + 0.2,
        "length": rng.integers(2, 40, rows),
        "loss": rng.uniform(0.1, 3, rows),
        "mean_prob": rng.uniform(0.05, 0.95, rows),
        "grad_norm": rng.uniform(1, 2, rows),
        "prompt_id": np.repeat([f"q{i}" for i in range(n)], m),
        "correct": rng.random(rows) < 0.6,
    }


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=2, max_size=8), st.booleans())
def test_inner_product_is_the_mean_over_pairs_of_different_responses(seed, count, normalised):
    count[0] = 2  # at least one pair
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(count)), count)
    h = rng.standard_normal((len(ids), 4))
    x = h / np.linalg.norm(h, axis=1, keepdims=True) if normalised else h
    values = []
    for p, m in enumerate(count):
        rows = x[ids == p]
        pairs = [rows[a] @ rows[b] for a in range(m) for b in range(m) if a != b]
        values += [np.mean(pairs)] if pairs else []
    result = inner_product(h, ids, normalised)
    assert result.value == pytest.approx(np.mean(values), abs=1e-12)
    assert (result.used, result.skipped) == (len(values), len(count) - len(values))


def test_inner_product_of_rows_without_direction():
    h = np.array([[1.0, 0], [0, 0], [1, 1], [1, 1]])
    kept = inner_product(h, [0, 0, 1, 1], zero_rows="keep")
    assert (kept.value, kept.used, kept.skipped) == (pytest.approx(1.0), 1, 1)
    with pytest.raises(ValueError, match=r"h has 1 zero row\(s\), first at row 1"):
        inner_product(h, [0, 0, 1, 1])


def test_determinant_and_badge():
    """Orthogonal rows in d = 2 have Sigma-tilde = I/2; with nu = 1 the determinant is (1/2 + 1/2)^2 = 1, its
    log 0."""
    h = np.array([[2.0, 0], [0, 2.0]])
    assert determinant(h, nu=1.0) == pytest.approx(0.0, abs=1e-14)
    assert badge(h, nu=1.0) == pytest.approx(np.log(4.0))
    rng = np.random.default_rng(0)
    h = rng.standard_normal((7, 3))
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    lam = np.linalg.eigvalsh(u.T @ u / 7)
    assert determinant(h, 1e-3) == pytest.approx(np.log(lam + 1e-3 / 3).sum())
    assert determinant(5 * h) == pytest.approx(determinant(h)), "scale-free"
    assert badge(5 * h) == pytest.approx(badge(h) + np.log(25)), "badge is not"
    assert np.isfinite(determinant(rng.standard_normal((3, 8)))), "fewer rows than columns: nu keeps it finite"
    with pytest.raises(ValueError, match="nu = 0: the determinant needs nu > 0"):
        determinant(h, nu=0)


def test_best_probability_per_prompt():
    assert best_prob([0.1, 0.9, 0.4], ["a", "a", "b"]).value == pytest.approx((0.9 + 0.4) / 2)


def test_graded_probabilities_average_per_prompt_first():
    """a: correct .2, .4 and incorrect .8; b: correct .9; c: incorrect .5.

    correct: (.3 + .9)/2 = .6, one prompt skipped; incorrect: (.8 + .5)/2 = .65; difference: a only, .3 - .8 =
    -.5.
    """
    prob, ids = [0.2, 0.4, 0.8, 0.9, 0.5], ["a", "a", "a", "b", "c"]
    correct = np.array([True, True, False, True, False])
    results = {kind: graded_prob(prob, ids, correct, kind) for kind in ("correct", "incorrect", "difference")}
    assert {k: (pytest.approx(r.value), r.used, r.skipped) for k, r in results.items()} == {
        "correct": (0.6, 2, 1),
        "incorrect": (0.65, 2, 1),
        "difference": (-0.5, 1, 2),
    }


def test_compute_scores_agrees_with_the_functions():
    f = teacher()
    h = recalibrate(f["g"], f["length"])
    result = compute_scores(f, n_folds=4)
    fitted = grace(h, f["prompt_id"], 4)
    v = result.values
    assert (v["grace"], v["grace_variance"], v["grace_bias"]) == (fitted.total, fitted.variance, fitted.bias)
    assert (v["g_norm"], v["g_var"], v["g_vendi"]) == (g_norm(h), g_var(h), g_vendi(h))
    assert v["student_loss"] == pytest.approx(f["loss"].mean())
    assert v["average_prob"] == pytest.approx(f["mean_prob"].mean())
    assert v["mean_length"] == pytest.approx(f["length"].mean())
    assert v["inner_product"] == inner_product(h, f["prompt_id"]).value
    assert set(v) == set(SCORES) - {"teacher_accuracy", *SINCE}
    assert (
        result.skipped["difference_prob"]
        == graded_prob(f["mean_prob"], f["prompt_id"], f["correct"], "difference").skipped
    )
    assert np.array_equal(result.grace.per_prompt, fitted.per_prompt) and result.undefined == {}
    assert all(type(x) is float and np.isfinite(x) for x in v.values()), "tables want plain finite numbers"


def test_scores_do_not_depend_on_row_order():
    f = teacher(3)
    order = np.random.default_rng(0).permutation(len(f["g"]))
    first, second = (compute_scores(f, n_folds=4), compute_scores({k: x[order] for k, x in f.items()}, n_folds=4))
    assert second.values == pytest.approx(first.values, rel=1e-12) and second.skipped == first.skipped


def test_without_grades_the_graded_scores_are_left_out():
    f = teacher()
    del f["correct"]
    assert set(compute_scores(f, n_folds=4).values) == set(SCORES) - GRADED - {*SINCE}
    with pytest.raises(ValueError, match=r"correct_prob needs the feature column\(s\) correct"):
        compute_scores(f, ["correct_prob"])


def test_a_teacher_that_is_always_right_has_no_probability_of_incorrect():
    f = teacher() | {"correct": np.ones(60, dtype=bool)}
    result = compute_scores(f, n_folds=4)
    assert result.undefined == {
        "incorrect_prob": "none of the 20 prompts has an incorrect response: the score is undefined",
        "difference_prob": "none of the 20 prompts has both a correct and an incorrect response: "
        "the score is undefined",
    }
    assert "incorrect_prob" not in result.values and result.skipped["correct_prob"] == 0


def test_one_response_per_prompt_has_no_inner_product():
    undefined = compute_scores(teacher(m=1), n_folds=4).undefined
    assert undefined["inner_product"].startswith("no pair: each of the 20 prompts has fewer than two responses")


def test_one_token_responses_are_kept_and_counted_but_dead_gradients_refused():
    f = teacher()
    f["length"][[0, 5]] = 1
    result = compute_scores(f, n_folds=4)
    assert result.grace.n_zero_rows == 2
    assert all(np.isfinite(list(result.values.values())))
    f["g"][7] = 0
    with pytest.raises(ValueError, match=r"g\[7\] is zero \(1 such\) though its response has more than one token"):
        compute_scores(f, n_folds=4)


def test_the_registry_is_complete():
    """Every score of appendix C.1 and of both versions, each with one direction, a label and a source of its
    own."""
    assert [s.name for s in SCORES.values()] == list(SCORES) and len(SCORES) == 18 + len(SINCE)
    assert {s.direction for s in SCORES.values()} == {"lower", "higher"}
    assert len({s.label for s in SCORES.values()}) == len(SCORES) and all(s.source for s in SCORES.values())
    for number in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12):
        assert any(f"C.1 ({number})" in s.source for s in SCORES.values()), number
    paper = {n: s for n, s in SCORES.items() if n not in SINCE}
    assert {n for n, s in paper.items() if "correct" in s.needs or s.function is None} == GRADED
    lower = {"grace", "grace_variance", "grace_bias", "g_norm", "g_var", "student_loss", "inner_product"}
    assert lower | {"inner_product_raw", "incorrect_prob"} == {n for n, s in paper.items() if s.direction == "lower"}


@pytest.mark.parametrize(
    "change, names, message",
    [
        ({}, ["graze"], r"unknown score 'graze': did you mean (\w+, )*grace\? choose from grace, "),
        ({}, ["?"], r"unknown score '\?': choose from grace, "),
        ({}, ["rsr"], r"rsr needs the feature column\(s\) token_rank, token_logprob"),
        ({}, ["teacher_accuracy"], "teacher_accuracy is not a function of the features: .* join it by name"),
        ({"mean_prob": np.full(60, 1.5)}, None, r"mean_prob\[0\] = 1.5 \(60 such\): expected finite, in \[0.0, 1.0\]"),
        ({"loss": np.full(60, np.nan)}, None, r"loss\[0\] = nan"),
        ({"loss": np.full((60, 1), 1.0)}, None, r"loss has shape \(60, 1\)"),
        (
            {"correct": np.ones(60)},
            None,
            r"correct has shape \(60,\) and dtype float64: expected one bool per response",
        ),
        ({"prompt_id": np.arange(59)}, None, r"prompt_id has shape \(59,\)"),
    ],
)
def test_bad_columns_and_names_are_refused(change, names, message):
    with pytest.raises(ValueError, match=message):
        compute_scores(teacher() | change, names, n_folds=4)
