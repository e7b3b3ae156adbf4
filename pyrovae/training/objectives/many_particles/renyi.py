"""Rényi's bounds: from above the evidence to the ELBO and below, by one number."""

import math
from typing import Any

import pyro

from pyrovae.base.errors import InputError
from pyrovae.pairs.traces import Program
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.many_particles.weighing import ParticleObjective, log_mean_exp


class Renyi(ParticleObjective):
    r"""The variational Rényi bound of each datum from K particles.

    .. math:: \sum_n s_n \frac{1}{1 - \alpha} \log \frac{1}{K} \sum_k w_{nk}^{1 - \alpha}

    alpha = 0 is :class:`~pyrovae.objectives.IWAE`, alpha = 1, a limit, the ELBO. As K grows the bound rises with
    1 - alpha: it covers more of the posterior for small alpha, and finds one mode for large; below zero it is, for K
    without end, above the evidence. At finite K its expectation is no bound on log p(x) unless alpha is 0 or more.

    Args:
        alpha: any finite number.
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: if alpha is not finite; naming the site, at first use, for draws without gradients.

    References:
        Li & Turner (2016), Rényi divergence variational inference, arXiv:1602.02311.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = Renyi(0.5).loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    def __init__(
        self, alpha: float, num_particles: int = 10, *, vectorize_particles: bool = True, plate: str | None = None
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if not math.isfinite(alpha):
            raise InputError(f"alpha must be a finite number, 0 (IWAE) to 1 (ELBO) as a rule, got {alpha}")
        self.alpha = float(alpha)

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        weighed, power = self.weighed(model, guide, args), 1 - self.alpha
        log_weight = weighed.log_weight
        return weighed.bound(log_mean_exp(power * log_weight) / power if power else log_weight.mean(0))
