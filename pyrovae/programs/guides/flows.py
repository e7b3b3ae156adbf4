r"""Guides that are flows: noise moved by steps, each conditioned on the datum, then to a place and a scale.

.. math:: z = m(x) + s(x) \cdot T_L(\ldots T_1(\epsilon; h(x)) \ldots; h(x)), \qquad \epsilon \sim N(0, I)

In each step a coordinate moves by a function that those before it, and numbers h(x) of the datum, choose; the next
step takes them in the reverse order. All steps begin as the identity, so that an untrained flow is a normal guide.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import transforms

from pyrovae.base.errors import check_at_least_one
from pyrovae.programs.distributions.flows import Moved, zuko
from pyrovae.programs.distributions.transforms.bijections import Affine
from pyrovae.programs.families.family import positive
from pyrovae.programs.guides.heads import CONTEXT
from pyrovae.programs.networks import NetworkBuilder
from pyrovae.programs.parameters import seeded

Guide = Callable[[tuple[int, ...], NetworkBuilder], "Flow"]


class Flow(nn.Module):
    """q(z | x): ``network`` gives a place, a scale and the numbers that steps of zuko's flows are conditioned on.

    Args:
        shape: of one latent.
        network: from how many numbers it must give to a module x -> (..., numbers).
        num_steps: steps.
        hidden: width of the two hidden layers of each.
        options: of a step: zuko's ``univariate`` and ``shapes``.
        seed: of their weights.

    Raises:
        InputError: if zuko is not installed, or there is no step.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        network: NetworkBuilder,
        *,
        num_steps: int,
        hidden: int = 64,
        options: Callable[[], dict[str, Any]] = dict,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_at_least_one(num_steps=num_steps, hidden=hidden)
        self.shape, self.size = Size(shape), Size(shape).numel()
        with seeded(seed):
            self.steps = nn.ModuleList(self._step(number, hidden, options()) for number in range(num_steps))
        self.network = network(2 * self.size + CONTEXT)

    def _step(self, number: int, hidden: int, options: dict[str, Any]) -> nn.Module:
        places = torch.arange(self.size)
        if self.size > 1:
            options = {"order": places.flip(0) if number % 2 else places, **options}
        options = {"hidden_features": (hidden, hidden), "activation": nn.SiLU, **options}
        step = zuko().flows.MaskedAutoregressiveTransform(self.size, CONTEXT, **options)
        for parameter in step.hyper[-1].parameters():
            nn.init.zeros_(parameter)
        return step

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """(..., *x) -> a distribution of batch shape (...)."""
        loc, raw, context = self.network(x).split([self.size, self.size, CONTEXT], -1)
        moves: list[transforms.Transform] = [Moved(step(context)) for step in self.steps]
        moves.append(Affine(loc, positive(raw), event_dim=1))
        if len(self.shape) != 1:
            moves.append(transforms.ReshapeTransform(Size([self.size]), self.shape))
        return dist.TransformedDistribution(dist.Normal(torch.zeros_like(loc), 1.0).to_event(1), moves)


def iaf(num_steps: int = 3, hidden: int = 64) -> Guide:
    """An inverse autoregressive flow: steps that shift and scale.

    Args:
        num_steps: steps.
        hidden: width of the two hidden layers of each.

    References:
        Kingma et al. (2016), Improved variational inference with inverse autoregressive flow, arXiv:1606.04934.
    """
    return partial(Flow, num_steps=num_steps, hidden=hidden)


def neural_spline_flow(num_steps: int = 2, num_bins: int = 8, hidden: int = 64) -> Guide:
    """A neural spline flow: steps that are monotone splines from -5 to 5, and the identity outside.

    Args:
        num_steps: steps.
        num_bins: pieces of a spline.
        hidden: width of the two hidden layers of each.

    Raises:
        InputError: if there are no pieces.

    References:
        Durkan et al. (2019), Neural spline flows, arXiv:1906.04032.
    """
    check_at_least_one(num_bins=num_bins)
    return partial(Flow, num_steps=num_steps, hidden=hidden, options=partial(_splines, num_bins))


def _splines(num_bins: int) -> dict[str, Any]:
    shapes = [(num_bins,), (num_bins,), (num_bins - 1,)]
    return {"univariate": zuko().transforms.MonotonicRQSTransform, "shapes": shapes}
