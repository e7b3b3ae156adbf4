r"""Adam as a function of tensors, so that a step can be one graph: its rate an input, its update masked at will.

.. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \qquad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
    \theta \leftarrow \theta - \frac{\eta}{1-\beta_1^t} \, m \Big/ \Big( \sqrt{v / (1-\beta_2^t)} + \epsilon \Big)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_KINDS = (torch.optim.Adam, torch.optim.AdamW)
_UNLIKE_ADAM = ("amsgrad", "maximize", "differentiable")  # what the formula above does not do


class _Slot(NamedTuple):
    """One parameter, the settings of its group, and what Adam remembers of it."""

    parameter: Tensor
    group: dict[str, Any]
    step: Tensor
    mean: Tensor
    square: Tensor


class Adam:
    """The update of torch's own Adam objects on their own state, without looking at any value.

    Args:
        optimizers: over disjoint parameters, as :func:`is_adam` admits them; their state is made where there is none.

    References:
        Kingma and Ba (2015), Adam: a method for stochastic optimization, arXiv:1412.6980.
        Loshchilov and Hutter (2019), Decoupled weight decay regularization, arXiv:1711.05101.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        clocks: dict[float, Tensor] = {}  # parameters that have taken equally many steps share one counter
        self.slots = [
            _slot(optimizer, group, parameter, clocks)
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        self.clocks = list(clocks.values())

    @property
    def parameters(self) -> list[Tensor]:
        """What is updated, in the order of the gradients."""
        return [slot.parameter for slot in self.slots]

    def state(self) -> list[Tensor]:
        """What Adam remembers: counters, means and mean squares."""
        return self.clocks + [tensor for slot in self.slots for tensor in (slot.mean, slot.square)]

    def __call__(self, gradients: Sequence[Tensor | None], rate: Tensor, allowed: Tensor) -> None:
        """Takes one step.

        Args:
            gradients: one for each of :attr:`parameters`; None leaves it alone.
            rate: factor on every learning rate, a float64 scalar.
            allowed: whether to take the step at all, a boolean scalar.
        """
        for clock in self.clocks:
            clock.add_(allowed)
        for slot, gradient in zip(self.slots, gradients, strict=True):
            if gradient is not None:
                _update(slot, gradient, rate, allowed)


def is_adam(optimizer: Any) -> bool:
    """Whether :class:`Adam` does what a torch optimizer would."""
    return type(optimizer) in _KINDS and not any(
        group.get(name) for group in optimizer.param_groups for name in _UNLIKE_ADAM
    )


def _slot(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Tensor, clocks: dict[float, Tensor]
) -> _Slot:
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = state[name].detach().clone()  # memory of its own, also after a checkpoint was read
    state["step"] = clocks.setdefault(float(state["step"]), state["step"].to(parameter.device, copy=True))
    return _Slot(parameter, group, state["step"], state["exp_avg"], state["exp_avg_sq"])


def _update(slot: _Slot, gradient: Tensor, rate: Tensor, allowed: Tensor) -> None:
    group, parameter, time = slot.group, slot.parameter.detach(), slot.step.double()
    (beta1, beta2), decay = group["betas"], group["weight_decay"]
    learning_rate = group["lr"] * rate
    if decay and not group["decoupled_weight_decay"]:
        gradient = gradient + decay * parameter
    start = parameter * (1 - learning_rate * decay) if group["decoupled_weight_decay"] else parameter
    mean = torch.lerp(slot.mean, gradient, 1 - beta1)
    square = slot.square * beta2 + gradient * gradient * (1 - beta2)
    deviation = square.sqrt() / (1 - beta2**time).sqrt() + group["eps"]
    moved = start - learning_rate / (1 - beta1**time) * mean / deviation
    for tensor, value in ((slot.mean, mean), (slot.square, square), (parameter, moved)):
        tensor.copy_(torch.where(allowed, value, tensor))
