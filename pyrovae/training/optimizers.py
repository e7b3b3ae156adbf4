"""The optimizer as Pyro's SVI calls it: one torch optimizer over all parameters, behind a guard.

Pyro makes one torch optimizer for each parameter, and steps it whatever the gradient is. Here all parameters are
stepped together, and a gradient that is not finite never reaches the weights.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from pyro.optim.optim import _load_state_dict
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.graphs import Untraceable
from pyrovae.training.updates import Adam, is_adam

OptimizerMaker = Callable[[list[Tensor]], torch.optim.Optimizer]


class NotFiniteError(FloatingPointError):
    """A loss or a gradient is not finite; ``names`` are the parameters that it belongs to."""

    def __init__(self, names: list[str], message: str = "") -> None:
        super().__init__(message or f"gradient of {', '.join(names[:3])} is not finite")
        self.names = names


def adam(learning_rate: float = 1e-3) -> OptimizerMaker:
    """Adam (Kingma & Ba 2015) over all parameters, with torch's fused update."""
    return lambda parameters: torch.optim.Adam(parameters, lr=learning_rate, fused=True)


class Guarded(PyroOptim):
    """Steps ``optimizer`` if the loss and every gradient are finite, at a rate that can be scaled from outside.

    Args:
        optimizer: a ``PyroOptim``, or a function parameters -> ``torch.optim.Optimizer``, called at the first
            step, when every ``pyro.param`` exists.
    """

    def __init__(self, optimizer: PyroOptim | OptimizerMaker) -> None:
        super().__init__(torch.optim.Adam, {})
        self.optimizer = optimizer
        self.torch_optimizer: torch.optim.Optimizer | None = None
        self.rate = 1.0  # factor on every learning rate
        self.loss = 0.0  # of the step that is being taken
        self.waiting: dict | None = None  # state to be restored at the first step

    def watched(self, objective: ELBO) -> "Watched":
        """The objective as SVI calls it, with its losses shown to this optimizer before the step."""
        return Watched(objective, self)

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        parameters = _in_store_order(params)
        self._refuse_not_finite(parameters)
        if isinstance(self.optimizer, PyroOptim):
            with _scaled(self._pyro(self.optimizer, parameters), self.rate):
                self.optimizer(parameters)
        else:
            optimizer = self._torch(parameters)
            with _scaled([optimizer], self.rate):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)  # of zeros, momentum would go on moving what a callback freezes
        self.waiting = None

    def adam(self, parameters: list[Tensor]) -> Adam:
        """The update as a function of tensors, on the state of this optimizer.

        Raises:
            Untraceable: if it is not Adam or AdamW as torch makes them.
        """
        clipped = False
        if isinstance(self.optimizer, PyroOptim):
            found = self._pyro(self.optimizer, parameters)
            clipped = any(self.optimizer.grad_clip.values())
        else:
            found = [self._torch(parameters)]
        if clipped or not all(is_adam(one) for one in found):
            kind = "an optimizer that clips gradients" if clipped else type(found[0]).__name__
            raise Untraceable(f"{kind} is not among the updates that are traced: torch's Adam and AdamW are")
        self.waiting = None
        return Adam(found)

    def separate(self) -> None:
        """Gives each parameter a step counter of its own again, as the optimizer itself needs them."""
        if isinstance(self.optimizer, PyroOptim):
            found = list(self.optimizer.optim_objs.values())
        else:
            found = [self.torch_optimizer] if self.torch_optimizer else []
        for state in (state for optimizer in found for state in optimizer.state.values()):
            if "step" in state:
                state["step"] = state["step"].clone()

    def get_state(self) -> dict:
        """State of the optimizer as nested plain values and tensors; rates as they are unscaled."""
        if self.waiting is not None:
            return self.waiting
        if isinstance(self.optimizer, PyroOptim):
            return self.optimizer.get_state()
        return self.torch_optimizer.state_dict() if self.torch_optimizer else {}

    def set_state(self, state_dict: dict) -> None:
        """Restores :meth:`get_state`; only before the first step, since Pyro ignores it later."""
        self.waiting = state_dict or None
        if isinstance(self.optimizer, PyroOptim):
            self.optimizer.set_state(state_dict)

    def _pyro(self, optimizer: PyroOptim, parameters: list[Tensor]) -> list[torch.optim.Optimizer]:
        for parameter in parameters:
            if parameter not in optimizer.optim_objs:  # made now as Pyro makes it, so that its rate can be scaled
                optimizer.optim_objs[parameter] = optimizer._get_optim(parameter)
                optimizer.grad_clip[parameter] = optimizer._get_grad_clip(parameter)  # type: ignore[arg-type]
                name = pyro.get_param_store().param_name(parameter)
                state = optimizer._state_waiting_to_be_consumed.pop(name, None)
                if state is not None:
                    _load_state_dict(optimizer.optim_objs[parameter], state)
        return list(optimizer.optim_objs.values())

    def _torch(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        if self.torch_optimizer is None:
            assert not isinstance(self.optimizer, PyroOptim)
            self.torch_optimizer = self.optimizer(parameters)
            if self.waiting:
                _refuse_other_rates(self.torch_optimizer, self.waiting)
                self.torch_optimizer.load_state_dict(self.waiting)
        known = {id(p) for group in self.torch_optimizer.param_groups for p in group["params"]}
        late = [p for p in parameters if id(p) not in known]  # a pyro.param that first ran now
        if late:
            self.torch_optimizer.add_param_group({"params": late})
        return self.torch_optimizer

    def _refuse_not_finite(self, parameters: list[Tensor]) -> None:
        if not math.isfinite(self.loss):
            raise NotFiniteError([], f"the loss is {self.loss}")
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients and not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            store = pyro.get_param_store()
            bad = [p for p in parameters if p.grad is not None and not p.grad.isfinite().all()]
            raise NotFiniteError([str(store.param_name(p)).replace("$$$", ".") for p in bad])


def _in_store_order(params: Iterable[Tensor]) -> list[Tensor]:
    """SVI gives a set; the store's order is the same in every process."""
    wanted = {id(p) for p in params}
    every = {id(p): p for _, p in pyro.get_param_store().named_parameters()}  # one may have two names
    return [p for key, p in every.items() if key in wanted]


class Watched(ELBO):
    """An objective that tells a :class:`Guarded` optimizer its loss before the step is taken."""

    def __init__(self, objective: ELBO, optimizer: Guarded) -> None:
        super().__init__()
        self.objective, self.optimizer = objective, optimizer

    def loss(self, *args: Any, **kwargs: Any) -> float:
        """The objective's loss."""
        return self.objective.loss(*args, **kwargs)  # type: ignore[attr-defined]

    def loss_and_grads(self, *args: Any, **kwargs: Any) -> float:
        """The objective's loss, with its gradients left on the parameters."""
        self.optimizer.loss = self.objective.loss_and_grads(*args, **kwargs)  # type: ignore[attr-defined]
        return self.optimizer.loss

    def _get_trace(self, *args: Any, **kwargs: Any) -> Any:
        return self.objective._get_trace(*args, **kwargs)


@contextmanager
def _scaled(optimizers: list[Any], factor: float) -> Iterator[None]:
    """Learning rates multiplied inside; afterwards as before, times what the optimizer itself made of them."""
    groups = [group for o in optimizers for group in getattr(o, "optimizer", o).param_groups]  # of schedulers too
    before = [group["lr"] for group in groups]
    for group, rate in zip(groups, before, strict=True):
        group["lr"] = rate * factor
    try:
        yield
    finally:
        for group, rate in zip(groups, before, strict=True):
            unchanged = group["lr"] == rate * factor
            group["lr"] = rate if unchanged else rate * (group["lr"] / (rate * factor))


def _refuse_other_rates(optimizer: torch.optim.Optimizer, stored: dict) -> None:
    given = [group["lr"] for group in optimizer.param_groups]
    before = [group["lr"] for group in stored["param_groups"]]
    if any(not math.isclose(a, b, rel_tol=1e-6) for a, b in zip(given, before, strict=False)):
        raise InputError(f"was fitted with a learning rate of {before[0]:g}, not {given[0]:g}; resume it as it was")
