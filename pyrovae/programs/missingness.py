r"""Models of which entries are observed, s = 1, given all of them: where what is missing depends on itself.

.. math:: \operatorname{logit} p(s_d = 1 \mid x) = a_d - w_d x_d

:func:`pyrovae.with_missingness` puts one beside a model of the data.
"""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions.exponential import Bernoulli
from pyrovae.programs.families.family import positive_inverse
from pyrovae.programs.networks.events import as_size

FIRST_SLOPE = 1.0  # at which a slope of known sign begins; one of unknown sign begins at a hundredth of it


class SelfMasking(nn.Module):
    """Each entry is missing or not by its own value alone, logistic in it; :func:`self_masking` makes one."""

    def __init__(self, event_shape: tuple[int, ...], sign: int | None) -> None:
        super().__init__()
        self.sign, shape = sign, torch.Size(event_shape)
        self.intercept = nn.Parameter(torch.zeros(shape))
        begin = torch.full(shape, FIRST_SLOPE)
        self.raw_slope = nn.Parameter(0.01 * begin if sign is None else positive_inverse(begin))

    @property
    def slope(self) -> Tensor:
        """w, of the shape of an event: positive where large values are missing."""
        return self.raw_slope if self.sign is None else self.sign * softplus(self.raw_slope)

    def forward(self, x: Tensor) -> TorchDistribution:
        """Complete data (..., *event) -> the distribution of which entries are observed."""
        logits = self.intercept - self.slope * x.to(self.intercept.dtype)
        return Bernoulli(logits=logits).to_event(self.intercept.dim())


def self_masking(num_features: int | tuple[int, ...], *, sign: int | None = None) -> SelfMasking:
    """A logistic regression of whether each entry is observed on that entry.

    Args:
        num_features: of a row, or the shape of an event.
        sign: 1 where large values are known to be missing more often, -1 small ones; None learns the sign, which data
            tell by the likelihood's shape alone.

    Raises:
        InputError: for another sign.

    References:
        Ipsen, Mattei and Frellsen (2021), not-MIWAE: deep generative modelling with missing not at random data, ICLR.

    Example:
        >>> self_masking(2, sign=1)(torch.zeros(5, 2)).event_shape
        torch.Size([2])
    """
    if sign not in (None, 1, -1):
        raise InputError(f"sign is 1 where large values are missing, -1 where small ones are, or None; got {sign!r}")
    return SelfMasking(as_size(num_features), sign)
