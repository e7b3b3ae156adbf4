"""The true ELBO of each step, read off the runs that the objective made anyway: nats per datum, never tempered."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.infer import ELBO, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor

from pyrovae.base.random import seed_everything
from pyrovae.data.split import Split
from pyrovae.pairs.context import quiet_numerics
from pyrovae.pairs.supports import layers, may_miss
from pyrovae.pairs.traces import Program, TracePair, plain_traces, site_log_prob
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound


class Meter:
    """Sums over the data of an epoch, on the device that a fit makes its tensors on.

    Attributes:
        sums: float64, (4,): reconstruction, KL and objective, in nats, and the number of data.
        scales: rows of a batch -> how many data a row stands for in the loss.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)
        self.scales: dict[int, float] = {}

    def add(self, bound: Bound, num_data: int) -> None:
        """Counts one step on so many rows."""
        objective = -bound.loss.detach().double() / self.scales[num_data]
        count = torch.full_like(objective, num_data)
        self.sums.add_(torch.stack([bound.reconstruction, bound.kl_prior, objective, count]))

    def means(self) -> dict[str, float]:
        """Means over the data seen in this epoch, in nats per datum; waits for the device."""
        *sums, num_data = self.sums.tolist()
        reconstruction, kl, objective = (total / num_data if num_data else math.nan for total in sums)
        return _account(reconstruction, kl) | {"objective": objective}


# ------------------------------------------------------------------------------------ objectives of Pyro's own

_READABLE = (Trace_ELBO, TraceMeanField_ELBO, RenyiELBO, TraceGraph_ELBO)


class Recorded:
    """An objective of Pyro's own, and the true ELBO of each run that it makes.

    Its traces are kept on their way by a copy of it, at no cost. Where they say no plain ELBO (with enumerated sites,
    or in a class of a user's own), each step costs one more run of the pair.

    Args:
        objective: left as it is.
    """

    def __init__(self, objective: ELBO) -> None:
        self.objective: Any = objective
        self.readable, self.seen = type(objective) in _READABLE, list[Any]()
        if self.readable:
            self.objective = copy.copy(objective)
            self.make, self.objective._get_trace = self.objective._get_trace, self._trace

    def bound_and_grads(self, model: Program, guide: Program, *batch: Tensor) -> Bound:
        """The loss, its gradients added to those of the parameters, and the terms of the ELBO."""
        self.seen.clear()
        loss = self.objective.loss_and_grads(model, guide, *batch)
        if self.readable:
            terms = (
                torch.stack([bounds.terms(TracePair(*traces)) for traces in self.seen]).sum(0)
                / self.objective.num_particles
            )
        else:
            terms = _sampled_terms(model, guide, batch)
        self.seen.clear()
        return Bound(terms.new_tensor(loss), *terms)

    def _trace(self, *args: Any) -> Any:
        self.seen.append(self.make(*args))
        return self.seen[-1]


# ------------------------------------------------------------------------------------------- runs of the pair alone


def validation_terms(model: Program, guide: Program, data: Split, batch_size: int) -> dict[str, float]:
    """ELBO, reconstruction and KL of a pair on data, from one draw a datum, the same draws each time."""
    sums = torch.zeros(2, dtype=torch.float64, device="cpu")
    for start in range(0, len(data), batch_size):
        seed_everything("validation", 0, start)
        batch = data.batch(slice(start, min(start + batch_size, len(data))))
        sums += _sampled_terms(model, guide, batch).cpu()
    return _account(*(sums / len(data)).tolist())


def _account(reconstruction: float, kl: float) -> dict[str, float]:
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl_prior": kl}


def _sampled_terms(model: Program, guide: Program, batch: Sequence[Tensor]) -> Tensor:
    """Reconstruction and KL of one run, summed over data, (2,)."""
    with quiet_numerics():
        traces = plain_traces(model, guide, batch)
        for trace in traces:
            trace.compute_log_prob()
        return bounds.terms(traces)


def plate_scale(model: Program, guide: Program, batch: Sequence[Tensor]) -> float:
    """How many data a row stands for: the size of plates that rescale a batch, over that of the batch."""
    site = next(iter(plain_traces(model, guide, batch).observed.values()))
    return math.prod(frame.full_size / frame.size for frame in site["cond_indep_stack"])


def not_finite_sites(model: Program, guide: Program, batch: Sequence[Tensor]) -> dict[str, str | None]:
    """Sites whose log density is NaN or infinite when the pair is run now, the guide's first.

    Returns:
        Each with the family that has no density where the data lie, if its latents made them impossible.
    """
    with quiet_numerics():
        run = plain_traces(model, guide, batch)
        found = {}
        for site in [*run.drawn.values(), *run.joint.values()]:
            log_prob = site_log_prob(site)
            if not log_prob.sum().isfinite():
                impossible = site["is_observed"] and may_miss(site["fn"]) and bool((log_prob == -math.inf).any())
                found[site["name"]] = type(layers(site["fn"])[-1]).__name__ if impossible else None
        return found
