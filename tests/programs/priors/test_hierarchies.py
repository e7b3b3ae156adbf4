"""Two levels as one latent: the density is the product, and draws follow it."""

import pyro.distributions as dist
import torch

from pyrovae.programs.families import positive
from pyrovae.programs.priors import TwoLevels


def test_the_density_is_that_of_both_levels():
    prior = TwoLevels(5, seed=1).double()
    z = prior().sample((7,))
    first, second = z[:, :3], z[:, 3:]
    loc, raw = prior.network(second).chunk(2, -1)
    lower = dist.Normal(loc, positive(prior.raw_one + raw)).to_event(1).log_prob(first)
    torch.testing.assert_close(prior().log_prob(z), dist.Normal(0.0, 1.0).log_prob(second).sum(-1) + lower)


def test_at_a_network_of_zeros_it_is_standard_normal():
    prior = TwoLevels(4)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.zero_()
    z = torch.randn(6, 4)
    torch.testing.assert_close(prior().log_prob(z), dist.Normal(0.0, 1.0).log_prob(z).sum(-1))
