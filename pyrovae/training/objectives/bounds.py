"""What one run of a pair is worth as a training bound: its loss, with its gradient, and the terms of its ELBO."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.util import MultiFrameTensor
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.pairs.particles import tiled_args
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.terms import to_rows, to_table
from pyrovae.pairs.traces import Program, plain_traces, sites
from pyrovae.training.objectives.scales import differs_by_datum, scale_of_plate


class Plan(NamedTuple):
    """How a pair is run for K particles of a batch."""

    structure: Structure
    way: str  # "vectorized", "tiled" or "looped"
    num_particles: int
    num_data: int
    plate_scale: float  # how many data a row stands for

    def traces(self, model: Program, guide: Program, args: Sequence[Any]) -> list[tuple[Trace, Trace]]:
        """Runs of the pair, (model trace, guide trace): K if looped, else one for all particles."""
        if self.way == "vectorized":
            model, guide = self._of_particles(model), self._of_particles(guide)
        if self.way == "tiled":
            args = tiled_args(args, self.num_particles)
        runs = [plain_traces(model, guide, args) for _ in range(self.num_particles if self.way == "looped" else 1)]
        return [(self._rescaled(model_trace), self._rescaled(guide_trace)) for model_trace, guide_trace in runs]

    def table(self, log_prob: Tensor) -> Tensor:
        """Sums over all plates but those of particles and data: (K, N), or (1, N) of one run in a loop."""
        if self.way == "vectorized":
            return to_table(log_prob, self.structure, self.num_particles, self.num_data)
        return to_rows(log_prob, self.structure.dim).reshape(-1, self.num_data)

    def scale_of_data(self, model_trace: Trace) -> float | Tensor:
        """The scale of the observed sites: a number, or (N,)."""
        site = next(site for site in sites(model_trace).values() if site["is_observed"])
        if not differs_by_datum(site["scale"]):
            return site["scale"]
        ones = torch.ones_like(site["log_prob"])
        return (self.table(ones * site["scale"]) / self.table(ones))[0]

    def _of_particles(self, program: Program) -> Program:
        return pyro.plate("_particles", self.num_particles, dim=-self.structure.depth - 1)(program)

    def _rescaled(self, trace: Trace) -> Trace:
        """Each of K copies of a row stands for as many data as the row did."""
        for site in sites(trace).values():
            found = scale_of_plate(site, self.structure)
            if found != self.plate_scale:
                site["scale"] = site["scale"] * (self.plate_scale / found)
        return trace


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


def sampled(model_trace: Trace, guide_trace: Trace) -> Bound:
    """Sums over data and particles of one run; the gradient is that of the surrogate."""
    model_trace.compute_log_prob()
    guide_trace.compute_score_parts()
    model_sites, guide_sites = sites(model_trace), sites(guide_trace)
    log_joint = sum(site["log_prob_sum"] for site in model_sites.values())
    value = log_joint - sum(site["log_prob_sum"] for site in guide_sites.values())
    entropies = [site["score_parts"].entropy_term for site in guide_sites.values()]
    surrogate = log_joint - sum(term.sum() for term in entropies if not is_identically_zero(term))
    surrogate = surrogate + _score_function(model_sites, guide_sites)
    return Bound((surrogate.detach() - surrogate) - value.detach(), *terms(model_trace, guide_trace))


def _score_function(model_sites: dict[str, Any], guide_sites: dict[str, Any]) -> Tensor | float:
    """The score of each draw without gradients, times log p - log q held fixed, summed to the plates of the draw."""
    stuck = [site for site in guide_sites.values() if not is_identically_zero(site["score_parts"].score_function)]
    if not stuck:
        return 0.0
    log_ratio = MultiFrameTensor()
    for name, site in model_sites.items():
        log_guide = 0.0 if site["is_observed"] else guide_sites[name]["log_prob"]
        log_ratio.add((site["cond_indep_stack"], (site["log_prob"] - log_guide).detach()))
    return sum((log_ratio.sum_to(s["cond_indep_stack"]) * s["score_parts"].score_function).sum() for s in stuck)


def closed_form(model_trace: Trace, guide_trace: Trace) -> Bound:
    """Sums over data and particles of one run."""
    model_trace.compute_log_prob(lambda name, site: site["is_observed"])
    observed = [site for site in sites(model_trace).values() if site["is_observed"]]
    drawn = [(_kl(site, model_trace.nodes[name]), site) for name, site in sites(guide_trace).items()]
    kl = sum(scale_and_mask(each, site["scale"], site["mask"]).sum() for each, site in drawn)
    reconstruction = _total([_unscaled(site["unscaled_log_prob"], site) for site in observed])
    kl_prior = _total([torch.zeros_like(reconstruction), *(_unscaled(*each) for each in drawn)])
    return Bound(kl - sum(site["log_prob_sum"] for site in observed), reconstruction, kl_prior)


def _kl(guide_site: Any, model_site: Any) -> Tensor:
    """KL(q || p) of a site, in its batch shape; log q - log p at the draw where there is no closed form."""
    q, p, value = guide_site["fn"], model_site["fn"], guide_site["value"]
    try:
        return torch.as_tensor(kl_divergence(q, p), device=value.device)
    except NotImplementedError:
        return q.log_prob(value) - p.log_prob(value)


def log_weight(plan: Plan, model_trace: Trace, guide_trace: Trace) -> Tensor:
    """log p(x, z) - log q(z|x) of one run, every site by its scale; float64, (K, N) or (1, N)."""
    log_joint = [plan.table(site["log_prob"]) for site in sites(model_trace).values()]
    log_guide = [-plan.table(site["log_prob"]) for site in sites(guide_trace).values()]
    return torch.stack([*log_joint, *log_guide]).sum(0, dtype=torch.float64)


def terms(model_trace: Trace, guide_trace: Trace) -> Tensor:
    """Reconstruction and KL of one run, (2,): sums over data and particles."""
    model_sites, drawn = sites(model_trace).values(), sites(guide_trace).values()
    observed = [_unscaled(site["unscaled_log_prob"], site) for site in model_sites if site["is_observed"]]
    latent = [-_unscaled(site["unscaled_log_prob"], site) for site in model_sites if not site["is_observed"]]
    guide = [_unscaled(site["unscaled_log_prob"], site) for site in drawn]
    return torch.stack([_total(observed), _total([torch.zeros_like(observed[0]), *latent, *guide])])


def _unscaled(values: Tensor, site: Any) -> Tensor:
    """What a site adds to the terms: the sum of ``values``, of its batch shape, where it is not masked."""
    return scale_and_mask(values.detach(), mask=site["mask"]).sum(dtype=torch.float64)


def _total(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(parts)).sum(0)


def mean(runs: Sequence[Bound], num_particles: int) -> Bound:
    """The mean over particles, from runs that sum over theirs."""
    return Bound(*(_total(parts) / num_particles for parts in zip(*runs, strict=True)))
