"""The importance-weighted bound."""

import math
from functools import partial
from typing import Any

import pyro
import torch

from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.objectives.scales import require_gradients, scale_of_data, scales_all_alike


class IWAE(Objective):
    r"""The importance-weighted bound of each datum from K particles; tighter than the ELBO, which it is for K = 1.

    .. math:: \sum_n s_n \log \frac{1}{K} \sum_k \exp \Big( \frac{1}{s_n} \sum_j s_j \log w_{nkj} \Big)

    where log w_nkj is what site j adds to the log weight and s_j its scale. The scale s_n of the bound of a datum is
    that of the data plate, and of handlers around both programs where these scale all sites alike; it stays outside of
    the logarithm. Other scales are powers within the weight: beta of a KL warm-up, that of a likelihood.

    Pyro's ``RenyiELBO(alpha=0)`` is the same if no site is scaled and all plates that hold every site are the data
    plate. Otherwise it is not this bound: it takes a rescaling of the data plate for a power of the weights, makes a
    bound for every row of a second plate, and one for the whole batch if any site (a ``pyro.deterministic``, say)
    is outside of the plate.

    References:
        Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders, arXiv:1509.00519.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = IWAE(10).loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    def __init__(self, num_particles: int, *, vectorize_particles: bool = True, plate: str | None = None) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        self._scales_all_alike = False

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        particles = self.prepare(model, guide, *args)
        runs = [run.score() for run in self.runs(model, guide, *args)]
        table = partial(particles.table, num_particles=self.num_particles)
        scale = scale_of_data(runs[0], table) if self._scales_all_alike else particles.structure.plate_scale
        log_weight = torch.cat([bounds.log_weight(run, table) for run in runs]) / scale  # (K, N)
        per_datum = log_weight.logsumexp(0) - math.log(self.num_particles)
        terms = torch.stack([bounds.terms(run) for run in runs]).sum(0) / self.num_particles
        return Bound(-(scale * per_datum).sum(), *terms)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        require_gradients(type(self).__name__, run)
        self._scales_all_alike = scales_all_alike(structure, run)
