"""The steps of a fit, taken eagerly by Pyro's SVI or replayed from one traced step; what they sum up is the same."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, SVI
from torch import Tensor, nn

from pyrovae.base.errors import InputError, NotCompiled
from pyrovae.base.memory import memory_advice
from pyrovae.base.random import kept_rng
from pyrovae.pairs.context import evaluation_mode
from pyrovae.pairs.graphs import Untraceable
from pyrovae.pairs.handlers import filled_under_mask, tempered
from pyrovae.pairs.traces import Program, plain_traces
from pyrovae.training.checkpoint import weights
from pyrovae.training.compiled import Replay, Snapshot, Step, without_synchronisation
from pyrovae.training.meter import Meter, not_finite_sites, plate_scale
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.optimizers import Guarded, NotFiniteError

FIRST_LOOKS = 3  # epochs before which the programs are looked at; a look takes as long as some eight steps
STEPS_TO_LOOK = 100  # on the CPU, after which the sums are looked at: an epoch that went astray ends soon
STEPS_UNSEEN = 4_000  # after which they are looked at again


class Astray(Exception):
    """A replay was not finite, this one or one before it: go :meth:`~Stepper.back`, and take its epoch again."""


class Stepper:
    """What changes the weights, batch by batch, and counts what is logged.

    Args:
        model: of the pair.
        guide: of the pair.
        modules: theirs.
        objective: whose loss is lowered.
        optimizer: with what.
        plate: name of the data plate, where several plates hold all sites.
        warm: whether the KL is weighted, by :attr:`beta`.
        may_be_eager: whether steps that no graph can hold are taken eagerly, with a warning.
        device: where the data are.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        modules: Sequence[nn.Module],
        *,
        objective: ELBO,
        optimizer: Guarded,
        plate: str | None,
        warm: bool,
        may_be_eager: bool,
        device: torch.device,
    ) -> None:
        self.modules, self.objective, self.optimizer, self.plate = modules, objective, optimizer, plate
        self.beta = torch.ones((), device=device)
        self.rate = torch.ones((), device=device, dtype=torch.float64)  # on the learning rates, as a replay reads it
        self.model, self.guide = (
            tempered(program, self.beta) if warm else program for program in (filled_under_mask(model), guide)
        )
        self.svi = SVI(self.model, self.guide, optimizer, optimizer.watched(objective))
        self.scales: dict[int, float] = {}  # rows of a batch -> how many data a row stands for
        self.meter = Meter(objective, model, guide, self.scales, device)
        self.replay: Replay | None = None  # of the whole step, where it is compiled
        self.traced: list[Any] = []
        self.start: Snapshot | None = None  # of the epoch, where steps are replayed
        self.seen_at_start = 0  # data of the epoch, if it was resumed
        self.careful = False  # whether every replay is looked at
        self.looks, self.unseen, self.may_be_eager = 0, 0, may_be_eager
        self.interrupted: Callable[[], bool] = lambda: False

    def prime(self, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Lets the objective guess its plates now, so that no step draws numbers for it; clears old gradients.

        Args:
            batches: one of each size that will come.
        """
        for batch in batches:
            advice = memory_advice(f"a batch of {len(batch[0])}: lower batch_size")
            with kept_rng(), torch.no_grad(), evaluation_mode(self.modules), numerics_of_training(), advice:
                self.scales[len(batch[0])] = plate_scale(plain_traces(self.model, self.guide, batch)[0])
                self.svi.loss(self.model, self.guide, *batch)
        self.forget_gradients()

    def compile(self, batches: Sequence[tuple[Tensor, ...]], other: tuple[Tensor, ...]) -> bool:
        """Makes the step for batches like the first one graph.

        Args:
            batches: one of each size that will come.
            other: one like the first, of other data, on which the graph is checked.

        Returns:
            Whether it did; where steps :attr:`may_be_eager` it warns if not.

        Raises:
            InputError: saying why not.
        """
        return self._or_eager(lambda: self._trace(batches, other))

    def begin(self, rate: float, batch: Callable[[], tuple[Tensor, ...]]) -> bool:
        """Starts or resumes an epoch; once in a while sees that the programs are as traced.

        Args:
            rate: factor on the learning rates.
            batch: gives one of full size, to look at them with.

        Returns:
            Whether steps are replayed.
        """
        self.optimizer.rate = rate
        self.rate.fill_(rate)
        for module in self.modules:
            module.train()
        compiled = self.replay is not None and self._as_traced(batch)
        if self.replay is not None:
            with memory_advice("a copy of the weights, compiled: use compile=False"):
                self._remember(self.replay)
        self.careful = False
        return compiled

    def take(self, batch: tuple[Tensor, ...]) -> None:
        """Takes one step.

        Raises:
            FloatingPointError: naming the site, if its loss or a gradient is not finite; the parameters are as before.
            Astray: likewise, of a replay that was not looked at closely.
        """
        if self.replay is None:
            self._take_eagerly(batch)
        elif self.careful:
            self._take_carefully(batch)
        else:
            self._take_replayed(batch)

    @property
    def may_go_back(self) -> bool:
        """Whether replays since the start of the epoch were not looked at: an error may come of an earlier one."""
        return self.replay is not None and not self.careful

    def refuse_astray(self) -> None:
        """Raises :class:`Astray` if replays since the start of the epoch were; waits for the device."""
        if self.replay is not None and not self.replay.finite():
            raise Astray

    def back(self) -> None:
        """Makes everything as it was when the epoch began or was resumed; from here on each step is looked at."""
        assert self.start is not None
        self.start.back()
        self.meter.num_data, self.careful = self.seen_at_start, True

    def end(self, batch: Callable[[], tuple[Tensor, ...]]) -> bool:
        """Sees a last time that the programs are as traced, as :meth:`begin` does; whether steps were replayed."""
        return self.replay is not None and (not self.unseen or self._or_eager(lambda: self._look(batch())))

    def forget_gradients(self) -> None:
        """Frees what the last step left on the parameters."""
        for _, parameter in pyro.get_param_store().named_parameters():
            parameter.grad = None

    def _remember(self, replay: Replay) -> None:
        if self.start is None:
            self.start = replay.snapshot()
        else:
            self.start.now()
        self.seen_at_start = self.meter.num_data

    def _as_traced(self, batch: Callable[[], tuple[Tensor, ...]]) -> bool:
        """Whether the programs are those that were traced: their tensors each time, once in a while a run of them."""
        self.looks += 1
        if self.looks > FIRST_LOOKS and self.unseen < STEPS_UNSEEN:
            return self._or_eager(self._same)
        return self._or_eager(lambda: self._look(batch()))

    def _look(self, batch: tuple[Tensor, ...]) -> None:
        steps, self.unseen = self.unseen, 0
        try:
            self._same(batch)
        except Untraceable as error:
            since = f"; up to {steps} steps before this was seen were taken as traced" if steps else ""
            raise Untraceable(f"{error}{since}") from error

    def _take_eagerly(self, batch: tuple[Tensor, ...]) -> None:
        noise = Snapshot([])
        try:
            self.meter.add(self.svi.step(*batch), len(batch[0]), batch)
        except NotFiniteError as error:
            noise.back()
            raise FloatingPointError(self._diagnosis(batch, str(error))) from None

    def _take_replayed(self, batch: tuple[Tensor, ...]) -> None:
        assert self.replay is not None
        self.replay(*batch)
        self.meter.num_data += len(batch[0])
        self.meter.seen.clear()
        self.unseen += 1
        if self.unseen % STEPS_TO_LOOK == 0 and not batch[0].is_cuda and not math.isfinite(self.meter.sums[2].item()):
            raise Astray

    def _take_carefully(self, batch: tuple[Tensor, ...]) -> None:
        assert self.replay is not None
        before = self.replay.snapshot()
        try:
            self._take_replayed(batch)
            self.refuse_astray()
        except Astray:
            before.back()
            raise FloatingPointError(self._diagnosis(batch)) from None

    def _diagnosis(self, batch: tuple[Tensor, ...], otherwise: str = "") -> str:
        """What is not finite on a batch: the site if one can be found, else as given, else the parameter."""
        with kept_rng():
            bad = not_finite_sites(self.model, self.guide, batch)
        cause = f"the log density of site '{bad[0]}' is not finite" if bad else otherwise or self._bad_gradient(batch)
        return f"{cause}; the step was not taken. Lower the learning rate, or look at the data and scales there"

    def _bad_gradient(self, batch: tuple[Tensor, ...]) -> str:
        named = {id(p): (name, p) for name, p in pyro.get_param_store().named_parameters() if p.requires_grad}
        loss = self.objective.differentiable_loss(self.model, self.guide, *batch)  # type: ignore[attr-defined]
        gradients = torch.autograd.grad(loss, [p for _, p in named.values()], allow_unused=True)
        found = zip(named.values(), gradients, strict=True)
        bad = [name.replace("$$$", ".") for (name, _), g in found if g is not None and not g.isfinite().all()]
        return str(NotFiniteError(bad)) if bad else "a loss or gradient was not finite"

    def _trace(self, batches: Sequence[tuple[Tensor, ...]], other: tuple[Tensor, ...]) -> None:
        objective = without_synchronisation(self.objective, self.plate)
        with memory_advice(f"a batch of {len(other[0])}, compiled: lower batch_size"):
            for batch in batches:
                objective.prepare(self.model, self.guide, *batch)
            self._run_once_in_training(objective, batches[0])
            every = (p for _, p in pyro.get_param_store().named_parameters())
            parameters = {id(p): p for p in every if p.requires_grad}  # one may have two names
            update = self.optimizer.adam(list(parameters.values()))
            tensors = {"rate": self.rate, "sums": self.meter.sums}
            step = Step(self.model, self.guide, objective, update, scales=self.scales, **tensors)
            replay = Replay(step, lambda: list(weights(self.modules).values()), *batches[0])
            replay.check(*other)
        self.replay, self.traced, self.start = replay, self._made_of(step), None

    def _run_once_in_training(self, objective: Objective, batch: tuple[Tensor, ...]) -> None:
        """Makes parameters that exist in training alone, and leaves running statistics as they were."""
        for module in self.modules:
            module.train()
        with Snapshot(weights(self.modules).values()), torch.no_grad():
            objective.bound(self.model, self.guide, *batch)

    def _same(self, batch: tuple[Tensor, ...] | None = None) -> None:
        """Demands that what was traced is what trains: tensors, the optimizer's settings, the programs on a batch."""
        assert self.replay is not None
        if self._made_of(self.replay.step) != self.traced:
            raise Untraceable("a parameter or a setting of the optimizer was replaced after the step was traced")
        if batch is not None:
            self.replay.check(*batch)

    def _made_of(self, step: Step) -> list[Any]:
        """What a graph holds for good, though Python could replace it."""
        tensors = [(name, t.data_ptr(), t.requires_grad) for name, t in weights(self.modules).items()]
        settings = [{**group.settings, "params": len(group.slots)} for group in step.update.groups]
        return [tensors, [{k: v for k, v in one.items() if not isinstance(v, Tensor)} for one in settings]]

    def _or_eager(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except Untraceable as error:
            self.replay = None
            self.optimizer.separate()
            if self.interrupted():  # Ctrl-C went to the compiler too: nothing is wrong with the step
                return True
            if not self.may_be_eager:
                raise InputError(f"the step cannot be compiled: {error}; use compile=False") from error
            warnings.warn(f"the step is not compiled, and so slower: {error}", NotCompiled, stacklevel=2)
            return False
        return True


@contextmanager
def numerics_of_training() -> Iterator[None]:
    """Pyro's checks off for the hot loop: values were checked before it, gradients are checked in it."""
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encountered NaN")
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        yield
