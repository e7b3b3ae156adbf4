"""One step of stochastic variational inference: Pyro's own, but for what is not finite, which moves no parameter."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, SVI
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyrovae.base.memory import explain_out_of_memory
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.checks.data import IMPOSSIBLE
from pyrovae.pairs.context import evaluation_mode
from pyrovae.pairs.traces import Program
from pyrovae.training import optimizers
from pyrovae.training.checkpoint import rng_state, set_rng_state
from pyrovae.training.guide_alone import Kept
from pyrovae.training.meter import Meter, Recorded, not_finite_sites, plate_scale
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.optimizers import OptimizerMaker, forget_gradients, unconstrained_parameters


class NonFiniteLoss(FloatingPointError):
    """A loss or a gradient is not finite; the message names the site or the parameter."""


class Step(SVI):
    """Pyro's SVI, whose step also says what is to be logged, and refuses what is not finite.

    Args:
        model: of the pair as it is trained, handlers included.
        guide: likewise.
        optimizer: a ``PyroOptim``, or a function parameters -> ``torch.optim.Optimizer``.
        objective: any Pyro ELBO; it is left as it is.

    Attributes:
        rate: factor on every learning rate.
        meter: of what :meth:`take` took.
        kept: what is left as it is.
    """

    def __init__(self, model: Program, guide: Program, optimizer: PyroOptim | OptimizerMaker, objective: ELBO) -> None:
        self.recorded = None if isinstance(objective, Objective) else Recorded(objective)
        self.objective: Any = self.recorded.objective if self.recorded else objective
        optimizer = optimizer if isinstance(optimizer, PyroOptim) else optimizers.Joint(optimizer)
        super().__init__(model, guide, optimizer, self.objective)
        self.rate = 1.0
        self.meter = Meter()
        self.kept = Kept([], [])

    def prime(self, batches: Sequence[tuple[Tensor, ...]], modules: Sequence[nn.Module]) -> None:
        """Lets the objective guess its plates now, so that no step draws numbers for it; clears old gradients.

        Args:
            batches: one of each size that will come.
            modules: those of the programs.
        """
        for batch in batches:
            advice = explain_out_of_memory(f"a batch of {len(batch[0])}: lower batch_size")
            with preserve_rng_state(), torch.no_grad(), evaluation_mode(modules), numerics_of_training(), advice:
                self.meter.scales[len(batch[0])] = plate_scale(self.model, self.guide, batch)
                self.loss(self.model, self.guide, *batch)
        forget_gradients(unconstrained_parameters())

    def step(self, *batch: Tensor) -> Bound:
        """Takes one step.

        Args:
            batch: what both programs are called with; the first dimension is the datum.

        Returns:
            The loss of the batch before the step, and the terms of its true ELBO.

        Raises:
            NonFiniteLoss: naming site or parameter; the parameters and the random state are as before.
        """
        noise = rng_state()
        bound = (self.recorded or self.objective).bound_and_grads(self.model, self.guide, *batch)
        parameters = self.kept.trained()
        if fault := _not_finite(bound.loss, parameters):
            set_rng_state(noise)
            raise NonFiniteLoss(self._diagnosis(batch, fault))
        groups = optimizers.parameter_groups(optimizers.torch_optimizers(self.optim, parameters))
        with optimizers.scaled(groups, self.rate), optimizers.explained():
            self.optim(parameters)
        forget_gradients([*parameters, *self.kept.parameters, *(p for group in groups for p in group["params"])])
        return bound

    def take(self, batch: Sequence[Tensor]) -> None:
        """Takes one step, and counts it."""
        self.meter.add(self.step(*batch), len(batch[0]))

    def _diagnosis(self, batch: Sequence[Tensor], fault: str) -> str:
        """What is not finite on a batch: the site if one can be found, else the fault that was seen."""
        with preserve_rng_state():
            bad = not_finite_sites(self.model, self.guide, batch)
        site, family = next(iter(bad.items()), (None, None))
        cause = f"the log density of site '{site}' is not finite" if site else fault
        general = "Lower the learning rate, or look at the data and scales there"
        return f"{cause}; the step was not taken. {IMPOSSIBLE.format(family=family) if family else general}"


def _not_finite(loss: Tensor, parameters: Sequence[Tensor]) -> str:
    """What is not finite, the loss or the gradients of which parameters; empty if all are."""
    if not math.isfinite(loss.item()):
        return f"the loss is {loss.item()}"
    gradients = {p: p.grad for p in parameters if p.grad is not None and p.numel()}
    # One look; five times as fast as that at the largest, though squares overflow before gradients do.
    if torch.nn.utils.get_total_norm(gradients.values()).isfinite():
        return ""
    names = [str(pyro.get_param_store().param_name(p)) for p, g in gradients.items() if not g.isfinite().all()]
    return f"gradient of {', '.join(names[:3]).replace('$$$', '.')} is not finite" if names else ""


@contextmanager
def numerics_of_training() -> Iterator[None]:
    """Pyro's checks off for the hot loop: values were checked before it, gradients are checked in it."""
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encountered NaN")
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        yield
