"""y = A x + e of normal pixels against joint normals in closed form; and what is refused."""

import math

import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.operators import linear_maps as layouts
from pyrovae.pairs.operators.linear_maps import linear


def test_what_is_observed_given_the_latents(case):
    fn = case.oracle.likelihood(case.z)
    exact = dist.MultivariateNormal(fn.base_dist.loc @ case.matrix.T, case.given_z)
    torch.testing.assert_close(case.operator.observe(fn).log_prob(case.y), exact.log_prob(case.y))


def test_the_pixels_given_what_is_observed(case):
    fn = case.oracle.likelihood(case.z)
    square = fn.base_dist.scale[0].square().diag()
    gain = square @ case.matrix.T @ case.given_z.inverse()
    mean = fn.base_dist.loc + (case.y - fn.base_dist.loc @ case.matrix.T) @ gain.T
    covariance = square - gain @ case.matrix @ square
    found = case.operator.restore(fn, case.y)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.variance, covariance.diagonal().expand_as(mean))
    torch.manual_seed(0)
    draws = torch.stack([case.operator.restore(fn, case.y).value for _ in range(2000)])
    away = draws - mean
    # 4.5 standard errors of a mean, and of the entries of a covariance, over 2,000 draws of each of 40 data.
    sd = covariance.diagonal().clamp_min(0).sqrt()
    assert (away.mean(0).abs() <= 4.5 * sd / 2000**0.5 + 1e-9).all()
    pooled = away.flatten(0, 1)
    error = ((sd[:, None] * sd).square() + covariance.square()).sqrt() / len(pooled) ** 0.5
    assert ((pooled.T @ pooled / len(pooled) - covariance).abs() <= 4.5 * error + 1e-9).all()
    if case.noise == 0:
        torch.testing.assert_close(draws @ case.matrix.T, case.y.expand(2000, -1, -1))


def test_the_density_of_the_pixels_given_what_is_observed(case):
    fn = case.oracle.likelihood(case.z)
    found = case.operator.log_conditional(fn, case.y, case.x)
    square = fn.base_dist.scale[0].square().diag()
    gain = square @ case.matrix.T @ case.given_z.inverse()
    away = case.x - fn.base_dist.loc - (case.y - fn.base_dist.loc @ case.matrix.T) @ gain.T
    covariance = square - gain @ case.matrix @ square
    if case.noise == 0:  # in coordinates of the null space of A
        null = torch.linalg.svd(case.matrix)[2][len(case.matrix) :]
        away, covariance = away @ null.T, null @ covariance @ null.T
    exact = dist.MultivariateNormal(torch.zeros(len(covariance)).double(), covariance).log_prob(away)
    torch.testing.assert_close(found, exact)


def test_images_keep_their_shapes():
    x = dist.Normal(torch.randn(3, 1, 4, 4), 0.1).to_event(3)
    for operator, of_shape in [
        (pv.operators.coarse((1, 4, 4), 2), (1, 2, 2)),
        (pv.operators.blur((1, 4, 4)), (1, 4, 4)),
    ]:
        y = operator.apply(x.sample())
        seen = operator.observe(x)
        assert y.shape == (3, *of_shape) and seen.event_shape == of_shape and seen.batch_shape == (3,)
        assert seen.sample().shape == y.shape and seen.log_prob(y).shape == (3,)
        assert all(one.shape == (3, 1, 4, 4) for one in operator.restore(x, y))


def test_one_scale_and_equal_scales_are_the_same():
    blurred = pv.operators.blur((4, 4), noise=0.2)
    loc, scale = torch.randn(3, 4, 4).double(), torch.rand(3, 1, 1).double() + 0.1
    one = dist.Normal(loc, scale.expand(3, 4, 4)).to_event(2)
    each = dist.Normal(loc, scale.expand(3, 4, 4).clone()).to_event(2)
    y = blurred.apply(one.sample())
    torch.testing.assert_close(blurred.observe(one).log_prob(y), blurred.observe(each).log_prob(y))
    for got, wanted in zip(blurred.restore(one, y)[1:], blurred.restore(each, y)[1:], strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_guess_shows_what_was_observed():
    operator = pv.operators.coarse((4, 4), 2)
    y = torch.rand(5, 2, 2)
    torch.testing.assert_close(operator.apply(operator.fill(y)), y)


NORMAL = dist.Normal(torch.zeros(3, 2), torch.rand(3, 2) + 0.1).to_event(1)
BAD = {
    "no matrix": (lambda: linear(torch.ones(3)), r"expected a finite matrix \(M, D\), got shape \(3,\)"),
    "infinite": (lambda: linear(torch.tensor([[math.inf]])), "expected a finite matrix"),
    "shape": (lambda: linear(torch.ones(1, 4), shape=(3,)), r"does not take images of shape \(3,\) to \(1,\)"),
    "noise": (lambda: linear(torch.ones(1, 4), noise=-1.0), "noise is a standard deviation of 0 or more, got -1.0"),
    "dependent": (lambda: linear(torch.ones(2, 3)), "say nothing, or follow from others: give noise > 0"),
    "empty row": (lambda: linear(torch.tensor([[1.0, 1.0], [0.0, 0.0]])), "give noise > 0"),
    "another shape of x": (
        lambda: linear(torch.ones(1, 4)).apply(torch.ones(2, 3)),
        r"linear: expected x of shape \(N, 4\), got \(2, 3\)",
    ),
    "counts": (
        lambda: linear(torch.ones(1, 2)).observe(dist.Poisson(torch.ones(3, 2)).to_event(1)),
        "closed form for independent normal pixels alone, the likelihood is Poisson",
    ),
    "dependent pixels": (
        lambda: linear(torch.ones(1, 2)).observe(dist.MultivariateNormal(torch.zeros(2), torch.eye(2))),
        "the likelihood is MultivariateNormal",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name):
    act, message = BAD[name]
    with pytest.raises(InputError, match=message):
        act()


def test_too_many_matrices_are_refused(monkeypatch):
    monkeypatch.setattr(layouts, "FACTORISED", 10)
    with pytest.raises(InputError, match="3 matrices of 2 rows would be factorised at once"):
        linear(torch.tensor([[1.0, 1.0], [1.0, 0.0]])).observe(NORMAL)
