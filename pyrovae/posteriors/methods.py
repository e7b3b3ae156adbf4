r"""What every way to the posterior of one datum is asked, and what it answers: draws, moments, and how good they are.

For points z_k with weights w_k that sum to one, a moment of the posterior is

.. math:: E[f(z) \mid x] \approx \sum_k w_k f(z_k)
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.errors import InputError, whole
from pyrovae.pairs.latents import Values


@dataclass(frozen=True)
class Plan:
    """How much to spend on one posterior: the arguments of ``reference_posterior``, checked.

    Raises:
        InputError: for numbers that are too small, or not whole.
    """

    num_draws: int
    num_particles: int
    num_warmup: int
    num_chains: int
    seed: int
    progress: bool

    def __post_init__(self) -> None:
        least = {"num_draws": 4, "num_particles": 2, "num_warmup": 1, "num_chains": 1}
        for name, bound in least.items():
            if whole(name, getattr(self, name)) < bound:
                raise InputError(f"{name} must be at least {bound}, got {getattr(self, name)}")


class Evidence(NamedTuple):
    """A number and its error, in nats."""

    value: float
    error: float


class Moments(NamedTuple):
    """Mean and standard deviation of every coordinate: site -> (*event), float64."""

    mean: Values
    sd: Values


class Answer(NamedTuple):
    """The posterior of one datum as one method finds it."""

    values: Values  # site -> (chains, draws, *event)
    moments: Moments
    mean_error: Values  # site -> (*event): of the mean
    log_evidence: Evidence | None  # None where the method does not give it
    diagnostics: Any  # how good it is, by ``lines()``; and by ``doubts()``, what speaks against it and what to do


def weighted_moments(values: Values, weight: Tensor) -> Moments:
    """Moments of points: values site -> (K, *event), weights (K,) that sum to one.

    Example:
        >>> moments = weighted_moments({"z": torch.tensor([0.0, 4.0])}, torch.tensor([0.75, 0.25]).double())
        >>> float(moments.mean["z"]), float(moments.sd["z"])
        (1.0, 1.7320508075688772)
    """
    mean = {name: torch.tensordot(weight, value.double(), 1) for name, value in values.items()}
    squares = {name: (value.double() - mean[name]).square() for name, value in values.items()}
    return Moments(mean, {name: torch.tensordot(weight, square, 1).sqrt() for name, square in squares.items()})


def plain_moments(values: Values) -> Moments:
    """Moments of draws that count alike: site -> (S, *event)."""
    num_draws = len(next(iter(values.values())))
    return weighted_moments(values, torch.full((num_draws,), 1 / num_draws, dtype=torch.float64))
