"""One latent for each datum: four distributions in closed form are a pair of programs of known evidence.

The programs, and what holds of them::

    z ~ prior(),  x | z ~ likelihood(z)          the model
    z | x ~ posterior(x)                         the guide
    log p(x) = evidence().log_prob(x) = log p(x, z) - log p(z | x)  for every z
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyrovae.programs.parameters import check_rows, register_module, seeded


class SingleLatent(nn.Module, ABC):
    """An oracle made of its four distributions; ``site`` is the name of its latent."""

    site: ClassVar[str] = "z"

    @abstractmethod
    def prior(self) -> TorchDistributionMixin:
        """p(z): batch shape ()."""

    @abstractmethod
    def likelihood(self, z: Tensor) -> TorchDistributionMixin:
        """p(x | z) for z of any batch shape, which it has too."""

    @abstractmethod
    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        """p(z | x) for x of shape (N, *event): batch shape (N,)."""

    @abstractmethod
    def evidence(self) -> TorchDistributionMixin:
        """p(x): batch shape ()."""

    def model(self, x: Tensor) -> None:
        """The program p(z) p(x | z) for x of shape (N, *event)."""
        register_module(self)
        with pyro.plate("data", len(x)):
            z = pyro.sample(self.site, self.prior())
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """The exact posterior p(z | x) as a program: every importance weight is p(x)."""
        register_module(self)
        with pyro.plate("data", len(x)):
            pyro.sample(self.site, self.posterior(x))

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (N,), for x of shape (N, *event)."""
        evidence = self.evidence()
        check_rows(x, evidence.event_shape)
        return evidence.log_prob(x)

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, Tensor]:
        """x (N, *event) and its latents z (N, ...) drawn from the model; the global generator is left as it was."""
        with torch.no_grad(), seeded(seed):
            z = self.prior().sample((num_data,))
            return self.likelihood(z).sample(), z
