r"""Gradients by way of the draws alone: what is left of the gradient of log q once its parameters are held.

With z = T(noise, phi) and q_phi* held at phi* = phi,

.. math:: \nabla_\phi^{path} \log q(z) = \frac{\partial \log q_{\phi*}(z)}{\partial z} \frac{\partial z}{\partial \phi}

Sites of the guide may depend on earlier draws. The partial derivative by z_j, all other draws held, is the total one
less what comes by way of later draws, so that it is found from the last site to the first, in one run of the guide.
"""

from collections.abc import Sequence
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor

from pyrovae.pairs.handlers import Redrawn
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.traces import Program, TracePair, plain_traces, traced
from pyrovae.training.objectives.bounds import slopes


class Paths:
    """Runs of a pair in which the gradients that reach draws can be told apart.

    Draws are handed on as copies of which no flow remembers where it drew them, so that log q is a function of them.

    Args:
        particles: how runs lie.
    """

    def __init__(self, particles: Particles) -> None:
        self.particles = particles
        self.factor: Tensor | None = None  # (K, N), on all gradients that reach draws from log p(x, z)
        self._num_runs = 0

    def traces(self, model: Program, guide: Program, args: Sequence[Any]) -> TracePair:
        """One run; the model reads draws by way of :attr:`factor`."""
        number, self._num_runs = self._num_runs, self._num_runs + 1
        with Redrawn(lambda value, fn: value.view_as(value)):
            of_guide = traced("guide", guide, guide, args)
        with Redrawn(lambda value, fn: self._watched(value, fn, number)):
            of_model = traced("model", model, poutine.replay(model, trace=of_guide), args)
        return TracePair(of_model, of_guide)

    def _watched(self, value: Tensor, fn: Any, number: int) -> Tensor:
        seen = value.view_as(value)
        if seen.requires_grad:
            seen.register_hook(lambda gradient: self._weighted(gradient, len(fn.event_shape), number))
        return seen

    def _weighted(self, gradient: Tensor, event_dim: int, number: int) -> Tensor:
        if self.factor is None:
            return gradient
        factor = self.factor if len(self.factor) == 1 or self._num_runs == 1 else self.factor[number : number + 1]
        inner = self.particles.structure.depth - 1 + event_dim
        factor = factor.reshape(*factor.shape, *[1] * inner)
        return gradient * self.particles.to_program(factor, gradient.dim() - event_dim).to(gradient)


def by_paths(runs: Sequence[TracePair], value: Tensor) -> Tensor:
    """A scalar of no meaning whose gradient is that of ``value`` by way of the draws alone.

    Args:
        runs: that :meth:`Paths.traces` made.
        value: a scalar function of log densities of the guide.
    """
    found = [_of_run(list(run.draws.values()), value) for run in runs]
    return torch.stack([torch.zeros_like(value), *(each.to(value) for each in found)]).sum(0)


def _of_run(draws: Sequence[Tensor], value: Tensor) -> Tensor:
    draws = [draw for draw in draws if draw.requires_grad]
    moved = torch.zeros_like(value)
    for draw, total in reversed(list(zip(draws, slopes(value, draws, retain=True), strict=True))):
        (later,) = slopes(moved, [draw], retain=True)
        partial = _difference(total, later)
        if partial is not None:
            moved = moved + (partial.detach() * draw).sum()
    return moved


def _difference(total: Tensor | None, later: Tensor | None) -> Tensor | None:
    if total is None or later is None:
        return total
    return total - later


def held_traces(model: Program, guide: Program, args: Sequence[Any]) -> TracePair:
    """One run on draws that are held: log q has the gradient of its parameters alone, the score."""
    with Redrawn(lambda value, fn: value.detach()):
        return plain_traces(model, guide, args)
