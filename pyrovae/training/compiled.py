r"""The whole SVI step of a static pair as one function of tensors: traced once, compiled, replayed.

.. math:: \theta \leftarrow \mathrm{Adam}\big(\theta, \nabla_\theta \, \mathrm{loss}(\theta; x)\big)

The forward run through Pyro's handlers, the backward run, the update and the sums that are logged are tensor
operations; which ones is the same at each step, so the Python that says so need not run again. No value comes back
to the host inside an epoch, and no step looks at its gradients: one that is not finite leaves its mark on the sums or
on Adam's state for good, and an epoch that ends so is taken again from its start, eagerly.
"""

from collections.abc import Callable
from dataclasses import InitVar, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyrovae.base import storage
from pyrovae.base.errors import InputError, NotCompiled, warn
from pyrovae.base.memory import explain_out_of_memory
from pyrovae.base.random import preserve_rng_state
from pyrovae.data.batches import Batch, Batches
from pyrovae.pairs.graphs.graph import captured, compiler_missing, first_run, trace
from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.training.adam import Adam, as_function
from pyrovae.training.checkpoint import Progress, Snapshot, weights
from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.step import NonFiniteLoss, Step

REPAID = 6_000  # steps after which compiling (10 to 14 s) has cost less than it saved (2 to 5 ms each), on two cores
AGAIN = 800  # steps in whose time another fit takes what is compiled already from the cache
FIRST_CHECKS = 3  # epochs before which the programs are checked; a check takes as long as some eight steps
STEPS_UNCHECKED = 4_000  # after which they are checked again
STEPS_UNSEEN = 100  # on the CPU, after which the sums are looked at: an epoch that went astray ends soon
_OURS: dict[type[ELBO], type[Objective]] = {Trace_ELBO: SampledELBO, TraceMeanField_ELBO: AnalyticKLELBO}
Take = Callable[[Batch], None]


def is_compiled(
    choice: bool | str, num_steps: int, device: torch.device, folder: str | Path | None, num_fits: int = 1
) -> bool:
    """Whether a step is compiled: as was said, as it was in the run that goes on, or as it is worth it.

    It is worth it where all of so many fits that take it are long enough together.
    """
    if isinstance(choice, bool):
        return choice
    if choice != "auto":
        raise InputError(f'compile is True, False or "auto", got {choice!r}')
    if folder is not None and storage.holds_run(folder):
        return bool(storage.read(folder)[0]["settings"].get("compile"))
    saving = num_steps * num_fits >= REPAID + AGAIN * (num_fits - 1)
    return device.type == "cuda" or (saving and compiler_missing(device) is None)


@dataclass(kw_only=True)
class CompiledSteps:
    """The steps of a fit as replays of one graph, and eager ones where no graph can stand for them."""

    step: Step  # as it is taken eagerly
    modules: list[nn.Module]  # of the programs
    batches: Batches
    settings: dict[str, Any]  # of the fit; "compile" becomes False where steps are eager
    may_be_eager: bool  # whether steps that no graph can hold are taken eagerly, with a warning
    interrupted: Callable[[], bool]  # whether Ctrl-C was pressed

    replay: "Replay | None" = None  # None where steps are eager
    checks: int = 0

    def compile(self) -> None:
        """Makes the step one graph, and checks it on other data than it was traced on.

        Raises:
            InputError: saying why not; where steps may be eager, a warning says it.
        """
        self._or_eager(self._trace)

    def epoch(self, take_steps: Callable[[Take, Callable[[], bool]], None], state: Progress) -> None:
        """Takes the steps of an epoch; again from its start and eagerly, where one of them was not finite or failed.

        Args:
            take_steps: takes the steps that are left by a function of batches, until another says to stop.
            state: where the fit stands, as ``take_steps`` moves it.
        """
        if self.replay:
            self._or_eager(partial(self._check_at_times, self.replay, state.epoch))
        if not self.replay:
            take_steps(self.step.take, self.interrupted)
            return
        replay, first = self.replay, state.step
        with explain_out_of_memory("a copy of the weights, compiled: use compile=False"):
            start = replay.begin()
        try:
            take_steps(replay.take, self.interrupted)
            replay.end()
        except (InputError, KeyboardInterrupt):  # bad data, or Ctrl-C for the second time
            start.restore()
            raise
        except Exception:  # what was not finite is named now; any other error comes again
            reached, state.step = state.step, first
            start.restore()
            take_steps(self.step.take, lambda: self.interrupted() and state.step >= reached)

    def final_check(self) -> None:
        """Checks a last time that the programs are as traced."""
        if self.replay and self.replay.unchecked:
            self._or_eager(partial(self._check, self.replay, 0))

    def _check_at_times(self, replay: "Replay", epoch: int) -> None:
        """The tensors of the programs each time, once in a while a run of them."""
        self.checks += 1
        if self.checks > FIRST_CHECKS and replay.unchecked < STEPS_UNCHECKED:
            replay.check_parts()
        else:
            self._check(replay, epoch)

    def _check(self, replay: "Replay", epoch: int) -> None:
        steps, replay.unchecked = replay.unchecked, 0
        try:
            replay.check_parts()
            replay.check(*self.batches.example(epoch))
        except Untraceable as error:
            since = f"; up to {steps} steps before this was seen were taken as traced" if steps else ""
            raise Untraceable(f"{error}{since}") from error

    def _trace(self) -> None:
        batches, other = self.batches.of_each_size(), self.batches.of_last_rows()
        objective = without_synchronisation(self.step.objective, self.settings["plate"])
        model, guide = self.step.model, self.step.guide
        with explain_out_of_memory(f"a batch of {len(other[0])}, compiled: lower batch_size"):
            for batch in batches:
                objective.prepare(model, guide, *batch)
            self.step.kept.training_mode(self.modules)
            with Snapshot(weights(self.modules).values()), torch.no_grad():
                objective.bound(model, guide, *batches[0])  # makes parameters that exist in training alone
            update = as_function(self.step.optim, [p for p in self.step.kept.trained() if p.requires_grad])
            replay = Replay(self.step, objective, update, self.modules, batches[0])
            replay.check(*other)
        self.replay = replay

    def _or_eager(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Untraceable as error:
            self.replay = None
            if self.interrupted():  # Ctrl-C went to the compiler too: nothing is wrong with the step
                return
            if not self.may_be_eager:
                raise InputError(f"the step cannot be compiled: {error}; use compile=False") from error
            warn(NotCompiled(f"the step is not compiled, and so slower: {error}"))
            self.settings["compile"] = False


def without_synchronisation(objective: ELBO, plate: str | None) -> Objective:
    """The objective, or that of ours which equals Pyro's.

    Raises:
        Untraceable: for one that looks at values inside a step.
    """
    if isinstance(objective, Objective):
        return objective
    if type(objective) not in _OURS:
        ours = "those in pyrovae.objectives do not"
        raise Untraceable(f"{type(objective).__name__} looks at values inside a step; {ours}")
    num_particles, vectorize = objective.num_particles, objective.vectorize_particles
    return _OURS[type(objective)](num_particles, vectorize_particles=vectorize, plate=plate)


@dataclass
class Replay:
    """One step, traced and compiled for batches of one size; on CUDA captured as one CUDA graph.

    Raises:
        Untraceable: saying why, for a step that no graph can hold.
    """

    step: Step  # for its programs, and its meter
    objective: Objective
    update: Adam
    modules: list[nn.Module]
    example: InitVar[Batch]  # of what it will be called with; a batch of another size is taken untraced

    def __post_init__(self, example: Batch) -> None:
        self.rate = torch.ones_like(self.step.meter.sums[0])  # factor on the learning rates, which each replay reads
        self.rows, self.live = len(example[0]), list[Tensor]()
        with self.snapshot():  # runs that tracing needs are undone
            self.graph = trace(self._take, *example).compiled(*example)
            self.run = captured(self.graph, *example) if example[0].is_cuda else self.graph
        self.live, self.parts = self.graph.live, self._parts()
        self.unchecked = 0  # steps since the last check
        self.start: Snapshot | None = None  # of the epoch

    def take(self, batch: Batch) -> None:
        """Takes one step."""
        (self.run if len(batch[0]) == self.rows else self._take)(*batch)
        self.unchecked += 1
        if self.unchecked % STEPS_UNSEEN == 0 and not batch[0].is_cuda:
            self.require_finite()

    def _take(self, *batch: Tensor) -> tuple[()]:
        loss = self._count(*batch)
        gradients = torch.autograd.grad(loss, self.update.parameters, allow_unused=True)
        with torch.no_grad():
            self.update(gradients, self.rate)
        return ()

    def _count(self, *batch: Tensor) -> Tensor:
        bound = self.objective.bound(self.step.model, self.step.guide, *batch)
        self.step.meter.add(bound, len(batch[0]))
        return bound.loss

    def snapshot(self) -> Snapshot:
        """All that a step changes, as it is now."""
        return Snapshot([*weights(self.modules).values(), *self.update.state(), self.step.meter.sums, *self.live])

    def begin(self) -> Snapshot:
        """Goes on where the eager step and its optimizer are; the state to come back to."""
        self.rate.fill_(self.step.rate)
        self.update.read_counters()
        self.start = self.start or self.snapshot()
        self.start.save()
        return self.start

    def end(self) -> None:
        """Lets these go on from here, if every step since was finite."""
        self.require_finite()
        self.update.write_counters()

    def require_finite(self) -> None:
        """Raises NonFiniteLoss unless every loss and gradient was finite: their sums keep what was not. Waits."""
        tensors = [self.step.meter.sums[2], *(slot.state["exp_avg_sq"] for slot in self.update.slots)]
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
        with preserve_rng_state():
            torch.rand(1, device=batch[0].device)  # other noise than was traced
            expected, again = (self._sums(torch.no_grad()(self._count), batch) for _ in range(2))
            if not torch.equal(expected.nan_to_num(), again.nan_to_num()):
                raise Untraceable("the programs change from run to run: two runs with the same noise differ")
            with first_run(self.graph):
                got = self._sums(self.graph, batch)  # on CUDA, before it was captured: so it draws as the programs do
        if not torch.allclose(expected, got, rtol=self.graph.tolerance, atol=1e-3, equal_nan=True):
            raise Untraceable(
                f"the programs are not what was traced: they give an objective of {expected[2] / len(batch[0]):g} "
                f"nats per datum, and {got[2] / len(batch[0]):g} when replayed with the same noise (drawn by "
                f"{self.graph.draws})"
            )

    def _sums(self, run: Callable[..., Any], batch: Batch) -> Tensor:
        """What a run adds to the sums, (4,); all that it changes is put back."""
        with self.snapshot():
            self.step.meter.sums.zero_()
            run(*batch)
            return self.step.meter.sums.clone()
