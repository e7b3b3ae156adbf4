"""What every program of known evidence offers."""

from collections.abc import Mapping
from typing import Protocol

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor


class Oracle(Protocol):
    """What every exact program offers."""

    def model(self, x: Tensor) -> None:
        """The program of p(x, z) for x of shape (N, ...), in one plate "data" over the N data."""

    def guide(self, x: Tensor) -> None:
        """The exact posterior p(z | x) as a program."""

    def posterior(self, x: Tensor) -> TorchDistributionMixin | Mapping[str, TorchDistributionMixin]:
        """p(z | x); with several sites the margin of each, by name, in the batch shape of the site."""

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (N,)."""

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
        """x (N, ...) and its latents: the value of the one site, or site -> value, as the program shapes them."""
