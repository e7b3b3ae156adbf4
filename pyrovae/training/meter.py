"""The true ELBO of each step, read off the traces that the objective made anyway: nats per datum, never tempered."""

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.base.random import seed_everything
from pyrovae.data.split import Split
from pyrovae.pairs.context import quiet_numerics
from pyrovae.pairs.traces import Program, TracePair, plain_traces, sites
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.objective import Objective

NAMES = ("elbo", "reconstruction", "kl_prior", "objective")
_READABLE = (Trace_ELBO, TraceMeanField_ELBO, RenyiELBO, TraceGraph_ELBO)


class Meter:
    """Sums reconstruction, KL and objective over the data of an epoch, on the device, float64.

    While it is entered, it looks at every bound (or, of Pyro's own objectives, at every trace) that ``objective``
    makes. A Pyro objective whose traces say no plain ELBO (with enumerated sites, say) costs one more run of the pair
    for each step.

    Args:
        objective: what is optimized.
        model: of the pair without the handlers of training.
        guide: likewise.
        scales: rows of a batch -> how many data a row stands for.
        device: where the data are.
    """

    def __init__(
        self, objective: ELBO, model: Program, guide: Program, scales: Mapping[int, float], device: torch.device
    ) -> None:
        self.objective, self.model, self.guide, self.scales = objective, model, guide, scales
        self.readable = type(objective) in _READABLE
        self.seen: list[Any] = []
        self.num_data = 0
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def __enter__(self) -> "Meter":
        name = self._looked_at
        self.before = vars(self.objective).get(name)  # the look of a fit around this one
        make = getattr(self.objective, name)

        def remembering(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(make(*args, **kwargs))
            return self.seen[-1]

        setattr(self.objective, name, remembering)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        delattr(self.objective, self._looked_at)  # the class's own again
        if self.before is not None:
            setattr(self.objective, self._looked_at, self.before)
        self.seen.clear()

    @property
    def _looked_at(self) -> str:
        return "bound" if isinstance(self.objective, Objective) else "_get_trace"

    def reset(self) -> None:
        """Starts an epoch."""
        self.num_data = 0
        self.sums.zero_()

    def add(self, loss: float, num_data: int, batch: Sequence[Tensor]) -> None:
        """Counts one step: its loss as Pyro returns it, and the terms of what was seen."""
        self.sums[:2] += self._terms(batch)
        self.sums[2] -= loss / self.scales[num_data]
        self.num_data += num_data
        self.seen.clear()

    def _terms(self, batch: Sequence[Tensor]) -> Tensor:
        """Reconstruction and KL of the step, (2,)."""
        if isinstance(self.objective, Objective):
            return torch.stack([self.seen[-1].reconstruction, self.seen[-1].kl_prior])
        if not self.readable:
            with quiet_numerics():
                self.seen = [plain_traces(self.model, self.guide, batch)]
                for trace in self.seen[0]:
                    trace.compute_log_prob()
        particles = self.objective.num_particles if self.readable else 1
        return torch.stack([bounds.terms(TracePair(*traces)) for traces in self.seen]).sum(0) / particles

    def means(self) -> dict[str, float]:
        """Means over the data seen in this epoch, in nats per datum; waits for the device."""
        if not self.num_data:
            return dict.fromkeys(NAMES, math.nan)
        reconstruction, kl, objective = (self.sums / self.num_data).tolist()
        return dict(zip(NAMES, (reconstruction - kl, reconstruction, kl, objective), strict=True))

    def get_state(self) -> list[float]:
        """The sums as plain numbers, for a checkpoint."""
        return [*self.sums.tolist(), float(self.num_data)]

    def set_state(self, state: Sequence[float]) -> None:
        """Restores :meth:`get_state`."""
        self.reset()
        if state:
            self.sums.copy_(torch.tensor(state[:3], dtype=torch.float64))
            self.num_data = int(state[3])


def not_finite_sites(model: Program, guide: Program, batch: Sequence[Tensor]) -> list[str]:
    """Sites whose log density is NaN or infinite when the pair is run now, the guide's first."""
    with pyro.validation_enabled(False):
        traces = plain_traces(model, guide, batch)
    for trace in traces:
        trace.compute_log_prob()
    return [
        name for trace in reversed(traces) for name, site in sites(trace).items() if not site["log_prob_sum"].isfinite()
    ]


def plate_scale(model_trace: Trace) -> float:
    """How many data a row stands for: the size of plates that rescale a batch, over that of the batch."""
    site = next(site for site in sites(model_trace).values() if site["is_observed"])
    scale = 1.0
    for frame in site["cond_indep_stack"]:
        scale *= frame.full_size / frame.size
    return scale


def validation_terms(model: Program, guide: Program, data: Split, batch_size: int) -> dict[str, float]:
    """ELBO, reconstruction and KL of a pair on data, from one draw a datum, the same draws each time."""
    sums = torch.zeros(2, dtype=torch.float64, device="cpu")
    with quiet_numerics():
        for start in range(0, len(data), batch_size):
            seed_everything("validation", 0, start)
            batch = data.batch(slice(start, min(start + batch_size, len(data))))
            traces = plain_traces(model, guide, batch)
            for trace in traces:
                trace.compute_log_prob()
            sums += bounds.terms(traces).cpu()
    reconstruction, kl = (sums / len(data)).tolist()
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl_prior": kl}
