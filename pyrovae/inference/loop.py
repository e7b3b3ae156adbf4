"""The loop of a fit: steps, epochs, early stopping, checkpoints and the way out of it."""

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, SVI
from torch import Tensor, nn

from pyrovae import storage
from pyrovae.errors import InputError
from pyrovae.inference.blocks import (
    BINARIZATION,
    FIT,
    ORDER,
    kept_rng,
    memory_advice,
    out_of_memory,
    seed_everything,
    seed_of,
)
from pyrovae.inference.checkpoint import Progress, restore, save, set_weights, weights
from pyrovae.inference.handlers import filled_under_mask, tempered
from pyrovae.inference.measures import Meter, check_objective, validation_terms
from pyrovae.inference.optimizers import Guarded, NotFiniteError
from pyrovae.inference.pairs import Program, Scoped, evaluation_mode
from pyrovae.inference.structure import Structure, inspect_pair
from pyrovae.progress import bar
from pyrovae.splits import Split

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

    def __post_init__(self) -> None:
        self.epochs, self.batch_size, self.seed = (self.settings[name] for name in ("epochs", "batch_size", "seed"))
        self.steps = -(-len(self.train) // self.batch_size)
        self.beta = torch.ones((), device=self.train.x.device)
        warm = self.settings["kl_warmup"] > 0
        programs = filled_under_mask(self.model), self.guide
        pair = [tempered(program, self.beta) if warm else program for program in programs]
        self.svi = SVI(pair[0], pair[1], self.optimizer, self.optimizer.watched(self.objective))
        self.meter = Meter(self.objective, self.model, self.guide)
        self.generator = torch.Generator(device=self.train.x.device)
        self.state = Progress()
        self.saved_at = time.monotonic()

    def run(self, *, resume: bool, visible: bool) -> Fit:
        """Trains to the end, to the end of patience or to Ctrl-C, whichever comes first."""
        seed_everything(FIT, self.seed)
        check_objective(self.objective, self._look_at_data())
        self._prime()
        with _training_numerics(), _interruptible() as interrupted, self.meter:
            if resume and self.folder and storage.holds_run(self.folder):
                self._restore()
            else:
                self._save()
            done = self.state.epoch * self.steps + self.state.step
            total = self.epochs * self.steps
            with bar(shown=visible, total=total, initial=done, unit="step", dynamic_ncols=True) as shown:
                try:
                    while self.state.epoch < self.epochs and not self.state.stopped and not interrupted():
                        self._epoch(shown, interrupted)
                finally:
                    self._forget_gradients()
            self.state.interrupted = interrupted()
            self._save()
            self._take_best()
        return self._fit()

    def _look_at_data(self) -> Structure:
        """Runs the pair once over all data: every ``pyro.param`` exists afterwards, and every value is in support."""
        structure, size = None, max(self.batch_size, 500)
        with torch.no_grad(), memory_advice(f"{size} data at once: lower batch_size"), evaluation_mode(self.modules):
            for split in (self.valid, self.train):
                for start in range(0, len(split) if split else 0, size):
                    assert split is not None
                    rows = slice(start, min(start + size, len(split)))
                    structure = self._inspect(split.batch(rows), start)
        assert structure is not None
        return structure

    def _inspect(self, batch: tuple[Tensor, ...], start: int) -> Structure:
        try:
            return inspect_pair(self.model, self.guide, batch, plate=self.settings["plate"])
        except InputError:
            raise
        except (ValueError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            missing = ~batch[0].isfinite().flatten(1).all(1) if batch[0].dim() > 1 else ~batch[0].isfinite()
            if not missing.any():
                raise InputError(f"the programs do not run on the data: {error}") from error
            raise InputError(
                f"{int(missing.sum())} rows hold values that are missing or infinite, the first is row "
                f"{start + int(missing.nonzero()[0])}: impute them, or mask them in programs of your own"
            ) from error

    def _prime(self) -> None:
        """Lets the objective guess its plates now, so that no step draws numbers for it; clears old gradients."""
        batch = self.train.batch(slice(0, min(self.batch_size, len(self.train))))
        with kept_rng(), torch.no_grad(), evaluation_mode(self.modules), _training_numerics():
            self.svi.loss(self.svi.model, self.svi.guide, *batch)
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        for _, parameter in pyro.get_param_store().named_parameters():
            parameter.grad = None

    def _epoch(self, shown: Any, interrupted: Callable[[], bool]) -> None:
        state, started = self.state, time.monotonic()
        if state.step == 0:
            self.meter.reset()
            seed_everything(FIT, self.seed, state.epoch)
            self.generator.manual_seed(seed_of(BINARIZATION, self.seed, state.epoch))
        shuffle = torch.Generator("cpu").manual_seed(seed_of(ORDER, self.seed, state.epoch))
        order = torch.randperm(len(self.train), generator=shuffle, device="cpu").to(self.train.x.device)
        self.optimizer.rate = self.schedule(state.epoch / self.epochs)
        for module in self.modules:
            module.train()
        while state.step < self.steps and not interrupted():
            self._step(order[state.step * self.batch_size : (state.step + 1) * self.batch_size])
            state.step += 1
            shown.update()
            self._show(shown)
        state.seconds += time.monotonic() - started
        if state.step == self.steps:
            self._end_epoch()

    def _step(self, rows: Tensor) -> None:
        state = self.state
        if self.settings["kl_warmup"]:
            share = (state.epoch * self.steps + state.step + 1) / (self.settings["kl_warmup"] * self.steps)
            self.beta.fill_(min(1.0, share))
        batch = self.train.batch(rows, self.generator)
        try:
            with memory_advice(f"a batch of {len(rows)}: lower batch_size"):
                loss = self.svi.step(*batch)
        except NotFiniteError as error:
            raise FloatingPointError(self._diagnosis(error)) from None
        self.meter.add(loss, len(rows), batch)

    def _diagnosis(self, error: NotFiniteError) -> str:
        where = f"epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        bad = self.meter.not_finite_sites()
        cause = f"the log density of site '{bad[0]}' is not finite" if bad else str(error)
        return (
            f"{where}: {cause}; the step was not taken. Lower the learning rate, or look at the data and scales there"
        )

    def _end_epoch(self) -> None:
        state = self.state
        row = {"epoch": state.epoch + 1, **self.meter.means()}
        if self.valid is not None:
            with evaluation_mode(self.modules), kept_rng():
                terms = validation_terms(self.model, self.guide, self.valid, self.batch_size)
            row.update({f"valid_{name}": value for name, value in terms.items()})
        row.update(beta=self.beta.item(), rate_factor=self.optimizer.rate, seconds=round(state.seconds, 3))
        state.history.append(row)
        state.epoch, state.step, state.seconds = state.epoch + 1, 0, 0.0
        self._watch(row)
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
        save(self.folder, self.state, self.settings, self.record, self.modules, self.optimizer, self.generator)
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        assert self.folder is not None
        self.state = restore(self.folder, self.settings, self.modules, self.optimizer, self.generator)
        self.meter.set_state(self.state.sums, self.train.x.device)

    def _show(self, shown: Any) -> None:
        now = time.monotonic()
        if shown.disable or now - self.meter.shown_at < 0.5:
            return
        self.meter.shown_at = now
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
def _training_numerics() -> Iterator[None]:
    """Pyro's checks off for the hot loop: values were checked before it, gradients are checked in it."""
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encountered NaN")
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        yield


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
