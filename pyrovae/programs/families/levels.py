"""Families of ordered levels: answers on a scale, pixels of 8 bits, and densities by their bins."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.nn.functional import logsigmoid

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.discretised import LOG_CDF, Binned, DiscretisedLogistic
from pyrovae.programs.families.continuous import normal
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


def binned(family: Family, highest: int) -> Family:
    r"""Whole numbers 0..h from a density of reals: each takes the mass of its unit bin, the ends what lies beyond.

    The bridge from a density to a mass: so a normal is compared with a binomial. The density is over (2 x - h) / h,
    which is -1 at the least and 1 at the largest value, as networks have it.

    .. math:: P(x = k) = F(k + \tfrac12) - F(k - \tfrac12)

    Args:
        family: normal, laplace or logistic, whatever its scale.
        highest: h.

    Raises:
        InputError: if h is below 1; on building, for another family.

    Example:
        >>> from pyrovae.programs.families import laplace
        >>> binned(laplace(), 16).name
        'binned(laplace, 16)'
    """
    check_at_least_one(highest=highest)

    def build(event_dim: int, *parameters: Tensor) -> dist.TorchDistribution:
        y = family.build(event_dim, *parameters)
        base: Any = y.base_dist if isinstance(y, torch.distributions.Independent) else y
        kind = next((kind for kind in LOG_CDF if isinstance(base, kind)), None)
        if kind is None:
            names = ", ".join(kind.__name__ for kind in LOG_CDF)
            raise InputError(f"binned takes families of independent values that are {names}, got {family.name}")
        half = highest / 2
        return Binned(kind, highest + 1, half * (1 + base.loc), half * base.scale).to_event(event_dim)

    return Family(f"binned({family.name}, {highest})", family.shapes, build, family.free)


def binned_normal(highest: int) -> Family:
    """Whole numbers 0..highest by the bins of a normal, its mean and scale predicted. A mass."""
    return binned(normal(), highest)
