"""The optimizer as Pyro's SVI calls it: one torch optimizer over all parameters, behind a guard.

Pyro makes one torch optimizer for each parameter, and steps it whatever the gradient is. Here all parameters are
stepped together, and a gradient that is not finite never reaches the weights.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

OptimizerMaker = Callable[[list[Tensor]], torch.optim.Optimizer]


class NotFiniteError(FloatingPointError):
    """A gradient is not finite; ``names`` are the parameters that it belongs to."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"gradient of {', '.join(names[:3])} is not finite")
        self.names = names


def adam(learning_rate: float = 1e-3) -> OptimizerMaker:
    """Adam (Kingma & Ba 2015) over all parameters, with torch's fused update."""
    return lambda parameters: torch.optim.Adam(parameters, lr=learning_rate, fused=True)


class Guarded(PyroOptim):
    """Steps ``optimizer`` if every gradient is finite, at a learning rate that can be scaled from outside.

    Args:
        optimizer: a ``PyroOptim``, or a function parameters -> ``torch.optim.Optimizer``, called at the first
            step, when every ``pyro.param`` exists.
    """

    def __init__(self, optimizer: PyroOptim | OptimizerMaker) -> None:
        super().__init__(torch.optim.Adam, {})
        self.optimizer = optimizer
        self.torch_optimizer: torch.optim.Optimizer | None = None
        self.base_rates: dict[int, list[float]] = {}
        self.rate = 1.0
        self.waiting: Any = None

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        parameters = _in_store_order(params)
        self._refuse_not_finite(parameters)
        if isinstance(self.optimizer, PyroOptim):
            self.optimizer(parameters, *args, **kwargs)
        else:
            self._torch(parameters).step()

    def scale_rate(self, factor: float) -> None:
        """Multiplies every learning rate by ``factor``, relative to what it was at first."""
        self.rate = factor
        for optimizer in self._optimizers():
            base = self.base_rates.setdefault(id(optimizer), [group["lr"] for group in optimizer.param_groups])
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = rate * factor

    def get_state(self) -> dict:
        """State of the optimizer as nested plain values and tensors; rates as they were before scaling."""
        rate = self.rate
        self.scale_rate(1.0)
        try:
            if isinstance(self.optimizer, PyroOptim):
                return self.optimizer.get_state()
            return self.torch_optimizer.state_dict() if self.torch_optimizer else {}
        finally:
            self.scale_rate(rate)

    def set_state(self, state_dict: dict) -> None:
        """Restores :meth:`get_state`; only before the first step, since Pyro ignores it later."""
        if isinstance(self.optimizer, PyroOptim):
            self.optimizer.set_state(state_dict)
        else:
            self.waiting = state_dict

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        if isinstance(self.optimizer, PyroOptim):
            return list(self.optimizer.optim_objs.values())
        return [self.torch_optimizer] if self.torch_optimizer else []

    def _torch(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        if self.torch_optimizer is None:
            assert not isinstance(self.optimizer, PyroOptim)
            self.torch_optimizer = self.optimizer(parameters)
            if self.waiting:
                self.torch_optimizer.load_state_dict(self.waiting)
            self.scale_rate(self.rate)
        known = {id(p) for group in self.torch_optimizer.param_groups for p in group["params"]}
        late = [p for p in parameters if id(p) not in known]  # a pyro.param that first ran now
        if late:
            rate = self.rate
            self.scale_rate(1.0)
            self.torch_optimizer.add_param_group({"params": late})
            self.base_rates.clear()
            self.scale_rate(rate)
        return self.torch_optimizer

    def _refuse_not_finite(self, parameters: list[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients and not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            store = pyro.get_param_store()
            bad = [p for p in parameters if p.grad is not None and not p.grad.isfinite().all()]
            raise NotFiniteError([str(store.param_name(p)).replace("$$$", ".") for p in bad])


def _in_store_order(params: Iterable[Tensor]) -> list[Tensor]:
    """SVI gives a set; the store's order is the same in every process."""
    wanted = {id(p) for p in params}
    return [p for _, p in pyro.get_param_store().named_parameters() if id(p) in wanted]
