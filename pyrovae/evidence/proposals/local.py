r"""The best distribution of each datum's own: a family with free parameters per datum, and its member of largest ELBO.

.. math:: q^*_n = \arg\max_{q \in \mathcal{Q}} \; L_n[q], \qquad L_n[q] = E_q[\log p(x_n, z) - \log q(z)]

The n data of a block are optimised at once: the sum of their ELBOs has no term that two of them share, and Adam moves
every number by itself.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.random import Key, seed_everything
from pyrovae.pairs.graphs.replays import Replays
from pyrovae.pairs.latents import Joint, Latents, Values

Points = Any  # in unconstrained space, a tensor (K, n, num_dims), or as the programs take them, site -> (K, n, ...)
Parameters = dict[str, Tensor]  # each (n, ...), free
LEARNING_RATE = 0.05  # of Adam at first; parameters are in units of the spread that they describe
NUM_ROUNDS = 16  # in which the end of an optimisation is compared with its start


class Local(ABC):
    """A distribution of the latents for each of n data, a mixture of C components (most often of one)."""

    weight: Tensor  # (C, n), of the components

    @abstractmethod
    def draw(self, num_particles: int) -> Points:
        """K draws from each component, component after component, with gradients: (C K, n, ...)."""

    @abstractmethod
    def log_prob(self, points: Points, joint: Joint) -> Tensor:
        """Log density at points of which the model says ``joint``, in the same coordinates: (K, n) nats."""

    def sample(self, num_particles: int) -> Points:
        """K independent draws, (K, n, ...)."""
        return self.draw(num_particles)


class Guide(Local):
    """The guide as it is, nothing free; one without auxiliary draws."""

    def __init__(self, latents: Latents) -> None:
        self.latents, self.weight = latents, single(latents)

    def draw(self, num_particles: int) -> Values:
        return self.latents.draw(num_particles)

    def log_prob(self, points: Points, joint: Joint) -> Tensor:
        return self.latents.log_guide(joint.values) + joint.log_jacobian


class Family(NamedTuple):
    """Distributions of one kind: parameters make one, and an optimisation starts somewhere."""

    name: str
    start: Parameters
    build: Callable[[Parameters], Local]


def single(latents: Latents) -> Tensor:
    """The weight of a component that is alone: (1, n)."""
    return latents.zeros(1).exp()


def draw_unconstrained(latents: Latents, draw: Callable[[int], Points], num_particles: int) -> Tensor:
    """Draws moved to unconstrained space, a few at a time: (K, n, num_dims)."""
    parts = [draw(size) for size in latents.part_sizes(num_particles)]
    return torch.cat([part if isinstance(part, Tensor) else latents.unconstrain(part) for part in parts])


# -------------------------------------------------------------------------------------------------- optimisation


def best(
    latents: Latents,
    family: Family,
    key: Key,
    *,
    num_steps: int,
    num_draws: int,
    tick: Callable[[], object] = lambda: None,
) -> Local:
    """The member of a family with the largest ELBO for each datum alone; for use inside ``isolated``.

    Adam, its step falling to zero along a cosine, follows gradients through the draws alone: they vanish at every
    draw where q is the posterior (Roeder et al. 2017). Each component of a mixture moves along the gradient of its
    own ELBO whatever its weight, as natural gradients do (Arenz et al. 2023): one that counts for little finds its
    place all the same. Where a datum ends worse than it started in each of 16 rounds of draws, the start is kept.
    Each of the steps, after which ``tick`` is called, takes ``num_draws`` of z for each datum, all components together.

    Raises:
        FloatingPointError: naming the family, if parameters of a datum are no longer finite.

    References:
        Roeder, Wu and Duvenaud (2017), Sticking the landing, arXiv:1703.09194.
        Arenz, Dahlinger, Ye, Volpp and Neumann (2023), A unified perspective on natural gradient variational
        inference with Gaussian mixture models, arXiv:2209.11533.
    """
    seed_everything(*key, 0)
    leaves = {name: value.clone().requires_grad_() for name, value in family.start.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    uphill = Replays(partial(_uphill, latents, family, num_draws))
    for _ in range(num_steps):
        gradients = uphill(*(leaf.detach() for leaf in leaves.values()))
        for leaf, gradient in zip(leaves.values(), gradients, strict=True):
            leaf.grad = -gradient
        optimizer.step()
        schedule.step()
        tick()
    end = {name: leaf.detach() for name, leaf in leaves.items()}
    _check_finite(family.name, end, latents.num_data)
    return family.build(_better(latents, family, end, (*key, 1), num_draws))


def _uphill(latents: Latents, family: Family, num_draws: int, *values: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the objective at parameters of these values."""
    leaves = {name: value.detach().requires_grad_() for name, value in zip(family.start, values, strict=True)}
    with torch.enable_grad():
        return torch.autograd.grad(_objective(latents, family, leaves, num_draws), list(leaves.values()))


def _objective(latents: Latents, family: Family, parameters: Parameters, num_draws: int) -> Tensor:
    """A number with the gradient of the ELBOs, that of each component divided by the component's weight."""
    q, held = family.build(parameters), family.build({name: value.detach() for name, value in parameters.items()})
    elbos = _component_elbos(latents, q, held, num_draws)
    return (q.weight * elbos.detach() + elbos).sum()


def _component_elbos(latents: Latents, q: Local, density: Local, num_draws: int) -> Tensor:
    """Mean of log p(x, z) - log q(z) over the draws of each component: (C, n)."""
    points = q.draw(math.ceil(num_draws / len(q.weight)))
    # Values are scored as they are: moved to unconstrained space, both densities would gain the same Jacobian.
    joint = latents.log_joint_unconstrained(points) if isinstance(points, Tensor) else latents.log_joint(points)
    log_joint = joint.log_density
    return (log_joint - density.log_prob(points, joint)).unflatten(0, (len(q.weight), -1)).mean(1)


def _better(latents: Latents, family: Family, end: Parameters, key: Key, num_draws: int) -> Parameters:
    """The end of an optimisation; its start for those data that had more there in every round."""

    def elbos(parameters: Parameters) -> Tensor:
        seed_everything(*key)  # both on the same random numbers
        q = family.build(parameters)
        return torch.stack([(q.weight * _component_elbos(latents, q, q, num_draws)).sum(0) for _ in range(NUM_ROUNDS)])

    # Whatever looks better on average is often so by noise alone.
    lost = ~(elbos(end) >= elbos(family.start)).any(0)
    return {
        name: torch.where(lost.reshape(-1, *[1] * (value.dim() - 1)), value, end[name])
        for name, value in family.start.items()
    }


def _check_finite(name: str, parameters: Parameters, num_data: int) -> None:
    lost = torch.stack([~value.isfinite().reshape(num_data, -1).all(1) for value in parameters.values()]).any(0)
    if lost.any():
        raise FloatingPointError(
            f"family '{name}': its best parameters for {int(lost.sum())} of {num_data} data are not finite, as the "
            "model's log density or its gradient is not somewhere near their posterior; look at the model there, or "
            f"leave '{name}' out of families"
        )
