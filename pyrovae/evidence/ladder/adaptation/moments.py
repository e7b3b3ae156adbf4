"""Moments of weighed draws: what a mixture becomes, round after round."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyrovae.evidence import estimators
from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture, tril_of
from pyrovae.evidence.ladder.adaptation.newton import log_joint
from pyrovae.evidence.proposals.students import Students
from pyrovae.pairs.latents import Latents

MOMENT_ROUNDS, MOMENT_DRAWS = 3, 500


def moments_cost(_: int) -> int:
    """Decoder passes of :func:`moments` for each datum."""
    return MOMENT_ROUNDS * MOMENT_DRAWS


def moments(latents: Latents, start: Mixture, wide: Callable[[Mixture], Students]) -> Mixture:
    r"""Weights, means and covariances of the components by weighted draws, round after round.

    Draws are weighed by the density of the mixture, Pareto-smoothed, and shared among the components by what each
    holds of it; the moments of a component count for as much as its effective number S of draws tells, S / (S + 2 D).

    References:
        Cappe, Douc, Guillin, Marin and Robert (2008), Adaptive importance sampling in general mixture classes,
        Statistics and Computing 18:447.
    """
    found = start
    for _ in range(MOMENT_ROUNDS):
        proposal = wide(found)
        u = proposal.sample(MOMENT_DRAWS)
        each = proposal.log_prob_of_each(u)  # (C, K, n)
        total = each.logsumexp(0)
        log_weight = estimators.psis((log_joint(latents, u) - total).nan_to_num(-math.inf))
        shares = log_weight.softmax(0) * (each - total).exp()
        components = [_moved(one, share, u.double()) for one, share in zip(found.components, shares, strict=True)]
        log_weight = (shares.sum(1) + 1e-3).log().log_softmax(0)
        found = Mixture(log_weight, components)
    return found


def _moved(start: Gaussian, share: Tensor, u: Tensor) -> Gaussian:
    """A component, moved to the moments of its share (K, n) of the points (K, n, D)."""
    total = share.sum(0)
    weight = share / total.clamp_min(1e-300)
    size = 1 / weight.square().sum(0).clamp_min(1e-300) * (total > 0)
    part = (size / (size + 2 * u.shape[-1]))[:, None]
    mean = torch.einsum("kn,kni->ni", weight, u)
    away = (weight.sqrt()[..., None] * (u - mean)).movedim(0, -1)  # (n, D, K)
    both = torch.cat([part[..., None].sqrt() * away, (1 - part)[..., None].sqrt() * start.scale_tril], -1)
    return start._replace(loc=part * mean + (1 - part) * start.loc, scale_tril=tril_of(both))
