"""What a pair of programs is made of: its modules, its parameters' scope, its sites and its data plate."""

import functools
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn

from pyrovae.errors import InputError

Program = Callable[..., Any]


class Structure(NamedTuple):
    """What one run of a pair showed: its data plate and its sites."""

    plate: str  # the name of the plate over data
    dim: int  # its dimension, counted from the right (negative)
    depth: int  # how many dimensions the plates take
    latents: tuple[str, ...]
    observed: dict[str, str]  # site -> base measure of its density: "mass" or "density"
    full_size: int | None  # how many data a batch stands for, where the plate rescales it


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
    found: list[nn.Module] = []
    seen: dict[int, Any] = {}  # keeps objects alive, so that an id stands for one object
    queue: list[Any] = list(programs)
    while queue:
        item = queue.pop(0)
        if id(item) not in seen:
            seen[id(item)] = item
            found += [item] if isinstance(item, nn.Module) else []
            queue += _reachable(item)
    inner = {id(child) for module in found for child in module.modules() if child is not module}
    return [module for module in found if id(module) not in inner]


def _reachable(item: Any) -> list[Any]:
    if isinstance(item, types.FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or () if _filled(cell)]
        names = sorted(_global_names(item.__code__))
        return cells + list(item.__defaults__ or ()) + [item.__globals__[n] for n in names if n in item.__globals__]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, list | tuple):
        return list(item)
    if isinstance(item, Tensor | type | types.ModuleType) or type(item).__module__.startswith(("builtins", "numpy")):
        return []
    called = [type(item).__call__] if callable(item) else []
    return [*getattr(item, "__dict__", {}).values(), *called]


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
def kept_modes(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Puts each part of the modules back into the mode, train or eval, that it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def evaluation_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode inside (dropout off, batch-norm statistics fixed); afterwards each part as it was."""
    with kept_modes(modules):
        for module in modules:
            module.eval()
        yield


@contextmanager
def quiet_numerics() -> Iterator[None]:
    """No gradients and no validation inside: supports are checked by :func:`inspect_pair`, results afterwards."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(pyro.validation_enabled(False))
        yield


# ---------------------------------------------------------------------------------------------- structure


def plain_traces(model: Program, guide: Program, args: Sequence[Any]) -> tuple[Trace, Trace]:
    """One run of the guide, and of the model on what it drew: (model trace, guide trace)."""
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    return model_trace, guide_trace


def inspect_pair(model: Program, guide: Program, args: Sequence[Any], *, plate: str | None = None) -> Structure:
    """Runs a pair once on ``args`` and tells its structure.

    Args:
        model: program of the joint p(x, z).
        guide: program of q(z|x).
        args: what both are called with; the first dimension of the first tensor is the datum.
        plate: name of the data plate, where several plates are shared by all sites.

    Raises:
        InputError: naming the site and the cause, for a pair whose per-datum weights are not defined and for
            data outside the support of the likelihood.
    """
    return describe(*plain_traces(model, guide, args), num_rows(args), plate=plate)


def describe(model_trace: Trace, guide_trace: Trace, rows: int, *, plate: str | None = None) -> Structure:
    """The structure that one run of a pair on ``rows`` data shows; refuses as :func:`inspect_pair` says."""
    _refuse_unmatched(sites(model_trace), sites(guide_trace))
    every = {**sites(guide_trace), **sites(model_trace)}
    frame = _data_frame(every, rows, plate)
    _refuse_subsampling(model_trace, guide_trace, frame.name)
    _refuse_unlike_shapes(sites(model_trace), sites(guide_trace))
    observed = {name: site for name, site in sites(model_trace).items() if site["is_observed"]}
    for name, site in observed.items():
        _refuse_outside_support(name, site)
    return Structure(
        plate=frame.name,
        dim=frame.dim,
        depth=max(-f.dim for site in every.values() for f in site["cond_indep_stack"] if f.vectorized),
        latents=tuple(name for name, site in sites(model_trace).items() if not site["is_observed"]),
        observed={name: _measure(site["fn"]) for name, site in observed.items()},
        full_size=frame.full_size if frame.full_size != frame.size else None,
    )


def sites(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace by name, without those that plates make."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not isinstance(site["fn"], _Subsample)
    }


def num_rows(args: Sequence[Any]) -> int:
    """How many data a tuple of arguments holds: the first dimension of its first tensor."""
    for arg in args:
        if isinstance(arg, Tensor) and arg.dim() > 0:
            return len(arg)
    raise InputError("model and guide need a tensor argument whose first dimension is the datum; none was given")


def _refuse_unmatched(model_sites: dict, guide_sites: dict) -> None:
    for name, site in guide_sites.items():
        if site["is_observed"]:
            raise InputError(f"site '{name}' of the guide is observed (or a factor); the guide may only draw latents")
        if name not in model_sites and not site["infer"].get("is_auxiliary"):
            raise InputError(f"site '{name}' is drawn by the guide but is not in the model; rename or remove it")
    for name, site in model_sites.items():
        if site["is_observed"]:
            if name in guide_sites:
                raise InputError(f"site '{name}' is observed in the model, yet the guide draws it; remove it there")
        elif name not in guide_sites:
            enumerated = site["infer"].get("enumerate")
            cause = "is enumerated in the model" if enumerated else "is in the model but not in the guide"
            raise InputError(
                f"site '{name}' {cause}: its weight would be that of a draw from the prior. "
                f"Draw '{name}' in the guide, or observe it"
            )
    if not any(site["is_observed"] for site in model_sites.values()):
        raise InputError("the model observes nothing: give its data to a site with obs=")


def _data_frame(every: dict[str, dict], rows: int, plate: str | None) -> Any:
    """The plate shared by all sites; named errors where there is none, or more than one."""
    stacks = {name: {f.name: f for f in site["cond_indep_stack"] if f.vectorized} for name, site in every.items()}
    shared = set.intersection(*(set(stack) for stack in stacks.values()))
    known = sorted(set().union(*stacks.values()))
    if plate is not None and plate not in shared:
        outside = [name for name, stack in stacks.items() if plate not in stack]
        raise InputError(f"plate '{plate}' does not hold site '{outside[0]}'; plates found: {known}")
    candidates = {plate} if plate else shared
    if not candidates:
        counts = {name: sum(name in stack for stack in stacks.values()) for name in known}
        widest = max(counts, key=lambda name: counts[name]) if counts else None
        outside = [name for name, stack in stacks.items() if widest not in stack]
        raise InputError(
            f"site '{outside[0]}' is outside the data plate"
            + (f" '{widest}'" if widest else "")
            + ": evidence per datum needs one pyro.plate over the data that holds every site of model and guide "
            "(a latent shared by all data has no per-datum weight)"
        )
    frames = [frame for frame in next(iter(stacks.values())).values() if frame.name in candidates]
    fitting = [frame for frame in frames if frame.size == rows]
    if len(fitting) > 1:
        raise InputError(f"several plates hold all sites, {sorted(candidates)}: name the data plate with plate=")
    if not fitting:
        raise InputError(
            f"plate '{frames[0].name}' has {frames[0].size} rows but the data have {rows}: "
            f"use pyro.plate('{frames[0].name}', len(x)), with the data first among the arguments"
        )
    return fitting[0]


def _refuse_subsampling(model_trace: Trace, guide_trace: Trace, plate: str) -> None:
    for trace in (model_trace, guide_trace):
        for name, site in trace.nodes.items():
            fn = site.get("fn")
            if isinstance(fn, _Subsample) and fn.subsample_size is not None and fn.subsample_size < fn.size:
                raise InputError(
                    f"plate '{name}' draws its own rows (subsample_size={fn.subsample_size} of {fn.size}): "
                    "give the rows as the argument, pyro.plate(name, size, subsample=rows) or pyro.plate(name, len(x))"
                )


def _refuse_unlike_shapes(model_sites: dict, guide_sites: dict) -> None:
    for name, site in model_sites.items():
        expected = site["fn"].event_shape
        if name in guide_sites and guide_sites[name]["fn"].event_shape != expected:
            given = guide_sites[name]["fn"].event_shape
            raise InputError(
                f"site '{name}': the model's distribution is over events of shape {tuple(expected)}, "
                f"the guide's over {tuple(given)}"
            )
        if site["is_observed"] and isinstance(site["value"], Tensor):
            given = site["value"].shape[site["value"].dim() - len(expected) :]
            if given != expected:
                raise InputError(
                    f"site '{name}': the likelihood is over events of shape {tuple(expected)}, "
                    f"but the data have shape {tuple(site['value'].shape)}"
                )


ADVICE = {
    "Bernoulli": "; binarize the data (binarization='dynamic', 'static' or 'threshold'), "
    "or use the continuous Bernoulli for values between 0 and 1",
    "ContinuousBernoulli": "; divide the data by their maximum (divisor=)",
}


def _refuse_outside_support(name: str, site: dict) -> None:
    fn, value, base = site["fn"], site["value"], _base(site["fn"])
    support = _support(base)
    if support is None or not isinstance(value, Tensor):
        return
    inside = support.check(value)
    if value.is_floating_point():
        finite = value.isfinite()
        inside = inside & (finite if inside.shape == finite.shape else finite.flatten(inside.dim()).all(-1))
    observed = _expanded_mask(site["mask"], inside, len(fn.event_shape))
    outside = (~inside & observed).nonzero()
    if len(outside) == 0:
        return
    first = outside[0].tolist()
    example = value[tuple(first)]
    kind = type(base).__name__
    found = f"{example.item():g}" if example.dim() == 0 else str(example.tolist())
    raise InputError(
        f"site '{name}': {len(outside)} of {inside.numel()} values are outside the support of {kind} "
        f"({_support_text(base)}), the first is {found} at {tuple(first)}{ADVICE.get(kind, '')}"
    )


def _expanded_mask(mask: Any, inside: Tensor, event_dim: int) -> Tensor:
    if mask is None or isinstance(mask, bool):
        return torch.full_like(inside, True if mask is None else mask)
    extra = inside.dim() - mask.dim()
    return mask.reshape(mask.shape + (1,) * min(extra, event_dim)).expand_as(inside) if extra >= 0 else mask


def _base(fn: Any) -> Any:
    """The distribution under reinterpreted, masked and expanded wrappers."""
    while isinstance(fn, torch.distributions.Independent | pyro.distributions.MaskedDistribution):
        fn = fn.base_dist
    return fn


def _support(base: Any) -> Any:
    """The support of a distribution, or None for a factor and for a distribution that does not say."""
    if isinstance(base, pyro.distributions.Unit):
        return None
    try:
        return base.support
    except (NotImplementedError, AttributeError):
        return None


def _support_text(base: Any) -> str:
    support = base.support
    bounds = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    if all(bound is not None for bound in bounds):
        low, high = (float(torch.as_tensor(bound).flatten()[0]) for bound in bounds)
        return f"{low:g} to {high:g}" + (", whole numbers" if support.is_discrete else "")
    names = {"_Boolean": "0 or 1", "_Real": "finite reals", "_IntegerGreaterThan": "whole numbers from 0"}
    return names.get(type(support).__name__, str(support))


def _measure(fn: Any) -> str:
    """The base measure of a site: "mass" (counting measure), "density" (Lebesgue), or "factor"."""
    support = _support(_base(fn))
    return "factor" if support is None else "mass" if support.is_discrete else "density"


def home_device(model: Program, guide: Program) -> torch.device:
    """Where a pair lives: the device of the first parameter it has, else the CPU."""
    for module in modules_of(model, guide):
        for parameter in module.parameters():
            return parameter.device
    for _, tensor in pyro.get_param_store().named_parameters():
        return tensor.device
    return torch.device("cpu")
