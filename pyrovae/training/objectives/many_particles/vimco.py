"""The importance-weighted bound by score functions, each particle's less what the others say it would be."""

import math
from typing import Any

import pyro
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.many_particles.weighing import ParticleObjective, log_mean_exp
from pyrovae.training.objectives.paths import held_traces
from pyrovae.training.objectives.scales import require_density

LARGEST = 100.0  # nats of a signal: that of a particle all of whose others are impossible has no end


class VIMCO(ParticleObjective):
    r"""The importance-weighted bound over draws of any kind, discrete ones too; none is reparameterized.

    .. math:: \nabla = \sum_n s_n \Big[ \sum_k \tilde w_{nk} \nabla \log w_{nk}
        + \sum_k \big( L_n - L_n^{-k} \big) \nabla \log q(z_{nk} \mid x_n) \Big]

    with L_n the bound of a datum and L_n^-k the same with the geometric mean of the other weights in place of the
    k-th. The gradient is that of :class:`~pyrovae.objectives.IWAE` in expectation. Where draws carry gradients those
    of IWAE and DReG have less noise.

    Args:
        num_particles: K, at least 2.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: for one particle; naming the site, at first use, for a flow without an inverse.

    References:
        Mnih & Rezende (2016), Variational inference for Monte Carlo objectives, arXiv:1602.06725.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.bernoulli_mixture(6, 3)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = VIMCO(5).loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    needs_gradients = False
    moves_draws = False

    def __init__(self, num_particles: int = 10, *, vectorize_particles: bool = True, plate: str | None = None) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if num_particles < 2:
            raise InputError("VIMCO compares each particle with the others: give num_particles=2 or more")

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        weighed = self.weighed(model, guide, args, held_traces)
        log_weight = weighed.log_weight
        bound = log_mean_exp(log_weight)
        signal = (bound.detach() - log_mean_without(log_weight.detach())).clamp(max=LARGEST)
        return weighed.bound(bounds.as_gradient(bound, bound + (signal * weighed.log_density).sum(0)))

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        super()._require_condition(structure, run)
        require_density(type(self).__name__, run)


def log_mean_without(log_weight: Tensor) -> Tensor:
    """The log of the mean weight, each particle's in turn taken for the geometric mean of the others: (K, N).

    Example:
        >>> log_mean_without(torch.tensor([[0.0], [2.0]])).T  # each has one other
        tensor([[2., 0.]])
    """
    num_particles = len(log_weight)
    before = log_weight.logcumsumexp(0)[:-1]
    after = log_weight.flip(0).logcumsumexp(0)[:-1].flip(0)
    nothing = torch.full_like(log_weight[:1], -torch.inf)
    others = torch.logaddexp(torch.cat([nothing, before]), torch.cat([after, nothing]))
    finite = log_weight.isfinite()
    seen = torch.where(finite, log_weight, 0.0)
    impossible = (~finite).sum(0) - (~finite).int()  # of the others
    typical = torch.where(impossible > 0, -torch.inf, (seen.sum(0) - seen) / (num_particles - 1))
    return torch.stack([others, typical]).logsumexp(0) - math.log(num_particles)
