"""What a stranger brings: two programs, data, and the numbers that are right, known without pyrovae."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# What needs log q and log p at the same draws: a pair whose weights mean nothing is refused by each of them.
EVALUATIONS = ("evaluate", "repaired", "compiled", "blocks", "convergence")
OF_DRAWS = (*EVALUATIONS, "log_terms")  # at what the guide draws
BY_WEIGHTS = (*EVALUATIONS, "annealed", "bidirectional", "gaps", "log_terms")  # the table alone asks for no evidence
BY_DENSITIES = ("surgery", "fit")  # these score every draw too, but need no ratio of the two supports
CONTINUOUS = ("annealed", "bidirectional", "gaps")  # these move latents along gradients


@dataclass(frozen=True)
class Refusal:
    """A refusal that is wanted: its message names the site in quotes and holds one of the causes, in any case.

    Where ``or_right``, a right number is as good: then the mathematics gives one, and to refuse is a choice.
    """

    site: str | tuple[str, ...] | None
    causes: tuple[str, ...]
    or_right: bool = False

    def missing(self, message: str) -> str | None:
        """What a message does not say; None if all is there."""
        sites = (self.site,) if isinstance(self.site, str) else self.site
        if sites is not None and not any(f"'{site}" in message for site in sites):
            return f"names none of {sites}"
        if not any(cause.lower() in message.lower() for cause in self.causes):
            return f"says none of {self.causes}"
        return None


@dataclass(frozen=True)
class Stranger:
    """A pair with what is right about it; None where nothing is known, or nothing is right."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    data: tuple[Tensor, ...]
    log_evidence: Callable[..., Tensor] | None = None  # data -> log p(x), (N,)
    elbo: Tensor | None = None  # (N,)
    guide_mean: Mapping[str, Tensor] = field(default_factory=dict)  # site -> E_q, (N, ...)
    posterior_mean: Mapping[str, Tensor] = field(default_factory=dict)  # site -> E[z | x], (N, ...)
    refused: Mapping[str, Refusal] = field(default_factory=dict)  # by measurement
    skipped: tuple[str, ...] = ()  # measurements that this program says nothing about
    exact: bool | None = None  # whether the guide is the posterior; None: not asked
    plate: str | None = None
    said: tuple[str, ...] = ()  # a wrong number is honest if a warning holds one of these words

    @property
    def truth(self) -> Tensor:
        if self.log_evidence is None:
            return torch.full((len(self.data[0]),), torch.nan, dtype=torch.float64)
        return self.log_evidence(*self.data).double()


def refuse(site: str | tuple[str, ...] | None, *causes: str, by=(*BY_WEIGHTS, *BY_DENSITIES), or_right=False):
    """The same refusal by each of these measurements."""
    return dict.fromkeys(by, Refusal(site, causes, or_right))


def discrete(site: str):
    """What measurements that move along gradients say of a discrete latent."""
    return refuse(site, "discrete", by=CONTINUOUS)


# ------------------------------------------------------------------------------- numbers by adding up points

GRID = 1  # of how many points of a grid stand for one; ten_seeds.py --truths doubles it


def line(low: float, high: float, count: int = 2001) -> tuple[Tensor, Tensor]:
    """Points of the trapezoid rule, and the logarithms of their weights."""
    points = torch.linspace(low, high, count * GRID, dtype=torch.float64)
    weights = torch.full_like(points, (high - low) / (len(points) - 1))
    weights[[0, -1]] /= 2
    return points, weights.log()


def positive(low: float = -14.0, high: float = 6.0, count: int = 2001, start: float = 0.0) -> tuple[Tensor, Tensor]:
    """Points above ``start``, evenly spaced in their logarithm."""
    points, weights = line(low, high, count)
    return points.exp() + start, weights + points


def unit(reach: float = 25.0, count: int = 2001) -> tuple[Tensor, Tensor]:
    """Points between 0 and 1, evenly spaced in their logit."""
    points, weights = line(-reach, reach, count)
    logs = torch.nn.functional.logsigmoid(points)
    return points.sigmoid(), weights + logs + torch.nn.functional.logsigmoid(-points)


def whole(count: int) -> tuple[Tensor, Tensor]:
    """0, 1, ..., count - 1, each of weight one."""
    return torch.arange(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)


def bits(count: int) -> tuple[Tensor, Tensor]:
    """All 0-1 vectors of a length."""
    points = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * count).reshape(-1, count)
    return points, torch.zeros(len(points), dtype=torch.float64)


def square(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Pairs of the points of two grids, (G, 2)."""
    return torch.cartesian_prod(a[0], b[0]), (a[1][:, None] + b[1]).flatten()


def summed(model, guide, data, grid, joint, density, values=None, **more) -> Stranger:
    """A stranger whose numbers are sums over a grid.

    Args:
        model, guide, data: the pair and what both take.
        grid: points (G, ...) and the logarithms of their weights (G,).
        joint: points, data -> log p(x, z), (G, N).
        density: points, data -> log q(z | x), (G, N).
        values: points -> what the latent sites draw there, each (G, ...); None where no mean is asked for.
        more: further fields.
    """
    points, weights = grid
    data = tuple(data)

    def log_evidence(*data):
        return (joint(points, *_doubles(data)) + weights[:, None]).logsumexp(0)

    log_q = density(points, *_doubles(data)) if density is not None else None
    log_p = joint(points, *_doubles(data))
    if log_q is not None:
        assert bool((abs((log_q + weights[:, None]).logsumexp(0)) < 1e-4).all()), "the guide's density is not one"
        q = (log_q + weights[:, None]).exp()
        log_q = log_q.expand_as(log_p)
        more.setdefault("elbo", torch.where(q > 0, q * (log_p - log_q), 0.0).sum(0))
    if values is not None:
        posterior = (log_p + weights[:, None]).softmax(0)
        drawn = {site: value.double() for site, value in values(points).items()}
        more.setdefault("posterior_mean", {site: _mean(posterior, value) for site, value in drawn.items()})
        if log_q is not None:
            more.setdefault("guide_mean", {site: _mean(q.expand_as(log_p), value) for site, value in drawn.items()})
    return Stranger(model, guide, data, log_evidence, **more)


def _doubles(data):
    return tuple(part.double() if part.is_floating_point() else part for part in data)


def _mean(weights: Tensor, value: Tensor) -> Tensor:
    return torch.tensordot(weights.T, value, 1)


def noise(seed: int, *shape: int, kind=torch.randn) -> Tensor:
    """Random numbers of a generator of their own."""
    return kind(*shape, generator=torch.Generator().manual_seed(seed))
