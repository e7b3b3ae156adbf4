"""The parts of a KL to the prior: each at every draw, and what the draws say of its mean over data."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.diagnostics.aggregate_posterior import Aggregate
from pyrovae.diagnostics.factorization import Drawn
from pyrovae.pairs.latents import coordinates

COLLAPSED = 0.01  # nats: an inactive dimension with less KL than this has collapsed


class Estimate(NamedTuple):
    """A mean over data in nats with its standard errors; NaN where it is not defined."""

    mean: float
    mc_se: float  # of the draws and of the choice of queries, given the data set
    data_se: float  # of the data, which holds mc_se already


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


class Dimension(NamedTuple):
    """One coordinate of one latent site over all data; NaN where a number is not defined."""

    name: str  # "z[3]"
    kl: Estimate  # KL(q(z_j|x) || p(z_j))
    marginal_kl: Estimate  # KL(q(z_j) || p(z_j)), whose sum is the dimension-wise KL
    mean_variance: float  # over data, of E[z_j|x]
    active: bool  # whether that is above the threshold

    @property
    def collapsed(self) -> bool:
        """Whether the code ignores it: a KL below 0.01 nat, and inactive."""
        return self.kl.mean < COLLAPSED and not self.active


def terms(drawn: Drawn, aggregate: Aggregate) -> dict[str, Tensor]:
    """Each term of a :class:`~pyrovae.Surgery` at each draw: (S, M) nats."""
    log_guide, log_prior, log_aggregate = drawn.log_guide.sum(-1), drawn.log_prior.sum(-1), aggregate.log_density
    log_product = aggregate.log_factors.sum(-1) if drawn.reason is None else torch.full_like(log_guide, math.nan)
    return {
        "kl_prior": log_guide - log_prior,
        "mutual_information": log_guide - log_aggregate,
        "marginal_kl": log_aggregate - log_prior,
        "total_correlation": log_aggregate - log_product,
        "dimension_wise_kl": log_product - log_prior,
        "distortion": -drawn.log_likelihood,
    }


def estimates(values: Tensor, num_data: int) -> list[Estimate]:
    r"""Means over N data of what S draws for each of M of them say, with their errors: (S, M, F) -> F estimates.

    With f_m the mean over the draws of a query, w the variance among these averaged over queries, and the queries
    drawn without replacement, the Monte-Carlo variance of the mean is estimated without bias by

    .. math:: \left(1 - \tfrac{M}{N}\right) \frac{\mathrm{var}_m f_m}{M} + \frac{M}{N} \frac{w}{M S}

    as var_m f_m holds w / S beside the variance between data. The data standard error is sd_m f_m / sqrt(M).

    References:
        Cochran (1977), Sampling Techniques, third edition, Wiley, chapter 10 (two-stage sampling).
    """
    num_draws, num_queries, _ = values.shape
    fraction = num_queries / num_data
    between = values.mean(0).var(0) / num_queries
    within = values.var(0).mean(0) / (num_queries * num_draws)
    columns = (values.mean((0, 1)), ((1 - fraction) * between + fraction * within).sqrt(), between.sqrt())
    return [Estimate(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def dimensions(
    drawn: Drawn, aggregate: Aggregate, mean_variance: Tensor, *, num_data: int, threshold: float
) -> tuple[Dimension, ...]:
    """Every coordinate of every site; their KLs are NaN where prior or guide does not factorise."""
    tables = (drawn.log_guide - drawn.log_prior, aggregate.log_factors - drawn.log_prior)
    if drawn.reason:
        tables = (torch.full((*drawn.log_likelihood.shape, len(mean_variance)), math.nan),) * 2
    kl, marginal_kl = (estimates(table, num_data) for table in tables)
    names = coordinates({name: value.shape[2:] for name, value in drawn.values.items()})
    columns = (names, kl, marginal_kl, mean_variance.tolist(), (mean_variance > threshold).tolist())
    return tuple(Dimension(*row) for row in zip(*columns, strict=True))
