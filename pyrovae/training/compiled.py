r"""The whole SVI step of a static pair as one function of tensors: traced once, compiled, replayed.

.. math:: \theta \leftarrow \mathrm{Adam}\big(\theta, \nabla_\theta \, \mathrm{loss}(\theta; x)\big)

The forward run through Pyro's handlers, the backward run, the update and the sums that are logged are tensor
operations; which ones is the same at each step, so the Python that says so need not run again. No value comes back
to the host inside an epoch, and no step looks at its gradients: one that is not finite leaves its mark on the sums or
on Adam's state for good, and an epoch that ends so is taken again from its start, looked at step by step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

from pyrovae.base.random import kept_rng
from pyrovae.pairs.graphs import Untraceable, captured, trace
from pyrovae.pairs.traces import Program
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.updates import Adam

_OURS: dict[type[ELBO], type[Objective]] = {Trace_ELBO: SampledELBO, TraceMeanField_ELBO: AnalyticKLELBO}
REPAID = 6_000  # steps after which compiling (10 to 14 s) has cost less than it saved (2 to 5 ms each), on two cores


class Snapshot:
    """Copies of tensors, and torch's random state on every device; as a context it is returned to at the end.

    Args:
        tensors: those that may change; memory that comes twice is kept once, and what no operation can write to (an
            expanded tensor) not at all.

    Example:
        >>> value = torch.ones(2)
        >>> with Snapshot([value]):
        ...     first = value.add_(torch.rand(2)).tolist()
        >>> value.tolist(), first == (value + torch.rand(2)).tolist()
        ([1.0, 1.0], True)
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list({_memory(tensor): tensor for tensor in tensors if _is_writable(tensor)}.values())
        self.values = [torch.empty_like(tensor) for tensor in self.tensors]
        self.now()

    def now(self) -> None:
        """Takes it anew."""
        _copy(self.tensors, self.values)
        self.noise = torch.get_rng_state()
        self.noise_on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def back(self) -> None:
        """Makes everything as it was, in place."""
        _copy(self.values, self.tensors)
        torch.set_rng_state(self.noise)
        if self.noise_on_cuda:
            torch.cuda.set_rng_state_all(self.noise_on_cuda)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.back()


class Step:
    """One step of SVI as a function of tensors: called, it changes parameters, optimizer state and sums in place.

    Args:
        model, guide: the pair as it is trained, handlers included.
        objective: whose bound is raised.
        update: over the pair's parameters.
        rate: factor on the learning rates, a scalar.
        sums: float64, (3,): reconstruction, KL and objective of the epoch, summed over data.
        scales: rows of a batch -> how many data a row stands for.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        objective: Objective,
        update: Adam,
        *,
        rate: Tensor,
        sums: Tensor,
        scales: Mapping[int, float],
    ) -> None:
        self.model, self.guide, self.objective, self.update = model, guide, objective, update
        self.rate, self.sums, self.scales = rate, sums, scales

    def __call__(self, *batch: Tensor) -> tuple[()]:
        bound = self.objective.bound(self.model, self.guide, *batch)
        gradients = torch.autograd.grad(bound.loss, self.update.parameters, allow_unused=True)
        with torch.no_grad():
            self.update(gradients, self.rate)
            self.sums.add_(self._terms(bound, len(batch[0])))
        return ()

    def terms(self, *batch: Tensor) -> Tensor:
        """What the programs, as they are now, would add to the sums, (3,)."""
        with torch.no_grad():
            return self._terms(self.objective.bound(self.model, self.guide, *batch), len(batch[0]))

    def _terms(self, bound: Bound, rows: int) -> Tensor:
        objective = -bound.loss.detach().double() / self.scales[rows]
        return torch.stack([bound.reconstruction, bound.kl_prior, objective])

    def state(self) -> list[Tensor]:
        """What a step changes beside parameters and buffers."""
        return [*self.update.state(), self.sums]


def without_synchronisation(objective: ELBO, plate: str | None) -> Objective:
    """The objective, or that of ours which equals Pyro's.

    Raises:
        Untraceable: for one that looks at values inside a step.
    """
    if isinstance(objective, Objective):
        return objective
    if type(objective) in _OURS:
        return _OURS[type(objective)](
            objective.num_particles, vectorize_particles=objective.vectorize_particles, plate=plate
        )
    ours = "SampledELBO, AnalyticKLELBO and IWAE do not"
    raise Untraceable(f"{type(objective).__name__} looks at values inside a step; {ours}")


class Replay:
    """A :class:`Step`, traced and compiled for batches of one size; on CUDA captured as one CUDA graph.

    Args:
        step: the step.
        changed: every tensor that it may change: they are put back after the runs that tracing needs.
        batch: an example of what it will be called with; a batch of another size is taken untraced.

    Raises:
        Untraceable: saying why, for a step that no graph can hold.
    """

    def __init__(self, step: Step, changed: Callable[[], Sequence[Tensor]], *batch: Tensor) -> None:
        self.step, self.changed, self.rows, cuda = step, changed, len(batch[0]), batch[0].is_cuda
        self.live: list[Tensor] = []
        with self.snapshot():
            self.graph = trace(step, *batch).compiled(*batch)
            self.run = captured(self.graph, *batch) if cuda else self.graph
        self.live = self.graph.live

    def __call__(self, *batch: Tensor) -> None:
        """Takes one step."""
        (self.run if len(batch[0]) == self.rows else self.step)(*batch)

    def snapshot(self) -> Snapshot:
        """All that a step changes, as it is now."""
        return Snapshot([*self.changed(), *self.step.state(), *self.live])

    def finite(self) -> bool:
        """Whether every loss and gradient was: the sum of the one and Adam's state keep what was not. Waits."""
        tensors = [self.step.sums[2], *self.step.update.squares]
        return not any(torch.stack([(tensor * 0).sum() for tensor in tensors]).tolist())  # NaN of NaN and infinity

    def check(self, *batch: Tensor) -> None:
        """Compares what a replay adds to the sums with what the programs add as they are now, at the same noise.

        Two runs of the programs must agree to the last bit: with the state of Python (a counter, a list) they would
        differ, and a graph holds but one moment of it. Give another batch than the one that was traced: a value that
        went by way of NumPy shows only there.

        Raises:
            Untraceable: saying what differs.
        """
        with kept_rng():
            torch.rand(1, device=batch[0].device)  # other noise than was traced
            expected, again = self._of_programs(batch), self._of_programs(batch)
            if not torch.equal(expected.nan_to_num(), again.nan_to_num()):
                raise Untraceable("the programs change from run to run: two runs with the same noise differ")
            got = self._of_graph(batch)
        if not torch.allclose(expected, got, rtol=self.graph.tolerance, atol=1e-3, equal_nan=True):
            raise Untraceable(
                f"the programs are not what was traced: they give an objective of {expected[-1] / len(batch[0]):g} "
                f"nats per datum, and {got[-1] / len(batch[0]):g} when replayed with the same noise"
            )

    def _of_programs(self, batch: Sequence[Tensor]) -> Tensor:
        with self.snapshot():
            return self.step.terms(*batch)

    def _of_graph(self, batch: Sequence[Tensor]) -> Tensor:
        with self.snapshot():
            self.step.sums.zero_()
            self.graph(*batch)  # on CUDA, before it was captured: so it draws as the programs do
            return self.step.sums.clone()


def _memory(tensor: Tensor) -> Any:
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _is_writable(tensor: Tensor) -> bool:
    return all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
