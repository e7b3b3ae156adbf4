"""The importance-weighted bound with a gradient for the guide whose signal does not drown in many particles."""

from typing import Any

import pyro

from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.many_particles.weighing import ParticleObjective, Weighed, log_mean_exp, weighted
from pyrovae.training.objectives.paths import Paths, by_paths
from pyrovae.training.objectives.scales import require_density, require_one_scale, scale_of


class DReG(ParticleObjective):
    r"""The importance-weighted bound; its gradient by the guide is the doubly reparameterized one.

    .. math:: \nabla_\phi = \sum_n s_n \sum_k \tilde w_{nk}^2
        \frac{\partial \log w_{nk}}{\partial z_{nk}} \frac{\partial z_{nk}}{\partial \phi}, \qquad
        \tilde w_{nk} = \frac{w_{nk}}{\sum_j w_{nj}}

    Its value is that of :class:`~pyrovae.objectives.IWAE` at the same noise, and so is its gradient by the model; by
    the guide it has the same expectation. As K grows the guide's gradient in IWAE is drowned by noise (Rainforth et
    al. 2018); this one is not. Where log q has a power c within the weight (beta of a KL warm-up), one of the two
    factors is 1 - c + c w instead of w. A latent that is masked out is taken for one that nothing reads.

    Args:
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: naming the site, at first use: for draws without gradients, for a flow without an inverse, and
            for latents of several scales.

    References:
        Tucker, Lawson, Gu & Maddison (2019), Doubly reparameterized gradient estimators for Monte Carlo objectives,
        arXiv:1810.04152.
        Rainforth et al. (2018), Tighter variational bounds are not necessarily better, arXiv:1802.04537.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = DReG(10).loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        paths = Paths(self.prepare(model, guide, *args))
        weighed = self.weighed(model, guide, args, paths.traces)
        log_joint, log_guide = weighed.log_joint, weighed.log_guide
        log_weight = (log_joint - log_guide).detach()
        weight, power = log_weight.softmax(0), self._power(weighed)
        paths.factor = 1 - power + power * weight
        bound = weighed.bound(bounds.as_gradient(log_mean_exp(log_weight), weighted(weight, log_joint)))
        of_guide = (weighed.scale * weighted(paths.factor * weight, log_guide)).sum()
        return bound._replace(loss=bounds.as_gradient(bound.loss, bound.loss + by_paths(weighed.runs, of_guide)))

    def _power(self, weighed: Weighed) -> Any:
        """Of log q within the weight, a number or (N,): 1 but for handlers, which may change it from step to step."""
        site = next(iter(weighed.runs[0].drawn.values()), None)
        return 1.0 if site is None else scale_of(site, weighed.table) / weighed.scale

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        super()._require_condition(structure, run)
        require_density(type(self).__name__, run)
        if not self._scales_all_alike:
            require_one_scale(type(self).__name__, TracePair(run.guide, run.guide))
