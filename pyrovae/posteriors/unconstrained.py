r"""One datum's joint density in unconstrained space: in the programs' dtype inside, in float64 outside.

With z = T(u) the transform of each site's support:

.. math:: \log p(x, u) = \log p(x \mid z) + \log p(z) + \log |\det \partial T / \partial u|
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.proposals.local import draw_unconstrained
from pyrovae.pairs.graphs.replays import Replays
from pyrovae.pairs.latents import Latents, Values


class Points(NamedTuple):
    """Latents of one datum and what the model says of them."""

    u: Tensor  # (K, D), unconstrained
    log_joint: Tensor  # (K,): log p(x, z)
    log_jacobian: Tensor  # (K,)
    values: Values  # site -> (K, *event)

    @property
    def log_density(self) -> Tensor:
        """log p(x, u), (K,) nats."""
        return self.log_joint + self.log_jacobian

    def take(self, rows: Tensor) -> "Points":
        """Some of the points, by their numbers or a mask."""
        values = {name: value[rows] for name, value in self.values.items()}
        return Points(self.u[rows], self.log_joint[rows], self.log_jacobian[rows], values)

    def broken(self) -> Tensor:
        """Numbers of the points where the density is NaN or infinite upwards."""
        return (self.log_density.isnan() | (self.log_density == math.inf)).nonzero().flatten()

    def describe(self, row: int) -> str:
        """One point in words: the density and the latents."""
        where = ", ".join(f"site '{name}' at {value[row].tolist()}" for name, value in self.values.items())
        return f"log p(x, z) is {self.log_joint[row].item()} with {where}"


class UnconstrainedDensity:
    """The model's density of one datum and D real coordinates; for use inside ``isolated``."""

    def __init__(self, latents: Latents) -> None:
        self.latents = latents
        self.dtype = latents.unconstrain(latents.draw(1)).dtype
        self.slope = Replays(self._slope)  # u, (D,) -> the log density there, and its gradient, (D,)

    def draws(self, num_draws: int) -> Tensor:
        """So many draws of the guide, then as many of the prior: (2 S, D), float64."""
        programs = self.latents.draw, self.latents.draw_prior
        parts = [draw_unconstrained(self.latents, draw, num_draws) for draw in programs]
        return torch.cat(parts).squeeze(1).double()

    def at(self, u: Tensor, shown: Any = None) -> Points:
        """The density at points (K, D), part by part; ``shown`` is a bar that counts them."""
        parts = []
        for part in u.split(self.latents.part_sizes(len(u))):
            parts.append(self.score(part))
            if shown is not None:
                shown.update(len(part))
        return Points(
            u,
            torch.cat([part.log_joint for part in parts]),
            torch.cat([part.log_jacobian for part in parts]),
            {name: torch.cat([part.values[name] for part in parts]) for name in self.latents.sites},
        )

    def score(self, u: Tensor) -> Points:
        """The density at points (K, D), all at once; differentiable in u."""
        joint = self.latents.log_joint_unconstrained(u.to(self.dtype)[:, None])
        log_joint = (joint.log_likelihood + joint.log_prior).squeeze(1)
        return Points(u, log_joint, joint.log_jacobian.squeeze(1), of_one_datum(joint.values))

    def log_density(self, u: Tensor) -> Tensor:
        """The density at one point (D,), a scalar; differentiable in u, once."""
        return _WithSlope.apply(u, *self.slope(u.detach()))

    def _slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            log_density = self.score(u[None]).log_density.squeeze(0)
            (slope,) = torch.autograd.grad(log_density + 0 * u.sum(), u)  # the density may be constant
        return log_density.detach(), slope


class _WithSlope(torch.autograd.Function):
    """The value of a function of u whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None


def of_one_datum(values: Values) -> Values:
    """(K, 1, *event) -> (K, *event) at each site."""
    return {name: value.squeeze(1) for name, value in values.items()}
