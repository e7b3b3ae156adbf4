"""A network, then a head: x -> a Gaussian with a full covariance, or a flow, on the support of the latent."""

from collections.abc import Callable
from functools import partial

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import biject_to, constraints

from pyrovae.programs.guides.heads import Gaussian
from pyrovae.programs.parameters import seeded

Network = Callable[[int], nn.Module]
Guide = Callable[[tuple[int, ...], Network], nn.Module]


class Headed(nn.Module):
    """q(z | x): ``network`` gives the numbers that ``head`` makes a distribution of.

    Args:
        shape: of one latent.
        network: from how many numbers it must give to a module x -> (..., numbers).
        support: constraint of one latent; None for reals.
        covariance: "diagonal", "full covariance" or "flow".
    """

    def __init__(
        self, shape: tuple[int, ...], network: Network, *, support: constraints.Constraint | None, covariance: str
    ) -> None:
        super().__init__()
        real = Size(shape) if support is None else Size(biject_to(support).inverse_shape(Size(shape)))
        size = real.numel()
        move = None if support is None else (lambda: support)
        with seeded(0):  # a flow draws its weights
            self.head = Gaussian(Size(shape), move, (), torch.zeros(size), torch.ones(size), covariance)
        self.network = network(self.head.num_raw)

    def forward(self, x: Tensor) -> TorchDistribution:
        return self.head.build(self.network(x))


def full_normal() -> Guide:
    """A Gaussian whose covariance is full, and goes with the datum."""
    return partial(Headed, support=None, covariance="full covariance")


def spline_flow() -> Guide:
    """The same with noise that a spline autoregressive flow makes, conditioned by the datum.

    References:
        Dolatabadi, Erfani and Leckie (2020), Invertible generative modeling using linear rational splines,
        arXiv:2001.05168.
    """
    return partial(Headed, support=None, covariance="flow")


def logit_normal() -> Guide:
    """Numbers between 0 and 1 whose log odds are Gaussian, each by itself."""
    return partial(Headed, support=constraints.unit_interval, covariance="diagonal")


def logistic_normal() -> Guide:
    """Proportions that a Gaussian of full covariance gives by breaking a stick.

    References:
        Aitchison and Shen (1980), Logistic-normal distributions, Biometrika 67:261.
    """
    return partial(Headed, support=constraints.simplex, covariance="full covariance")
