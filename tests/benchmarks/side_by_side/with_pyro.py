"""Pyro's own SVI with Trace_ELBO and pyro.optim.Adam, the programs as in Pyro's VAE example."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import Tensor, nn

from side_by_side.by_hand import batches, networks, resident
from side_by_side.clock import Clock
from side_by_side.problems import LEARNING_RATE, Problem


class VAE(nn.Module):
    """Two programs around two networks."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.encoder, self.decoder = networks(problem)
        self.latent = problem.latent

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            zeros, ones = (f(len(x), self.latent, device=x.device) for f in (torch.zeros, torch.ones))
            z = pyro.sample("latent", dist.Normal(zeros, ones).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z|x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            location, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(location, log_scale.exp()).to_event(1))


def svi(problem: Problem, device: str, clock: Clock) -> None:
    """SVI.step, which returns its loss as a number at each step."""
    pyro.enable_validation(False)
    vae, data = VAE(problem).to(device), resident(problem, device)
    step = SVI(vae.model, vae.guide, Adam({"lr": LEARNING_RATE}), loss=Trace_ELBO()).step
    while True:
        total = sum(step(x) for x in batches(data, problem.batch_size))
        clock(total / problem.num_data, problem.steps)
