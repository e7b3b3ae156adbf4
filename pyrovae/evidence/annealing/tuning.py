"""A pilot run along a path: how large its steps should be and how its temperatures should lie; then all is frozen.

Adapting a kernel to the chains that it moves would make their weights biased, so the pilot has chains of its own.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.annealing.paths import Kernel, Path, state_at, transition

NUM_CHAINS = 16  # of the pilot
MOST_TEMPERATURES = 40  # of the pilot; fewer for a shorter run
NUM_TRANSITIONS = 4  # at each of them
ACCEPTANCE = 0.75  # aimed at (optimal for many dimensions: Beskos et al. 2013 give 0.65, more is safer)


class Lengths(NamedTuple):
    """How long a path is, as a pilot found it at each of its P temperatures: what tells how to walk it."""

    temperatures: Tensor  # (P,), from 0 to 1
    spread: Tensor  # (P,): standard deviation of the log ratio, nats

    def num_temperatures(self, variance: float) -> int:
        """By how many temperatures log weights vary so little: L^2 / T, L the whole length of the path."""
        return max(1, math.ceil(float(self._parts.sum()) ** 2 / variance))

    @property
    def _parts(self) -> Tensor:
        return (self.spread[1:] + self.spread[:-1]) / 2 * self.temperatures.diff()

    def schedule(self, num_temperatures: int) -> list[float]:
        """Temperatures 0 = t_0 < ... < t_T = 1, T = ``num_temperatures``, at about equal distances.

        The distance between two is what the log ratio varies between them, sd x dt (Gelman & Meng 1998); a tenth
        of it is spent evenly on the pilot's own temperatures, in case the pilot saw too little.
        """
        widths, parts = self.temperatures.diff(), self._parts
        fractions = 0.9 * parts / parts.sum().clamp(min=1e-300) + 0.1 / len(widths)
        fractions = fractions / fractions.sum()
        reached = torch.cat([fractions.new_zeros(1), fractions.cumsum(0)])
        wanted = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64, device="cpu")[1:-1]
        right = torch.searchsorted(reached, wanted).clamp(1, len(widths))
        part = (wanted - reached[right - 1]) / fractions[right - 1]
        inner = self.temperatures[right - 1] + part.clamp(0, 1) * widths[right - 1]
        return [0.0, *inner.tolist(), 1.0]


class Tuning(NamedTuple):
    """What the pilot found at each of its P temperatures for n data with D coordinates."""

    lengths: Lengths
    step: Tensor  # (P, n)
    scale: Tensor  # (P, n, D)
    num_leapfrog: int

    def kernel(self, temperature: float) -> Kernel:
        """The frozen kernel at a temperature, interpolated between those of the pilot."""
        temperatures = self.lengths.temperatures
        right = int(torch.searchsorted(temperatures, temperature).clamp(1, len(temperatures) - 1))
        low, high = temperatures[right - 1], temperatures[right]
        weight = float(((temperature - low) / (high - low)).clamp(0, 1))
        step, scale = (part[right - 1].lerp(part[right], weight) for part in (self.step, self.scale))
        return Kernel(step, scale, self.num_leapfrog)


def num_transitions(num_temperatures: int) -> int:
    """How many transitions the pilot and a run over so many temperatures make."""
    return num_pilot_temperatures(num_temperatures) * NUM_TRANSITIONS + num_temperatures


def run_cost(num_temperatures: int, num_chains: int, num_leapfrog: int) -> int:
    """Decoder passes of a run's chains for each datum; a gradient counts for three."""
    return 3 * num_leapfrog * num_temperatures * num_chains


def pilot_cost(num_temperatures: int, num_leapfrog: int) -> int:
    """Those of the pilot for a run over so many temperatures."""
    return run_cost(num_pilot_temperatures(num_temperatures) * NUM_TRANSITIONS, NUM_CHAINS, num_leapfrog)


def num_pilot_temperatures(num_temperatures: int) -> int:
    """P, for a run over so many temperatures."""
    return max(8, min(num_temperatures, MOST_TEMPERATURES))


def tune(path: Path, num_temperatures: int, num_leapfrog: int, tick: Callable[[], Any] = lambda: None) -> Tuning:
    """Runs the pilot once along the path, for a run of T temperatures; ``tick`` is called after each transition."""
    size = num_pilot_temperatures(num_temperatures)
    temperatures = torch.linspace(0, 1, size, dtype=torch.float64, device="cpu") ** 4  # the start changes fastest
    state = state_at(path, path.draw(NUM_CHAINS))
    variance = state.u.var(0)
    step = torch.full(state.log_start.shape[1:], 0.5, dtype=torch.float64, device=state.u.device)
    found = []
    for temperature in temperatures.tolist():
        scale = _scale(variance)
        for _ in range(NUM_TRANSITIONS):
            state, probability = transition(path, state, temperature, Kernel(step, scale, num_leapfrog))
            step = step * (0.5 * (probability.double().mean(0) - ACCEPTANCE)).exp()
            tick()
        variance = variance.lerp(state.u.var(0), 0.3)  # few chains tell it roughly, so a few temperatures together
        found.append((step, scale, spread_of(state.log_ratio).mean().cpu()))
    step, scale, spread = map(torch.stack, zip(*found, strict=True))
    return Tuning(Lengths(temperatures, spread), step, scale, num_leapfrog)


def spread_of(log_ratio: Tensor) -> Tensor:
    """Standard deviation over chains, (K, n) -> (n,); chains where the model has no density are left out."""
    inside = log_ratio.isfinite()
    count = inside.sum(0).clamp(min=1)
    mean = torch.where(inside, log_ratio.double(), 0.0).sum(0) / count
    squares = torch.where(inside, (log_ratio - mean).square(), 0.0).sum(0)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def _scale(variance: Tensor) -> Tensor:
    largest = variance.amax(-1, keepdim=True).clamp(min=1e-12)
    return variance.clamp(min=1e-6 * largest).sqrt()
