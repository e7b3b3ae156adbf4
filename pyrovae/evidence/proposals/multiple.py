r"""Multiple importance sampling: draws of several proposals, each weighed by the density of all of them together.

With K draws from each of J proposals q_1..q_J, the balance heuristic estimates

.. math:: \hat p(x) = \frac{1}{J K} \sum_{j,k} \frac{p(x, z_{jk})}{\frac{1}{J} \sum_i q_i(z_{jk})}, \qquad
    E[\hat p(x)] = p(x)

It is nearly as good as the best of them wherever that may be, and never much worse (Veach and Guibas 1995).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.base.random import Key, seed_everything
from pyrovae.evidence import estimators
from pyrovae.evidence.proposals.local import Local, draw_unconstrained
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.terms import LogTerms


class Table(NamedTuple):
    """What K draws from each of J proposals say of n data, in nats."""

    log_joint: Tensor  # (K, J, n): log p(x, z) of each draw
    log_density: Tensor  # (J, K, J, n): its log density under each proposal, first
    resolution: Tensor  # (n,): what rounding in the programs' dtype can make of equal weights


class Account(NamedTuple):
    """Evidence, ELBOs and gaps of J proposals for n data; ``gap = log_evidence - elbo`` on the same draws."""

    log_evidence: Tensor  # (n,)
    mc_se_log_evidence: Tensor
    elbo: Tensor  # (J, n)
    mc_se_elbo: Tensor
    gap: Tensor  # (J, n)
    mc_se_gap: Tensor
    skewness_log_evidence: Tensor  # (n,), of the terms of each mean: what its error is worth
    skewness_elbo: Tensor  # (J, n)
    skewness_gap: Tensor  # (J, n)
    ess: Tensor  # (n,), of the J K weights
    pareto_k: Tensor  # (n,), of the J K weights


def score(latents: Latents, proposals: Mapping[str, Local], num_particles: int, key: Key) -> Table:
    """K draws from each proposal, scored under the model and under every proposal; for use inside ``isolated``.

    To the key of the random numbers, proposal and block of particles are added.

    Raises:
        FloatingPointError: naming the proposal at whose draws a log density is NaN.
    """
    columns = []
    for number, (name, proposal) in enumerate(proposals.items()):
        columns.append(_draws_of(latents, proposal, list(proposals.values()), num_particles, (*key, number)))
        lost = columns[-1].log_joint.isnan().any(0) | columns[-1].log_density.isnan().any(1).any(0)
        if lost.any():
            raise FloatingPointError(
                f"proposal '{name}': a log density at its draws is NaN for {int(lost.sum())} of {len(lost)} data; "
                "look at the programs there"
            )
    log_joint, log_density, resolution = (torch.stack(parts, -2) for parts in zip(*columns, strict=True))
    return Table(log_joint, log_density, resolution.amax(0))


def _draws_of(latents: Latents, proposal: Local, others: Sequence[Local], num_particles: int, key: Key) -> Table:
    """The table of one proposal's draws, (K, n), (J, K, n) and (n,)."""
    parts = []
    for number, size in enumerate(latents.part_sizes(num_particles)):
        seed_everything(*key, number)
        u = draw_unconstrained(latents, proposal.sample, size)
        joint = latents.log_joint_unconstrained(u)
        log_prior = joint.log_prior + joint.log_jacobian
        log_density = torch.stack([other.log_prob(u, joint).double() for other in others])
        terms = LogTerms(joint.log_likelihood.to(u.dtype), log_prior.to(u.dtype), log_density.amax(0))
        parts.append(Table((joint.log_likelihood + log_prior).double(), log_density, terms.resolution))
    joints, densities, resolutions = zip(*parts, strict=True)
    return Table(torch.cat(joints), torch.cat(densities, 1), torch.stack(resolutions).amax(0))


def account(table: Table) -> Account:
    r"""Evidence by all draws together, and ELBO and gap of each proposal by its own.

    Draws are stratified by proposal, so variances add up over strata. With r = w / mean w the relative weights, the
    error of a gap takes evidence and ELBO together where they share draws:

    .. math:: K \, se_j^2 = \mathrm{var}_k(r_{kj} / J - \log \tfrac{p}{q_j}) + \sum_{i \ne j} \mathrm{var}_k(r_{ki} / J)

    References:
        Veach and Guibas (1995), Optimally combining sampling techniques for Monte Carlo rendering, SIGGRAPH.
        Owen and Zhou (2000), Safe and effective importance sampling, JASA 95:135.
    """
    num_proposals = len(table.log_density)
    log_mixture = table.log_density.logsumexp(0) - math.log(num_proposals)
    log_weight = (table.log_joint - log_mixture).flatten(0, 1)  # (K J, n)
    log_evidence = estimators.log_evidence(log_weight)
    log_ratio = table.log_joint - table.log_density.diagonal(dim1=0, dim2=2).movedim(-1, 1)  # (K, J, n)
    fractions = estimators.relative_weight(log_weight).reshape(log_ratio.shape) / num_proposals
    variance, elbo = estimators.mean_se(fractions).square(), estimators.elbo(log_ratio)
    together = estimators.mean_se(fractions - log_ratio).square()
    strata = [fractions - log_ratio * own[:, None] for own in torch.eye(num_proposals, dtype=log_ratio.dtype)]
    return Account(
        log_evidence=log_evidence,
        mc_se_log_evidence=variance.sum(0).sqrt(),
        elbo=elbo,
        mc_se_elbo=estimators.mean_se(log_ratio),
        gap=log_evidence - elbo,
        mc_se_gap=(variance.sum(0) - variance + together).clamp(min=0).sqrt(),
        skewness_log_evidence=estimators.skewness(fractions),
        skewness_elbo=torch.stack([estimators.skewness(column) for column in log_ratio.unbind(1)]),
        skewness_gap=torch.stack([estimators.skewness(terms) for terms in strata]),
        ess=estimators.ess(log_weight),
        pareto_k=estimators.pareto_k(log_weight, table.resolution),
    )
