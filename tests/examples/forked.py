"""Two answers for a part of x, of which a guide of all of x knows one or the other by what it reads."""

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv

NOISE, WIDTH = torch.tensor(0.1).double(), torch.tensor(0.5).double()


class Forked(pv.oracles.MixturePrior):
    """Of the first two numbers the one is large and the other small, or the other way round, by the odds.

    The other numbers are seen too sharply for draws of the prior to lie near.
    """

    def __init__(self, num_latents, odds):
        linear = pv.oracles.LinearGaussian(torch.eye(num_latents).double(), torch.zeros(num_latents).double(), NOISE)
        self.odds = torch.tensor([odds, 1 - odds]).double()
        self.places = torch.tensor([3.0, -3.0] + [0.0] * (num_latents - 2)).double() * torch.tensor([[1.0], [-1.0]])
        super().__init__(linear, self.odds, self.places, WIDTH)

    def marginal(self, matrix):
        """The distribution of A x."""
        each = dist.MultivariateNormal(self.places @ matrix.T, (WIDTH**2 + NOISE**2) * matrix @ matrix.T)
        return dist.MixtureSameFamily(dist.Categorical(self.odds), each)


def forked(num_latents, odds):
    """The oracle, and a guide that knows by the difference of the first two numbers which mode it is."""
    oracle = Forked(num_latents, odds)

    def guide(x):
        variance = 1 / (WIDTH**-2 + NOISE**-2)
        mean = variance * (oracle.places[0] * (x[:, :1] - x[:, 1:2]).sign() / WIDTH**2 + x / NOISE**2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, variance.sqrt()).to_event(1))

    return oracle, guide
