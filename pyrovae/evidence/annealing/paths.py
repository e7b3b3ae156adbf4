r"""Geometric paths between two densities in unconstrained space, and chains that walk them by Hamiltonian Monte Carlo.

.. math:: \log f_t(u) = \log f_0(u) + t \, [\log f_1(u) - \log f_0(u)], \qquad 0 \le t \le 1

f_1 is the joint p(x, z) of each datum, f_0 a normalised density to start from: the prior or the guide. K chains for
each of n data move at once; each accepts or rejects its own proposal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.pairs.graphs.replays import Replays
from pyrovae.pairs.latents import Latents


@dataclass(frozen=True)
class Path:
    """A path for one block of data: K chains of n data are points (K, n, D) of unconstrained space."""

    draw: Callable[[int], Tensor]  # K -> points from f_0, (K, n, D)
    densities: Callable[[Tensor], tuple[Tensor, Tensor]]  # points -> log f_0 and log f_1 - log f_0, (K, n) nats each

    @cached_property
    def slopes(self) -> Replays:
        """Points -> both log densities, (K, n), and their gradients, (K, n, D)."""
        return Replays(partial(_slopes, self.densities))


def from_prior(latents: Latents) -> Path:
    """f_0 = p(z): the log ratio is log p(x|z), so every point of the path weighs the likelihood by t (Neal 2001)."""

    def densities(u: Tensor) -> tuple[Tensor, Tensor]:
        joint = latents.log_joint_unconstrained(u)
        return joint.log_prior + joint.log_jacobian, joint.log_likelihood

    return Path(lambda num_chains: latents.unconstrain(latents.draw_prior(num_chains)), densities)


def from_guide(latents: Latents) -> Path:
    """f_0 = q(z|x): the log ratio is the log importance weight. Much shorter than from the prior for a good guide.

    Raises:
        InputError: if the guide draws auxiliary sites, whose density is not a function of the latents, or cannot draw
            all that the prior can.
    """
    latents.require_guide_density()
    latents.check_guide_support()

    def densities(u: Tensor) -> tuple[Tensor, Tensor]:
        joint = latents.log_joint_unconstrained(u)
        log_guide = latents.log_guide(joint.values)
        return log_guide + joint.log_jacobian, joint.log_likelihood + joint.log_prior - log_guide

    return Path(lambda num_chains: latents.unconstrain(latents.draw(num_chains)), densities)


class State(NamedTuple):
    """Where K chains of n data stand: points (K, n, D), log densities (K, n) and their gradients (K, n, D)."""

    u: Tensor
    log_start: Tensor
    log_ratio: Tensor
    slope_start: Tensor
    slope_ratio: Tensor

    def at(self, temperature: float) -> tuple[Tensor, Tensor]:
        """log f_t, (K, n), and its gradient, (K, n, D)."""
        if temperature == 0:  # 0 times -inf is NaN
            return self.log_start, self.slope_start
        return self.log_start + temperature * self.log_ratio, self.slope_start + temperature * self.slope_ratio


class Kernel(NamedTuple):
    """A transition that leaves f_t as it is: leapfrog steps in coordinates divided by a scale."""

    step: Tensor  # (n,)
    scale: Tensor  # (n, D)
    num_leapfrog: int


def state_at(path: Path, u: Tensor) -> State:
    """Densities and gradients at points (K, n, D)."""
    return State(u.detach(), *path.slopes(u.detach()))


def _slopes(densities: Callable[[Tensor], tuple[Tensor, Tensor]], u: Tensor) -> tuple[Tensor, ...]:
    u = u.detach().requires_grad_()
    with torch.enable_grad():
        nothing = 0 * u.nan_to_num(0.0, 0.0, 0.0).sum(-1)  # a density may be constant, as a uniform guide's is
        log_start, log_ratio = (log_density + nothing for log_density in densities(u))
        (slope_start,) = torch.autograd.grad(log_start.sum(), u, retain_graph=True)
        (slope_ratio,) = torch.autograd.grad(log_ratio.sum(), u)
    return log_start.detach(), log_ratio.detach(), slope_start, slope_ratio


def transition(path: Path, state: State, temperature: float, kernel: Kernel) -> tuple[State, Tensor]:
    """One Hamiltonian transition of every chain: the new state, and the probability of acceptance, (K, n).

    The step is the kernel's times a factor of its own from [0.8, 1.2] for each chain, so that no orbit is resonant.

    References:
        Neal (2011), MCMC using Hamiltonian dynamics, arXiv:1206.1901.
    """
    jitter = 0.8 + 0.4 * torch.rand_like(state.log_start)
    step = (kernel.step * jitter).to(state.u)[..., None]
    momentum = torch.randn_like(state.u)
    log_density, slope = state.at(temperature)
    energy, end = log_density - momentum.square().sum(-1) / 2, state
    momentum = momentum + step / 2 * kernel.scale * slope
    for i in range(kernel.num_leapfrog):
        end = state_at(path, end.u + step * kernel.scale * momentum)
        log_density, slope = end.at(temperature)
        last = i == kernel.num_leapfrog - 1
        momentum = momentum + (step / 2 if last else step) * kernel.scale * slope
    change = log_density - momentum.square().sum(-1) / 2 - energy
    probability = change.nan_to_num(nan=-torch.inf).clamp(max=0).exp()  # a trajectory that left all bounds is rejected
    accepted = torch.rand_like(probability) < probability
    return where(accepted, end, state), probability


def where(accepted: Tensor, new: Any, old: Any) -> Any:
    """The new state of chains that accepted, the old one of the others: a tuple of (K, n) or (K, n, D) each."""

    def chosen(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(accepted[..., None] if a.dim() > accepted.dim() else accepted, a, b)

    return type(new)(*map(chosen, new, old))


class Route(NamedTuple):
    """Where chains start, what moves them, and the temperatures to walk by."""

    draw: Callable[[int], Tensor]  # K -> points from f_0, (K, n, D)
    begin: Callable[[Tensor], Any]  # points (K, n, D) -> a state that has a ``log_ratio``, (K, n)
    move: Callable[[Any, float], tuple[Any, Tensor]]  # leaves f_t as it is: a new state, probability of acceptance
    temperatures: Sequence[float]  # 0 = t_0 < ... < t_T = 1; the other way round to walk back

    @classmethod
    def of(cls, path: Path, kernel: Callable[[float], Kernel], temperatures: Sequence[float]) -> "Route":
        """Along a path by Hamiltonian transitions, of a frozen kernel at each temperature."""

        def move(state: State, temperature: float) -> tuple[State, Tensor]:
            return transition(path, state, temperature, kernel(temperature))

        return cls(path.draw, partial(state_at, path), move, temperatures)


class Walk(NamedTuple):
    """What K chains of n data brought back, (K, n) each, float64."""

    log_weight: Tensor  # nats
    acceptance: Tensor  # mean probability over the path
    u: Tensor  # where they ended, (K, n, D)


def weigh(route: Route, u: Tensor, tick: Callable[[], Any] = lambda: None) -> Walk:
    """Moves K chains from points u, (K, n, D), along a route, and weighs them by sum_i (t_i - t_{i-1}) log (f_1 / f_0).

    Forward from draws of f_0, E[w] = p(x). Back from exact posterior draws, by the same steps, E[w] = 1 / p(x).
    """
    state = route.begin(u)
    log_weight = torch.zeros_like(state.log_ratio, dtype=torch.float64)
    acceptance = log_weight.clone()
    for now, then in pairwise(route.temperatures):
        log_weight += (then - now) * state.log_ratio.double()
        if 0 < then < 1:  # what a transition at the end would do is not weighed any more
            state, probability = route.move(state, then)
            acceptance += probability
        tick()
    num_transitions = len(route.temperatures) - 2
    mean = acceptance / num_transitions if num_transitions else torch.full_like(acceptance, math.nan)
    return Walk(log_weight, mean, state.u)


def walk(route: Route, u: Tensor, tick: Callable[[], Any] = lambda: None) -> Walk:
    """The same as :func:`weigh`.

    Raises:
        FloatingPointError: if a weight is NaN.
    """
    found = weigh(route, u, tick)
    undefined = found.log_weight.isnan().any(0)
    if undefined.any():
        raise FloatingPointError(
            f"the annealed weights of {int(undefined.sum())} of {len(undefined)} data are NaN, as a density of the "
            "model or the guide is somewhere on the way; look at supports and parameters there"
        )
    return found
