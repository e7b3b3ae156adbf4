"""The forward KL of a guide, on what the model simulates: the sleep phase."""

from typing import Any

import pyro

from pyrovae.pairs.traces import Program
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.guide_only.for_guides import SleepingObjective


class ForwardKL(SleepingObjective):
    r"""Sleep: the guide learns the latents that made data of the model's own; for the guide alone.

    .. math:: -\frac{1}{K} \sum_n \sum_k \log q(z_{nk} \mid x_{nk}), \qquad (z, x) \sim p(z)\, p(x \mid z)

    whose expectation is E_p(x)[KL(p(z|x) || q(z|x))] but for a constant: zero at the posterior, for every x that the
    model makes, in the direction that covers every mode. Each simulated datum has the covariates of a datum of the
    batch, and misses the entries that are NaN there: an argument that no site observes is held as given, so it must not
    be computed from those that are observed. How a guide does on data that the model does not make is not
    asked: see :class:`HalfAsleep`.

    Args:
        num_particles: K, simulations for each datum of a batch.
        vectorize_particles: of the ELBO that is logged, run all particles at once where the programs allow it.
        plate: name of the data plate, where several plates hold all sites.

    References:
        Hinton, Dayan, Frey and Neal (1995), The wake-sleep algorithm for unsupervised neural networks, Science 268.
        Bornschein and Bengio (2015), Reweighted wake-sleep, arXiv:1406.2751.
        Le et al. (2019), Revisiting reweighted wake-sleep for models with stochastic control flow, arXiv:1805.10469.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(1000, seed=0)
        >>> exact, off = (
        ...     ForwardKL().loss(oracle.model, guide, x)
        ...     for guide in (oracle.guide, pv.widened(oracle.guide, 1.3))
        ... )
        >>> exact < off
        True
    """

    moves_draws = False

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        loss = self.forward_kl(model, guide, args)
        return Bound(loss, *self.elbo_terms(model, guide, args))
