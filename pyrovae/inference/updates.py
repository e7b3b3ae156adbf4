r"""Adam as a function of tensors, so that a step can be one graph: its rate an input, its update masked at will.

.. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \qquad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
    \theta \leftarrow \theta - \frac{\eta}{1-\beta_1^t} \, m \Big/ \Big( \sqrt{v / (1-\beta_2^t)} + \epsilon \Big)
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_KINDS = (torch.optim.Adam, torch.optim.AdamW)
_UNLIKE_ADAM = ("amsgrad", "maximize", "differentiable")  # what the formula above does not do


class _Group(NamedTuple):
    """Parameters with the same settings that have taken equally many steps."""

    settings: dict[str, Any]
    time: Tensor  # scalar
    slots: list["_Slot"]


class _Slot(NamedTuple):
    """A parameter, and what Adam remembers of it."""

    parameter: Tensor
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
        groups: dict[tuple[int, float], _Group] = {}
        for optimizer in optimizers:
            for settings in optimizer.param_groups:
                for parameter in settings["params"]:
                    state = _state(optimizer, parameter)
                    key = id(settings), float(state["step"])
                    group = groups.setdefault(key, _Group(settings, state["step"], []))
                    state["step"] = group.time  # shared
                    group.slots.append(_Slot(parameter, state["exp_avg"], state["exp_avg_sq"]))
        self.groups = list(groups.values())

    @property
    def parameters(self) -> list[Tensor]:
        """What is updated, in the order of the gradients."""
        return [slot.parameter for group in self.groups for slot in group.slots]

    def state(self) -> list[Tensor]:
        """What Adam remembers: counters, means and mean squares."""
        slots = [slot for group in self.groups for slot in group.slots]
        return [*(group.time for group in self.groups), *(tensor for slot in slots for tensor in slot[1:])]

    def __call__(self, gradients: Sequence[Tensor | None], rate: Tensor, allowed: Tensor) -> None:
        """Takes one step.

        Args:
            gradients: one for each of :attr:`parameters`; None leaves it alone.
            rate: factor on every learning rate, a float64 scalar.
            allowed: whether to take the step at all, a boolean scalar.
        """
        coming = iter(gradients)
        for group in self.groups:
            group.time.add_(allowed)
            scalars = _scalars(group, rate, allowed)
            for slot in group.slots:
                gradient = next(coming)
                if gradient is not None:
                    _update(slot, gradient, group.settings, *scalars)


def is_adam(optimizer: Any) -> bool:
    """Whether :class:`Adam` does what a torch optimizer would."""
    return type(optimizer) in _KINDS and not any(
        group.get(name) for group in optimizer.param_groups for name in _UNLIKE_ADAM
    )


def _state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Any]:
    """The optimizer's own state, each tensor in memory of its own (what a checkpoint gives may share it)."""
    state, device = optimizer.state[parameter], parameter.device
    state["step"] = torch.zeros((), device=device) if not state else state["step"].to(device, copy=True)
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = state[name].detach().clone() if name in state else torch.zeros_like(parameter).detach()
    return state


def _scalars(group: _Group, rate: Tensor, allowed: Tensor) -> tuple[Tensor, ...]:
    """Learning rate, first rate after its correction, root of the second correction, and whether to take the step.

    They are put into a tensor of their own, which a compiler then keeps in memory: else it would compute them anew
    for every few elements of every parameter, which took a third of a step.
    """
    learning_rate, time = group.settings["lr"] * rate, group.time.double()
    first, second = (-torch.expm1(time * math.log(beta)) if beta else 1 + 0 * time for beta in group.settings["betas"])
    values = torch.stack([learning_rate, learning_rate / first, second.sqrt(), allowed.double()])
    held = torch.zeros_like(values).index_put((torch.arange(len(values), device=values.device),), values)
    return held.unbind()


def _update(
    slot: _Slot,
    gradient: Tensor,
    settings: dict[str, Any],
    learning_rate: Tensor,
    corrected_rate: Tensor,
    root: Tensor,
    allowed: Tensor,
) -> None:
    parameter, (beta1, beta2), decay = slot.parameter.detach(), settings["betas"], settings["weight_decay"]
    if decay and not settings["decoupled_weight_decay"]:
        gradient = gradient + decay * parameter
    start = parameter * (1 - learning_rate * decay) if settings["decoupled_weight_decay"] else parameter
    mean = torch.lerp(slot.mean, gradient, 1 - beta1)
    square = slot.square * beta2 + gradient * gradient * (1 - beta2)
    moved = start - corrected_rate * mean / (square.sqrt() / root + settings["eps"])
    for tensor, value in ((slot.mean, mean), (slot.square, square), (parameter, moved)):
        tensor.copy_(torch.where(allowed != 0, value, tensor))
