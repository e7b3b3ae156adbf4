r"""What steps the parameters: any optimizer of Pyro's or torch's, and Adam as a function of tensors.

.. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \qquad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
    \theta \leftarrow \theta - \frac{\eta}{1-\beta_1^t} \, m \Big/ \Big( \sqrt{v / (1-\beta_2^t)} + \epsilon \Big)

The function is for a step that is one graph; it works on the state of torch's own objects, and its rate is an input.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import pyro
import torch
from pyro.optim import PyroOptim
from pyro.optim.optim import _load_state_dict
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import out_of_memory
from pyrovae.pairs.graphs import Untraceable

OptimizerMaker = Callable[[list[Tensor]], torch.optim.Optimizer]


def adam(learning_rate: float = 1e-3) -> OptimizerMaker:
    """Adam (Kingma & Ba 2015) over all parameters, with torch's fused update."""
    return lambda parameters: torch.optim.Adam(parameters, lr=learning_rate, fused=True)


class Joint(PyroOptim):
    """All parameters stepped by one torch optimizer, where Pyro's own make one for each.

    Args:
        make: parameters -> ``torch.optim.Optimizer``, called at the first step, when every ``pyro.param`` exists.
    """

    def __init__(self, make: OptimizerMaker) -> None:
        super().__init__(make, {})
        self.make = make
        self.optimizer: torch.optim.Optimizer | None = None
        self.offered: list[Tensor] = []  # what it was made of, though it may leave some alone; and what came later

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """Takes one step."""
        self.over(list(params)).step()

    def over(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """The torch optimizer; made now if it was not, and given the parameters that were not there then.

        Raises:
            InputError: where it cannot be made, or a state waits for it that another optimizer left.
        """
        if self.optimizer is None:
            self.optimizer, self.offered = _made(self.make, parameters), list(parameters)
            if self._state_waiting_to_be_consumed:
                _load(self.optimizer, self._state_waiting_to_be_consumed)
        known = {id(p) for p in self.offered}
        late = [p for p in parameters if id(p) not in known]  # a pyro.param that first ran now
        if late:
            self.optimizer.add_param_group({"params": late})
            self.offered += late
        return self.optimizer

    def get_state(self) -> dict:
        """State of the torch optimizer, and its class; rates as they are unscaled."""
        return _state_dict_and_class(self.optimizer, self.optimizer.state_dict()) if self.optimizer else {}


def state_of(optimizer: PyroOptim) -> dict:
    """What an optimizer's ``get_state`` gives, with the classes of torch's optimizers behind it."""
    state = optimizer.get_state()
    for parameter, one in optimizer.optim_objs.items():
        name = pyro.get_param_store().param_name(parameter)
        state[name] = _state_dict_and_class(one, state[name])
    return state


def _state_dict_and_class(optimizer: Any, state: dict) -> dict:
    return {**state, "class": type(getattr(optimizer, "optimizer", optimizer)).__name__}


def _made(make: OptimizerMaker, parameters: list[Tensor]) -> torch.optim.Optimizer:
    try:
        optimizer = make(parameters)
    except Exception as error:
        raise InputError(f"optimizer: it cannot be made of the parameters of the programs: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            f"optimizer must be a PyroOptim or a function parameters -> torch.optim.Optimizer; it gave {optimizer!r}"
        )
    return optimizer


# How torch computes a step, not what the step is.
_FREE_SETTINGS = {"params", "foreach", "fused", "capturable", "differentiable"}
_OTHER = "the state kept there is of another optimizer than"


def _load(optimizer: Any, state: dict) -> None:
    """Puts back the state of an optimizer or of a scheduler, if the same one left it.

    Raises:
        InputError: naming the optimizer, or its setting that differs.
    """
    inner, stored = getattr(optimizer, "optimizer", optimizer), state.get("optimizer", state)
    kind, before, groups = type(inner).__name__, state.get("class"), inner.param_groups
    for own, kept in zip(groups, stored["param_groups"], strict=False):
        # a run from before the class was stored is told by the names of its settings alone
        if before != kind and (before or _compared(own) != _compared(kept)):
            raise InputError(f"{_OTHER} {kind}: resume it with the one that it was fitted with{_named(before)}")
        _check_settings(own, kept)
    try:
        _load_state_dict(optimizer, {name: value for name, value in state.items() if name != "class"})
    except (KeyError, ValueError) as error:
        raise InputError(f"{_OTHER} this {kind} ({error}): resume it as it was fitted") from error
    for own, loaded in zip(groups, inner.param_groups, strict=False):  # torch may have added to what was stored
        _check_settings(own, loaded)


def _named(kind: str | None) -> str:
    return f", {kind}" if kind else ""


def _compared(group: dict) -> set[str]:
    """The names of the settings that must be as they were."""
    moving = {"lr", "initial_lr"} if {"lrd", "initial_lr"} & group.keys() else set()  # it changes its rate by itself
    return group.keys() - _FREE_SETTINGS - moving


def _check_settings(own: dict, before: dict) -> None:
    """Raises InputError, naming it, for a setting that both have and that differs."""
    for name in sorted(_compared(own) & _compared(before)):
        if not _equal(own[name], before[name]):
            what = f"a learning rate of {before[name]:g}" if name == "lr" else f"{name} = {before[name]}"
            raise InputError(f"was fitted with {what}, not {own[name]}; resume it as it was")


def _equal(own: Any, before: Any) -> bool:
    """Whether two settings are the same, to rounding; lists and tuples alike."""
    if isinstance(own, list | tuple) and isinstance(before, list | tuple):
        return len(own) == len(before) and all(map(_equal, own, before))
    if all(isinstance(value, float | int | Tensor) for value in (own, before)):
        return math.isclose(float(own), float(before), rel_tol=1e-6)
    return bool(own == before)


def check_steps(optimizer: PyroOptim, parameters: list[Tensor]) -> None:
    """Raises InputError for an optimizer that asks for the loss several times in a step."""
    with explained():
        found = torch_optimizers(optimizer, parameters)
    for one in found:
        inner = getattr(one, "optimizer", one)
        closure = inspect.signature(inner.step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise InputError(
                f"optimizer {type(inner).__name__} looks at the loss several times in a step (its closure), but a "
                "step draws new noise each time: use one that steps by a gradient, Adam for one"
            )


def unconstrained_parameters() -> list[Tensor]:
    """What is optimized, in the order of Pyro's parameter store, which is the same in every process."""
    return list({id(p): p for _, p in pyro.get_param_store().named_parameters()}.values())  # one may have two names


def forget_gradients(parameters: Iterable[Tensor]) -> None:
    """Frees them: of zeros, momentum would go on moving what a callback freezes."""
    for parameter in parameters:
        parameter.grad = None


def torch_optimizers(optimizer: PyroOptim, parameters: list[Tensor]) -> list[torch.optim.Optimizer]:
    """Those (or schedulers of them) behind an optimizer of Pyro's, made now as it would make them at its first step."""
    if isinstance(optimizer, Joint):
        return [optimizer.over(parameters)]
    for parameter in parameters:
        if parameter not in optimizer.optim_objs:
            optimizer.optim_objs[parameter] = optimizer._get_optim(parameter)
            optimizer.grad_clip[parameter] = optimizer._get_grad_clip(parameter)  # type: ignore[arg-type]
            name = pyro.get_param_store().param_name(parameter)
            state = optimizer._state_waiting_to_be_consumed.pop(name, None)
            if state is not None:
                _load(optimizer.optim_objs[parameter], state)
    return list(optimizer.optim_objs.values())


def parameter_groups(optimizers: Sequence[Any]) -> list[dict[str, Any]]:
    """The groups of torch optimizers, and of those within schedulers."""
    return [group for one in optimizers for group in getattr(one, "optimizer", one).param_groups]


@contextmanager
def scaled(groups: Sequence[dict[str, Any]], factor: float) -> Iterator[None]:
    """Learning rates multiplied inside; afterwards as before, times what the optimizer itself made of them."""
    rates = [(group, name, group[name]) for group in groups for name in _RATES & group.keys()]
    if len(rates) < len(groups) and factor != 1:
        raise InputError('optimizer: schedule= multiplies a learning rate ("lr"), and it has none; leave schedule= out')
    for group, name, rate in rates:
        group[name] = rate * factor
    try:
        yield
    finally:
        for group, name, rate in rates:
            unchanged = group[name] == rate * factor
            group[name] = rate if unchanged else rate * (group[name] / (rate * factor))


_RATES = {"lr", "eta"}  # the second in Pyro's AdagradRMSProp


@contextmanager
def explained() -> Iterator[None]:
    """What a torch optimizer says of parameters that it cannot take or step, as an InputError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or out_of_memory(error):
            raise
        raise InputError(f"optimizer: it cannot be used on the parameters of the programs: {error}") from error


# ---------------------------------------------------------------------------------------------- Adam as a function


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
