"""What a pair of programs is made of, its modules and its parameters' scope; and how it is left as it was."""

import functools
import math
import re
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import pyro
import torch
from pyro.infer.autoguide.effect import AutoMessenger
from pyro.params import module_from_param_with_module_name
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.module import register_module_forward_pre_hook

from pyrovae.base.errors import InputError, first_line
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.traces import Program, plain_traces

# ------------------------------------------------------------------------------------------------ scopes


class Scoped:
    """A program that runs inside its own parameter scope, whoever calls it (``Fit.model``, ``Fit.guide``)."""

    def __init__(self, program: Program, scope: Any) -> None:
        functools.update_wrapper(self, program, updated=())
        self.program, self.scope = program, scope

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with pyro.get_param_store().scope(self.scope):
            return self.program(*args, **kwargs)


@contextmanager
def own_scope(model: Program, guide: Program, *, fresh: bool = False) -> Iterator[tuple[Program, Program, Any]]:
    """Enters the parameter scope of a pair and yields (model, guide, scope), the programs unwrapped.

    A :class:`Scoped` pair has its own scope. Another one starts from a copy of Pyro's global parameter store,
    or from an empty one if ``fresh``; the global store itself is afterwards what it was.
    """
    scopes = [program.scope for program in (model, guide) if isinstance(program, Scoped)]
    if len(scopes) == 2 and scopes[0] is not scopes[1]:
        raise InputError("model and guide come from two different fits; take both from one")
    store = pyro.get_param_store()
    empty: Any = {"params": {}, "constraints": {}}
    scope = scopes[0] if scopes else empty if fresh else store.get_state()
    with store.scope(scope) as state:
        yield _unwrapped(model), _unwrapped(guide), state


def _unwrapped(program: Program) -> Program:
    return program.program if isinstance(program, Scoped) else program


# ----------------------------------------------------------------------------------------------- modules


def modules_of(*programs: Program) -> list[nn.Module]:
    """The outermost modules that programs can reach: ``self``, closures, globals they name, partial arguments."""
    found = [item for item in _within_reach(*programs) if isinstance(item, nn.Module)]
    inner = {id(child) for module in found for child in module.modules() if child is not module}
    return [module for module in found if id(module) not in inner]


def _within_reach(*items: Any) -> list[Any]:
    """These and all that they can reach, the nearest first."""
    seen: dict[int, Any] = {}  # keeps objects alive, so that an id stands for one object
    queue = deque[Any](items)
    while queue:
        item = queue.popleft()
        if id(item) not in seen:
            seen[id(item)] = item
            queue.extend(_reachable(item))
    return list(seen.values())


def _reachable(item: Any) -> list[Any]:
    if isinstance(item, types.FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or () if _filled(cell)]
        defaults = [*(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values()]
        names = sorted(_global_names(item.__code__))
        named = [item.__globals__[n] if n in item.__globals__ else sys.modules.get(n) for n in names]
        files = [vars(one) for one in named if isinstance(one, types.ModuleType) and _is_own(one.__name__)]
        return cells + defaults + named + [held[n] for held in files for n in names if n in held]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, list | tuple | AbstractSet | deque):
        return list(item)
    if isinstance(item, Tensor | type | types.ModuleType) or _library(type(item)) in ("builtins", "numpy"):
        return []
    return [*getattr(item, "__dict__", {}).values(), *_methods(type(item))]


def _methods(kind: type) -> list[Any]:
    """What the user's own classes define: any method may name a global module."""
    own = [base for base in kind.__mro__ if _library(base) not in ("builtins", "torch", "pyro")]
    return [value for base in own for value in vars(base).values() if isinstance(value, types.FunctionType)]


def _is_own(module: str) -> bool:
    """Whether a file is the user's own, or a test of ours: neither the standard library's nor a package's."""
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in ("torch", "pyro", "pyrovae", "numpy")


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _global_names(code: types.CodeType) -> set[str]:
    inner = [_global_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*inner)


@contextmanager
def preserve_modes(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Puts each part of the modules back into the mode, train or eval, that it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def evaluation_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode inside (dropout off, batch-norm statistics fixed); afterwards each part as it was.

    Modules that programs call without naming them, from another file or out of a container, follow at their first call.
    """
    with preserve_modes(modules), called_modules():
        for module in modules:
            module.eval()
        yield


@contextmanager
def called_modules() -> Iterator[Mapping[nn.Module, bool]]:
    """Puts every module that is called inside into eval mode, and back; yields (module or part -> mode) so far."""
    modes = weakref.WeakKeyDictionary[nn.Module, bool]()  # weak, as a run may make modules of its own
    thread = threading.get_ident()

    def look(module: nn.Module, _: Any) -> None:
        if module not in modes and threading.get_ident() == thread:
            modes.update((part, part.training) for part in module.modules() if part not in modes)
            module.eval()

    handle = register_module_forward_pre_hook(look)
    try:
        yield modes
    finally:
        handle.remove()
        for part, training in modes.items():
            part.training = training


def every_module(named: Sequence[nn.Module], called: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that were found by name, then the outermost of those that were called besides."""
    known = {id(part) for module in named for part in module.modules()}
    others = [module for module in called if id(module) not in known]
    inner = {id(part) for module in others for part in module.modules() if part is not module}
    return [*named, *(module for module in others if id(module) not in inner)]


def used_modules(model: Program, guide: Program, args: Sequence[Any]) -> list[nn.Module]:
    """The modules of a pair: those that its programs name, then those that they call on such data besides.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        args: some rows of the data, where the pair lives; programs that fail on them are looked at as far as they go.
    """
    named = modules_of(model, guide)
    with own_scope(model, guide, fresh=True) as (model, guide, _), quiet_numerics(), preserve_rng_state():
        with evaluation_mode(named), called_modules() as called, suppress(Exception):
            plain_traces(model, guide, args)
        return every_module(named, list(called))


def keep_own_weights(model: Program, guide: Program, args: Sequence[Any]) -> None:
    """Takes out of the open scope what another module has left there under a name that a module of this pair has now.

    ``pyro.module`` would hand that on to the optimizer, and the pair would not be trained, without a word: a module's
    own weights are those that it computes with.
    """
    with quiet_numerics(), preserve_rng_state(), evaluation_mode(modules_of(model, guide)), suppress(Exception):
        with _OwnWeights():
            plain_traces(model, guide, args)


class _OwnWeights(Messenger):
    def _pyro_param(self, msg: Any) -> None:
        store, name, own = pyro.get_param_store(), msg["name"], msg["args"][-1]
        of_module = module_from_param_with_module_name(name) != name and isinstance(own, nn.Parameter)
        if of_module and name in store and store[name].data_ptr() != own.data_ptr():
            del store[name]


def sets_up_later(model: Program, guide: Program) -> bool:
    """Whether a guide of Pyro's (automatic, ``EasyGuide``) is within reach that its first run will set up."""
    found = _within_reach(model, guide)
    messengers = [item for item in found if isinstance(item, AutoMessenger)]
    unset = any(getattr(item, "__dict__", {}).get("prototype_trace", False) is None for item in found)
    return unset or any(next(item.parameters(), None) is None for item in messengers)


@contextmanager
def quiet_numerics() -> Iterator[None]:
    """No gradients and no validation inside: supports are checked when a pair is inspected, results afterwards."""
    with torch.no_grad(), pyro.validation_enabled(False):
        yield


def home_device(model: Program, guide: Program) -> torch.device:
    """Where a pair lives: the device of the first parameter or buffer it has, else the CPU."""
    own = (t for module in modules_of(model, guide) for t in (*module.parameters(), *module.buffers()))
    stored = (t for _, t in pyro.get_param_store().named_parameters())
    return next((t.device for t in (*own, *stored)), torch.device("cpu"))


def on_device(device: torch.device) -> AbstractContextManager:
    """Tensors that programs make inside (``torch.zeros(2)``) are made on the device; on the CPU it is free."""
    return device if device.type != "cpu" else nullcontext()  # type: ignore[return-value]


@contextmanager
def isolated(model: Program, guide: Program) -> Iterator[tuple[Program, Program, torch.device]]:
    """A pair as it is measured: in its own scope and eval mode, without gradients; all else is put back.

    Yields (model, guide, device), the programs unwrapped, the device that of their parameters.
    """
    with own_scope(model, guide) as (model, guide, _), quiet_numerics(), preserve_rng_state():
        device = home_device(model, guide)
        with evaluation_mode(modules_of(model, guide)), on_device(device):
            yield model, guide, device


# ---------------------------------------------------------------------------------------------- precision


MOST_DOUBLED = 2**26  # bytes that programs may hold, to be put into double for a look: it is worth no more


class _Widened:
    """Tensors put into double precision where they are, and what puts each back: its old numbers were never touched."""

    def __init__(self, most: float) -> None:
        self.most = most  # bytes that are put into double, before it is given up
        self.tensors: dict[int, tuple[Tensor, Tensor]] = {}
        self.names: list[tuple[dict[str, Any], dict[str, Any]]] = []  # attributes, and the tensors that they were
        self.thread, self.called = threading.get_ident(), set[nn.Module]()

    def take(self, *items: Any) -> None:
        for item in _within_reach(*items):
            if isinstance(item, torch.jit.ScriptModule):
                raise InputError(
                    f"a TorchScript module ({type(item).__name__}) keeps its dtype: give nn.Modules instead"
                )
            if isinstance(item, Tensor):
                self._widen(item)
            elif isinstance(item, nn.Module | Distribution):  # which keep what they work out (Categorical's logits)
                for names in (vars(item), vars(item).get("_buffers", {})):
                    self.names.append((names, {k: v for k, v in names.items() if isinstance(v, Tensor)}))

    def look(self, module: nn.Module, _: Any) -> None:
        """Takes what is called without having been named."""
        if module not in self.called and threading.get_ident() == self.thread:
            self.called.update(module.modules())
            self.take(module)

    def _widen(self, tensor: Tensor) -> None:
        if is_narrow(tensor) and id(tensor) not in self.tensors and not tensor.is_inference():
            self.most -= tensor.numel() * tensor.element_size()
            if self.most < 0:
                raise MemoryError("the programs hold more than what may be put into double precision")
            self.tensors[id(tensor)] = tensor, tensor.data
            tensor.data = tensor.data.double()

    def put_back(self) -> None:
        for names, tensors in reversed(self.names):  # what was seen first is what it was
            for name in [name for name, value in names.items() if isinstance(value, Tensor)]:
                del names[name]
            names.update(tensors)
        for tensor, data in self.tensors.values():
            tensor.data = data


@contextmanager
def double_precision(model: Program, guide: Program, most: float = math.inf) -> Iterator[None]:
    """What a pair holds, and what it makes inside, is float64; afterwards all is what it was, bit for bit.

    That is parameters and buffers of modules (those found by their first call too), values of the parameter store, and
    tensors in closures, globals and attributes. Parameters that are new inside are forgotten.

    Raises:
        MemoryError: if that is more bytes than ``most``.
    """
    store, default, widened = pyro.get_param_store(), torch.get_default_dtype(), _Widened(most)
    handle = register_module_forward_pre_hook(widened.look)
    try:
        with store.scope(store.get_state()) as state:
            widened.take(model, guide, list(state["params"].values()))
            torch.set_default_dtype(torch.float64)
            yield
    finally:
        torch.set_default_dtype(default)
        handle.remove()
        widened.put_back()


def is_narrow(tensor: Tensor) -> bool:
    """Whether its numbers are of fewer digits than float64."""
    return tensor.is_floating_point() and tensor.dtype != torch.float64


def in_double(args: Sequence[Any]) -> list[Any]:
    """Arguments whose real numbers are float64."""
    return [arg.double() if isinstance(arg, Tensor) and is_narrow(arg) else arg for arg in args]


# How torch asks for labels or indices: an embedding, a gather, a one-hot, a cross entropy.
_WANTS_WHOLE = r"\b(be|types?:?|[Dd]type|an? ) ?(Long|long|int32)"


def check_one_dtype(error: Exception, model: Program, guide: Program, args: Sequence[Any]) -> None:
    """Raises InputError, naming the dtypes, where an error of torch's came of tensors of two dtypes that met."""
    if re.search(_WANTS_WHOLE, str(error)):
        raise InputError(_not_whole(first_line(error), args)) from error
    if not re.search(r"dtype|scalar type|type \(", str(error)):
        return
    held = [item for item in _within_reach(model, guide) if isinstance(item, Tensor) and item.is_floating_point()]
    own = _dtypes([*held, *(value for _, value in pyro.get_param_store().named_parameters())])
    data, reason = _dtypes(args), first_line(error)
    if not own or data == own:
        raise InputError(
            f"tensors of two dtypes meet in the programs ({reason}), though the data are {data}: a dtype is written "
            "into them (.float(), dtype=torch.float32); take that of the data instead (x.dtype, x.new_zeros)"
        ) from error
    cast = {"float32": "float()", "float64": "double()"}.get(own, f"to(torch.{own})")
    other = ", or make the programs double (module.double())" if data == "float64" else ""
    raise InputError(f"the data are {data}, the programs {own}: give x.{cast}{other}") from error


def _not_whole(reason: str, args: Sequence[Any]) -> str:
    """What to do where torch wants whole numbers (int64): which arguments hold such numbers in another dtype."""
    wide = [arg if isinstance(arg, Tensor) and arg.dtype not in (torch.int64, torch.int32) else None for arg in args]
    found = [(i, arg.dtype) for i, arg in enumerate(wide, 1) if arg is not None and bool((arg == arg.long()).all())]
    if not found:
        return f"the programs give real numbers where torch wants whole ones ({reason}): give indices.long() there"
    which = " and ".join(f"argument {i} of the data is {str(dtype).removeprefix('torch.')}" for i, dtype in found)
    return f"torch wants whole numbers in the programs ({reason}), and {which}: give labels as labels.long()"


def _dtypes(values: Iterable[Any]) -> str:
    found = dict.fromkeys(value.dtype for value in values if isinstance(value, Tensor))
    return " and ".join(str(dtype).removeprefix("torch.") for dtype in found)
