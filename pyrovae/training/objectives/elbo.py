"""The ELBO, its KL sampled or in closed form."""

from typing import Any

import pyro

from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.objectives.scales import require_closed_form


class SampledELBO(Objective):
    r"""Pyro's ``Trace_ELBO`` without its host synchronisation: the ELBO with all its terms sampled.

    In value and gradient the two are one at the same noise; this one looks at no value, so a graph can hold its step.

    .. math:: \sum_n \frac{1}{K} \sum_k \big[ \log p(x_n \mid z_{nk}) + \log p(z_{nk}) - \log q(z_{nk} \mid x_n) \big]

    Draws without gradients (discrete ones) are trained by their score function, weighed with the terms that share
    their plates.

    References:
        Kingma & Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114.
        Ranganath, Gerrish & Blei (2014), Black box variational inference, arXiv:1401.0118.
    """

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        return bounds.mean([bounds.sampled(run) for run in self.runs(model, guide, *args)], self.num_particles)


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
        return bounds.mean([bounds.closed_form(run) for run in self.runs(model, guide, *args)], self.num_particles)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        require_closed_form(type(self).__name__, structure, run)
