r"""Where codes lie and where none do: neighbours, gaps, lines between two, and the direction of an attribute.

.. math:: \mathrm{slerp}(a, b; t) = \frac{\sin((1 - t) \omega)}{\sin \omega} a + \frac{\sin(t \omega)}{\sin \omega} b,
    \qquad \cos \omega = \frac{a^T b}{|a| |b|}, \qquad
    d = \frac{\mathrm{cov}(z, a)}{\mathrm{var}(a)}

so that codes move by d, on average, where the attribute a is greater by one; of a label in 0 and 1 it is the
difference of the two means.
"""

from collections.abc import Callable

import torch
from torch import Tensor

CANDIDATES = 20  # midpoints that are looked at, for each gap
ROWS_AT_ONCE = 500
STRAIGHT = 1e-4  # sine of an angle below which the arc is the line
Attribute = Callable[[Tensor], Tensor]


def nearest(points: Tensor, others: Tensor, *, themselves: bool = False) -> tuple[Tensor, Tensor]:
    """Distance to the nearest of others, and its row.

    Args:
        points: (M, D).
        others: (N, D).
        themselves: whether they are the same rows, each of which is not its own neighbour.

    Returns:
        (M,) each.
    """
    found = []
    for start in range(0, len(points), ROWS_AT_ONCE):
        distance = torch.cdist(points[start : start + ROWS_AT_ONCE], others)
        if themselves:
            distance.diagonal(offset=start).fill_(torch.inf)
        found.append(distance.min(1))
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])


def alike(codes: Tensor, labels: Tensor) -> Tensor:
    """Whether the nearest other code is of the same label: codes (N, D) and labels (N,) -> 0 or 1, (N,)."""
    _, row = nearest(codes, codes, themselves=True)
    return (labels[row] == labels).double()


def gaps(codes: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Points between codes that are far from any: of the midpoints of many pairs the emptiest, (num, D)."""
    pairs = torch.randint(len(codes), (2, CANDIDATES * num), generator=generator)
    middle = (codes[pairs[0]] + codes[pairs[1]]) / 2
    distance, _ = nearest(middle, codes)
    return middle[distance.argsort(descending=True)[:num]]


def line(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    """Points on straight lines: (M, D) twice and weights (T,) of the end -> (M, T, D)."""
    return torch.lerp(start[:, None], end[:, None], weights.to(start)[:, None])


def arc(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    """Points on arcs around the origin, lengths changing with them: (M, D) twice and weights (T,) -> (M, T, D).

    References:
        White (2016), Sampling generative networks, arXiv:1609.04468.
    """
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1).clamp(-1, 1)
    angle = cosine.arccos()[:, None, None]
    sine, t = angle.sin(), weights.to(start)[:, None]
    bent = (((1 - t) * angle).sin() * start[:, None] + (t * angle).sin() * end[:, None]) / sine
    return torch.where(sine > STRAIGHT, bent, line(start, end, weights))


def direction(codes: Tensor, attribute: Tensor) -> Tensor:
    """How codes (N, D) move where an attribute (N,) is greater by one: (D,)."""
    away = attribute - attribute.mean()
    return away @ (codes - codes.mean(0)) / away.square().sum()


def ink(images: Tensor) -> Tensor:
    """The mean value of each image, (N, *shape) -> (N,)."""
    return images.flatten(1).double().mean(1)


def stroke_width(images: Tensor) -> Tensor:
    """Twice the ink over the length of its outline, in pixels: (N, *, H, W) -> (N,)."""
    x = torch.nn.functional.pad(images.double().reshape(len(images), -1, *images.shape[-2:]), (1, 1, 1, 1))
    outline = (x.diff(dim=-1).abs().flatten(1).sum(1) + x.diff(dim=-2).abs().flatten(1).sum(1)).clamp_min(1e-12)
    return 2 * x.flatten(1).sum(1) / (outline * torch.pi / 4)  # rows and columns overstate a slanted edge by 4 / pi
