"""Sticking the landing: the ELBO's gradient without the score of the guide, and so without noise at the posterior."""

from typing import Any

import pyro
import torch

from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.objectives.paths import Paths, by_paths
from pyrovae.training.objectives.scales import require_density, require_gradients


class StickingTheLanding(Objective):
    r"""The sampled ELBO, whose gradient leaves out the guide's score, which is zero in expectation.

    .. math:: \nabla_\phi = \sum_n \frac{1}{K} \sum_k
        \frac{\partial}{\partial z} \big[ \log p(x_n, z_{nk}) - \log q(z_{nk} \mid x_n) \big]
        \frac{\partial z_{nk}}{\partial \phi}

    Its value is that of :class:`~pyrovae.objectives.SampledELBO` at the same noise, and so is its gradient by the
    model. Where the guide is the posterior, log p(x, z) - log q(z|x) does not depend on z: there each draw has a
    gradient of zero, where that of the ELBO has noise. Several latents may depend on each other in any order. Scales
    of sites are as in the ELBO.

    Args:
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: naming the site, at first use: for draws without gradients, and for a flow without an inverse.

    References:
        Roeder, Wu & Duvenaud (2017), Sticking the landing, arXiv:1703.09194.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = StickingTheLanding().loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        paths = Paths(self.prepare(model, guide, *args))
        runs = self.runs(model, guide, *args, run=paths.traces)
        log_joint = torch.stack([bounds.total_log_joint(run) for run in runs]).sum()
        log_guide = torch.stack([bounds.total_log_guide(run) for run in runs]).sum()
        elbo = bounds.as_gradient(log_joint - log_guide, log_joint - by_paths(runs, log_guide))
        terms = bounds.mean_terms(runs, self.num_particles)
        return Bound(-elbo / self.num_particles, *terms)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        require_gradients(type(self).__name__, run)
        require_density(type(self).__name__, run)
