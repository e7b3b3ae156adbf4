"""What one run of a pair is worth as a training bound: its loss, with its gradient, and the terms of its ELBO."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.util import MultiFrameTensor
from torch import Tensor

from pyrovae.pairs.terms import LogTerms, closed_form_kl
from pyrovae.pairs.traces import TracePair, total_log_prob

Table = Callable[[Tensor], Tensor]


class Bound(NamedTuple):
    """A bound on one batch and the two terms of its ELBO, all scalars, summed over data.

    ``loss`` is minus the bound with every scale in it (of plates, ``poutine.scale``, KL warm-up), and its gradient is
    the one to train with, score function included. ``reconstruction``, log p(x|z), and ``kl_prior``,
    log q(z|x) - log p(z) or its closed form, are means over particles in nats, without scales and with masks,
    float64, detached.
    """

    loss: Tensor
    reconstruction: Tensor
    kl_prior: Tensor


def sampled(run: TracePair) -> Bound:
    """Sums over data and particles of one run; the gradient is that of the surrogate."""
    log_joint = total_log_joint(run)
    return _sampled(run, log_joint, log_joint)


def sampled_apart(run: TracePair) -> Bound:
    """The same of a run whose model saw copies of the draws: with no gradient for anything that the model holds."""
    log_joint = total_log_joint(run)
    return _sampled(run, log_joint, by_draws([run], log_joint))


def by_draws(runs: Sequence[TracePair], value: Tensor, *, retain: bool = False) -> Tensor:
    """A scalar whose gradient is that of ``value`` by way of the draws alone; its own value means nothing.

    Args:
        runs: whose models saw copies of the draws.
        value: a scalar function of these copies.
        retain: whether another gradient of ``value`` is to come.
    """
    seen = [(run, name, site["value"]) for run in runs for name, site in run.latent.items()]
    seen = [each for each in seen if each[-1].requires_grad]
    found = zip(seen, slopes(value, [copy for *_, copy in seen], retain=retain), strict=True)
    moved = [(slope * run.drawn[name]["value"]).sum() for (run, name, _), slope in found if slope is not None]
    return _total([torch.zeros_like(value), *moved])


def slopes(value: Tensor, by: Sequence[Tensor], *, retain: bool = False) -> list[Tensor | None]:
    """The gradients of a scalar by tensors; None by those that it does not depend on."""
    if not (value.requires_grad and by):
        return [None] * len(by)
    return list(torch.autograd.grad(value, by, allow_unused=True, retain_graph=retain))


def as_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value of the one with the gradient of the other."""
    return value.detach() + (surrogate - surrogate.detach())


def total_log_joint(run: TracePair) -> Tensor:
    """log p(x, z) of a run, which is scored: a scalar, with scales and masks."""
    run.score()
    return _total([total_log_prob(site) for site in run.joint.values()])


def total_log_guide(run: TracePair) -> Tensor:
    """log q(z|x) of a scored run: a scalar, with scales and masks."""
    nothing = torch.zeros_like(total_log_prob(next(iter(run.joint.values()))))
    return _total([nothing, *(total_log_prob(site) for site in run.drawn.values())])


def _sampled(run: TracePair, log_joint: Tensor, with_gradient: Tensor) -> Bound:
    value = log_joint - total_log_guide(run)
    entropies = [site["score_parts"].entropy_term for site in run.drawn.values()]
    surrogate = with_gradient - sum(term.sum() for term in entropies if not is_identically_zero(term))
    surrogate = surrogate + _score_function(run)
    return Bound((surrogate.detach() - surrogate) - value.detach(), *terms(run))


def _score_function(run: TracePair) -> Tensor | float:
    """The score of each draw without gradients, times log p - log q held fixed, summed to the plates of the draw."""
    drawn = run.drawn
    stuck = [site for site in drawn.values() if not is_identically_zero(site["score_parts"].score_function)]
    if not stuck:
        return 0.0
    log_ratio = MultiFrameTensor()
    for name, site in run.joint.items():
        log_guide = 0.0 if site["is_observed"] else drawn[name]["log_prob"]
        log_ratio.add((site["cond_indep_stack"], (site["log_prob"] - log_guide).detach()))
    return sum((log_ratio.sum_to(s["cond_indep_stack"]) * s["score_parts"].score_function).sum() for s in stuck)


def closed_form(run: TracePair) -> Bound:
    """Sums over data and particles of one run."""
    run.model.compute_log_prob(lambda name, site: site["is_observed"])
    observed, latent = list(run.observed.values()), run.latent
    drawn = [(kl_of(site["fn"], latent[name]["fn"], site["value"]), site) for name, site in run.drawn.items()]
    kl = sum(scale_and_mask(each, site["scale"], site["mask"]).sum() for each, site in drawn)
    reconstruction = _total([_unscaled(site["unscaled_log_prob"], site) for site in observed])
    kl_prior = _total([torch.zeros_like(reconstruction), *(_unscaled(*each) for each in drawn)])
    return Bound(kl - sum(total_log_prob(site) for site in observed), reconstruction, kl_prior)


def kl_of(q: Any, p: Any, value: Tensor) -> Tensor:
    """KL(q || p) in nats, of their batch shape; log q - log p at the draw where there is no closed form."""
    try:
        return torch.as_tensor(closed_form_kl(q, p), device=value.device)
    except NotImplementedError:
        return q.log_prob(value) - p.log_prob(value)


def log_joint(run: TracePair, table: Table) -> Tensor:
    """log p(x, z) of one scored run, every site by its scale; float64, (K, N) or (1, N).

    Args:
        run: of the pair.
        table: sums a log density over all plates but those of particles and data.
    """
    return _sum_of([table(site["log_prob"]) for site in run.joint.values()])


def log_guide(run: TracePair, table: Table) -> Tensor:
    """log q(z|x) of one scored run, every site by its scale; float64, (K, N) or (1, N)."""
    return _sum_of([_nothing(run, table), *(table(site["log_prob"]) for site in run.drawn.values())])


def log_density(run: TracePair, table: Table) -> Tensor:
    """log q(z|x) of one scored run without scales and with masks; float64, (K, N) or (1, N)."""
    parts = [scale_and_mask(site["unscaled_log_prob"], mask=site["mask"]) for site in run.drawn.values()]
    return _sum_of([_nothing(run, table), *map(table, parts)])


def tables(run: TracePair, table: Table) -> LogTerms:
    """log p(x|z), log p(z) and log q(z|x) of one scored run, every site by its scale.

    float64, (K, N) or (1, N) each.
    """
    nothing = _nothing(run, table)
    found = (run.observed, run.latent, run.drawn)
    return LogTerms(*(_sum_of([nothing, *(table(site["log_prob"]) for site in each.values())]) for each in found))


def _nothing(run: TracePair, table: Table) -> Tensor:
    """Zeros, for a pair without latents."""
    return torch.zeros_like(table(next(iter(run.joint.values()))["log_prob"].detach()))


def _sum_of(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(parts)).sum(0, dtype=torch.float64)


def terms(run: TracePair) -> Tensor:
    """Reconstruction and KL of one scored run, (2,): sums over data and particles."""
    observed, latent, drawn = (
        [_unscaled(site["unscaled_log_prob"], site) for site in found.values()]
        for found in (run.observed, run.latent, run.drawn)
    )
    kl = [torch.zeros_like(observed[0]), *(-term for term in latent), *drawn]
    return torch.stack([_total(observed), _total(kl)])


def mean_terms(runs: Sequence[TracePair], num_particles: int) -> Tensor:
    """Reconstruction and KL of scored runs, (2,): sums over data, means over all their particles."""
    return torch.stack([terms(run) for run in runs]).sum(0) / num_particles


def _unscaled(values: Tensor, site: Any) -> Tensor:
    """What a site adds to the terms: the sum of ``values``, of its batch shape, where it is not masked."""
    return scale_and_mask(values.detach(), mask=site["mask"]).sum(dtype=torch.float64)


def _total(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(parts)).sum(0)


def mean(runs: Sequence[Bound], num_particles: int) -> Bound:
    """The mean over particles, from runs that sum over theirs."""
    return Bound(*(_total(parts) / num_particles for parts in zip(*runs, strict=True)))
