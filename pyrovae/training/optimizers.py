"""What steps the parameters: any optimizer of Pyro's or torch's, its state and its learning rates."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from pyro.optim.optim import _load_state_dict
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import out_of_memory

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
    return {**state, "class": type(_inner(optimizer)).__name__}


def _inner(optimizer: Any) -> Any:
    """The torch optimizer itself, where a scheduler is around it."""
    return getattr(optimizer, "optimizer", optimizer)


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
    inner, stored = _inner(optimizer), state.get("optimizer", state)
    kind, before, groups = type(inner).__name__, state.get("class"), inner.param_groups
    for own, kept in zip(groups, stored["param_groups"], strict=False):
        # a run from before the class was stored is told by the names of its settings alone
        if before != kind and (before or _compared(own) != _compared(kept)):
            named = f", {before}" if before else ""
            raise InputError(f"{_OTHER} {kind}: resume it with the one that it was fitted with{named}")
        _check_settings(own, kept)
    try:
        _load_state_dict(optimizer, {name: value for name, value in state.items() if name != "class"})
    except (KeyError, ValueError) as error:
        raise InputError(f"{_OTHER} this {kind} ({error}): resume it as it was fitted") from error
    for own, loaded in zip(groups, inner.param_groups, strict=False):  # torch may have added to what was stored
        _check_settings(own, loaded)


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
    for inner in map(_inner, found):
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
    return [group for one in optimizers for group in _inner(one).param_groups]


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
