"""The ELBO by score functions: each draw's score weighed by how much better the draw is than the others."""

from typing import Any

import pyro
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.many_particles.weighing import ParticleObjective
from pyrovae.training.objectives.paths import held_traces
from pyrovae.training.objectives.scales import require_density


class ScoreFunction(ParticleObjective):
    r"""The ELBO over draws of any kind, discrete ones too; none is reparameterized.

    .. math:: \nabla = \sum_n \frac1K \sum_k \big[ \nabla \log p(x_n, z_{nk})
        + \big( \log w_{nk} - b_{nk} \big) \nabla \log q(z_{nk} \mid x_n) \big]

    with the baseline b_nk the mean log weight of the datum's other particles, which knows nothing of the k-th and so
    leaves the mean as it is; or zero. The gradient is that of :class:`~pyrovae.objectives.SampledELBO` in expectation,
    and has more noise where draws carry gradients.

    Args:
        num_particles: K, at least 2 with a baseline.
        baseline: whether each draw is compared with the others; False is the plain score function, for teaching.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: for one particle with a baseline; naming the site, at first use, for a flow without an inverse.

    References:
        Williams (1992), Simple statistical gradient-following algorithms, doi:10.1007/BF00992696.
        Kool, van Hoof & Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!, ICLR workshop.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.bernoulli_mixture(6, 3)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = ScoreFunction(5).loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    needs_gradients = False
    moves_draws = False

    def __init__(
        self,
        num_particles: int = 10,
        *,
        baseline: bool = True,
        vectorize_particles: bool = True,
        plate: str | None = None,
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if baseline and num_particles < 2:
            raise InputError("the baseline is the mean of the other particles: give num_particles=2 or baseline=False")
        self.baseline = baseline

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        weighed = self.weighed(model, guide, args, held_traces)
        log_joint = weighed.log_joint
        log_weight = log_joint - weighed.log_guide
        signal = log_weight.detach()
        signal = less_the_others(signal) if self.baseline else signal
        surrogate = log_joint + signal * weighed.log_density
        return weighed.bound(bounds.as_gradient(log_weight.mean(0), surrogate.mean(0)))

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        super()._require_condition(structure, run)
        require_density(type(self).__name__, run)


def less_the_others(values: Tensor) -> Tensor:
    """Each value less the mean of the others: (K, N) -> (K, N).

    Example:
        >>> import torch
        >>> less_the_others(torch.tensor([[0.0], [2.0], [4.0]])).T
        tensor([[-3.,  0.,  3.]])
    """
    return (values - values.mean(0)) * (len(values) / (len(values) - 1))
