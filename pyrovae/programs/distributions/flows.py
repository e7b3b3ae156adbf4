"""zuko's flows as distributions of Pyro's: a transform of noise that remembers its last pass, and what zuko undoes.

What a flow is called with in zuko's own direction is moved and scored in one pass of the networks; the other way takes
two, or as many as there are coordinates and one more. A draw that is scored as it was drawn takes no further pass.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions.transforms.bijections import Remembering


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


class Moved(Remembering):
    """A transform of zuko's, from noise to values.

    Args:
        transform: of zuko; for one from values to noise, as those of ``zuko.flows``, its ``inv``.
    """

    bijective = True

    def __init__(self, transform: Any) -> None:
        super().__init__(cache_size=1)
        self.transform = transform
        self.seen: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.domain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.codomain

    def _call(self, x: Tensor) -> Tensor:
        y, log_jacobian = self.transform.call_and_ladj(x)
        self.seen = x, y, log_jacobian
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_jacobian = self.transform.inv.call_and_ladj(y)
        self.seen = x, y, -log_jacobian
        return x

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
