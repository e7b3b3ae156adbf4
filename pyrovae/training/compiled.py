r"""The whole SVI step of a static pair as one function of tensors: traced once, compiled, replayed.

.. math:: \theta \leftarrow \mathrm{Adam}\big(\theta, \nabla_\theta \, \mathrm{loss}(\theta; x)\big)

The forward run through Pyro's handlers, the backward run, the update and the sums that are logged are tensor
operations; which ones is the same at each step, so the Python that says so need not run again. No value comes back
to the host inside an epoch, and no step looks at its gradients: one that is not finite leaves its mark on the sums or
on Adam's state for good, and an epoch that ends so is taken again from its start, eagerly.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyrovae.base.errors import InputError, NotCompiled
from pyrovae.base.memory import memory_advice
from pyrovae.base.random import kept_rng
from pyrovae.data.batches import Batch, Batches
from pyrovae.pairs.graphs import Untraceable, captured, trace
from pyrovae.training.checkpoint import Progress, weights
from pyrovae.training.meter import Meter
from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.optimizers import Adam, as_function, unconstrained_parameters
from pyrovae.training.step import NonFiniteLoss, Step, rng_state, set_rng_state

REPAID = 6_000  # steps after which compiling (10 to 14 s) has cost less than it saved (2 to 5 ms each), on two cores

FIRST_CHECKS = 3  # epochs before which the programs are checked; a check takes as long as some eight steps

STEPS_UNCHECKED = 4_000  # after which they are checked again

STEPS_UNSEEN = 100  # on the CPU, after which the sums are looked at: an epoch that went astray ends soon

_OURS: dict[type[ELBO], type[Objective]] = {Trace_ELBO: SampledELBO, TraceMeanField_ELBO: AnalyticKLELBO}

Take = Callable[[Batch], None]


class CompiledSteps:
    """The steps of a fit as replays of one graph, and eager ones where no graph can stand for them.

    Args:
        step: the eager one.
        take: takes it and counts it by ``meter``.
        modules: of the programs.
        batches: of the fit.
        plate: name of the data plate, where several plates hold all sites.
        may_be_eager: whether steps that no graph can hold are taken eagerly, with a warning.
        interrupted: whether Ctrl-C was pressed.
    """

    def __init__(
        self,
        step: Step,
        take: Take,
        meter: Meter,
        modules: Sequence[nn.Module],
        batches: Batches,
        *,
        plate: str | None,
        may_be_eager: bool,
        interrupted: Callable[[], bool],
    ) -> None:
        self.step, self.take, self.meter, self.modules = step, take, meter, modules
        self.batches, self.plate = batches, plate
        self.may_be_eager, self.interrupted = may_be_eager, interrupted
        self.replay: Replay | None = None  # None where steps are eager
        self.start: Snapshot | None = None  # of the epoch
        self.checks = self.unchecked = 0

    def compile(self) -> bool:
        """Makes the step one graph, and checks it on other data than it was traced on.

        Returns:
            Whether it did; where steps may be eager it warns if not.

        Raises:
            InputError: saying why not.
        """
        return self._or_eager(self._trace)

    def epoch(self, take_steps: Callable[[Take, Callable[[], bool]], None], state: Progress) -> bool:
        """Takes the steps of an epoch; again from its start and eagerly, where one of them was not finite or failed.

        Args:
            take_steps: takes the steps that are left by a function of batches, until another says to stop.
            state: where the fit stands, as ``take_steps`` moves it.

        Returns:
            Whether steps are compiled.
        """
        compiled = self.replay is not None and self._or_eager(lambda: self._check_at_times(state.epoch))
        if self.replay is None:
            take_steps(self.take, self.interrupted)
            return compiled
        first, start = state.step, self._begin(self.replay)
        try:
            take_steps(self._take_replayed, self.interrupted)
            self.replay.end()
        except (InputError, KeyboardInterrupt):  # bad data, or Ctrl-C for the second time
            start.restore()
            raise
        except Exception:  # what was not finite is named now; any other error comes again
            reached, state.step = state.step, first
            start.restore()
            take_steps(self.take, lambda: self.interrupted() and state.step >= reached)
        return True

    def final_check(self) -> bool:
        """Checks a last time that the programs are as traced; whether steps were replayed."""
        return self.replay is not None and (not self.unchecked or self._or_eager(lambda: self._check(0)))

    def _begin(self, replay: "Replay") -> "Snapshot":
        """Makes a replay ready for an epoch; the state to come back to."""
        with memory_advice("a copy of the weights, compiled: use compile=False"):
            replay.begin()
            self.start = self.start or replay.snapshot()
            self.start.save()
        return self.start

    def _take_replayed(self, batch: Batch) -> None:
        assert self.replay is not None
        self.replay(*batch)
        self.unchecked += 1
        if self.unchecked % STEPS_UNSEEN == 0 and not batch[0].is_cuda:
            self.replay.require_finite()

    def _check_at_times(self, epoch: int) -> None:
        """The tensors of the programs each time, once in a while a run of them."""
        assert self.replay is not None
        self.checks += 1
        if self.checks > FIRST_CHECKS and self.unchecked < STEPS_UNCHECKED:
            self.replay.check_parts()
        else:
            self._check(epoch)

    def _check(self, epoch: int) -> None:
        assert self.replay is not None
        steps, self.unchecked = self.unchecked, 0
        try:
            self.replay.check_parts()
            self.replay.check(*self.batches.example(epoch))
        except Untraceable as error:
            since = f"; up to {steps} steps before this was seen were taken as traced" if steps else ""
            raise Untraceable(f"{error}{since}") from error

    def _trace(self) -> None:
        batches, other = self.batches.of_each_size(), self.batches.of_last_rows()
        objective, (model, guide) = without_synchronisation(self.step.objective, self.plate), self.step.pair
        with memory_advice(f"a batch of {len(other[0])}, compiled: lower batch_size"):
            for batch in batches:
                objective.prepare(model, guide, *batch)
            for module in self.modules:
                module.train()
            with Snapshot(weights(self.modules).values()), torch.no_grad():
                objective.bound(model, guide, *batches[0])  # makes parameters that exist in training alone
            update = as_function(self.step.optim, [p for p in unconstrained_parameters() if p.requires_grad])
            replay = Replay(self.step, objective, update, self.meter, self.modules, batches[0])
            replay.check(*other)
        self.replay = replay

    def _or_eager(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except Untraceable as error:
            self.replay = None
            if self.interrupted():  # Ctrl-C went to the compiler too: nothing is wrong with the step
                return True
            if not self.may_be_eager:
                raise InputError(f"the step cannot be compiled: {error}; use compile=False") from error
            warnings.warn(f"the step is not compiled, and so slower: {error}", NotCompiled, stacklevel=2)
            return False
        return True


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
    """One step, traced and compiled for batches of one size; on CUDA captured as one CUDA graph.

    Args:
        step: the eager one, for its programs.
        objective: whose bound is raised.
        update: over the pair's parameters.
        meter: what counts.
        modules: of the programs.
        batch: an example of what it will be called with; a batch of another size is taken untraced.

    Attributes:
        rate: factor on the learning rates, a scalar that each replay reads.

    Raises:
        Untraceable: saying why, for a step that no graph can hold.
    """

    def __init__(
        self,
        step: Step,
        objective: Objective,
        update: Adam,
        meter: Meter,
        modules: Sequence[nn.Module],
        batch: Batch,
    ) -> None:
        self.step, self.objective, self.update, self.meter, self.modules = step, objective, update, meter, modules
        self.rate = torch.ones_like(meter.sums[0])
        self.rows, self.live = len(batch[0]), list[Tensor]()
        with self.snapshot():  # runs that tracing needs are undone
            self.graph = trace(self._take, *batch).compiled(*batch)
            self.run = captured(self.graph, *batch) if batch[0].is_cuda else self.graph
        self.live, self.parts = self.graph.live, self._parts()

    def __call__(self, *batch: Tensor) -> None:
        """Takes one step."""
        (self.run if len(batch[0]) == self.rows else self._take)(*batch)

    def _take(self, *batch: Tensor) -> tuple[()]:
        loss = self._count(*batch)
        gradients = torch.autograd.grad(loss, self.update.parameters, allow_unused=True)
        with torch.no_grad():
            self.update(gradients, self.rate)
        return ()

    def _count(self, *batch: Tensor) -> Tensor:
        bound = self.objective.bound(*self.step.pair, *batch)
        self.meter.add(bound, len(batch[0]), self.step.scales[len(batch[0])])
        return bound.loss

    def snapshot(self) -> "Snapshot":
        """All that a step changes, as it is now."""
        own = [*self.update.state(), self.meter.sums, *self.live]
        return Snapshot([*weights(self.modules).values(), *own])

    def begin(self) -> None:
        """Goes on where the eager step and its optimizer are."""
        self.rate.fill_(self.step.rate)
        self.update.read_counters()

    def end(self) -> None:
        """Lets these go on from here, if every step since was finite."""
        self.require_finite()
        self.update.write_counters()

    def require_finite(self) -> None:
        """Raises NonFiniteLoss unless every loss and gradient was finite: their sums keep what was not. Waits."""
        tensors = [self.meter.sums, *self.update.squares]
        if any(torch.stack([(tensor * 0).sum() for tensor in tensors]).tolist()):  # NaN of NaN and infinity
            raise NonFiniteLoss("a loss or a gradient since the epoch began is not finite")

    def check_parts(self) -> None:
        """Raises Untraceable unless what the graph holds for good, tensors and settings, is what trains."""
        if self._parts() != self.parts:
            raise Untraceable("a parameter or a setting of the optimizer was replaced after the step was traced")

    def _parts(self) -> list[Any]:
        tensors = [(name, t.data_ptr(), t.requires_grad) for name, t in weights(self.modules).items()]
        settings = [{**group.settings, "params": len(group.slots)} for group in self.update.groups]
        return [tensors, [{k: v for k, v in one.items() if not isinstance(v, Tensor)} for one in settings]]

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
            expected, again = (self._sums(torch.no_grad()(self._count), batch) for _ in range(2))
            if not torch.equal(expected.nan_to_num(), again.nan_to_num()):
                raise Untraceable("the programs change from run to run: two runs with the same noise differ")
            got = self._sums(self.graph, batch)  # on CUDA, before it was captured: so it draws as the programs do
        if not torch.allclose(expected, got, rtol=self.graph.tolerance, atol=1e-3, equal_nan=True):
            raise Untraceable(
                f"the programs are not what was traced: they give an objective of {expected[2] / len(batch[0]):g} "
                f"nats per datum, and {got[2] / len(batch[0]):g} when replayed with the same noise"
            )

    def _sums(self, run: Callable[..., Any], batch: Batch) -> Tensor:
        """What a run adds to the sums, (4,); all that it changes is put back."""
        with self.snapshot():
            self.meter.sums.zero_()
            run(*batch)
            return self.meter.sums.clone()


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
        self.save()

    def save(self) -> None:
        """Takes it anew."""
        _copy(self.tensors, self.values)
        self.noise = rng_state()

    def restore(self) -> None:
        """Makes everything as it was, in place."""
        _copy(self.values, self.tensors)
        set_rng_state(self.noise)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.restore()


def _memory(tensor: Tensor) -> Any:
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _is_writable(tensor: Tensor) -> bool:
    return all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
