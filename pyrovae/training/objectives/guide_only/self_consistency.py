"""Self-consistency: log w does not vary over draws where the guide is the posterior."""

from typing import Any

import pyro
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.traces import Program
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.guide_only.for_guides import GuideObjective


class SelfConsistency(GuideObjective):
    r"""The variance of the log weights of each datum, on real data; for the guide alone.

    .. math:: \sum_n \frac{1}{K-1} \sum_k \big( \log w_{nk} - \overline{\log w_n} \big)^2, \qquad
        \log w_{nk} = \log p(x_n, z_{nk}) - \log q(z_{nk} \mid x_n)

    As log p(x, z) - log p(z|x) = log p(x) for every z, it is zero at the posterior, and there without noise. Draws come
    from the guide and are held fixed, so that this is the log-variance loss of Richter et al.: half its gradient is, in
    expectation, that of KL(q(z|x) || p(z|x)), with the score function's noise less its mean over the draws. Nothing is
    reparameterized: discrete sites are trained as others are.

    Args:
        num_particles: K, at least 2.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    References:
        Schmitt et al. (2024), Leveraging self-consistency for data-efficient amortized Bayesian inference, ICML.
        Richter et al. (2020), VarGrad: a low-variance gradient estimator for variational inference, NeurIPS.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> SelfConsistency(10).loss(oracle.model, oracle.guide, x) < 1e-20  # the guide is exact
        True
    """

    moves_draws = False

    def __init__(self, num_particles: int = 8, *, vectorize_particles: bool = True, plate: str | None = None) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if num_particles < 2:
            raise InputError("SelfConsistency is a variance over draws: give num_particles=2 or more")

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        latents = self.latents(model, guide, args)
        with torch.no_grad():
            values = latents.draw(self.num_particles)
            joint = latents.log_joint(values)
        log_likelihood, log_prior = joint.log_likelihood.double(), joint.log_prior.double()
        log_guide = latents.log_guide(values).double()
        loss = (log_likelihood + log_prior - log_guide).var(0).sum()
        kl = (log_guide.detach() - log_prior).mean(0).sum()
        return Bound(latents.structure.plate_scale * loss, log_likelihood.mean(0).sum(), kl)
