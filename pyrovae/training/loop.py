"""The loop of a fit: steps, epochs, early stopping, checkpoints and the way out of it."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae.base import storage
from pyrovae.base.errors import InputError
from pyrovae.base.memory import memory_advice
from pyrovae.base.progress import bar
from pyrovae.base.random import kept_rng, seed_everything
from pyrovae.data.batches import Batch, Batches
from pyrovae.data.split import Split
from pyrovae.pairs.context import Scoped, evaluation_mode
from pyrovae.pairs.handlers import in_precision
from pyrovae.pairs.traces import Program
from pyrovae.training.checkpoint import Progress, restore, save, set_weights, weights
from pyrovae.training.checks import check_objective, look_at_data
from pyrovae.training.meter import validation_terms
from pyrovae.training.optimizers import Guarded
from pyrovae.training.step import Stepper, numerics_of_training

CHECKPOINT_SECONDS = 5.0
Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Fit:
    """A fitted pair: the same programs, entering their own parameter scope by themselves.

    ``history`` holds one row for each epoch: ``epoch``, ``elbo``, ``reconstruction`` and ``kl_prior`` of the
    training data and ``valid_...`` of the validation data, all nats per datum and never tempered; ``objective``,
    what was optimized; ``beta``, ``rate_factor`` (on the learning rate) and ``seconds``.
    """

    model: Program
    guide: Program
    history: list[dict[str, float]]
    interrupted: bool = False
    best_epoch: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {}
        return f"Fit({len(self.history)} epochs, ELBO {last.get('elbo', float('nan')):.3f} nats per datum)"


@dataclass(kw_only=True)
class Loop:
    """One fit: what is fixed for its length, and the :class:`Progress` that a checkpoint holds."""

    model: Program
    guide: Program
    scope: Any
    modules: list[nn.Module]
    train: Split
    valid: Split | None
    objective: ELBO
    optimizer: Guarded
    schedule: Schedule
    settings: dict[str, Any]
    folder: Path | None
    record: dict[str, Any]
    callback: Callable[[int, Fit], Any] | None
    may_be_eager: bool  # whether a step that cannot be compiled is taken eagerly

    def __post_init__(self) -> None:
        self.epochs, self.batch_size, self.seed = (self.settings[name] for name in ("epochs", "batch_size", "seed"))
        self.batches = Batches(self.train, self.batch_size, seed=self.seed)
        self.steps, self.device = self.batches.steps, self.batches.device
        precision = self.settings["precision"]
        self.pair = in_precision(self.model, precision), in_precision(self.guide, precision)
        self.stepper = Stepper(
            *self.pair,
            self.modules,
            objective=self.objective,
            optimizer=self.optimizer,
            plate=self.settings["plate"],
            warm=self.settings["kl_warmup"] > 0,
            may_be_eager=self.may_be_eager,
            device=self.device,
        )
        self.meter = self.stepper.meter
        self.state = Progress()
        self.saved_at = self.shown_at = time.monotonic()

    def run(self, *, resume: bool, visible: bool) -> Fit:
        """Trains to the end, to the end of patience or to Ctrl-C, whichever comes first."""
        seed_everything("fit", self.seed)
        splits = {"validation data": self.valid, "training data": self.train}
        structure = look_at_data(
            *self.pair,
            self.modules,
            {name: split for name, split in splits.items() if split is not None},
            batch_size=self.batch_size,
            plate=self.settings["plate"],
        )
        check_objective(self.objective, structure)
        batches = self.batches.of_each_size()
        self.stepper.prime(batches)
        with numerics_of_training(), _interruptible() as interrupted, self.meter:
            resumed = self.folder is not None and resume and storage.holds_run(self.folder)
            if resumed:
                self._restore()
            done, total = self.state.epoch * self.steps + self.state.step, self.epochs * self.steps
            with bar(shown=visible, total=total, initial=done, unit="step", dynamic_ncols=True) as shown:
                self.stepper.interrupted = interrupted
                self._compile(batches, shown)
                if not resumed:
                    self._save()
                try:
                    while self.state.epoch < self.epochs and not self.state.stopped and not interrupted():
                        self._epoch(shown, interrupted)
                finally:
                    self.stepper.forget_gradients()
            self.state.interrupted = interrupted()
            self._save()
            self._take_best()
        return self._fit()

    def _compile(self, batches: list[Batch], shown: Any) -> None:
        if self.settings["compile"]:
            shown.set_description("compiling the step")
            self.settings["compile"] = self.stepper.compile(batches, self.batches.of_last_rows())

    def _epoch(self, shown: Any, interrupted: Callable[[], bool]) -> None:
        state, started = self.state, time.monotonic()
        if state.step == 0:
            self.meter.reset()
            seed_everything("fit", self.seed, state.epoch)
        rate = self.schedule(state.epoch / self.epochs)
        self.settings["compile"] = self.stepper.begin(rate, lambda: self.batches.example(state.epoch))
        first = state.step
        if self._goes_astray(shown, interrupted):
            # Again, step by step: what was not finite is named, and any other error comes again.
            reached, state.step = state.step, first
            shown.update(first - reached)
            self.stepper.back()
            self._steps(shown, lambda: interrupted() and state.step >= reached)
        state.seconds += time.monotonic() - started
        if state.step == self.steps:
            self._end_epoch()

    def _goes_astray(self, shown: Any, interrupted: Callable[[], bool]) -> bool:
        """Takes the steps of an epoch; whether replays among them were not finite, or something failed after them."""
        try:
            self._steps(shown, interrupted)
            self.stepper.refuse_astray()
        except InputError:  # of a file or of memory: what the weights are has no part in it
            raise
        except Exception:
            if not self.stepper.may_go_back:
                raise
            return True
        except KeyboardInterrupt:  # the second one
            if self.stepper.may_go_back:
                self.stepper.back()
            raise
        return False

    def _steps(self, shown: Any, interrupted: Callable[[], bool]) -> None:
        state, advice = self.state, memory_advice(f"a batch of {self.batch_size}: lower batch_size")
        with advice, self.batches.epoch(state.epoch, state.step) as coming:
            while state.step < self.steps and not interrupted():
                self._step(next(coming))
                state.step += 1
                shown.update()
                self._show(shown)

    def _step(self, batch: tuple[Tensor, ...]) -> None:
        state = self.state
        if self.settings["kl_warmup"]:
            share = (state.epoch * self.steps + state.step + 1) / (self.settings["kl_warmup"] * self.steps)
            self.stepper.beta.fill_(min(1.0, share))
        try:
            self.stepper.take(batch)
        except FloatingPointError as error:
            raise FloatingPointError(f"epoch {state.epoch + 1}, step {state.step + 1}: {error}") from None

    def _end_epoch(self) -> None:
        state = self.state
        row = {"epoch": state.epoch + 1, **self.meter.means()}
        if self.valid is not None:
            with evaluation_mode(self.modules), kept_rng():
                terms = validation_terms(*self.pair, self.valid, self.batch_size)
            row.update({f"valid_{name}": value for name, value in terms.items()})
        row.update(beta=self.stepper.beta.item(), rate_factor=self.optimizer.rate, seconds=round(state.seconds, 3))
        state.history.append(row)
        state.epoch, state.step, state.seconds = state.epoch + 1, 0, 0.0
        self._watch(row)
        if state.stopped or state.epoch == self.epochs:
            self.settings["compile"] = self.stepper.end(lambda: self.batches.example(0))
        if self.callback is not None:
            self.callback(state.epoch, self._fit())
        if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
            self._save()

    def _watch(self, row: dict[str, float]) -> None:
        """Early stopping: remembers the best validation ELBO after the warm-up."""
        state, patience = self.state, self.settings["patience"]
        if patience is None or state.epoch < self.settings["kl_warmup"]:
            return
        if not math.isfinite(row["valid_elbo"]):
            raise FloatingPointError(
                f"epoch {state.epoch}: the validation ELBO is {row['valid_elbo']}; look at the scales"
            )
        if state.best_epoch is None or state.best_elbo is None or row["valid_elbo"] > state.best_elbo:
            state.best_elbo, state.best_epoch = row["valid_elbo"], state.epoch
            state.best_weights = {name: value.detach().clone() for name, value in weights(self.modules).items()}
        state.stopped = state.epoch - state.best_epoch >= patience

    def _take_best(self) -> None:
        if self.state.best_weights:
            set_weights(self.modules, self.state.best_weights)

    def _save(self) -> None:
        if self.folder is None:
            return
        self.state.sums = self.meter.get_state()
        save(self.folder, self.state, self.settings, self.record, self.modules, self.optimizer, self.device)
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        assert self.folder is not None
        self.state = restore(self.folder, self.settings, self.modules, self.optimizer, self.device)
        self.meter.set_state(self.state.sums)

    def _show(self, shown: Any) -> None:
        now = time.monotonic()
        if shown.disable or now - self.shown_at < 0.5:
            return
        self.shown_at = now
        means = self.meter.means()
        shown.set_description(f"epoch {self.state.epoch + 1}/{self.epochs}", refresh=False)
        shown.set_postfix_str(
            f"ELBO {means['elbo']:.2f} = {means['reconstruction']:.2f} - {means['kl_prior']:.2f} nats per datum"
        )

    def _fit(self) -> Fit:
        self.scope.update(pyro.get_param_store().get_state())
        return Fit(
            Scoped(self.model, self.scope),
            Scoped(self.guide, self.scope),
            list(self.state.history),
            self.state.interrupted,
            self.state.best_epoch,
            dict(self.settings),
        )


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C inside sets a flag, to be looked at between two steps; a second one interrupts at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def press(number: int, frame: Any) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
