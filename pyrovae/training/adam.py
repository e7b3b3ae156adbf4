r"""Adam as a function of tensors.

.. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \qquad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
    \theta \leftarrow \theta - \frac{\eta}{1-\beta_1^t} \, m \Big/ \Big( \sqrt{v / (1-\beta_2^t)} + \epsilon \Big)

It is for a step that is one graph; it works on the state of torch's own objects, and its rate is an input.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.training.optimizers import torch_optimizers


def as_function(optimizer: PyroOptim, parameters: list[Tensor]) -> "Adam":
    """The update of an optimizer as a function of tensors, on the optimizer's own state.

    Raises:
        Untraceable: if it is not Adam or AdamW as torch makes them.
    """
    found, clipped = torch_optimizers(optimizer, parameters), any(optimizer.grad_clip.values())
    if clipped or not all(is_adam(one) for one in found):
        kind = "an optimizer that clips gradients" if clipped else type(found[0]).__name__
        raise Untraceable(f"{kind} is not among the updates that are traced: torch's Adam and AdamW are")
    return Adam(found)


_KINDS = (torch.optim.Adam, torch.optim.AdamW)
_UNLIKE_ADAM = ("amsgrad", "maximize", "differentiable")  # what the formula above does not do


class _Slot(NamedTuple):
    """A parameter, and what Adam remembers of it: torch's own dictionary."""

    parameter: Tensor
    state: dict[str, Any]


class _Group(NamedTuple):
    """Parameters with the same settings that have taken equally many steps."""

    settings: dict[str, Any]
    time: Tensor  # how many, a scalar
    slots: list[_Slot]


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
                    group = groups.setdefault(key, _Group(settings, state["step"].clone(), []))
                    group.slots.append(_Slot(parameter, state))
        self.groups = list(groups.values())
        self.slots = [slot for group in self.groups for slot in group.slots]
        self.parameters = [slot.parameter for slot in self.slots]  # in the order of the gradients

    def read_counters(self) -> None:
        """Begins where torch's own objects are."""
        for group in self.groups:
            group.time.copy_(torch.stack([slot.state["step"] for slot in group.slots]).max())

    def write_counters(self) -> None:
        """Tells torch's own objects, which count for each parameter, how far it went."""
        for group in self.groups:
            for slot in group.slots:
                slot.state["step"].copy_(group.time)

    def state(self) -> list[Tensor]:
        """What Adam remembers: counters, means and mean squares."""
        times = [group.time for group in self.groups]
        return [*times, *(slot.state[name] for slot in self.slots for name in ("exp_avg", "exp_avg_sq"))]

    def __call__(self, gradients: Sequence[Tensor | None], rate: Tensor) -> None:
        """Takes one step.

        Args:
            gradients: one for each of :attr:`parameters`; None leaves it alone.
            rate: factor on every learning rate, a float64 scalar.
        """
        coming = iter(gradients)
        for group in self.groups:
            group.time.add_(1)
            scalars = _scalars(group, rate)
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


def _scalars(group: _Group, rate: Tensor) -> tuple[Tensor, ...]:
    """What is left of a parameter after decay, first rate after its correction, and one over the second's root.

    They are put into a tensor of their own, which a compiler then keeps in memory: else it would compute them anew
    for every few elements of every parameter, which took a third of a step. What is divided by is inverted here: a
    root and one division for each element are what an update costs.
    """
    learning_rate, time, decay = group.settings["lr"] * rate, group.time.double(), group.settings["weight_decay"]
    first, second = (-torch.expm1(time * math.log(beta)) if beta else 1 + 0 * time for beta in group.settings["betas"])
    values = torch.stack([1 - learning_rate * decay, learning_rate / first, second.rsqrt()])
    values = values.to(reduce(torch.promote_types, (slot.parameter.dtype for slot in group.slots)))
    held = torch.zeros_like(values).index_put((torch.arange(len(values), device=values.device),), values)
    return held.unbind()


def _update(
    slot: _Slot, gradient: Tensor, settings: dict[str, Any], kept: Tensor, corrected_rate: Tensor, inverse_root: Tensor
) -> None:
    mean, square = slot.state["exp_avg"], slot.state["exp_avg_sq"]
    parameter, (beta1, beta2), decay = slot.parameter.detach(), settings["betas"], settings["weight_decay"]
    if decay and settings["decoupled_weight_decay"]:
        parameter.mul_(kept)
    elif decay:
        gradient = gradient + decay * parameter
    floor = (settings["eps"] * torch.finfo(parameter.dtype).eps) ** 2
    mean.copy_(_floored(torch.lerp(mean, gradient, 1 - beta1), floor))
    square.copy_(_floored(square * beta2 + (1 - beta2) * gradient * gradient, floor))
    parameter.sub_(corrected_rate * mean / (square.sqrt() * inverse_root + settings["eps"]))


def _floored(moment: Tensor, floor: float) -> Tensor:
    """A moment with what is too small to be told from zero beside epsilon made zero, and NaN left.

    Where a gradient stays zero (a unit that died, a pixel that went dark) the moments shrink into the subnormal
    numbers and get stuck there, for 0.9 times the smallest is rounded to itself; each then costs a CPU some hundred
    cycles, at every step: of a step at batch 128 that was a third.
    """
    return torch.where(moment.abs() < floor, 0.0, moment)
