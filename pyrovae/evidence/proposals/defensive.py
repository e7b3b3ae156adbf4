r"""Defensive sampling: a few draws from the prior, so that no weight can run away where the guide has no tails.

.. math:: q_\alpha(z \mid x) = (1 - \alpha) \, q(z \mid x) + \alpha \, p(z), \qquad
    \frac{p(x, z)}{q_\alpha(z \mid x)} \le \frac{p(x \mid z)}{\alpha}
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyrovae.pairs.latents import Latents
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.terms import SiteTerms


def defended(particles: Particles, fraction: float) -> Callable[[int], SiteTerms]:
    """The mixture of a pair's guide and its prior as proposal for n data; for use inside ``isolated``.

    Args:
        particles: the pair on the data.
        fraction: alpha, the probability that a draw is from the prior, all its sites together.

    Returns:
        What draws the table of K draws, each density (K, n); that of the guide is the mixture's.

    Raises:
        InputError: naming the site, for a guide with auxiliary sites, and for one whose support misses the prior's.

    References:
        Hesterberg (1995), Weighted average importance sampling and defensive mixture distributions,
        Technometrics 37:185.
        Owen and Zhou (2000), Safe and effective importance sampling, JASA 95:135.
    """
    structure = particles.structure
    latents = Latents.of(particles)
    latents.require_guide_density()
    latents.check_guide_support()

    def draw(num_particles: int) -> SiteTerms:
        from_guide, from_prior = latents.draw(num_particles), latents.draw_prior(num_particles)
        is_prior = torch.rand(num_particles, latents.num_data) < fraction
        values = {name: _choose(is_prior, from_prior[name], from_guide[name]) for name in from_guide}
        joint, log_guide = latents.log_joint(values), latents.log_guide(values)
        mixture = torch.logaddexp(math.log1p(-fraction) + log_guide, math.log(fraction) + joint.log_prior)
        latent, observed = ", ".join(values), ", ".join(structure.observed)
        return SiteTerms({observed: joint.log_likelihood}, {latent: joint.log_prior}, {latent: mixture})

    return draw


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Where the condition (K, n) holds the one, elsewhere the other: values (K, n, ...)."""
    return torch.where(condition.reshape(condition.shape + (1,) * (yes.dim() - 2)), yes, no)
