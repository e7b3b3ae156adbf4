"""The loop of a fit: steps, epochs, early stopping, checkpoints and the way out of it."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import nn

from pyrovae.base.memory import explain_out_of_memory
from pyrovae.base.progress import bar, interruptible
from pyrovae.base.random import preserve_rng_state, seed_everything
from pyrovae.data.batches import Batch, Batches
from pyrovae.data.split import Split
from pyrovae.pairs.context import evaluation_mode
from pyrovae.pairs.handlers import in_precision, scorable, tempered
from pyrovae.pairs.traces import Program
from pyrovae.training.checkpoint import Progress, restore, save, set_weights, weights
from pyrovae.training.checks import check_batch_norm, check_pair, check_parameters
from pyrovae.training.compiled import CompiledSteps
from pyrovae.training.guide_alone import models_own
from pyrovae.training.meter import validation_terms
from pyrovae.training.optimizers import OptimizerMaker, check_steps, forget_gradients, unconstrained_parameters
from pyrovae.training.step import NonFiniteLoss, Step, numerics_of_training

CHECKPOINT_SECONDS = 5.0
Schedule = Callable[[float], float]


@dataclass(kw_only=True)
class Loop:
    """One fit: what is fixed for its length, and the :class:`Progress` that a checkpoint holds."""

    model: Program
    guide: Program
    modules: list[nn.Module]
    train: Split
    valid: Split | None
    objective: ELBO
    optimizer: PyroOptim | OptimizerMaker
    schedule: Schedule
    settings: dict[str, Any]
    folder: Path | None
    record: dict[str, Any]
    after_epoch: Callable[[int], Any]
    may_be_eager: bool  # whether a step that cannot be compiled is taken eagerly

    def __post_init__(self) -> None:
        setting = self.settings
        self.epochs, self.batch_size, self.warmup = setting["epochs"], setting["batch_size"], setting["kl_warmup"]
        self.batches = Batches(self.train, self.batch_size, seed=setting["seed"])
        self.steps, self.device = self.batches.steps, self.batches.device
        self.pair = in_precision(self.model, setting["precision"]), in_precision(self.guide, setting["precision"])
        self.beta = torch.ones((), device=self.device)
        trained = self.measured = scorable(self.pair[0]), self.pair[1]
        if self.warmup > 0:
            trained = tempered(trained[0], self.beta), tempered(trained[1], self.beta)
        self.step = Step(*trained, self.optimizer, self.objective)
        self.meter, self.state = self.step.meter, Progress()
        self.compiled: CompiledSteps | None = None
        self.saved_at = self.shown_at = time.monotonic()

    def run(self, *, resume: bool, visible: bool) -> None:
        """Trains to the end, to the end of patience or to Ctrl-C, whichever comes first."""
        seed_everything("fit", self.settings["seed"])
        with evaluation_mode(self.modules):
            check_pair(self.pair, self.train, self.valid, self.objective, self.settings)
        batches = self.batches.of_each_size()
        self.step.prime(batches, self.modules)
        check_parameters(unconstrained_parameters())
        check_batch_norm(self.pair, batches, self.modules)
        if self.settings["only"] == "guide":
            self.step.kept = models_own(self.measured, batches, self.modules)
        with numerics_of_training(), interruptible() as self.interrupted:
            if resume:
                self._restore()
            done, total = self.state.epoch * self.steps + self.state.step, self.epochs * self.steps
            with bar(shown=visible, total=total, initial=done, unit="step", dynamic_ncols=True) as self.shown:
                if self.settings["compile"]:
                    self._compile()
                if self.compiled is None or self.compiled.replay is None:
                    check_steps(self.step.optim, self.step.kept.trained())
                if not resume:
                    self._save()
                try:
                    while self.state.epoch < self.epochs and not self.state.stopped and not self.interrupted():
                        self._epoch()
                finally:
                    forget_gradients(unconstrained_parameters())
            self.state.interrupted = self.interrupted()
            self._save()
            if self.state.best_weights:
                set_weights(self.modules, self.state.best_weights)

    def _compile(self) -> None:
        self.shown.set_description("compiling the step")
        self.compiled = CompiledSteps(
            step=self.step,
            modules=self.modules,
            batches=self.batches,
            settings=self.settings,
            may_be_eager=self.may_be_eager,
            interrupted=self.interrupted,
        )
        self.compiled.compile()

    def _epoch(self) -> None:
        state, started = self.state, time.monotonic()
        if state.step == 0:
            self.meter.sums.zero_()
            seed_everything("fit", self.settings["seed"], state.epoch)
        self.step.rate = self.schedule(state.epoch / self.epochs)
        self.step.kept.training_mode(self.modules)
        if self.compiled is None:
            self._steps(self.step.take, self.interrupted)
        else:
            self.compiled.epoch(self._steps, state)
        state.seconds += time.monotonic() - started
        if state.step == self.steps:
            self._end_epoch()

    def _steps(self, take: Callable[[Batch], None], stop: Callable[[], bool]) -> None:
        """Takes the steps of the epoch that are left, until it is to stop."""
        state, advice = self.state, explain_out_of_memory(f"a batch of {self.batch_size}: lower batch_size")
        with advice, self.batches.epoch(state.epoch, state.step) as coming:
            while state.step < self.steps and not stop():
                done = state.epoch * self.steps + state.step
                if self.warmup > 0:
                    self.beta.fill_(min(1.0, (done + 1) / (self.warmup * self.steps)))
                try:
                    take(next(coming))
                except NonFiniteLoss as error:
                    raise NonFiniteLoss(f"epoch {state.epoch + 1}, step {state.step + 1}: {error}") from None
                state.step += 1
                self.shown.update(done + 1 - self.shown.n)
                self._show()

    def _end_epoch(self) -> None:
        state = self.state
        row = {"epoch": state.epoch + 1, **self.meter.means()}
        if self.valid is not None:
            with evaluation_mode(self.modules), preserve_rng_state():
                terms = validation_terms(*self.measured, self.valid, self.batch_size)
            row.update({f"valid_{name}": value for name, value in terms.items()})
        row.update(beta=self.beta.item(), rate_factor=self.step.rate, seconds=round(state.seconds, 3))
        state.history.append(row)
        state.epoch, state.step, state.seconds = state.epoch + 1, 0, 0.0
        if self.settings["patience"] and state.epoch >= self.warmup:
            self._watch(row["valid_elbo"], self.settings["patience"])
        if self.compiled and (state.stopped or state.epoch == self.epochs):
            self.compiled.final_check()
        self.after_epoch(state.epoch)
        if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
            self._save()

    def _watch(self, elbo: float, patience: int) -> None:
        """Early stopping: remembers the weights of the best validation ELBO."""
        state = self.state
        if not math.isfinite(elbo):
            raise FloatingPointError(f"epoch {state.epoch}: the validation ELBO is {elbo}; look at the scales")
        if state.best_epoch is None or state.best_elbo is None or elbo > state.best_elbo:
            state.best_elbo, state.best_epoch = elbo, state.epoch
            state.best_weights = {name: value.detach().clone() for name, value in weights(self.modules).items()}
        state.stopped = state.epoch - state.best_epoch >= patience

    def _save(self) -> None:
        if self.folder is None:
            return
        self.state.sums = self.meter.sums.tolist()
        save(self.folder, self.state, self.settings, self.record, self.modules, self.step.optim)
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        assert self.folder is not None
        self.state = restore(self.folder, self.settings, self.modules, self.step.optim, self.step.kept.trained())
        self.meter.sums.copy_(torch.tensor(self.state.sums, dtype=torch.float64))

    def _show(self) -> None:
        now = time.monotonic()
        if self.shown.disable or now - self.shown_at < 0.5:
            return
        self.shown_at = now
        means = self.meter.means()
        self.shown.set_description(f"epoch {self.state.epoch + 1}/{self.epochs}", refresh=False)
        self.shown.set_postfix_str(
            f"ELBO {means['elbo']:.2f} = {means['reconstruction']:.2f} - {means['kl_prior']:.2f} nats per datum"
        )
