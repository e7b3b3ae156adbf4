"""fit(): Pyro's SVI on any pair of programs, with every logged number in nats per datum."""

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyrovae import storage
from pyrovae.data import Split, as_split
from pyrovae.errors import InputError
from pyrovae.inference.checkpoint import Progress, restore, save, set_weights, weights
from pyrovae.inference.handlers import tempered
from pyrovae.inference.measures import Meter, validation_terms
from pyrovae.inference.optimizers import Guarded, NotFiniteError, OptimizerMaker, adam
from pyrovae.inference.pairs import (
    Program,
    Scoped,
    evaluation_mode,
    kept_modes,
    modules_of,
    own_scope,
)
from pyrovae.inference.report import kept_rng, memory_advice, seed_everything
from pyrovae.inference.structure import Structure, inspect_pair
from pyrovae.progress import bar

CHECKPOINT_SECONDS = 5.0
Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Fit:
    """A fitted pair: the same programs, entering their own parameter scope by themselves.

    ``history`` holds one row for each epoch: ``epoch``, ``elbo``, ``reconstruction`` and ``kl_prior`` of the
    training data and ``valid_...`` of the validation data, all nats per datum and never tempered; ``objective``,
    what was optimized; ``beta``, ``learning_rate`` (a factor) and ``seconds``.
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


def fit(
    model: Program,
    guide: Program,
    data: Any,
    *,
    valid: Any = None,
    objective: ELBO | None = None,
    optimizer: PyroOptim | OptimizerMaker | None = None,
    schedule: Schedule | None = None,
    kl_warmup: float = 0,
    epochs: int,
    batch_size: int = 128,
    patience: int | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    callback: Callable[[int, Fit], Any] | None = None,
    record: dict[str, Any] | None = None,
    progress: bool = True,
) -> Fit:
    """Fits a pair of programs by stochastic variational inference (Hoffman et al. 2013; Wingate & Weber 2013).

    The modules that the programs use are trained in place; nothing else is left changed: not Pyro's parameter
    store, the random state, the validation flag or a module's train/eval mode. Ctrl-C ends the fit between two
    steps and returns what there is.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments.
        valid: validation data of the same kind, whose ELBO is logged at each epoch.
        objective: any Pyro ELBO; None is ``Trace_ELBO()``.
        optimizer: a ``PyroOptim``, or a function parameters -> ``torch.optim.Optimizer``; None is Adam at 1e-3.
        schedule: share of the training done, in [0, 1) -> factor on the learning rate, read at each epoch.
        kl_warmup: epochs over which the KL's weight beta rises to 1, by :func:`tempered` around both programs.
        epochs: passes over the data.
        batch_size: data in a step; the last, short batch counts too.
        patience: epochs without a better validation ELBO (after the warm-up) before the fit ends; then the
            best weights are returned. None runs all epochs and returns the last.
        seed: of the order of the data, of the draws and of dynamic binarization.
        device: "auto" is CUDA when there is one.
        out: folder in which the fit is kept, checkpoint by checkpoint.
        resume: go on from what ``out`` holds; on the CPU the weights are those of a fit that never stopped.
        callback: called as ``callback(epoch, fit_so_far)`` after each epoch.
        record: plain values stored with the run (the recipe of the programs).
        progress: show a bar (never into a pipe).

    Returns:
        The :class:`Fit`.

    Raises:
        InputError: naming the site or the argument, for what cannot be fitted.
        FloatingPointError: naming the site and the epoch, where the loss is not finite; the weights are those
            before that step, and ``out`` keeps its last checkpoint.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(100, seed=0)
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     decoder=pv.Conditional(pv.families.normal(scale=1.0), 5, pv.networks.mlp(2, seed=0)),
        ...     encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.mlp(5, seed=1)),
        ... )
        >>> fitted = fit(vae.model, vae.guide, x.float(), epochs=3, seed=0)
        >>> [row["epoch"] for row in fitted.history]
        [1, 2, 3]
    """
    _check_arguments(epochs, batch_size, patience, kl_warmup, valid, out, resume)
    train, held_out = as_split(data), None if valid is None else as_split(valid)
    target = resolve_device(device)
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "patience": patience,
        "kl_warmup": kl_warmup,
        "seed": seed,
        "objective": type(objective or Trace_ELBO()).__name__,
        "device": str(target),
        "arguments": [[list(t.shape[1:]), str(t.dtype).removeprefix("torch.")] for t in train.tensors],
        "protocol": train.protocol.to_dict(),
        "valid_protocol": held_out.protocol.to_dict() if held_out else None,
    }
    modules = modules_of(model, guide)
    for module in modules:
        module.to(target)
    with ExitStack() as stack:
        stack.enter_context(storage.locked(out) if out else nullcontext())
        model, guide, scope = stack.enter_context(own_scope(model, guide, fresh=True))
        stack.enter_context(kept_rng())
        stack.enter_context(kept_modes(modules))
        stack.enter_context(torch.device(target) if target.type != "cpu" else nullcontext())
        loop = _Loop(
            model=model,
            guide=guide,
            scope=scope,
            modules=modules,
            train=train.to(target),
            valid=held_out.to(target) if held_out else None,
            objective=objective or Trace_ELBO(),
            optimizer=Guarded(optimizer or adam()),
            schedule=schedule or (lambda share: 1.0),
            settings=settings,
            folder=Path(out) if out else None,
            record=record or {},
            callback=callback,
        )
        return loop.run(resume=resume, visible=progress)


class _Loop:
    """One fit: what is fixed for its length, and the :class:`Progress` that a checkpoint holds."""

    def __init__(
        self,
        *,
        model: Program,
        guide: Program,
        scope: dict,
        modules: list[nn.Module],
        train: Split,
        valid: Split | None,
        objective: ELBO,
        optimizer: Guarded,
        schedule: Schedule,
        settings: dict[str, Any],
        folder: Path | None,
        record: dict[str, Any],
        callback: Callable[[int, Fit], Any] | None,
    ) -> None:
        self.model, self.guide, self.scope, self.modules = model, guide, scope, modules
        self.train, self.valid, self.optimizer, self.schedule = train, valid, optimizer, schedule
        self.settings, self.folder, self.record, self.callback = settings, folder, record, callback
        self.epochs, self.batch_size, self.seed = (settings[name] for name in ("epochs", "batch_size", "seed"))
        self.steps = -(-len(train) // self.batch_size)
        self.beta = torch.ones((), device=train.x.device)
        pair = [tempered(p, self.beta) for p in (model, guide)] if settings["kl_warmup"] else [model, guide]
        self.svi = SVI(pair[0], pair[1], optimizer, objective)
        self.meter = Meter(objective, model, guide)
        self.generator = torch.Generator(device=train.x.device)
        self.state = Progress()
        self.saved_at = time.monotonic()

    def run(self, *, resume: bool, visible: bool) -> Fit:
        """Trains to the end, to the end of patience or to Ctrl-C, whichever comes first."""
        seed_everything(self.seed)
        self.meter.full_size = self._look_at_data().full_size
        with _training_numerics(), _interruptible() as interrupted, self.meter:
            if resume and self.folder and storage.holds_run(self.folder):
                self._restore()
            else:
                self._save()
            done = self.state.epoch * self.steps + self.state.step
            total = self.epochs * self.steps
            with bar(shown=visible, total=total, initial=done, unit="step", dynamic_ncols=True) as shown:
                while self.state.epoch < self.epochs and not self.state.stopped and not interrupted():
                    self._epoch(shown, interrupted)
            self.state.interrupted = interrupted()
            self._save()
            self._take_best()
        return self._fit()

    def _look_at_data(self) -> Structure:
        """Runs the pair once over all data: every ``pyro.param`` exists afterwards, and every value is in support."""
        structure, size = None, max(self.batch_size, 500)
        with torch.no_grad(), memory_advice(size, 1):
            for split in (self.valid, self.train):
                for start in range(0, len(split) if split else 0, size):
                    assert split is not None
                    rows = slice(start, min(start + size, len(split)))
                    structure = inspect_pair(self.model, self.guide, split.batch(rows))
        assert structure is not None
        return structure

    def _epoch(self, shown: Any, interrupted: Callable[[], bool]) -> None:
        state, started = self.state, time.monotonic()
        if state.step == 0:
            self.meter.reset()
            seed_everything(self.seed, state.epoch)
            self.generator.manual_seed(self.seed * 1_000_003 + state.epoch)
        order = torch.randperm(
            len(self.train), generator=torch.Generator().manual_seed(self.seed + (state.epoch << 32))
        )
        order = order.to(self.train.x.device)
        self.optimizer.scale_rate(self.schedule(state.epoch / self.epochs))
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
            with memory_advice(len(rows), 1):
                loss = self.svi.step(*batch)
        except NotFiniteError as error:
            raise FloatingPointError(self._diagnosis(error)) from None
        if not math.isfinite(loss):
            raise FloatingPointError(self._diagnosis(FloatingPointError("the loss is not finite")))
        self.meter.add(loss, len(rows), batch)

    def _diagnosis(self, error: FloatingPointError) -> str:
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
        row.update(beta=self.beta.item(), learning_rate=self.optimizer.rate, seconds=round(state.seconds, 3))
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


def resolve_device(device: str) -> torch.device:
    """The device of a name; "auto" is CUDA when there is one.

    Raises:
        InputError: if the name is unknown or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"unknown device '{device}'; use auto, cpu, cuda or cuda:N") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{device}' was asked for, but there is no CUDA device here; use auto or cpu")
    return target


def _check_arguments(
    epochs: int,
    batch_size: int,
    patience: int | None,
    kl_warmup: float,
    valid: Any,
    out: str | Path | None,
    resume: bool,
) -> None:
    for name, value in {"epochs": epochs, "batch_size": batch_size, "patience": patience}.items():
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if kl_warmup < 0:
        raise InputError(f"kl_warmup must not be negative, got {kl_warmup}")
    if patience is not None and valid is None:
        raise InputError("patience needs validation data: give valid=")
    if resume and out is None:
        raise InputError("resume needs the folder of the run: give out=")
    if out is not None and not resume and storage.holds_run(out):
        raise InputError(f"{out}: already holds a run; resume it, or choose another folder")


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
