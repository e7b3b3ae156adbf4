"""zuko's flows as distributions of Pyro's: a transform of noise that remembers its last pass, and what zuko undoes.

A draw and its density take one pass of the networks; the density at a value from elsewhere takes one more for its
place before the flow, or as many as there are coordinates, as zuko's inverse does.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.transforms import Transform

from pyrovae.base.errors import InputError


def zuko() -> Any:
    """The package zuko, imported without its switching the validation of distributions off.

    Raises:
        InputError: if it is not installed.
    """
    checked = Distribution._validate_args
    try:
        import zuko
    except ImportError as error:
        raise InputError('this flow needs zuko: pip install "pyrovae[flows]"') from error
    finally:
        Distribution.set_default_validate_args(checked)
    return zuko


class Moved(Transform):
    """A transform of zuko's, from noise to values.

    Args:
        transform: of zuko; for one from values to noise, as those of ``zuko.flows``, its ``inv``.
    """

    bijective = True

    def __init__(self, transform: Any) -> None:
        super().__init__(cache_size=1)
        self.transform = transform
        self.seen: tuple[Tensor, Tensor, Tensor] | None = None
        self.has_graph = False  # whether what is remembered carries gradients

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.domain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.codomain

    def _call(self, x: Tensor) -> Tensor:
        y, log_jacobian = self.transform.call_and_ladj(x)
        self.seen, self.has_graph = (x, y, log_jacobian), torch.is_grad_enabled()
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not self.has_graph:
            self._cached_x_y = None, None
        return super()._inv_call(y)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.transform.inv(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if self.seen is not None and x is self.seen[0] and y is self.seen[1]:
            return self.seen[2]
        return self.transform.log_abs_det_jacobian(x, y)


def from_zuko(flow: Any) -> dist.TransformedDistribution:
    """A distribution of ``zuko.flows`` as one of Pyro's, for a guide or a prior of one's own.

    Args:
        flow: what a flow of zuko's gives when it is called, of vectors of normal or uniform noise.

    Returns:
        The same distribution: batch shape, densities and gradients are those of the flow.

    Raises:
        InputError: for another kind of distribution, or of noise.
    """
    base = getattr(flow, "base", None)
    noise = getattr(base, "base_dist", None)
    if not isinstance(noise, torch.distributions.Normal | torch.distributions.Uniform) or not hasattr(
        flow, "transform"
    ):
        raise InputError(
            f"expected what a flow of zuko's gives when it is called, flow(context), over normal or uniform noise; "
            f"got {type(flow).__name__} over {type(base).__name__}"
        )
    if isinstance(noise, torch.distributions.Normal):
        start = dist.Normal(noise.loc, noise.scale).to_event(1)
    else:
        start = dist.Uniform(noise.low, noise.high).to_event(1)
    return dist.TransformedDistribution(start, [Moved(flow.transform.inv)])
