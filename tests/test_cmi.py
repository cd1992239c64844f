"""The bound is a bound: it equals its dense formula to 1e-8, its gradient term is GRACE-Variance at m = 1,
and where the mutual information itself can be integrated numerically it lies below the bound and below log n.
The fast algebra (Woodbury, rational quadrature) is only worth having if none of that moves.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gracelib.cmi import cmi_bound, inverse_sqrt_quadrature
from gracelib.scores import g_var, grace

TERMS = ("gradient", "stability", "stability_proof", "cross", "tight")


def rows(seed=0, count=(3,) * 12, d=10):
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(count)), count)
    x = rng.standard_normal((len(count), d))[ids] + rng.standard_normal((len(ids), d))
    return x * np.geomspace(1, 0.05, d) + 0.1, ids


def dense(x, ids, nu, eta, sigma):
    """Every left-out matrix rebuilt and eigendecomposed; returns the terms, the matrices and the steps."""
    directed = x.any(axis=1)
    unit = np.where(directed[:, None], x, 0) / np.where(directed, np.linalg.norm(x, axis=1), 1)[:, None]
    ms, outs = [], []
    for p in np.unique(ids):
        out = ids != p
        lam, q = np.linalg.eigh(unit[out].T @ unit[out] / directed[out].sum() + nu / x.shape[1] * np.eye(x.shape[1]))
        ms.append(q / np.sqrt(lam) @ q.T)
        outs.append(x[out].mean(axis=0))
    ms, outs, mu = np.array(ms), np.array(outs), x.mean(axis=0)
    mean, step = ms.mean(axis=0), np.einsum("nij,nj->ni", ms, outs)
    a, b, b_mu = step - ms @ mu, step - outs @ mean, ms @ mu - mean @ mu
    c, spread = a.mean(axis=0), step - step.mean(axis=0)
    values = [3 * (v**2).sum(axis=1).mean() for v in (a, b, b_mu)] + [3 * (c**2).sum(), (spread**2).sum(axis=1).mean()]
    return dict(zip(TERMS, np.array(values) * eta**2 / sigma**2, strict=True)), ms, step


@pytest.mark.parametrize("nu", [1e-4, 1e-3, 1e-1])
@pytest.mark.parametrize("count", [(1,) * 30, (4,) * 9, (1, 2, 3, 4, 4, 3, 2, 1, 5)])
def test_every_term_equals_the_dense_formula(nu, count):
    """Also with fewer rows than dimensions outside, and with unequal numbers of responses."""
    x, ids = rows(1, count, d=24)
    bound = cmi_bound(x, ids, eta=0.3, sigma=2.0, nu=nu)
    expected, _, step = dense(x, ids, nu, 0.3, 2.0)
    for name, value in expected.items():
        assert getattr(bound, name) == pytest.approx(value, rel=1e-8, abs=1e-20), name
    assert bound.lemma == bound.gradient + bound.stability
    assert bound.proof == bound.gradient + bound.stability_proof + bound.cross
    assert bound.tight <= bound.proof * (1 + 1e-9), "|a + b + c|^2 <= 3 (...)"
    assert bound.per_prompt == pytest.approx(((step - step.mean(axis=0)) ** 2).sum(axis=1), rel=1e-8)
    assert bound.ratio == bound.gradient / bound.stability and bound.n_prompts == len(count)
    assert bound.log_n == np.log(len(count))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(3, 15), st.sampled_from([1e-4, 1e-2]))
def test_gradient_term_is_grace_variance_with_one_response_per_prompt(seed, n, nu):
    """gbar_x = n/(n - 1) (g_x - mu): gradient = 3 eta^2/(sigma^2 (n - 1)^2) GRACE-Variance with C = n."""
    x, ids = rows(seed, (1,) * n, d=6)
    variance = grace(x, ids, n_folds=n, nu=nu).variance
    bound = cmi_bound(x, ids, eta=0.5, sigma=3.0, nu=nu)
    assert bound.gradient == pytest.approx(3 * 0.25 / 9 / (n - 1) ** 2 * variance, rel=1e-8)


def test_identity_is_g_var_and_has_no_stability_term():
    x, ids = rows(2, (1,) * 20)
    bound = cmi_bound(x, ids, eta=1.0, sigma=1.0, preconditioner="identity")
    assert bound.tight == pytest.approx(g_var(x) / 19**2, rel=1e-12), "warm-up: constant 1, (n/(n - 1))^2 / n^2"
    assert bound.gradient == pytest.approx(3 * bound.tight, rel=1e-12)
    assert bound.stability == bound.stability_proof == 0 and bound.cross == pytest.approx(0, abs=1e-25)
    assert bound.ratio == np.inf


@pytest.mark.parametrize("low, high", [(1e-4 / 512, 1.0), (1e-3 / 512, 0.2), (0.1, 0.3), (1.0, 1.0)])
def test_quadrature_reaches_1e_8_with_at_most_21_shifts(low, high):
    shifts, weights = inverse_sqrt_quadrature(low, high)
    x = np.geomspace(low, high, 500)
    assert len(shifts) <= 21 and (shifts > 0).all() and (weights > 0).all()
    assert np.abs((weights / (x[:, None] + shifts)).sum(axis=1) * np.sqrt(x) - 1).max() < 2e-9


def gaussian_mixture_information(steps, scale, sigma):
    """I(U; Theta') of an equal mixture of N(scale * step, sigma^2 I) by a Riemann sum on a grid of 10 sigma
    margin."""
    centres = scale * steps  # (n, dim)
    axes = [np.arange(c.min() - 8 * sigma, c.max() + 8 * sigma, sigma / 8) for c in centres.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))  # (points, dim)
    squared = ((grid[:, None] - centres) ** 2).sum(axis=2)  # (points, n)
    density = np.exp(-squared / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** (len(axes) / 2)
    mixture = density.mean(axis=1, keepdims=True)
    ratio = np.log(np.where(density > 0, density, 1) / np.where(density > 0, mixture, 1))
    return float((density * ratio).sum(axis=0).mean() * (sigma / 8) ** len(axes))


@pytest.mark.parametrize("dim, preconditioner", [(1, "identity"), (2, "smoothed")])
@pytest.mark.parametrize("sigma", [0.02, 0.1, 1.0])
def test_bounds_hold_against_the_true_mutual_information(dim, preconditioner, sigma):
    """True CMI <= tight <= proof. With large noise it approaches half of `tight` from below; with little, log
    n."""
    x, ids = rows(5, (1,) * 6, d=dim)
    _, _, smoothed = dense(x, ids, 1e-2, 1, 1)
    steps = smoothed if preconditioner == "smoothed" else np.array([x[ids != p].mean(axis=0) for p in range(6)])
    true = gaussian_mixture_information(steps, 0.7, sigma)
    bound = cmi_bound(x, ids, eta=0.7, sigma=sigma, preconditioner=preconditioner, nu=1e-2)
    assert 0 < true <= min(bound.tight / 2, bound.log_n) * (1 + 1e-9)
    assert bound.tight <= bound.proof * (1 + 1e-9)
    if sigma == 1.0:
        assert true == pytest.approx(bound.tight / 2, rel=0.05) and bound.tight < bound.log_n
    if sigma == 0.02:
        assert true > 0.5 * bound.log_n and min(bound.tight, bound.proof) >= bound.log_n


def test_one_token_responses():
    """Zero rows: refused by name, or kept as responses that weigh in mu and not in Sigma-tilde."""
    x, ids = rows(8)
    x[[4, 20]] = 0
    with pytest.raises(ValueError, match=r"h has 2 zero row\(s\), first at row 4"):
        cmi_bound(x, ids, eta=1, sigma=1)
    bound = cmi_bound(x, ids, eta=1, sigma=1, zero_rows="keep")
    expected, _, _ = dense(x, ids, 1e-3, 1, 1)
    assert [getattr(bound, t) for t in TERMS] == pytest.approx(list(expected.values()), rel=1e-8)


X, IDS = rows()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"nu": 0}, "nu = 0: leaving a prompt out can make Sigma-tilde singular, use nu > 0"),
        ({"nu": -1}, "nu = -1.0"),
        ({"nu": 1e-12}, "beyond 1e9 the quadrature loses digits, use a larger nu"),
        ({"eta": 0}, "eta = 0: expected a finite number > 0"),
        ({"sigma": np.inf}, "sigma = inf"),
        ({"preconditioner": "raw"}, "preconditioner = 'raw': choose one of smoothed, identity"),
        ({"prompt_id": np.zeros(36, int)}, "only one prompt: leaving it out leaves nothing"),
        ({"prompt_id": IDS[1:]}, r"prompt_id has shape \(35,\)"),
        ({"x": np.where(np.arange(36)[:, None] == 3, np.nan, X)}, r"x has NaN or Inf in 1 row\(s\), first at row 3"),
        ({"x": np.where(IDS[:, None] == 2, X, 0), "zero_rows": "keep"}, "only prompt 2 has rows with a direction"),
    ],
)
def test_cmi_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        cmi_bound(**{"x": X, "prompt_id": IDS, "eta": 1.0, "sigma": 1.0, **change})
