"""Bounds that give the guide a looser one than the model: its signal is better there."""

from typing import Any

import pyro
from torch import Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.pairs.traces import Program, traces_apart
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.many_particles.weighing import ParticleObjective, log_mean_exp, weighted


class PIWAE(ParticleObjective):
    r"""The partially importance-weighted bound: for the model from all M K particles, for the guide from M times K.

    .. math:: \theta: \; \sum_n s_n \log \frac{1}{MK} \sum_{m,k} w_{nmk}, \qquad
        \phi: \; \sum_n s_n \frac{1}{M} \sum_m \log \frac{1}{K} \sum_k w_{nmk}

    The loss is minus the first. What both programs use has the gradient of the first by the model's densities, and
    that of the second by the guide's. The model's densities are differentiated twice, once for each.

    Args:
        num_bounds: M.
        num_particles: K, of each.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: if M or K is below one; naming the site, at first use, for draws without gradients.

    References:
        Rainforth et al. (2018), Tighter variational bounds are not necessarily better, arXiv:1802.04537.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = PIWAE(2, 5).loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    def __init__(
        self,
        num_bounds: int = 8,
        num_particles: int = 8,
        *,
        vectorize_particles: bool = True,
        plate: str | None = None,
    ) -> None:
        check_at_least_one(num_bounds=num_bounds, num_particles=num_particles)
        super().__init__(num_bounds * num_particles, vectorize_particles=vectorize_particles, plate=plate)
        self.num_bounds = num_bounds

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        weighed = self.weighed(model, guide, args, traces_apart)
        log_joint, log_guide = weighed.log_joint, weighed.log_guide
        log_weight = (log_joint - log_guide).detach()
        of_model, of_guide = log_weight.softmax(0), self._guides_own(log_weight)
        bound = weighed.bound(bounds.as_gradient(log_mean_exp(log_weight), weighted(of_model, log_joint)))
        moved, scored = ((weighed.scale * weighted(of_guide, each)).sum() for each in (log_joint, log_guide))
        by_guide = bounds.by_draws(weighed.runs, moved, retain=True) - scored
        return bound._replace(loss=bounds.as_gradient(bound.loss, bound.loss - by_guide))

    def _guides_own(self, log_weight: Tensor) -> Tensor:
        """The weights of particles within each of M bounds, over M: (M K, N)."""
        return log_weight.unflatten(0, (self.num_bounds, -1)).softmax(1).flatten(0, 1) / self.num_bounds


class CIWAE(ParticleObjective):
    r"""The ELBO and the importance-weighted bound of the same K particles, mixed.

    .. math:: \sum_n s_n \Big[ \beta\, \frac{1}{K} \sum_k \log w_{nk}
        + (1 - \beta) \log \frac{1}{K} \sum_k w_{nk} \Big]

    Args:
        beta: in [0, 1]: 0 is :class:`~pyrovae.objectives.IWAE`, 1 the ELBO.
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: if beta is outside of [0, 1]; naming the site, at first use, for draws without gradients.

    References:
        Rainforth et al. (2018), Tighter variational bounds are not necessarily better, arXiv:1802.04537.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = CIWAE(0.5).loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    def __init__(
        self,
        beta: float = 0.5,
        num_particles: int = 10,
        *,
        vectorize_particles: bool = True,
        plate: str | None = None,
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if not 0 <= beta <= 1:
            raise InputError(f"beta must be between 0 (IWAE) and 1 (ELBO), got {beta}")
        self.beta = float(beta)

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        weighed = self.weighed(model, guide, args)
        log_weight = weighed.log_weight
        tight = (1 - self.beta) * log_mean_exp(log_weight)
        return weighed.bound(self.beta * log_weight.mean(0) + tight if self.beta else tight)
