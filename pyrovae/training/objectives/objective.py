"""Training bounds that look at no value of a tensor, so that a whole step of training can be one graph.

In expectation ELBO <= IWAE <= log p(x). What has to compare values, the structure of the pair and the way its
particles can be run, is found out once, by :meth:`Objective.prepare`.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import pyro
import torch
from pyro.infer import ELBO
from pyro.util import warn_if_nan
from torch import Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.context import evaluation_mode, modules_of
from pyrovae.pairs.discrete.runs import AtEveryValue
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.simulation import Simulator
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.terms import LogTerms
from pyrovae.pairs.traces import Program, TracePair, num_rows, plain_traces
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.scales import differs_by_datum, require_drawn, rescaled


@dataclass(frozen=True)
class Prepared:
    """What a look at a pair, for batches of one number of rows, leaves for its runs."""

    particles: Particles
    latents: Latents | None = None  # of objectives that score given ones
    simulator: Simulator | None = None  # of those that look at simulated data
    at_every_value: AtEveryValue | None = None  # of those that sum discrete latents out


class Objective(ELBO):
    """A bound for ``fit`` and for Pyro's own ``SVI``; :meth:`bound` can be traced.

    To write one: a class with :meth:`bound`, which gives a :class:`~pyrovae.objectives.Bound`: the loss of a batch,
    which is minimised by its gradient, and the reconstruction and the KL, sums over the data in nats, which a fit logs
    as the ELBO whatever the loss is. :meth:`log_terms` gives the tables that most losses are made of, and these two
    terms; :meth:`runs` gives the runs of the pair, for what needs single sites. Nothing in it may look at the value of
    a tensor (``.item()``, ``if``), or its step is not compiled. Draws without gradients (discrete ones) have none
    here: a bound that trains them is made of log q (see ``VIMCO``), others refuse them in :meth:`_require_condition`.

    Args:
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Attributes:
        for_guide_alone: whether it is an objective for the guide alone, whose gradients leave the model as it is.
        takes_warmup: whether the weight of its KL may rise to 1 while it trains.
        moves_draws: whether its gradient goes through draws of the guide, where these carry one.
        runs_one_by_one: whether one particle of a datum is one run of the pair.

    Example:
        >>> import pyrovae as pv
        >>> class FreeBits(pv.objectives.Objective):
        ...     "The ELBO whose KL counts for half a nat or more, for each datum."
        ...
        ...     def bound(self, model, guide, *args):
        ...         table, terms = self.log_terms(model, guide, *args)
        ...         kl = (table.log_guide - table.log_prior).mean(0)  # (K, N) -> (N,)
        ...         each = table.log_likelihood.mean(0) - kl.clamp(min=0.5)
        ...         return pv.objectives.Bound(-each.sum(), *terms)
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> bound = FreeBits(10).bound(oracle.model, oracle.guide, x)
        >>> bool(abs(bound.loss - (bound.kl_prior - bound.reconstruction)) < 1e-10)  # no KL is below half a nat here
        True
    """

    for_guide_alone = False
    takes_warmup = True
    moves_draws = True
    runs_one_by_one = True

    def __init__(self, num_particles: int = 1, *, vectorize_particles: bool = True, plate: str | None = None) -> None:
        check_at_least_one(num_particles=num_particles)
        super().__init__(num_particles=num_particles, vectorize_particles=vectorize_particles)
        self.plate = plate
        self._pair: tuple[Program, Program] | None = None
        self._prepared: dict[int, Prepared] = {}  # of that pair, by the number of rows

    @abstractmethod
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        """The bound on one batch, with gradients.

        Args:
            model: program of p(x, z), with one plate over the data.
            guide: program of q(z|x), with the same plate.
            args: what both are called with; the first dimension of the first tensor is the datum.

        Raises:
            InputError: as :meth:`prepare`, which is called at first use.
        """

    @final
    def prepare(self, model: Program, guide: Program, *args: Any) -> Particles:
        """Looks at a pair, once for each number of rows; to be called before :meth:`bound` is traced.

        Random state, parameters and buffers are left as they were.

        Raises:
            InputError: naming the site, for a pair without per-datum weights, for enumerated sites, and where the
                condition of this bound does not hold.
        """
        if (model, guide) != self._pair:
            self._pair, self._prepared = (model, guide), {}
        rows = num_rows(args)
        if rows not in self._prepared:
            with torch.no_grad(), preserve_rng_state(), evaluation_mode(modules_of(model, guide)):
                self._prepared[rows] = self._look(model, guide, args)
        return self._prepared[rows].particles

    @final
    def runs(
        self, model: Program, guide: Program, *args: Any, run: Callable[..., TracePair] = plain_traces
    ) -> list[TracePair]:
        """Runs of the pair on one batch: K of one particle where they are looped, else one of all K."""
        particles = self.prepare(model, guide, *args).on(args)
        return [rescaled(each, particles.structure) for each in particles.traces(self.num_particles, run)]

    @final
    @pyro.validation_enabled(False)  # it would refuse values under a mask
    def log_terms(self, model: Program, guide: Program, *args: Any) -> tuple[LogTerms, Tensor]:
        """The densities of K draws of the guide, and the ELBO's two terms.

        Returns:
            log p(x|z), log p(z) and log q(z|x), each (K, N) in nats, with gradients, by the scales and masks of their
            sites (that of a plate whose rows stand for others, of a KL warm-up); and reconstruction and KL, (2,),
            summed over data, means over particles, without scales and gradients.
        """
        particles = self.prepare(model, guide, *args)
        runs = [run.score() for run in self.runs(model, guide, *args)]
        tables = [bounds.tables(run, partial(particles.table, num_particles=self.num_particles)) for run in runs]
        terms = bounds.mean_terms(runs, self.num_particles)
        return LogTerms(*(torch.cat(parts) for parts in zip(*tables, strict=True))), terms

    @final
    def differentiable_loss(self, model: Program, guide: Program, *args: Any) -> Tensor:
        """The loss with its gradient, a scalar."""
        return self.bound(model, guide, *args).loss

    @final
    def loss(self, model: Program, guide: Program, *args: Any) -> float:
        """The loss as a number."""
        with torch.no_grad():
            return _number(self.bound(model, guide, *args).loss)

    @final
    def loss_and_grads(self, model: Program, guide: Program, *args: Any) -> float:
        """The loss as a number; its gradients are added to those of the parameters."""
        return _number(self.bound_and_grads(model, guide, *args).loss)

    @final
    def bound_and_grads(self, model: Program, guide: Program, *args: Any) -> Bound:
        """The bound without gradients; those of its loss are added to those of the parameters."""
        bound = self.bound(model, guide, *args)
        if not isinstance(bound, Bound):
            kind, given = type(self).__name__, type(bound).__name__
            raise InputError(f"{kind}.bound gives a {given}: return pyrovae.objectives.Bound(loss, reconstruction, kl)")
        if bound.loss.requires_grad:
            bound.loss.backward(retain_graph=self.retain_graph)
        return bound._replace(loss=bound.loss.detach())

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        """Refuses a pair for which this bound would be wrong; called once for each pair."""

    def _look(self, model: Program, guide: Program, args: Sequence[Any]) -> Prepared:
        require_drawn(plain_traces(model, guide, args))
        loops = (self.num_particles == 1 and self.runs_one_by_one) or not self.vectorize_particles
        with pyro.validation_enabled(False):  # it would refuse values under a mask
            particles = Particles(model, guide, args, plate=self.plate, strategy="looped")
            if not self._prepared:
                self._require_condition(particles.structure, particles.example)
            particles = particles if loops else particles.fastest()
        scales = [site["scale"] for site in particles.example.every_site]
        if particles.strategy == "tiled" and any(map(differs_by_datum, scales)):
            particles = particles.by("looped")  # a scale for each row does not fit K copies of the batch
        return Prepared(particles)

    _get_trace: Any = None  # abstract in Pyro's class; runs are made by ``runs``


def _number(loss: Tensor) -> float:
    warn_if_nan(loss, "loss")
    return loss.item()
