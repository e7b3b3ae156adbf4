"""The importance-weighted bound."""

from typing import Any

import pyro

from pyrovae.pairs.traces import Program
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.many_particles.weighing import ParticleObjective, log_mean_exp


class IWAE(ParticleObjective):
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

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        weighed = self.weighed(model, guide, args)
        return weighed.bound(log_mean_exp(weighed.log_weight))
