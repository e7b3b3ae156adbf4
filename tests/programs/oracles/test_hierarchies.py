"""The two-level hierarchy against the dense joint Normal of group, members and measurements."""

import math

import pytest
import torch
from examples.exact import close
from torch.distributions import MultivariateNormal

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.hierarchies import Hierarchy, hierarchy

HIERARCHIES = {
    "default": lambda: hierarchy(4),
    "one-member": lambda: hierarchy(1),
    "loose": lambda: hierarchy(3, group_scale=0.3, member_scale=2.0, noise=1.5),
}


@pytest.fixture(params=HIERARCHIES.values(), ids=HIERARCHIES.keys())
def oracle(request):
    return request.param()


def dense(oracle):
    """Covariance of (mu, theta_1..J, x_1..J), from the definition."""
    group, member, noise = (scale.square() for scale in (oracle.group_scale, oracle.member_scale, oracle.noise_scale))
    size = oracle.num_members
    everywhere = group * torch.ones(1 + 2 * size, 1 + 2 * size, dtype=torch.float64)
    members = torch.eye(size, dtype=torch.float64).repeat(2, 2) * member
    everywhere[1:, 1:] += members
    everywhere[1 + size :, 1 + size :] += noise * torch.eye(size, dtype=torch.float64)
    return everywhere


def test_evidence_is_the_dense_normal(oracle):
    x, _ = oracle.draw(50, seed=0)
    size = oracle.num_members
    covariance = dense(oracle)[1 + size :, 1 + size :]
    close(oracle.log_evidence(x), MultivariateNormal(torch.zeros_like(x[0]), covariance).log_prob(x))


def test_posterior_is_the_conditional_of_the_dense_joint(oracle):
    x, _ = oracle.draw(50, seed=0)
    covariance, size = dense(oracle), oracle.num_members
    latent, cross, seen = (
        covariance[: 1 + size, : 1 + size],
        covariance[: 1 + size, 1 + size :],
        covariance[1 + size :, 1 + size :],
    )
    gain = torch.linalg.solve(seen, cross.T)
    mean, variance = x @ gain, (latent - cross @ gain).diagonal()
    posterior = oracle.posterior(x)
    close(posterior["mu"].mean, mean[:, 0])
    close(posterior["mu"].variance, variance[0].expand(50))
    close(posterior["theta"].mean, mean[:, 1:].T)
    close(posterior["theta"].variance, variance[1:, None].expand(-1, 50))


def test_error_of_the_widened_guide_is_that_of_its_independent_steps():
    # Every draw, given those before, is off by the same KL, (scale^2 - 1 - log scale^2 + shift^2) / 2; 5 standard errors.
    oracle, scale, shift = hierarchy(3), 1.2, 0.4
    x, _ = oracle.draw(200, seed=0)
    report = pv.evaluate(oracle.model, pv.widened(oracle.guide, scale, shift=shift), x, progress=False)
    expected = 4 * (scale**2 - 1 - 2 * math.log(scale) + shift**2) / 2
    gap = (oracle.log_evidence(x) - report.elbo).mean()
    assert abs(gap - expected) < 5 * report.mc_se_elbo.square().sum().sqrt() / len(x)


def test_draws_have_the_moments_of_the_model():
    oracle = hierarchy(3)
    x, z = oracle.draw(100_000, seed=5)
    assert (x.shape, z["mu"].shape, z["theta"].shape) == ((100_000, 3), (100_000,), (3, 100_000))
    together = torch.cat([z["mu"][None], z["theta"], x.T])
    covariance = dense(oracle)
    # 5 standard errors of a sample covariance of Normal data.
    variance = covariance.diagonal()
    error = ((covariance**2 + variance[:, None] * variance) / len(x)).sqrt()
    assert ((together.cov() - covariance).abs() < 5 * error).all()
    assert (together.mean(1).abs() < 5 * (variance / len(x)).sqrt()).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hierarchy(0), "num_members must be at least 1, got 0"),
        (lambda: hierarchy(3, noise=0.0), "noise_scale must be positive everywhere; got 0"),
        (lambda: hierarchy(3, group_scale=-1.0), "group_scale must be positive"),
        (
            lambda: Hierarchy(3, torch.ones(2), torch.tensor(1.0), torch.tensor(1.0)),
            r"group_scale of shape \(\); got \(2,\)",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()
