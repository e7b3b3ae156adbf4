r"""Priors that are flows: a latent is moved to noise by steps, in each of which a coordinate moves by those before it.

.. math:: p(z) = N(T(z); 0, I) \left| \det \frac{\partial T}{\partial z} \right|, \qquad
    T = T_L \circ \dots \circ T_1

So a density takes one pass of the networks, and a draw one for each coordinate. The next step takes coordinates in
the reverse order. All steps begin as the identity: an untrained flow is N(0, I).
"""

from typing import Any

import pyro.distributions as dist
from torch import nn

from pyrovae.base.errors import check_at_least_one
from pyrovae.programs.distributions.flows import from_zuko, zuko
from pyrovae.programs.parameters import seeded


class _Flow(nn.Module):
    """Holds a flow of zuko's, by the name of its class in ``zuko.flows``."""

    def __init__(
        self, kind: str, num_latents: int, num_steps: int, hidden: int, seed: int | None, **options: Any
    ) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents, num_steps=num_steps, hidden=hidden)
        options |= {"transforms": num_steps, "hidden_features": (hidden, hidden), "activation": nn.SiLU}
        with seeded(seed):
            self.flow = getattr(zuko().flows, kind)(num_latents, **options)
        for step in self.flow.transform.transforms:
            last = step.hyper[-1] if num_latents > 1 else step  # of one coordinate there is no network
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        for module in self.flow.modules():  # masks and zeros, which a checkpoint need not hold
            for name, buffer in list(module.named_buffers(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, buffer, persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return from_zuko(self.flow())


class MaskedAutoregressiveFlow(_Flow):
    """Steps that shift and scale.

    Args:
        num_latents: dimensions of z.
        num_steps: steps.
        hidden: width of the two hidden layers of each.
        seed: of their weights.

    Raises:
        InputError: if zuko is not installed, or there is no dimension or step.

    References:
        Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation, arXiv:1705.07057.
    """

    def __init__(self, num_latents: int, *, num_steps: int = 3, hidden: int = 64, seed: int | None = 0) -> None:
        super().__init__("MAF", num_latents, num_steps, hidden, seed)


class NeuralSplineFlow(_Flow):
    """Steps that are monotone splines from -5 to 5, and the identity outside.

    Args:
        num_latents: dimensions of z.
        num_steps: steps.
        num_bins: pieces of a spline.
        hidden: width of the two hidden layers of each.
        seed: of their weights.

    Raises:
        InputError: if zuko is not installed, or there is no dimension, step or piece.

    References:
        Durkan et al. (2019), Neural spline flows, arXiv:1906.04032.
    """

    def __init__(
        self, num_latents: int, *, num_steps: int = 2, num_bins: int = 8, hidden: int = 64, seed: int | None = 0
    ) -> None:
        check_at_least_one(num_bins=num_bins)
        super().__init__("NSF", num_latents, num_steps, hidden, seed, bins=num_bins)
