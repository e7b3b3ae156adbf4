"""What cannot be fitted is refused before a first step, by argument, site or row: the pair is run over all data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, RenyiELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyrovae.base import storage
from pyrovae.base.errors import InputError, NoisyGradients, check_at_least_one, first_line, warn
from pyrovae.base.memory import blocks_of, explain_out_of_memory, out_of_memory
from pyrovae.base.random import preserve_rng_state
from pyrovae.data.batches import Batch
from pyrovae.data.split import Split
from pyrovae.pairs.checks import looks, parameters
from pyrovae.pairs.checks.data import check_possible, not_finite
from pyrovae.pairs.checks.inverses import check_batch_norm_of_flows
from pyrovae.pairs.context import preserve_modes, quiet_numerics
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.supports import a_value, base_measure, ends, layers, scored, support_of
from pyrovae.pairs.traces import PER_DATUM, Program, plain_traces, site_log_prob
from pyrovae.training.checkpoint import Snapshot, weights

LOOKED_AT = 100  # rows that are run a few times more, all where each may have a parameter of its own


def check_arguments(
    epochs: int,
    batch_size: int,
    patience: int | None,
    kl_warmup: float,
    valid: Any,
    out: str | Path | None,
    resume: bool,
    only: str | None,
) -> None:
    """Refuses numbers that mean nothing, and what does not go together."""
    check_at_least_one(epochs=epochs, batch_size=batch_size, **({} if patience is None else {"patience": patience}))
    if kl_warmup < 0:
        raise InputError(f"kl_warmup must not be negative, got {kl_warmup}")
    if only not in (None, "guide"):
        raise InputError(f"only is 'guide', which leaves the model as it is, or None, which trains both; got {only!r}")
    if patience is not None and valid is None:
        raise InputError("patience needs validation data: give valid=")
    if resume and out is None:
        raise InputError("resume needs the folder of the run: give out=")
    if out is not None and not resume and storage.holds_run(out):
        raise InputError(f"{out}: already holds a run; resume it, or choose another folder")


def check_parts(objective: Any, optimizer: Any, schedule: Any, only: str | None, kl_warmup: float) -> None:
    """Refuses names and instances where programs of one's own are asked for, and what an objective is not for."""
    if objective is not None and not isinstance(objective, ELBO):
        raise InputError(f"objective must be a Pyro ELBO, pyrovae.objectives.IWAE(10) for one, got {objective!r}")
    if getattr(objective, "for_guide_alone", False):
        kind = type(objective).__name__
        if only != "guide":
            raise InputError(f"{kind} trains a guide for the model as it is, and no model: give only='guide'")
        if kl_warmup:
            raise InputError(f"{kind} has no KL to warm up: leave kl_warmup out, or use SampledELBO")
    if kl_warmup and not getattr(objective, "takes_warmup", True):
        kind = type(objective).__name__
        raise InputError(f"{kind} would fit the guide to another posterior while a KL warms up: leave kl_warmup out")
    if isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            f"optimizer must be a PyroOptim or a function parameters -> optimizer, not a {type(optimizer).__name__}: "
            "give lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"
        )
    if optimizer is not None and not callable(optimizer):
        raise InputError(f"optimizer must be a PyroOptim or a function parameters -> optimizer, got {optimizer!r}")
    if schedule is not None and not callable(schedule):
        raise InputError(
            f"schedule must be a function: fraction of the training -> factor on the rate; got {schedule!r}"
        )


def check_pair(
    pair: tuple[Program, Program], train: Split, valid: Split | None, objective: ELBO, settings: Mapping[str, Any]
) -> None:
    """Runs a pair once over all data: every ``pyro.param`` exists afterwards, and every value has a density.

    The first rows of the training data are looked at as an evaluation would.

    Raises:
        InputError: naming the site or the row, or what the objective cannot be used for.

    Warns:
        NoisyGradients: naming the site, where continuous draws of the guide carry no gradient.
    """
    size = max(settings["batch_size"], 500)
    with torch.no_grad(), explain_out_of_memory(f"{size} data at once, even without gradients"):
        if valid is not None:
            _inspect_all(pair, valid, size, settings["plate"], "validation data")
        first = _inspect_all(pair, train, size, settings["plate"], "training data")
        check_batch_norm_of_flows(first.example, to_be_trained=True)
        check_objective(objective, first.structure)
        few = len(train) if settings["batch_size"] >= len(train) else min(settings["batch_size"], LOOKED_AT)
        with preserve_rng_state(), quiet_numerics():  # distributions made under validation keep to it
            batch = train.batch(slice(0, few))
            particles = Particles(*pair, batch, plate=settings["plate"], strategy="looped")
            looks.check_trainable(particles.shown)
            warn_of_noise(objective, particles)


def _inspect_all(pair: tuple[Program, Program], split: Split, size: int, plate: str | None, name: str) -> Particles:
    """Runs a pair on all data, a block at a time; the first block is given back."""
    rows, *others = blocks_of(len(split), size)
    first = _inspect(pair, split, rows, plate, name)
    for rows in others:
        _inspect(pair, split, rows, plate, name)
    return first


def _inspect(pair: tuple[Program, Program], split: Split, rows: slice, plate: str | None, name: str) -> Particles:
    batch = split.batch(rows)
    try:
        particles = Particles(*pair, batch, plate=plate, strategy="looped")
        check_possible(particles.example, particles.structure.dim, f" of the {name}", rows.start)
        check_density(particles, f"of the {name}", rows.start)
        return particles
    except InputError:
        raise
    except (ValueError, RuntimeError, FloatingPointError) as error:
        if out_of_memory(error):
            raise
        missing = not_finite(batch[0], f" of the {name}", rows.start)
        if missing is None:
            named = error if isinstance(error, FloatingPointError) else parameters.explained(error, *pair, batch)
            if named is not None:
                raise InputError(str(named)) from error
            hint = f". {PER_DATUM}" if len(batch) > 1 else ""
            raise InputError(f"the programs do not run on the data: {first_line(error)}{hint}") from error
        raise missing from error


def check_density(particles: Particles, where: str, start: int) -> None:
    """Demands a finite log density of all that is observed.

    Args:
        particles: of a block of rows.
        where: the rows are, in words.
        start: number of the first.

    Raises:
        InputError: naming the site, the row and the value; an end of the support is called what it is.
    """
    for name, site in particles.example.observed.items():
        base, value = layers(site["fn"])[-1], site["value"]
        harmless = a_value(base, value) if isinstance(base, torch.distributions.Uniform) else None
        with pyro.validation_enabled(False):
            if harmless is not None:  # its ends count as inside where a draw is rounded to them, but data are not
                value = torch.where(scored(site, value, 0), value, harmless)
            elif site_log_prob(site).isfinite().all():
                continue
            each, event_dim = base.log_prob(value), len(base.event_shape)
        bad = (~each.isfinite() & scored(site, each, event_dim)).nonzero()
        if not len(bad):
            continue
        place = tuple(bad[0].tolist())
        row = start + place[len(site["fn"].batch_shape) + particles.structure.dim]
        first = torch.broadcast_to(value, (*each.shape, *value.shape[value.dim() - event_dim :]))[place]
        found = f"{first.item():g}" if first.dim() == 0 else str(first.tolist())
        at_place = [_at(end, each, place) for end in ends(support_of(base))]
        raise InputError(
            f"site '{name}': {len(bad)} values have no finite log density, the first is {found} in row {row} {where} "
            f"({each[place].item():g}). {_density_advice(base, first, at_place)}"
        )


def _at(end: Any, each: Tensor, place: tuple[int, ...]) -> float | None:
    """An end of a support, at one place of a table."""
    if isinstance(end, Tensor) and end.shape == each.shape:
        return end[place].item()
    return None if end is None or (isinstance(end, Tensor) and end.dim()) else float(end)


def _density_advice(base: Any, value: Tensor, ends: Sequence[float | None]) -> str:
    """What to do about a value without a finite density."""
    family, (low, high) = type(base).__name__, ends
    if not any(end is not None and bool((value == end).any()) for end in ends):
        return f"Look at the parameters of {family} there, as they are before the first step"
    within = f"above {low:g}" if high is None else f"strictly between {low or 0:g} and {high:g}"
    return (
        f"It lies on an end of the support of {family}, whose density is finite only {within}: move such values "
        "inside, or take a family with a mass or a finite density there"
    )


def check_batch_norm(pair: tuple[Program, Program], batches: Sequence[Batch], modules: Sequence[nn.Module]) -> None:
    """Runs the pair in training mode on a batch of one row, where there is one and batch norm to read it.

    Raises:
        InputError: if batch norm cannot be taken over it.
    """
    kinds = [type(part).__name__ for one in modules for part in one.modules() if isinstance(part, _BatchNorm)]
    single = [batch for batch in batches if len(batch[0]) == 1]
    if not kinds or not single:
        return
    with Snapshot(weights(modules).values()), preserve_modes(modules), quiet_numerics():
        for module in modules:
            module.train()
        try:
            plain_traces(*pair, single[0])
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"a batch of one row comes (the last of an epoch, if batch_size is not 1), and batch norm ({kinds[0]}) "
                "needs two rows to take a mean over: choose another batch_size"
            ) from error


def check_parameters(parameters: Sequence[Tensor]) -> None:
    """Raises InputError unless the programs have a parameter that can be trained."""
    if not any(parameter.requires_grad for parameter in parameters):
        raise InputError(
            "the programs have no parameter to fit (frozen ones do not count): register a module's weights by "
            "pyro.module(name, module), or use pyro.param"
        )


def check_objective(objective: ELBO, structure: Structure) -> None:
    """Refuses an objective whose gradient would be wrong for this pair, without a word from Pyro.

    Raises:
        InputError: naming the site, for an importance-weighted bound over draws that carry no gradients, and for
            the closed-form KL over latents that the guide draws in another order than the model.
    """
    stuck = [name for name, reparameterized in structure.drawn.items() if not reparameterized]
    if isinstance(objective, RenyiELBO) and objective.alpha == 0 and stuck:
        raise InputError(
            f"site '{stuck[0]}' of the guide cannot be reparameterized: RenyiELBO(alpha=0) would give its parameters "
            "a gradient of zero. Use Trace_ELBO, or a guide family that can (a continuous one)"
        )
    shared = [name for name in structure.drawn if name in structure.latents]
    if isinstance(objective, TraceMeanField_ELBO) and shared != list(structure.latents):
        raise InputError(
            f"TraceMeanField_ELBO needs the guide to draw its latents in the model's order, {list(structure.latents)}, "
            f"but it draws {shared}: the closed-form KL would be wrong. Use Trace_ELBO"
        )


def warn_of_noise(objective: ELBO, particles: Particles) -> None:
    """Says which continuous draws of the guide carry no gradient, where the objective has a use for it.

    Discrete ones have none to carry, and are trained by their score function without a word.

    Warns:
        NoisyGradients: naming the site and its family, what happens, and what to do.
    """
    drawn = particles.example.drawn
    stuck = [name for name, carries in particles.structure.drawn.items() if not carries]
    stuck = [name for name in stuck if base_measure(drawn[name]["fn"]) == "density"]
    if not (stuck and getattr(objective, "moves_draws", True)):
        return
    with torch.enable_grad():
        (run,) = particles.traces(1)
        trained = [name for name in stuck if run.score().drawn[name]["log_prob"].requires_grad]
    for name in trained:
        family = type(layers(drawn[name]["fn"])[-1]).__name__
        warn(
            NoisyGradients(
                f"site '{name}' of the guide: draws of {family} carry no gradient (it has no rsample), so the score "
                "function trains its parameters. Its gradients are right on average and far noisier: the fit is slow, "
                "and often ends many nats below its bound. Draw from a family whose draws carry gradients "
                "(has_rsample is true)"
            )
        )
