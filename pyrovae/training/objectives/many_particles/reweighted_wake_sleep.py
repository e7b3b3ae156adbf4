"""Reweighted wake-sleep: the model by its importance-weighted bound, the guide by the weighted draws of that."""

from typing import Any

import pyro

from pyrovae.base.errors import InputError
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.many_particles.weighing import ParticleObjective, log_mean_exp, weighted
from pyrovae.training.objectives.paths import held_traces
from pyrovae.training.objectives.scales import require_density


class ReweightedWakeSleep(ParticleObjective):
    r"""The wake phases of model and guide on the same K draws of each datum, of any kind; none is reparameterized.

    .. math:: \theta: \; \sum_n s_n \sum_k \tilde w_{nk} \nabla \log p(x_n, z_{nk}), \qquad
        \phi: \; \sum_n s_n \sum_k \tilde w_{nk} \nabla \log q(z_{nk} \mid x_n), \qquad
        \tilde w_{nk} = \frac{w_{nk}}{\sum_j w_{nj}}

    The model climbs the bound of :class:`~pyrovae.objectives.IWAE`, whose value the loss is, less its sign. The guide
    descends KL(p(z|x) || q(z|x)) of real data, as self-normalised weights estimate it: with a bias that goes as K
    grows, and a signal that grows with K. Weights are each datum's own, so that a batch of a part of the data has the
    gradient of that part. What both programs use has the sum of both gradients. For the sleep phase, of simulated
    data, see :class:`~pyrovae.objectives.ForwardKL`.

    Args:
        num_particles: K, at least 2.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: for one particle; naming the site, at first use, for a flow without an inverse, and for scales
            other than those of the data (a KL warm-up), as weights would be those of another posterior.

    References:
        Bornschein & Bengio (2015), Reweighted wake-sleep, arXiv:1406.2751.
        Le, Kosiorek, Siddharth, Teh & Wood (2019), Revisiting reweighted wake-sleep, arXiv:1805.10469.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.bernoulli_mixture(6, 3)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = ReweightedWakeSleep(5).loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    needs_gradients = False
    moves_draws = False
    takes_warmup = False

    def __init__(self, num_particles: int = 10, *, vectorize_particles: bool = True, plate: str | None = None) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if num_particles < 2:
            raise InputError("ReweightedWakeSleep weighs draws against each other: give num_particles=2 or more")

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        weighed = self.weighed(model, guide, args, held_traces)
        log_joint, log_guide = weighed.log_joint, weighed.log_guide
        log_weight = (log_joint - log_guide).detach()
        wake = weighted(log_weight.softmax(0), log_joint + log_guide)
        return weighed.bound(bounds.as_gradient(log_mean_exp(log_weight), wake))

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        super()._require_condition(structure, run)
        require_density(type(self).__name__, run)
        if not self._scales_all_alike:
            raise InputError(
                f"site '{next(iter(run.latent))}' has another scale than the data: ReweightedWakeSleep would fit the "
                "guide to another posterior; leave poutine.scale and the KL warm-up out, or use IWAE"
            )
