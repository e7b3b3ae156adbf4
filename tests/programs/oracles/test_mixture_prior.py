"""A mixture of Gaussians as the prior: against a grid of latents, and against dense Normals."""

import pyro.distributions as dist
import pytest
import torch
from examples.exact import close
from torch.distributions import MultivariateNormal

from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.linear_gaussian import ppca
from pyrovae.programs.oracles.mixture_prior import MixturePrior, mixture_prior


def doubles(*shape, seed=7):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def unequal():
    """Unequal weights, and another scale for each component and axis."""
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    return MixturePrior(ppca(5, 2), weights, 2 * doubles(3, 2), doubles(3, 2, seed=8).exp())


def test_evidence_is_a_mixture_of_dense_normals(unequal):
    x, _ = unequal.draw(50, seed=0)
    loadings, linear = unequal.linear.loadings, unequal.linear
    joint = [
        weight.log()
        + MultivariateNormal(
            loadings @ mean + linear.bias,
            loadings @ scale.square().diag() @ loadings.T + linear.noise_scale.square().diag(),
        ).log_prob(x)
        for weight, mean, scale in zip(unequal.weights, unequal.means, unequal.scales, strict=True)
    ]
    close(unequal.log_evidence(x), torch.stack(joint).logsumexp(0))
    close(unequal.posterior(x).mixture_distribution.logits, torch.stack(joint, 1).log_softmax(1))


def test_evidence_and_posterior_on_a_grid():
    oracle = mixture_prior(2, 1)
    x, _ = oracle.draw(5, seed=0)
    z = torch.linspace(-12, 12, 20001, dtype=torch.float64)[:, None, None]
    likelihood = dist.Normal(z @ oracle.linear.loadings.T, oracle.linear.noise_scale).to_event(1).log_prob(x)
    prior = sum(
        weight * dist.Normal(mean, scale).log_prob(z[..., 0]).exp()
        for weight, (mean,), (scale,) in zip(oracle.weights, oracle.means, oracle.scales, strict=True)
    )
    joint = likelihood.exp() * prior
    evidence = torch.trapezoid(joint, z[..., 0], dim=0)
    close(oracle.log_evidence(x), evidence.log())
    close(oracle.posterior(x).log_prob(z).exp(), joint / evidence)
    close(oracle.posterior(x).mean[:, 0], torch.trapezoid(joint * z[..., 0], z[..., 0], dim=0) / evidence)


def test_the_posterior_keeps_several_modes():
    # Between its two most likely components the posterior of most data falls by more than 2 nats.
    oracle = mixture_prior(1, 2)
    x, _ = oracle.draw(500, seed=0)
    posterior = oracle.posterior(x)
    probs, top = posterior.mixture_distribution.probs.topk(2)
    first, second = posterior.component_distribution.mean.gather(1, top[..., None].expand(-1, -1, 2)).unbind(1)
    ends = torch.stack([posterior.log_prob(first), posterior.log_prob(second)])
    dip = ends.amin(0) - posterior.log_prob((first + second) / 2)
    assert ((probs[:, 1] > 0.05) & (dip > 2)).double().mean() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.ones(3)}, "summing to one"),
        ({"means": doubles(3, 4)}, r"means of shape \(3, 2\); got \(3, 4\)"),
        ({"scales": torch.zeros(3, 2)}, "scales must be positive everywhere; got 0"),
        ({"scales": torch.ones(2, 2)}, r"scales of shape \(3, 2\)"),
    ],
)
def test_errors(change, message):
    numbers = {"weights": torch.full((3,), 1 / 3), "means": doubles(3, 2), "scales": torch.tensor(1.0), **change}
    with pytest.raises(InputError, match=message):
        MixturePrior(ppca(5, 2), **numbers)
