"""fit(): Pyro's SVI on any pair of programs, with every logged number in nats per datum."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyrovae.base import storage
from pyrovae.base.arguments import checked
from pyrovae.base.device import resolve_device
from pyrovae.base.errors import whole
from pyrovae.base.random import preserve_rng_state, seed_everything
from pyrovae.data.split import Split, as_split
from pyrovae.pairs.context import (
    Scoped,
    home_device,
    keep_own_weights,
    on_device,
    own_scope,
    preserve_modes,
    sets_up_later,
    used_modules,
)
from pyrovae.pairs.traces import Program
from pyrovae.training.checkpoint import describe_data, describe_objective
from pyrovae.training.checks import check_arguments, check_parts
from pyrovae.training.compiled import is_compiled
from pyrovae.training.loop import Loop, Schedule
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.optimizers import OptimizerMaker, adam


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


@checked
def fit(
    model: Program,
    guide: Program,
    data: Any,
    *,
    valid: Any = None,
    objective: ELBO | None = None,
    optimizer: PyroOptim | OptimizerMaker | None = None,
    schedule: Schedule | None = None,
    only: str | None = None,
    kl_warmup: float = 0,
    epochs: int,
    batch_size: int = 128,
    patience: int | None = None,
    seed: int = 0,
    device: str = "auto",
    compile: bool | str = "auto",
    num_fits: int = 1,
    precision: str = "float32",
    out: str | Path | None = None,
    resume: bool = False,
    plate: str | None = None,
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
        objective: any Pyro ELBO; None is :class:`~pyrovae.objectives.SampledELBO`.
        optimizer: a ``PyroOptim``, or a function parameters -> ``torch.optim.Optimizer``; None is Adam at 1e-3.
        schedule: fraction of the training done, in [0, 1) -> factor on the learning rate, read at each epoch.
        only: "guide" trains the guide for the model as it is: every parameter on which log p(x, z) depends at fixed z
            stays, one that both programs use too, and every module that the model calls runs in eval mode, so that
            what is inferred is what will be evaluated. None trains both.
        kl_warmup: epochs over which the KL's weight beta rises to 1, by :func:`tempered` around both programs.
        epochs: passes over the data.
        batch_size: data in a step; the last, short batch counts too. Rows are shuffled anew for each epoch, but for
            one batch of all data: programs with a parameter for each datum find it by its row.
        patience: epochs without a better validation ELBO (after the warm-up) before the fit ends; then the
            best weights are returned. None runs all epochs and returns the last.
        seed: of the order of the data, of the draws and of dynamic binarization.
        device: "auto" is CUDA when there is one.
        compile: whether the whole step is traced once and replayed as compiled kernels (on CUDA, as a graph); "auto"
            does so on CUDA, and on the CPU from 6,000 steps on, where it repays the 5 to 20 seconds that it takes (one
            or two where this machine compiled the same step before). A pair that no graph can hold (its control flow
            reads a value, its objective is not one of ours) is fitted eagerly by "auto", with a warning that says why.
            What was chosen is in ``settings``, and "auto" keeps it on resume: only then is the resumed fit the same bit
            for bit.
        num_fits: how many fits take this step, from other seeds for one: what is compiled for the first of them serves
            all, and "auto" counts their steps together.
        precision: "bfloat16" rounds the inputs of the networks' products, by :func:`in_precision`; weights, densities
            and what the fit returns stay in float32.
        out: folder in which the fit is kept, checkpoint by checkpoint.
        resume: go on from what ``out`` holds, if anything; on the CPU, with the same ``epochs`` and schedule, the
            weights are those of a fit that never stopped.
        plate: name of the data plate, where several plates hold all sites.
        callback: called as ``callback(epoch, fit_so_far)`` after each epoch; what it returns is not used.
        record: plain values stored with the run (the recipe of the programs).
        progress: show a bar (never into a pipe).

    Returns:
        The :class:`Fit`.

    Raises:
        InputError: naming the site or the argument, for what cannot be fitted.
        FloatingPointError: naming the site and the epoch, where the loss is not finite; the parameters are those
            before that step (running statistics may have seen it), and ``out`` keeps its last checkpoint.

    Warns:
        NoisyGradients: naming the site, where continuous draws of the guide carry no gradient.
        NotCompiled: saying why, where "auto" would have compiled the step and could not.

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
    check_arguments(epochs, batch_size, patience, kl_warmup, valid, out, resume, only)
    epochs, batch_size, seed = (whole(*one) for one in (("epochs", epochs), ("batch_size", batch_size), ("seed", seed)))
    patience = None if patience is None else whole("patience", patience)
    check_parts(objective, optimizer, schedule, only, kl_warmup)
    target, objective = resolve_device(device), objective or SampledELBO(plate=plate)
    train, held_out = as_split(data), None if valid is None else as_split(valid)
    asked = {"epochs": epochs, "batch_size": batch_size, "patience": patience, "kl_warmup": kl_warmup, "seed": seed}
    parts = {"objective": describe_objective(objective), "only": only, "plate": plate}
    num_steps = -(-len(train) // batch_size) * epochs
    how: dict[str, Any] = {"device": str(target), "precision": precision}
    how["compile"] = is_compiled(compile, num_steps, target, out if resume else None, whole("num_fits", num_fits))
    settings = {**asked, **parts, **how, **describe_data(train, held_out)}
    first = _first(train, batch_size, sets_up_later(model, guide))
    with _trained_in_place(model, guide, first, target, seed, out) as pair:
        model, guide, scope, modules = pair
        resumed = resume and out is not None and storage.holds_run(out)
        loop = Loop(
            model=model,
            guide=guide,
            modules=modules,
            train=train.to(target),
            valid=held_out.to(target) if held_out else None,
            objective=objective,
            optimizer=optimizer or adam(),
            schedule=schedule or (lambda fraction: 1.0),
            settings=settings,
            folder=Path(out) if out else None,
            record=record or {},
            after_epoch=lambda epoch: callback(epoch, _so_far(loop, scope)) if callback else None,
            may_be_eager=compile == "auto" and not resumed,
        )
        loop.run(resume=resumed, visible=progress)
        return _so_far(loop, scope)


def _so_far(loop: Loop, scope: Any) -> Fit:
    scope.update(pyro.get_param_store().get_state())
    state, programs = loop.state, (Scoped(loop.model, scope), Scoped(loop.guide, scope))
    return Fit(*programs, list(state.history), state.interrupted, state.best_epoch, dict(loop.settings))


@contextmanager
def _trained_in_place(
    model: Program, guide: Program, first: Sequence[Tensor], device: torch.device, seed: int, out: str | Path | None
) -> Iterator[tuple[Program, Program, Any, list[nn.Module]]]:
    """The programs on a device, in a scope of their own: (model, guide, scope, modules); all else is put back."""
    home = home_device(model, guide)
    with on_device(home), preserve_rng_state():
        seed_everything("modules", seed)  # lazy ones draw their parameters when they are first run
        modules = used_modules(model, guide, [tensor.to(home) for tensor in first])
    if device.type == "cuda":
        torch.cuda.init()  # so that its random state is among what is put back
    for module in modules:
        module.to(device)
    with ExitStack() as stack:
        stack.enter_context(storage.locked(out) if out else nullcontext())
        model, guide, scope = stack.enter_context(own_scope(model, guide, fresh=True))
        stack.enter_context(preserve_rng_state())
        stack.enter_context(preserve_modes(modules))
        stack.enter_context(torch.cuda.device(device) if device.type == "cuda" else nullcontext())
        stack.enter_context(on_device(device))
        keep_own_weights(model, guide, [tensor.to(device) for tensor in first])
        yield model, guide, scope, modules


def _first(train: Split, batch_size: int, sets_up: bool) -> tuple[Tensor, ...]:
    """Two rows, or all where each datum may have a parameter of its own, and where programs keep the size of these."""
    with preserve_rng_state():
        return train.batch(slice(0, 2 if batch_size < len(train) and not sets_up else len(train)))
