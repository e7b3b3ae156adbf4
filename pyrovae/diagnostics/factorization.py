r"""Draws of the guide with their densities, coordinate by coordinate where prior and guide factorise.

.. math:: \log q(z \mid x) = \sum_j \log q(z_j \mid x), \qquad \log p(z) = \sum_j \log p(z_j)

if each site is a product of scalar distributions whose parameters depend on no other draw. What one run of a program
shows then holds at all latents; whether it does is told by scoring the draws of one datum for another, both ways.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.latents import Joint, Latents, Values
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.supports import cut_off, layers, scored
from pyrovae.pairs.terms import SiteTerms, agree, check_finite
from pyrovae.pairs.traces import Sites

MODEL, GUIDE = "site '{}'", "site '{}' of the guide"


class Factors:
    """The distributions of the latent sites for n data, as one run of a program shows them.

    Args:
        found: sites of the model or of the guide.
        structure: of the pair.
        whose: what a message calls a site of this program, ``MODEL`` or ``GUIDE``.

    Raises:
        InputError: naming the site, if a latent is masked for some of the data.
    """

    def __init__(self, found: Sites, structure: Structure, whose: str) -> None:
        self.structure, self.whose = structure, whose
        self.distributions = {name: found[name]["fn"] for name in structure.latents}
        for name in structure.latents:
            if not scored(found[name], found[name]["value"], 0).all():
                raise InputError(
                    f"{whose.format(name)} is masked for some data: what has no density there cannot be averaged over "
                    "the data. Give those alone that have it"
                )

    @property
    def undivided(self) -> str | None:
        """Why a site is no product over its coordinates; None where all are."""
        for name, fn in self.distributions.items():
            if math.prod(_scalar(fn).event_shape) != 1:
                kind = type(layers(fn)[-1]).__name__
                prior = "the prior " if self.whose == MODEL else ""
                return f"{self.whose.format(name)}: {prior}{kind} does not factorise over its coordinates"
        return None

    def log_sites(self, values: Values) -> dict[str, Tensor]:
        """Log density of each site under the parameters of the run: (K, n, ...) -> site -> (K, n) nats."""
        return {name: self._log_prob(fn, values[name]).sum(-1) for name, fn in self.distributions.items()}

    def log_coordinates(self, values: Values) -> Tensor:
        """The same for each coordinate, where sites are divided: (K, n, ...) -> (K, n, D) nats."""
        parts = [self._log_prob(_scalar(fn), values[name]) for name, fn in self.distributions.items()]
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def means(self) -> dict[str, Tensor]:
        """Mean of each site where it is known in closed form: (n, D of the site), NaN where it has none."""
        known = {}
        for name, fn in self.distributions.items():
            with suppress(NotImplementedError, AttributeError):
                mean = fn.mean.movedim(len(fn.batch_shape) + self.structure.dim, 0)
                known[name] = mean.reshape(len(mean), -1)
        return known

    def _log_prob(self, fn: Any, value: Tensor) -> Tensor:
        dim = 1 + self.structure.depth + self.structure.dim  # of the data in the program, behind that of the draws
        log_prob = cut_off(fn).log_prob(value.movedim(1, dim)).movedim(dim, 1)
        return log_prob.reshape(*value.shape[:2], -1)


def _scalar(fn: Any) -> Any:
    """The distribution of the coordinates of a site; the site's own, where it is no product of scalar ones."""
    base = layers(fn)[-1]
    return fn if base.event_shape else base


class Drawn(NamedTuple):
    """S draws of the guide for each of M data, with their densities in nats.

    F = D, the coordinates of one latent, where prior and guide factorise over them; elsewhere F = 1.
    """

    values: Values  # site -> (S, M, ...)
    log_likelihood: Tensor  # (S, M)
    log_guide: Tensor  # (S, M, F), given the datum that they were drawn for
    log_prior: Tensor  # (S, M, F)
    reruns: bool  # whether the guide must be run anew for all latents that it is to score
    reason: str | None  # why prior or guide does not factorise; None where both do


def draw(latents: Latents, num_draws: int) -> Drawn:
    """S draws z ~ q(z|x) for each of n data, in random order: what the first says of the last is to tell them apart.

    Raises:
        InputError: naming the site, if the guide has no density or the data no common prior, if a latent is masked,
            or a draw lies outside the support of the prior.
        FloatingPointError: naming the site, where a log density is NaN or infinite.
    """
    latents.require_guide_density()
    own = latents.draw(num_draws)
    both = {name: torch.cat([value, _foreign(value)]) for name, value in own.items()}
    joint, log_guide = latents.log_joint(both), latents.site_log_guide(both)
    _check_densities(latents, joint, log_guide, num_draws)
    run, structure = latents.particles.example, latents.structure
    prior, guide = Factors(run.latent, structure, MODEL), Factors(run.drawn, structure, GUIDE)
    nested = _check_prior(prior.log_sites(both), joint.log_prior, num_draws)
    hanging = _hanging(guide.log_sites(both), log_guide)
    reason = prior.undivided or guide.undivided or hanging or nested
    tables = [torch.stack([*log_guide.values()]).sum(0)[:num_draws, :, None], joint.log_prior[:num_draws, :, None]]
    if reason is None:
        tables = [guide.log_coordinates(own), prior.log_coordinates(own)]
    likelihood, of_guide, of_prior = (t.double() for t in (joint.log_likelihood[:num_draws], *tables))
    return Drawn(own, likelihood, of_guide, of_prior, hanging is not None, reason)


def join(blocks: Sequence[Drawn]) -> Drawn:
    """The draws of all blocks; what holds for one that does not factorise holds for all."""
    reason = next((block.reason for block in blocks if block.reason), None)
    values, likelihoods, guides, priors, reruns, _ = zip(*blocks, strict=True)
    if reason:
        guides, priors = (tuple(table.sum(-1, keepdim=True) for table in tables) for tables in (guides, priors))
    by_site = {name: torch.cat([block[name] for block in values], 1) for name in values[0]}
    tables = (torch.cat(parts, 1) for parts in (likelihoods, guides, priors))
    return Drawn._make([by_site, *tables, any(reruns), reason])


def listed(names: Iterable[str]) -> str:
    """Sites as a message names them: "site 'z'", "sites 'a', 'b'"."""
    quoted = [f"'{name}'" for name in names]
    return f"site{'s' if len(quoted) > 1 else ''} {', '.join(quoted)}"


# ------------------------------------------------------------------------------------------------------------ checks


def _foreign(value: Tensor) -> Tensor:
    """What was drawn for another datum, in another draw: (S, n, ...)."""
    return value.roll((1, 1), (0, 1))


def _check_densities(latents: Latents, joint: Joint, log_guide: Mapping[str, Tensor], num_draws: int) -> None:
    """Checks what the latents score given the data that they were drawn for, the first ``num_draws``."""
    observed, names = "', '".join(latents.structure.observed), "', '".join(latents.sites)
    log_likelihood, log_prior = joint.log_likelihood[:num_draws], joint.log_prior[:num_draws]
    own = {name: table[:num_draws] for name, table in log_guide.items()}
    check_finite(SiteTerms({observed: log_likelihood}, {names: log_prior}, own))
    outside = int((log_prior == -math.inf).any(0).sum())
    if outside:
        raise InputError(
            f"{listed(own)}: the guide draws outside the support of the prior, for {outside} of {latents.num_data} "
            "data, and KL(q(z|x) || p(z)) is infinite. Give the guide a support within the prior's"
        )


def _check_prior(once: Mapping[str, Tensor], log_prior: Tensor, num_draws: int) -> str | None:
    """Demands one prior for all data, and tells whether its sites depend on each other's draws.

    Each site's log density as one run shows it, and ``log_prior`` of the model run on the same latents, are (2 S, n);
    the second S are foreign latents.
    """
    together = torch.stack([*once.values()]).sum(0)
    own, foreign = log_prior.to(together).split(num_draws)
    if not agree(foreign, _foreign(own)):
        raise InputError(
            f"{listed(once)}: the prior is not the same for all data (it depends on their covariates), so there is no "
            "one p(z). Take data of one covariate at a time, or use evaluate, whose kl_prior is per datum"
        )
    if not agree(together, log_prior):
        return f"{listed(once)}: the prior of one depends on the draw of another"
    return None


def _hanging(once: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> str | None:
    """Names a site of the guide whose log density is another where the guide is run on the latents it scores."""
    for name, table in once.items():
        if not agree(table, again[name]):
            return f"{GUIDE.format(name)}: its parameters depend on another draw"
    return None
