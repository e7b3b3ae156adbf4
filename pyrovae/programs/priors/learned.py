r"""Priors that are made of the guide: mixtures of its posteriors at learned inputs.

.. math:: p(z) = \frac1M \sum_{m=1}^M q(z \mid u_m)
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.mixtures import NormalMixture
from pyrovae.programs.parameters import seeded


class VampPrior(nn.Module):
    """A mixture of the encoder's posteriors at pseudo-inputs, which are learned from rows of the data on.

    Args:
        num_latents: dimensions of z.
        num_pseudo_inputs: M.
        encoder: x -> Distribution, the guide's own network.
        rows: the training data, (N, *shape): pseudo-inputs begin at M of them, drawn by a seed, and stay within their
            range.
        seed: of that draw.

    Raises:
        InputError: if there is no dimension or no pseudo-input; when called, if the encoder is over latents of
            another shape.

    References:
        Tomczak and Welling (2018), VAE with a VampPrior, arXiv:1705.07120.
    """

    def __init__(
        self,
        num_latents: int,
        *,
        num_pseudo_inputs: int = 500,
        encoder: Callable[[Tensor], dist.TorchDistribution],
        rows: Any,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents, num_pseudo_inputs=num_pseudo_inputs)
        self.num_latents = num_latents
        self._encoder = (encoder,)  # of the guide, which has its weights among its own
        with seeded(seed):
            start = _rows(rows, torch.randint(len(rows), (num_pseudo_inputs,))).to(torch.get_default_dtype())
        self.low, self.high = float(start.min()), float(start.max())
        self.pseudo_inputs = nn.Parameter(start)

    def forward(self) -> dist.TorchDistribution:
        components = self._encoder[0](self.pseudo_inputs.clamp(self.low, self.high))
        if components.event_shape != (self.num_latents,):
            raise InputError(
                f"the VampPrior is over {self.num_latents} latents, but its encoder gives a distribution of event "
                f"shape {tuple(components.event_shape)}"
            )
        equal = torch.zeros_like(self.pseudo_inputs.flatten(1)[:, 0])
        base = components.base_dist if isinstance(components, dist.Independent) else None
        if type(base) is dist.Normal:
            return NormalMixture(base.loc, base.scale, equal, many=True)
        return dist.MixtureSameFamily(dist.Categorical(logits=equal), components)


def _rows(rows: Any, chosen: Tensor) -> Tensor:
    """Some rows of a split, or of a tensor; with the means of these in place of what is missing (NaN)."""
    found = rows[chosen] if isinstance(rows, Tensor) else rows.batch(chosen)[0]
    mean = found.double().nanmean(0).nan_to_num(0.0)
    return torch.where(found.isnan(), mean.to(found.dtype), found)
