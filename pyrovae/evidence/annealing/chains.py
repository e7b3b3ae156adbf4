r"""Chains that walk a path of densities, one way or the other, with their importance weights.

.. math::
    \log w = \sum_{i=1}^{T} (t_i - t_{i-1}) \, [\log f_1(u_{i-1}) - \log f_0(u_{i-1})]

Forward from f_0, E[w] = p(x). Backward from an exact posterior draw, by the same steps, E[1/w] = 1 / p(x).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.annealing.paths import Path, State, state_at, transition
from pyrovae.evidence.annealing.tuning import Tuning


class Route(NamedTuple):
    """A path with frozen kernels, and the temperatures to walk it by."""

    path: Path
    tuning: Tuning
    temperatures: Sequence[float]  # 0 = t_0 < ... < t_T = 1


class Walk(NamedTuple):
    """What K chains of n data brought back, (K, n) each, float64."""

    log_weight: Tensor  # nats; of a walk back, the log of the inverse weight
    acceptance: Tensor  # mean probability over the path


def forward(route: Route, num_chains: int, tick: Callable[[], Any] = lambda: None) -> Walk:
    """K chains from f_0 to f_1: E[w] = p(x)."""
    state = state_at(route.path, route.path.draw(num_chains))
    log_weight, acceptance = _nothing_yet(state)
    for before, after in pairwise(route.temperatures):
        log_weight += (after - before) * state.log_ratio.double()
        if after < 1:  # what a transition at f_1 would do is not weighed any more
            state, probability = transition(route.path, state, after, route.tuning.kernel(after))
            acceptance += probability
        tick()
    return _arrived(log_weight, acceptance, len(route.temperatures) - 2)


def backward(route: Route, u: Tensor, tick: Callable[[], Any] = lambda: None) -> Walk:
    """K chains from exact posterior draws u, (K, n, D), back to f_0 by the same steps: E[w] = 1 / p(x)."""
    state = state_at(route.path, u)
    log_weight, acceptance = _nothing_yet(state)
    for before, after in reversed(list(pairwise(route.temperatures))):
        if after < 1:
            state, probability = transition(route.path, state, after, route.tuning.kernel(after))
            acceptance += probability
        log_weight -= (after - before) * state.log_ratio.double()
        tick()
    return _arrived(log_weight, acceptance, len(route.temperatures) - 2)


def _nothing_yet(state: State) -> tuple[Tensor, Tensor]:
    zeros = torch.zeros_like(state.log_ratio, dtype=torch.float64)
    return zeros, zeros.clone()


def _arrived(log_weight: Tensor, acceptance: Tensor, num_transitions: int) -> Walk:
    undefined = log_weight.isnan().any(0)
    if undefined.any():
        raise FloatingPointError(
            f"the annealed weights of {int(undefined.sum())} of {len(undefined)} data are NaN: a density of the model "
            "or the guide is NaN somewhere on the way (evaluate names the site); look at supports and parameters there"
        )
    return Walk(log_weight, acceptance / num_transitions if num_transitions else torch.full_like(acceptance, math.nan))
