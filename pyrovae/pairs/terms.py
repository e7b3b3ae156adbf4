r"""The table: any pair of programs in, three log densities out for every particle and datum.

.. math:: \log p(x_n \mid z_{kn}), \quad \log p(z_{kn}), \quad \log q(z_{kn} \mid x_n), \qquad z_{kn} \sim q(z \mid x_n)

A program is run under Pyro's handlers, and its densities are read off the trace. Whatever the model is, the
ELBO, the evidence and the KL terms are short functions of this table (:mod:`pyrovae.evidence.estimators`).
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.pairs.structure import Structure
from pyrovae.pairs.supports import cut_off, is_known, layers, possible
from pyrovae.pairs.traces import Sites, TracePair, site_log_prob


class LogTerms(NamedTuple):
    """Log densities in nats, each (K, N): K particles of the guide for N data."""

    log_likelihood: Tensor
    log_prior: Tensor
    log_guide: Tensor

    @property
    def log_weight(self) -> Tensor:
        """log w = log p(x|z) + log p(z) - log q(z|x): (K, N), float64."""
        log_weight = self.log_likelihood.double() + self.log_prior.double() - self.log_guide.double()
        nothing = (self.log_prior == -math.inf) | (self.log_likelihood == -math.inf)
        return torch.where(nothing, -math.inf, log_weight)  # whatever the other densities are there

    @property
    def resolution(self) -> Tensor:
        """What rounding can make of equal weights, in nats: (N,)."""
        size = sum(torch.where(term.isfinite(), term.double().abs(), 0.0).amax(0) for term in self)
        return 32 * torch.finfo(self.log_likelihood.dtype).eps * torch.as_tensor(size)


class SiteTerms(NamedTuple):
    """Per-site log densities, site -> (K, N), by the role of the site."""

    likelihood: dict[str, Tensor]
    prior: dict[str, Tensor]
    guide: dict[str, Tensor]


def joined(parts: Sequence[SiteTerms]) -> SiteTerms:
    """The particles of several tables in one, (K, N) for each site."""
    if len(parts) == 1:
        return parts[0]
    roles = zip(*parts, strict=True)
    return SiteTerms(*({name: torch.cat([part[name] for part in role]) for name in role[0]} for role in roles))


def sum_by_role(terms: SiteTerms) -> LogTerms:
    """Adds up the sites of each role: (K, N) each; zeros for a pair without latent sites."""
    none = torch.zeros_like(next(iter(terms.likelihood.values())))
    return LogTerms(*(reduce(torch.add, role.values()) if role else none for role in terms))


def read_terms(run: TracePair, reduce: Callable[[Tensor], Tensor]) -> SiteTerms:
    """The densities of all sites of one run; ``reduce`` sums each over the plates inside a datum."""

    def of(sites: Sites, log_prob: Callable[[Any], Tensor]) -> dict[str, Tensor]:
        return {name: reduce(log_prob(site)) for name, site in sites.items()}

    return SiteTerms(of(run.observed, site_log_prob), of(run.latent, latent_log_prob), of(run.drawn, proper_log_prob))


def proper_log_prob(site: Any) -> Tensor:
    """Log density of a site, minus infinity outside of a support that moves with its parameters.

    The guide's for one datum may not hold what it draws for another. Ends, to which draws are rounded, are inside.
    """
    return site_log_prob({**site, "fn": cut_off(site["fn"])})


def latent_log_prob(site: Any) -> Tensor:
    """Log density of a latent site in the model, minus infinity at what its distribution cannot draw."""
    fn = cut_off(site["fn"])
    log_prob = site_log_prob({**site, "fn": fn})
    inside = possible(site) if fn is site["fn"] else None
    return log_prob if inside is None else torch.where(inside, log_prob, -math.inf)


def analytic_kl(run: TracePair, structure: Structure, num_data: int) -> Tensor:
    """KL(q(z|x) || p(z)) in closed form, (N,) nats; NaN where torch has none or there are several latent sites."""
    unknown, prior, guide = torch.full((num_data,), math.nan), run.latent, run.drawn
    if len(prior) != 1 or list(prior) != list(guide):
        return unknown
    (p,), (q,) = prior.values(), guide.values()
    if p["mask"] is not None or q["mask"] is not None:
        return unknown
    try:
        kl = closed_form_kl(q["fn"], p["fn"])
    except (NotImplementedError, ValueError, RuntimeError):
        return unknown
    return to_rows(kl, structure.dim).expand(num_data)


def closed_form_kl(q: Any, p: Any) -> Tensor:
    """KL(q || p) in nats, of their batch shape.

    Raises:
        NotImplementedError: where torch and Pyro know none. What they know of a class they do not know of one's own
            subclasses, whose density may be another (a normal cut off at zero).
    """
    if not (is_known(q) and is_known(p)):
        raise NotImplementedError("a family of one's own")
    if not all(transform.bijective for fn in (q, p) for transform in getattr(layers(fn)[-1], "transforms", ())):
        raise NotImplementedError("torch's rule for transformed distributions is that of one-to-one ones")
    return kl_divergence(q, p)


def to_table(log_prob: Tensor, s: Structure, num_particles: int, rows: int) -> Tensor:
    """Sums over every plate but those of particles and data: (K, ..., N, ...) -> (K, N)."""
    log_prob = log_prob.reshape((1,) * (s.depth + 1 - log_prob.dim()) + log_prob.shape)
    others = [dim for dim in range(-s.depth, 0) if dim != s.dim]
    return (log_prob.sum(others) if others else log_prob).expand(num_particles, rows)


def to_rows(log_prob: Tensor, dim: int) -> Tensor:
    """Sums over every plate but that of the data: (..., N, ...) -> (N,)."""
    others = [d for d in range(-log_prob.dim(), 0) if d != dim]
    return log_prob.sum(others) if others else log_prob


def agree(a: Tensor, b: Tensor) -> bool:
    """Whether two ways to run a program gave the same densities, but for rounding."""
    tolerance = 1e-8 if a.dtype == torch.float64 else 1e-4
    return torch.allclose(a, b.to(a), rtol=tolerance, atol=10 * tolerance, equal_nan=True)


def check_finite(terms: SiteTerms) -> None:
    """Raises FloatingPointError, naming the site, where a density is NaN or a weight would be infinite."""
    weightless = [table == -math.inf for table in terms.prior.values()]  # whatever the likelihood is there
    for role in ("guide", "prior", "likelihood"):  # what the guide draws is what the model scores
        for name, table in getattr(terms, role).items():
            bad = table.isnan() | (table == (-math.inf if role == "guide" else math.inf))
            for nothing in weightless if role == "likelihood" else []:
                bad = bad & ~nothing
            if bad.any():
                value = table[bad][0].item()
                raise FloatingPointError(
                    f"site '{name}': log density in the {'guide' if role == 'guide' else 'model'} is {value} "
                    f"for {int(bad.any(0).sum())} of {table.shape[1]} data; look at its parameters there"
                )
