r"""What a fit of the guide alone leaves as it is: the model's parameters, by what log p depends on, and its modules.

.. math:: \theta = \{\, \text{parameters } t : \log p_t(x, z) \text{ at fixed } z \text{ depends on } t \,\}

Names do not tell: :class:`~pyrovae.VAE` registers all its weights in both programs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.data.batches import Batch
from pyrovae.pairs.context import called_modules, preserve_modes
from pyrovae.pairs.traces import Program, plain_traces, site_log_prob, sites_of
from pyrovae.training.checkpoint import Snapshot, weights
from pyrovae.training.objectives.bounds import slopes
from pyrovae.training.optimizers import unconstrained_parameters

_NUDGE = 0.01  # by which a parameter is moved to see whether log p goes along


class Kept(NamedTuple):
    """What a fit leaves as it is."""

    parameters: list[Tensor]  # unconstrained
    modules: list[nn.Module]  # parts that run in eval mode: those that the model calls
    known: int = -1  # parameters that there are; -1 where there may come more

    def trained(self) -> list[Tensor]:
        """The parameters that go to the optimizer.

        Raises:
            InputError: naming it, for a parameter that came after it was found out whose each is.
        """
        every, kept = unconstrained_parameters(), {id(parameter) for parameter in self.parameters}
        if 0 <= self.known != len(every):
            raise InputError(
                f"only='guide': parameter {_names(every[-1:])} first came within the fit, and whose each is was found "
                "out before; make it when the programs are built"
            )
        return [parameter for parameter in every if id(parameter) not in kept]

    def training_mode(self, modules: Sequence[nn.Module]) -> None:
        """Train mode, but for the parts that are kept."""
        for module in modules:
            module.train()
        for part in self.modules:
            part.training = False


def models_own(pair: tuple[Program, Program], batches: Sequence[Batch], modules: Sequence[nn.Module]) -> Kept:
    """What belongs to the model of a pair, what both programs use included.

    Args:
        pair: model and guide, neither tempered.
        batches: on which log p is looked at.
        modules: those of the programs; the model's run in eval mode.

    Raises:
        InputError: if nothing is left to train; for a model whose log p at fixed z changes from run to run.
    """
    with Snapshot(weights(modules).values()), preserve_modes(modules), pyro.validation_enabled(False):
        called = [part for batch in batches for part in _called_by_model(pair, batch)]
        kept = Kept([], list(dict.fromkeys(called)))
        kept.training_mode(modules)
        found = [parameter for batch in batches for parameter in _depended_on(pair, batch)]
    every = unconstrained_parameters()
    own = {id(parameter) for parameter in found}
    if not any(p.requires_grad and id(p) not in own for p in every):
        names = _names([parameter for parameter in every if id(parameter) in own])
        raise InputError(
            f"only='guide': nothing is left to train, as log p(x, z) depends on every parameter there is ({names}); "
            "give the guide parameters of its own"
        )
    return kept._replace(parameters=[p for p in every if id(p) in own], known=len(every))


def _called_by_model(pair: tuple[Program, Program], batch: Batch) -> list[nn.Module]:
    """The modules that the model calls, and their parts."""
    model, guide = pair
    with torch.no_grad(), called_modules():
        drawn = plain_traces(model, guide, batch).guide
        with called_modules() as called:
            sites_of(poutine.replay(model, trace=drawn), *batch, role="model")
        return list(called)


def _depended_on(pair: tuple[Program, Program], batch: Batch) -> list[Tensor]:
    """The parameters by which log p(x, z) at one z has a gradient, and those that move it without one."""
    model, guide = pair
    with torch.no_grad():
        drawn = plain_traces(model, guide, batch).guide

    def log_joint() -> Tensor:
        joint = sites_of(poutine.replay(model, trace=drawn), *batch, role="model")
        return torch.cat([site_log_prob(site).double().flatten() for site in joint.values()])

    def moves(parameters: Sequence[Tensor]) -> bool:
        with Snapshot(parameters), torch.no_grad():
            for parameter in parameters:
                parameter.add_(_NUDGE)
            return not torch.equal(before, log_joint())

    with torch.no_grad():  # with gradients it may be rounded otherwise
        before = log_joint()
    if moves([]):
        raise InputError(
            "only='guide': log p(x, z) at one z changes from run to run, so there is no one model to infer; let "
            "nothing in the model draw but pyro.sample"
        )
    every = [parameter for parameter in unconstrained_parameters() if parameter.requires_grad]
    found = list(zip(every, slopes(log_joint().sum(), every), strict=True))
    reached = [parameter for parameter, slope in found if slope is not None]
    others = [parameter for parameter, slope in found if slope is None]
    return reached + ([one for one in others if moves([one])] if moves(others) else [])


def _names(parameters: Sequence[Tensor]) -> str:
    names = [str(pyro.get_param_store().param_name(one)).replace("$$$", ".") for one in parameters]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
