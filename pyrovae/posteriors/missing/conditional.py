r"""conditional(): what was not observed, given what was: draws of latents and of missing entries, and their nats.

.. math:: p(x_m \mid x_o) = \int p(x_m \mid x_o, z) \, p(z \mid x_o) \, dz, \qquad
    \log p(x_m \mid x_o) = \log p(x) - \log p(x_o)

Latents are drawn by their importance weights from the proposal that vouches for the evidence of a datum: the guide, a
better one that was fitted to it, the ends of annealed chains, or an exact sum. Chains of the collapsed
Metropolis-within-Gibbs sampler, which no weight enters, are the independent check.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, UntrustedPosterior, check_at_least_one, nearest, warn
from pyrovae.data.split import Split, as_split
from pyrovae.evidence.comparisons.conditional import ConditionalDensity, density_of
from pyrovae.evidence.comparisons.hidden import Hidden, hidden, models_missingness
from pyrovae.evidence.estimators import log_evidence
from pyrovae.evidence.evaluate import routed
from pyrovae.evidence.ladder.climb import METHODS as ROUTED
from pyrovae.evidence.plan import Plan
from pyrovae.evidence.reliability import UNRELIABLE_FRACTION
from pyrovae.evidence.report import Report
from pyrovae.pairs.latents import Values
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.missing.completion import Completion
from pyrovae.posteriors.missing.entries import completed, log_likelihoods
from pyrovae.posteriors.missing.gibbs import Chains, by_gibbs

METHODS = (*ROUTED, "gibbs")


@checked
def conditional(
    model: Program,
    guide: Program,
    data: Any,
    observed: Any = None,
    *,
    num_draws: int = 100,
    num_particles: int = 1000,
    method: str = "auto",
    budget: int | None = None,
    num_chains: int = 4,
    num_warmup: int = 100,
    seed: int = 0,
    batch_size: int | None = None,
    plate: str | None = None,
    progress: bool = True,
) -> Completion:
    """Draws of the latents and of the missing entries of each datum given its observed ones.

    Args:
        model: program of p(x, z), with one plate over the data, for complete data.
        guide: program of q(z|x); where it does not read missing entries (NaN), it is given a guess of them.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments; entries
            of the first are missing where they are NaN.
        observed: booleans (N, *shape), or (*shape) for all data alike, False for further entries to hide. The density
            of those that are known is told.
        num_draws: L.
        num_particles: K, that the draws are resampled from.
        method: of :func:`~pyrovae.evaluate`, by which proposals are found; or "gibbs", chains of the collapsed
            Metropolis-within-Gibbs sampler.
        budget: decoder passes for each datum at most.
        num_chains: of "gibbs".
        num_warmup: steps of these that are not kept.
        seed: of all draws.
        batch_size: data in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Completion`. Data with nothing observed are answered by the prior.

    Raises:
        InputError: for a mask of another shape; naming the site, for a pair without per-datum weights, and where a part
            of an event is missing whose family has no density of a part.

    Warns:
        UntrustedPosterior: if nothing vouches for the draws of more than 5 % of the data.

    References:
        Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation, arXiv:1401.4082, appendix F.
        Mattei and Frellsen (2018), Leveraging the exact likelihood of deep latent variable models, arXiv:1802.04826.
        Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated approximate ancestral
        sampling, arXiv:2308.09078.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.factor_analysis(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> found = conditional(oracle.model, oracle.guide, x, torch.tensor([True, True, True, False, False]))
        >>> found.draws.shape, found.fraction_unreliable
        (torch.Size([100, 3, 5]), 0.0)
    """
    check_at_least_one(num_draws=num_draws)
    if method not in METHODS:
        raise InputError(f"method is one of {', '.join(METHODS)}, got {method!r}{nearest(method, METHODS)}")
    routing = "auto" if method == "gibbs" else method
    plan = Plan(
        num_particles, seed, batch_size, plate=plate, compile=False, method=routing, budget=budget, num_kept=num_draws
    )
    split = as_split(data)
    pair = hidden(model, guide, split, observed, plan, search=method != "gibbs")
    plan = replace(plan, starts=pair.starts)
    report, mixing, mask = None, None, pair.observed.cpu()
    if method == "gibbs":
        chains = Chains(num_draws, num_chains, num_warmup, seed)
        values, entries, mixing = by_gibbs(pair, chains, plan, progress=progress)
    else:
        report, values = routed(pair.model, pair.guide, pair.split, plan, progress=progress)
        entries = completed(pair, values, plan, progress=progress)
    nats = _nats(model, guide, split, pair, report, values, plan, progress)
    mean, sd = torch.where(mask, entries.draws[0], entries.mean), torch.where(mask, 0.0, entries.sd)
    of_draws = values, entries.draws, mean, sd, mask, report
    found = Completion(*of_draws, *nats, mixing, method, seed, pair.is_filled, split.protocol)
    if found.fraction_unreliable > UNRELIABLE_FRACTION:
        warn(_untrusted(found))
    return found


def _untrusted(found: Completion) -> UntrustedPosterior:
    advice = "raise num_particles, or hold the draws against method='gibbs'"
    if found.method == "gibbs":
        advice = "raise num_warmup and num_draws, or hold the draws against method='auto'"
    return UntrustedPosterior(
        f"nothing vouches for the draws of {found.fraction_unreliable:.0%} of {len(found)} data: {advice}"
    )


def _nats(
    model: Program,
    guide: Program,
    split: Split,
    pair: Hidden,
    report: Report | None,
    values: Values,
    plan: Plan,
    progress: bool,
) -> tuple[ConditionalDensity | None, Tensor | None]:
    """log p(x_m | x_o) of the hidden entries that are known, by both evidences and by draws; None where none is."""
    known = ~split.drawn(plan.seed).tensors[0].isnan().cpu()
    num_entries = (known & ~pair.observed.cpu()).flatten(1).sum(1).double()
    if not bool(num_entries.any()) or models_missingness(model, split):
        return None, None
    whole = hidden(model, guide, split, None, plan, search=False)
    of_all, of_observed = (log_likelihoods(each, values, plan, progress=progress) for each in (whole, pair))
    by_draws = torch.where(num_entries == 0, 0.0, log_evidence(of_all - of_observed))
    if report is None:
        return None, by_draws
    return density_of(model, guide, split, None, report, num_entries, plan, progress), by_draws
