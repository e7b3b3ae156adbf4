"""Half sleep, half wake: the forward KL on simulated data beside the ELBO of real ones."""

from typing import Any

import pyro

from pyrovae.base.errors import InputError
from pyrovae.pairs.traces import Program, traces_apart
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.guide_only.for_guides import SleepingObjective


class HalfAsleep(SleepingObjective):
    r"""The ELBO of real data and the forward KL on simulated ones, mixed; for the guide alone.

    .. math:: -(1 - f) \sum_n \mathrm{ELBO}(x_n)
        - f\, \frac{1}{K} \sum_n \sum_k \log q(z_{nk} \mid x_{nk}), \qquad (z, x) \sim p(z)\, p(x \mid z)

    with f the ``fraction``. Real data keep the guide to where it is used; simulated ones, new at each step, keep it
    from learning these by heart. Zhang, Hayes and Barber mix the two sources likewise, but take the reverse KL on
    both; the forward KL here also sees modes that the guide misses.

    Args:
        fraction: f, in [0, 1]: 0 is the ELBO alone, 1 is :class:`ForwardKL`.
        num_particles: K, draws for each datum of a batch, and simulations.
        vectorize_particles: run all particles of the ELBO at once where the programs allow it.
        plate: name of the data plate, where several plates hold all sites.

    References:
        Zhang, Hayes and Barber (2022), Generalization gap in amortized inference, arXiv:2205.11640.
    """

    def __init__(
        self,
        fraction: float = 0.5,
        num_particles: int = 1,
        *,
        vectorize_particles: bool = True,
        plate: str | None = None,
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if not 0 <= fraction <= 1:
            raise InputError(f"fraction must be between 0 (awake) and 1 (asleep), got {fraction}")
        self.fraction = float(fraction)

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        runs = self.runs(model, guide, *args, run=traces_apart)
        wake = bounds.mean([bounds.sampled_apart(run) for run in runs], self.num_particles)
        asleep = self.forward_kl(model, guide, args)
        return wake._replace(loss=(1 - self.fraction) * wake.loss + self.fraction * asleep)
