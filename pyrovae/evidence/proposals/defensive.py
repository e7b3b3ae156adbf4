r"""Defensive sampling: a few draws from the prior, so that no weight can run away where the guide has no tails.

.. math:: q_\alpha(z \mid x) = (1 - \alpha) \, q(z \mid x) + \alpha \, p(z), \qquad
    \frac{p(x, z)}{q_\alpha(z \mid x)} \le \frac{p(x \mid z)}{\alpha}
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.pairs.latents import Latents
from pyrovae.pairs.terms import SiteTerms
from pyrovae.pairs.traces import Program


class Defended:
    """The mixture of a guide and the prior as proposal for the n data in ``args``; inside ``blocks.undisturbed``.

    Args:
        model: program of p(x, z); run on its own it draws from the prior.
        guide: program of q(z|x).
        args: what both are called with.
        share: alpha, the probability that a draw is from the prior, all its sites together.
        plate: name of the data plate.
        way: how the programs take particles: "vectorized", "tiled" or "looped".

    Raises:
        InputError: naming the site, for a guide with auxiliary sites, and for one whose support misses the prior's.

    References:
        Hesterberg (1995), Weighted average importance sampling and defensive mixture distributions,
        Technometrics 37:185.
        Owen and Zhou (2000), Safe and effective importance sampling, JASA 95:135.
    """

    def __init__(
        self, model: Program, guide: Program, args: Sequence[Any], share: float, *, plate: str, way: str
    ) -> None:
        self.latents, self.share = Latents(model, guide, args, plate=plate, way=way), share
        self.latents.refuse_auxiliary()
        self.latents.refuse_narrow_guide()

    def draw(self, num_particles: int) -> SiteTerms:
        """The table of K draws, each density (K, n); that of the guide is the mixture's."""
        latents = self.latents
        from_guide, from_prior = latents.draw(num_particles), latents.draw_prior(num_particles)
        is_prior = torch.rand(num_particles, latents.num_data) < self.share
        values = {name: _choose(is_prior, from_prior[name], from_guide[name]) for name in from_guide}
        joint, log_guide = latents.log_joint(values), latents.log_guide(values)
        mixture = torch.logaddexp(math.log1p(-self.share) + log_guide, math.log(self.share) + joint.log_prior)
        latent, observed = ", ".join(values), ", ".join(latents.structure.observed)
        return SiteTerms({observed: joint.log_likelihood}, {latent: joint.log_prior}, {latent: mixture})


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Where the condition (K, n) holds the one, elsewhere the other: values (K, n, ...)."""
    return torch.where(condition.reshape(condition.shape + (1,) * (yes.dim() - 2)), yes, no)
