"""beta-TC: the dependence of the latents' coordinates on each other, over all data, costs extra."""

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
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.objectives.penalized.free_bits import coordinates
from pyrovae.training.objectives.scales import require_gradients, require_one_scale

ADVICE = "give a guide of independent coordinates, or use WeightedELBO"


class BetaTC(Objective):
    r"""The ELBO less beta - 1 times the total correlation of q(z), as a batch estimates it.

    .. math:: \mathrm{ELBO} - (\beta - 1) \sum_n \big[ \log q(z_n) - \sum_d \log q(z_{nd}) \big], \qquad
        \log q(z_n) \approx \log \frac{1}{N M} \sum_m q(z_n \mid x_m)

    over the M data of a batch of N in all (minibatch-weighted sampling), and likewise for each coordinate. The KL is
    mutual information, total correlation and the coordinates' own KL, of which the second alone has the weight beta.
    The estimate of q(z) is biased in small batches; N moves its value and no gradient. The history's ELBO is the
    true one.

    Args:
        beta: at least 0; 1 is the ELBO.
        num_particles: K.
        num_data: N; None is the size of the data plate.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: for a negative beta; naming the site, at first use, unless there is one latent, in the plate of the
            data alone, whose coordinates the guide draws independently and with gradients.

    References:
        Chen, Li, Grosse & Duvenaud (2018), Isolating sources of disentanglement in VAEs, arXiv:1802.04942.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> bound = BetaTC(1).bound(oracle.model, oracle.mean_field_guide(), x)  # the ELBO
        >>> bool(abs(bound.loss - (bound.kl_prior - bound.reconstruction)) < 1e-10)
        True
    """

    def __init__(
        self,
        beta: float,
        num_particles: int = 1,
        *,
        num_data: int | None = None,
        vectorize_particles: bool = True,
        plate: str | None = None,
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if not (math.isfinite(beta) and beta >= 0):
            raise InputError(f"beta must be a number, 0 or more, got {beta}")
        self.beta, self.num_data = float(beta), num_data

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        particles = self.prepare(model, guide, *args)
        size = self.num_data or round(particles.structure.plate_scale * particles.num_data)
        runs = self.runs(model, guide, *args)
        elbo = bounds.mean([bounds.sampled(run) for run in runs], self.num_particles)
        (drawn,) = runs[0].drawn.values()
        extra = torch.stack([_total_correlation(run, size) for run in runs]).sum() / self.num_particles
        return elbo._replace(loss=elbo.loss + (self.beta - 1) * drawn["scale"] * extra)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        if len(run.drawn) != 1 or len(run.latent) != 1 or structure.depth != 1:
            raise InputError(
                f"BetaTC needs one latent, in the plate of the data alone; there are {list(run.latent)}, in "
                f"{structure.depth} plates. Use WeightedELBO"
            )
        require_gradients(type(self).__name__, run)
        require_one_scale(type(self).__name__, run)
        ((name, site),) = run.drawn.items()
        coordinates(name, site["fn"], ADVICE)
        if site["mask"] is not None:
            raise InputError(f"site '{name}' is masked: BetaTC takes q(z) over all data of a batch. Use WeightedELBO")


def _total_correlation(run: TracePair, size: int) -> Tensor:
    """log q(z) - sum_d log q(z_d), summed over the data and particles of one run."""
    ((name, site),) = run.drawn.items()
    event_dim = len(site["fn"].event_shape)
    value, rows = site["value"], -1 - event_dim  # where the data lie
    one_by_one = value.movedim(rows, 0).unsqueeze(rows)  # (N, ..., 1, *event), scored under all (..., M, *event)
    log_prob = coordinates(name, site["fn"], ADVICE).log_prob(one_by_one)
    log_prob = log_prob.flatten(log_prob.dim() - event_dim) if event_dim else log_prob.unsqueeze(-1)
    of_size = math.log(size * log_prob.shape[-2])
    jointly = log_prob.sum(-1).logsumexp(-1) - of_size
    each = log_prob.logsumexp(-2) - of_size
    return jointly.sum() - each.sum()
