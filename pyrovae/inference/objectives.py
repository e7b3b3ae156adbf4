r"""Training bounds that look at no value of a tensor, so that a whole step of training can be one graph.

With particles :math:`z_{nk} \sim q(z \mid x_n)`, k = 1..K, of data n = 1..N and

.. math:: \log w_{nk} = \log p(x_n \mid z_{nk}) + \log p(z_{nk}) - \log q(z_{nk} \mid x_n)

they are

.. math::
    \mathrm{SampledELBO} &= \textstyle\sum_n \frac{1}{K} \sum_k \log w_{nk} \\
    \mathrm{AnalyticKLELBO} &= \textstyle\sum_n \frac{1}{K} \sum_k \log p(x_n \mid z_{nk})
        - \mathrm{KL}\big(q(z \mid x_n) \,\|\, p(z)\big) \\
    \mathrm{IWAE} &= \textstyle\sum_n \log \frac{1}{K} \sum_k w_{nk}

in expectation ELBO <= IWAE <= log p(x). What has to compare values, the structure of the pair and the way its
particles can be run, is found out once, by :meth:`Objective.prepare`.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, final

import pyro
import torch
from pyro.infer import ELBO
from pyro.poutine import Trace
from pyro.util import warn_if_nan
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.random import kept_rng
from pyrovae.inference import bounds
from pyrovae.inference.bounds import Bound
from pyrovae.inference.pairs import Program, evaluation_mode, modules_of, num_rows, plain_traces, sites
from pyrovae.inference.particles import Plan
from pyrovae.inference.scales import (
    alike,
    differs_by_datum,
    refuse_enumerated,
    refuse_without_gradients,
    scale_of_plate,
    scales_all_alike,
)
from pyrovae.inference.structure import Structure, describe
from pyrovae.inference.terms import check_num_particles, choose_way


class Objective(ELBO):
    """A bound for ``fit`` and for Pyro's own ``SVI``; :meth:`bound` can be traced.

    Args:
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.
    """

    def __init__(self, num_particles: int = 1, *, vectorize_particles: bool = True, plate: str | None = None) -> None:
        check_num_particles(num_particles)
        super().__init__(num_particles=num_particles, vectorize_particles=vectorize_particles)
        self.plate = plate
        self._pair: tuple[Program, Program] | None = None
        self._plans: dict[int, Plan] = {}  # of that pair, by the number of rows

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
    def prepare(self, model: Program, guide: Program, *args: Any) -> Plan:
        """Looks at a pair, once for each number of rows; to be called before :meth:`bound` is traced.

        Random state, parameters and buffers are left as they were.

        Raises:
            InputError: naming the site, for a pair without per-datum weights, for enumerated sites, and where the
                condition of this bound does not hold.
        """
        if (model, guide) != self._pair:
            self._pair, self._plans = (model, guide), {}
        rows = num_rows(args)
        if rows not in self._plans:
            with torch.no_grad(), kept_rng(), evaluation_mode(modules_of(model, guide)):
                self._plans[rows] = self._look(model, guide, args)
        return self._plans[rows]

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
        loss = self.bound(model, guide, *args).loss
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return _number(loss)

    def _demand(self, structure: Structure, model_trace: Trace, guide_trace: Trace) -> None:
        """Refuses a pair for which this bound would be wrong; called once for each pair."""

    def _look(self, model: Program, guide: Program, args: Sequence[Any]) -> Plan:
        traces, rows = plain_traces(model, guide, args), num_rows(args)
        refuse_enumerated(*traces)
        structure = describe(*traces, rows, plate=self.plate)
        loops = self.num_particles == 1 or not self.vectorize_particles
        with pyro.validation_enabled(False):  # it would refuse values under a mask
            if not self._plans:
                self._demand(structure, *traces)
            way = "looped" if loops else choose_way(model, guide, args, structure)
        every = [site for trace in traces for site in sites(trace).values()]
        if way == "tiled" and any(differs_by_datum(site["scale"]) for site in every):
            way = "looped"  # a scale for each row does not fit K copies of the batch
        return Plan(structure, way, self.num_particles, rows, scale_of_plate(every[0], structure))

    def _get_trace(self, model: Program, guide: Program, args: Sequence[Any], kwargs: Any) -> tuple[Trace, Trace]:
        return plain_traces(model, guide, args)  # abstract in Pyro's class


class SampledELBO(Objective):
    r"""The ELBO with all its terms sampled: in value and gradient Pyro's ``Trace_ELBO`` at the same noise.

    .. math:: \sum_n \frac{1}{K} \sum_k \big[ \log p(x_n \mid z_{nk}) + \log p(z_{nk}) - \log q(z_{nk} \mid x_n) \big]

    Draws without gradients (discrete ones) are trained by their score function, weighed with the terms that share
    their plates.

    References:
        Kingma & Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114.
        Ranganath, Gerrish & Blei (2014), Black box variational inference, arXiv:1401.0118.
    """

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        """The sampled ELBO of one batch."""
        plan = self.prepare(model, guide, *args)
        return bounds.mean([bounds.sampled(*run) for run in plan.traces(model, guide, args)], self.num_particles)


class AnalyticKLELBO(Objective):
    r"""The ELBO with the KL in closed form: Pyro's ``TraceMeanField_ELBO``, wherever that one is right.

    .. math:: \sum_n \frac{1}{K} \sum_k \Big[ \log p(x_n \mid z_{nk})
        - \sum_s \mathrm{KL}\big(q(z_s \mid z_{<s,nk}, x_n) \,\|\, p(z_s \mid z_{<s,nk})\big) \Big]

    over latent sites s. Where two families have no closed form, log q - log p at the draw stands for it. It is
    checked that the guide draws the model's latents in the model's order and nothing else, that draws carry
    gradients, and that handlers scale and mask a latent alike in both programs.

    References:
        Kingma & Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114, appendix B.
    """

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        """The ELBO of one batch, its KL in closed form."""
        plan = self.prepare(model, guide, *args)
        return bounds.mean([bounds.closed_form(*run) for run in plan.traces(model, guide, args)], self.num_particles)

    def _demand(self, structure: Structure, model_trace: Trace, guide_trace: Trace) -> None:
        if tuple(structure.drawn) != structure.latents:
            raise InputError(
                f"AnalyticKLELBO needs the guide to draw the latents in the model's order, {list(structure.latents)}, "
                f"and nothing else, but it draws {list(structure.drawn)}: the closed-form KL would be wrong. "
                "Use SampledELBO"
            )
        refuse_without_gradients(type(self).__name__, guide_trace)
        for name in structure.latents:
            for handler in ("scale", "mask"):
                if not alike(*(trace.nodes[name][handler] for trace in (model_trace, guide_trace))):
                    raise InputError(
                        f"site '{name}' has one {handler} in the model and another in the guide, but its closed-form "
                        f"KL can have only one. Put poutine.{handler} around both programs, or use SampledELBO"
                    )


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
        """The importance-weighted bound of one batch."""
        plan = self.prepare(model, guide, *args)
        runs = plan.traces(model, guide, args)
        for trace in (trace for run in runs for trace in run):
            trace.compute_log_prob()
        scale = plan.scale_of_data(runs[0][0]) if self._scales_all_alike else plan.plate_scale
        log_weight = torch.cat([bounds.log_weight(plan, *run) for run in runs]) / scale  # (K, N)
        per_datum = log_weight.logsumexp(0) - math.log(self.num_particles)
        terms = torch.stack([bounds.terms(*run) for run in runs]).sum(0) / self.num_particles
        return Bound(-(scale * per_datum).sum(), *terms)

    def _demand(self, structure: Structure, model_trace: Trace, guide_trace: Trace) -> None:
        refuse_without_gradients(type(self).__name__, guide_trace)
        self._scales_all_alike = scales_all_alike(structure, model_trace, guide_trace)


def _number(loss: Tensor) -> float:
    warn_if_nan(loss, "loss")
    return loss.item()
