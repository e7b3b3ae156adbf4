"""The ELBO with the guide's discrete latents summed out, and no noise from them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.distributions.util import is_identically_zero, scale_and_mask
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.discrete.runs import AtEveryValue, discrete_latents
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, Sites, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound, Table
from pyrovae.training.objectives.objective import Objective, Prepared
from pyrovae.training.objectives.scales import rescaled


class SummedELBO(Objective):
    r"""The ELBO, summed over every value of the guide's discrete latents d; continuous ones u are drawn.

    .. math:: \sum_n \frac{1}{K} \sum_k \sum_d q(d \mid x_n, u_{dnk}) \big[ \log p(x_n, u_{dnk}, d)
        - \log q(u_{dnk}, d \mid x_n) \big]

    The gradient of a discrete latent is that of the sum, where :class:`SampledELBO` has a score function. Each step
    runs the programs at all M values of a datum together, M times K particles; a hundred values are many. Without
    discrete latents it is :class:`SampledELBO`. Pyro's ``TraceEnum_ELBO`` with ``config_enumerate`` around the guide
    is the same; this one looks at no value, so that a graph can hold its step.

    Args:
        num_particles: K, for each value.
        vectorize_particles: run all values at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: naming the site, at first use, where discrete latents have more than a thousand values together or
            no finite number, and where continuous draws carry no gradient.

    References:
        Kingma, Mohamed, Rezende and Welling (2014), Semi-supervised learning with deep generative models,
        arXiv:1406.5298.
        Ranganath, Gerrish & Blei (2014), Black box variational inference, arXiv:1401.0118.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.bernoulli_mixture(6, 3)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> loss = SummedELBO().loss(oracle.model, oracle.guide, x)
        >>> bool(abs(loss + oracle.log_evidence(x).sum()) < 1e-10)  # the guide is exact
        True
    """

    runs_one_by_one = False

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        particles = self.prepare(model, guide, *args).on(args)
        at = self._prepared[particles.num_data].at_every_value
        assert at is not None
        runs = [rescaled(run, particles.structure).score() for run in at.runs(particles)]

        def mean(read: Callable[[TracePair, Table], Tensor]) -> Tensor:
            value = at.tables(particles, runs, read)
            return (
                mass * torch.where(mass > 0, value, 0.0)
            ).sum() / self.num_particles  # what cannot be weighs nothing

        mass = at.tables(particles, runs, at.log_mass).exp()
        loss = -mean(lambda run, table: bounds.log_joint(run, table) - bounds.log_guide(run, table))
        with torch.no_grad():
            return Bound(loss, mean(_reconstruction), mean(_kl))

    def _look(self, model: Program, guide: Program, args: Sequence[Any]) -> Prepared:
        found = super()._look(model, guide, args)
        with pyro.validation_enabled(False):
            return replace(found, at_every_value=AtEveryValue(found.particles, self.num_particles))

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        discrete = discrete_latents(run)
        run.guide.compute_score_parts()
        for name, site in run.drawn.items():
            if name not in discrete and not is_identically_zero(site["score_parts"].score_function):
                raise InputError(
                    f"site '{name}' of the guide is drawn without a gradient, and is no discrete latent to be summed "
                    "out: use SampledELBO, or a guide family that can be reparameterized"
                )


def _reconstruction(run: TracePair, table: Table) -> Tensor:
    return _unscaled(run.observed, table)


def _kl(run: TracePair, table: Table) -> Tensor:
    if not run.latent:
        return torch.zeros_like(_unscaled(run.observed, table))
    return _unscaled(run.drawn, table) - _unscaled(run.latent, table)


def _unscaled(sites: Sites, table: Table) -> Tensor:
    parts = [table(scale_and_mask(site["unscaled_log_prob"].detach(), mask=site["mask"])) for site in sites.values()]
    return torch.stack(parts).sum(0, dtype=torch.float64)
