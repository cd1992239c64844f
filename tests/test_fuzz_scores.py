"""A score is a finite number or one ValueError, whatever finite or degenerate arrays it is given."""

import warnings

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gracelib import scores
from gracelib.baselines import SCORES, compute_scores
from gracelib.cmi import cmi_bound
from gracelib.evidence.ranks import spearman
from gracelib.intervals import grace_influence

ENTRIES = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 5e-324, 1e-8, 1e8, 1e150, 1e160, -1e300, np.nan, np.inf]
) | st.floats(-3, 3)


def drawn(n):
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@st.composite
def features(draw):
    """Features of 1 to 5 prompts with unequal numbers of responses, rows repeated or zero now and then."""
    count = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    n, d = sum(count), draw(st.integers(1, 4))
    g = np.array(draw(st.lists(st.lists(ENTRIES, min_size=d, max_size=d), min_size=n, max_size=n)))
    if draw(st.booleans()):
        g[draw(st.integers(0, n - 1))] = g[draw(st.integers(0, n - 1))]
    lengths = st.integers(0, 5) | st.sampled_from([10**6, 2**62])
    column = st.floats(0, 1) | st.sampled_from([-1.0, 2.0, np.nan])
    return {
        "g": g,
        "length": np.array(draw(st.lists(lengths, min_size=n, max_size=n))),
        "prompt_id": np.repeat([f"p{i}" for i in range(len(count))], count),
        "correct": np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))),
        **{
            name: np.array(draw(st.lists(column, min_size=n, max_size=n)))
            for name in ("loss", "mean_prob", "grad_norm")
        },
    }


def value_or_refusal(function):
    """The value, checked to be finite; None for a refusal in one line."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning)  # numpy's overflow, invalid value, division by zero
        try:
            found = function()
        except ValueError as error:
            assert str(error) and "\n" not in str(error), repr(error)
            return None
    numbers = (
        [found.total, found.variance, found.bias, found.cross, *found.per_prompt]
        if isinstance(found, scores.Grace)
        else [found]
    )
    assert np.isfinite(np.asarray(numbers, float)).all(), found
    return found


@drawn(150)
@given(
    f=features(), n_folds=st.integers(0, 6), nu=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, -1.0, np.nan]), data=st.data()
)
def test_every_score_is_finite_or_refused(f, n_folds, nu, data):
    name = data.draw(st.sampled_from([name for name, score in SCORES.items() if score.function is not None]))

    def one():
        scored = compute_scores(f, [name], n_folds, nu)
        assert name in scored.values or scored.undefined[name]
        return scored.values.get(name, 0.0)

    value_or_refusal(one)


@drawn(120)
@given(
    f=features(),
    n_folds=st.integers(1, 5),
    nu=st.sampled_from([0.0, 1e-9, 1e-3]),
    zero=st.sampled_from(["keep", "refuse"]),
    preconditioner=st.sampled_from(scores.PRECONDITIONERS),
    centre=st.sampled_from(scores.CENTRES),
)
def test_grace_and_its_kin(f, n_folds, nu, zero, preconditioner, centre):
    h = value_or_refusal(lambda: scores.recalibrate(f["g"], f["length"]))
    h = f["g"] if h is None else h
    value_or_refusal(
        lambda: scores.grace(
            h, f["prompt_id"], n_folds, nu, preconditioner=preconditioner, centre=centre, zero_rows=zero
        )
    )
    for function in (scores.g_norm, scores.g_var, scores.g_vendi):
        value_or_refusal(lambda function=function: function(h, zero))
    value_or_refusal(lambda: grace_influence(h, f["prompt_id"], n_folds, nu, zero_rows=zero).sum())


@drawn(100)
@given(
    f=features(),
    eta=st.sampled_from([1.0, 1e-3, 0.0, np.nan]),
    nu=st.sampled_from([1e-3, 1e-12, 0.0]),
    preconditioner=st.sampled_from(["smoothed", "identity"]),
)
def test_the_bound(f, eta, nu, preconditioner):
    def one():
        bound = cmi_bound(
            f["g"], f["prompt_id"], eta=eta, sigma=1.0, preconditioner=preconditioner, nu=nu, zero_rows="keep"
        )
        return [
            bound.gradient,
            bound.stability,
            bound.stability_proof,
            bound.cross,
            bound.lemma,
            bound.proof,
            bound.tight,
        ]

    value_or_refusal(one)


@drawn(100)
@given(st.lists(st.tuples(ENTRIES, ENTRIES), max_size=6), st.sampled_from(["lower", "higher", "sideways"]))
def test_correlation(pairs, direction):
    x, y = (np.array([pair[i] for pair in pairs], float) for i in (0, 1))
    value_or_refusal(lambda: spearman(x, y, direction))
