"""Families of ordered levels: answers on a scale, and pixels of 8 bits."""

import math

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.nn.functional import logsigmoid

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.discretised import DiscretisedLogistic
from pyrovae.programs.families.family import Family, positive, positive_inverse

LEVELS = 256


def ordinal(num_levels: int) -> Family:
    r"""Ordered classes 0..L - 1, from one number for each element and ordered cut points that all data share. A mass.

    .. math:: P(x \le l) = \sigma(c_l - \eta), \qquad c_0 < c_1 < \dots < c_{L - 2}

    Raises:
        InputError: if there are fewer than 2 levels.

    References:
        McCullagh (1980), Regression models for ordinal data, JRSS B 42:109.
    """
    if num_levels < 2:
        raise InputError(f"ordinal needs at least 2 levels, got {num_levels}")

    def cuts(event_shape: Size) -> Tensor:
        """The first cut, and raw distances: levels are equally likely at first."""
        at = torch.logit(torch.arange(1, num_levels) / num_levels)
        raw = torch.cat([at[:1], positive_inverse(at.diff())])
        return raw.reshape(-1, *[1] * len(event_shape)).expand(-1, *event_shape)

    def build(event_dim: int, location: Tensor, raw: Tensor) -> dist.TorchDistribution:
        cut = torch.cat([raw[:1], positive(raw[1:])]).cumsum(0).movedim(0, -1)
        return dist.Categorical(logits=_log_levels(cut - location[..., None])).to_event(event_dim)

    return Family(f"ordinal({num_levels})", lambda event_shape: (event_shape,), build, free=(cuts,))


def _log_levels(above: Tensor) -> Tensor:
    """Log masses (..., L) of the levels between cut points that lie so far above the location, (..., L - 1)."""
    below, ahead = above[..., :-1], above[..., 1:]
    within = logsigmoid(ahead) + logsigmoid(-below) + torch.log(-torch.expm1(below - ahead))
    return torch.cat([logsigmoid(above[..., :1]), within, logsigmoid(-above[..., -1:])], -1)


def discretised_logistic(num_components: int = 1) -> Family:
    """Pixels 0..255 from logistic densities, rounded, with the tails added to both ends. A mass.

    Args:
        num_components: of the mixture for each pixel.

    Raises:
        InputError: if there is no component.

    References:
        Kingma et al. (2016), arXiv:1606.04934; Salimans et al. (2017), PixelCNN++, arXiv:1701.05517.
    """
    check_at_least_one(num_components=num_components)

    def shapes(event_shape: Size) -> tuple[Size, ...]:
        return (Size([num_components, *event_shape]),) * (3 if num_components > 1 else 2)

    def build(event_dim: int, *parameters: Tensor) -> dist.TorchDistribution:
        loc, raw_scale, *logits = (each.movedim(-event_dim - 1, -1) for each in parameters)
        half = (LEVELS - 1) / 2
        apart = torch.linspace(-0.5, 0.5, num_components, dtype=loc.dtype, device=loc.device)
        center = half * (1 + loc + (apart if num_components > 1 else 0 * apart))
        scale = half * positive(raw_scale + math.log(math.expm1(0.2)))
        weight = logits[0] if logits else torch.zeros_like(center)
        return DiscretisedLogistic(LEVELS, weight, center, scale).to_event(event_dim)

    name = "discretised_logistic" + (f"({num_components})" if num_components > 1 else "")
    return Family(name, shapes, build)
