"""Handlers: what is done to programs from outside, so that no program holds a branch for it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.pairs.supports import (
    a_value,
    base_measure,
    cut_off,
    given_probs,
    is_cut_off,
    is_masked,
    layers,
    seen,
    support_of,
    to_support,
)
from pyrovae.pairs.traces import GIVEN, MOVED, Program


class _Tempered(Messenger):
    def __init__(self, beta: Tensor) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["scale"] = msg["scale"] * self.beta


@checked
def tempered(program: Program, beta: float | Tensor) -> Program:
    r"""Scales the log densities of a program's latent sites by ``beta`` > 0; for KL warm-up, around both programs.

    .. math:: E_q[\log p(x \mid z)] - \beta \, \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    Around the model alone it would be another, wrong objective: beta must weigh log p(z) - log q(z|x) together.

    References:
        Bowman et al. (2016), Generating sentences from a continuous space, arXiv:1511.06349.
        Higgins et al. (2017), beta-VAE, ICLR.
    """
    return _Tempered(torch.as_tensor(beta))(program)


class _Scorable(Messenger):
    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[Any] = []  # distributions of the latents of this run
        self.fillers: dict[str, float | None] = {}  # site -> found at its first run: later ones look at no value

    def __exit__(self, *error: Any) -> Any:
        self.drawn = []
        return super().__exit__(*error)

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            self.drawn.append(msg["fn"])
        elif isinstance(msg["value"], Tensor):
            zero_mass = given_probs(msg["fn"]) and any(base_measure(fn) == "mass" for fn in self.drawn)
            msg["fn"] = cut_off(msg["fn"], zero_mass=zero_mass)
            if is_masked(msg) and not is_cut_off(msg["fn"]) and GIVEN not in (msg["infer"] or {}):
                self._fill(msg)

    def _fill(self, msg: Any) -> None:
        value, base, name = msg["value"], layers(msg["fn"])[-1], msg["name"]
        support = support_of(base)
        if support is None:
            return
        if name not in self.fillers:
            self.fillers[name] = inside(support, value)
        filler = self.fillers[name]
        harmless = a_value(base, value) if filler is None else torch.full_like(value, filler)
        msg["infer"] = {**(msg["infer"] or {}), GIVEN: value}
        msg["value"] = torch.where(seen(msg, support), value, value.nan_to_num() if harmless is None else harmless)


def scorable(program: Program) -> Program:
    """The model with observations that can be scored, and have gradients, whatever its latents are.

    A datum outside of a support that moves with the latents has density zero there, and so has an outcome to which a
    class or a coin that was drawn gives no probability. Where an observation is masked out, a harmless value takes its
    place: a mask takes a NaN out of the log density, but not out of its gradient (0 times NaN is NaN). All else is
    left as it is.
    """
    return _Scorable()(program)


def inside(support: Any, value: Tensor) -> float | None:
    """Some number in the support of values like this, no end of it if need not be; None where none is known."""
    return next((some for some in (0.5, 1.0, 0.0) if support.check(torch.full_like(value, some)).all()), None)


class _Unconditioned(Messenger):
    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and not (msg["infer"] or {}).get("_deterministic"):
            msg["infer"] = {**(msg["infer"] or {}), "was_observed": True, "obs": msg["value"]}
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def unconditioned(program: Program) -> Program:
    """Draws what a program observes; ``pyro.poutine.uncondition`` would draw what is ``pyro.deterministic`` too."""
    return _Unconditioned()(program)


class _Moved(Messenger):
    def __init__(self, moves: Mapping[str, tuple[str, Any]]) -> None:
        super().__init__()
        self.moves, self.drawn = moves, dict[str, Any]()
        self.extra = {draw for draw, _ in moves.values()}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.extra:
            msg["infer"] = {**(msg["infer"] or {}), MOVED: True}
        elif msg["name"] in self.moves:
            draw, prior = self.moves[msg["name"]]
            move, base = to_support(prior), self.drawn[draw]
            msg["fn"], msg["value"] = dist.TransformedDistribution(base["fn"], [move]), move(base["value"])

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.extra:
            self.drawn[msg["name"]] = msg


def moved(guide: Program, moves: Mapping[str, tuple[str, Any]]) -> Program:
    """The guide with latents drawn from transformed distributions where it moves auxiliary draws by a Delta.

    Pyro's AutoNormal draws u on the real line and calls z = T(u) a point with a Jacobian; as a distribution of z it has
    a density everywhere.

    Args:
        guide: program of q(z|x).
        moves: latent -> (its auxiliary draw, the model's distribution, onto whose support it is moved).
    """
    return _Moved(moves)(guide)


class _Reprior(Messenger):
    def __init__(self, priors: Mapping[str, Any]) -> None:
        super().__init__()
        self.priors, self.met = priors, set[str]()

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.priors and not msg["is_observed"]:
            prior, was = self.priors[name], msg["fn"]
            fn: Any = prior if isinstance(prior, dist.Distribution) else prior()
            if fn.event_shape != was.event_shape:
                shapes = f"{tuple(was.event_shape)} in the model, {tuple(fn.event_shape)} in the new prior"
                raise InputError(f"site '{name}': one latent has the shape {shapes}; give a prior of the same shape")
            msg["fn"] = fn.expand(torch.broadcast_shapes(fn.batch_shape, was.batch_shape))
            self.met.add(name)


@checked
def with_prior(model: Program, **priors: Any) -> Program:
    """The model with other priors in the place of its own: what one would do to log p(x), without a refit.

    The likelihood stays as it was fitted, so this asks what the data say of the prior alone; a refit would move both.

    Args:
        model: program of p(x, z).
        priors: latent site -> a distribution over one latent, or a function without arguments that gives it (each
            module of ``pyrovae.priors`` is one).

    Raises:
        InputError: for what is no prior; when the program is run, for a site that it does not draw, or a prior of
            another event shape.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> wide = pv.with_prior(oracle.model, z=lambda: dist.Normal(torch.zeros(2).double(), 3.0).to_event(1))
        >>> report = pv.evaluate(wide, oracle.guide, x)  # report.log_evidence is that under the wide prior
    """

    for name, prior in priors.items():
        if not (isinstance(prior, dist.Distribution) or callable(prior)):
            raise InputError(f"{name}: give a distribution, or a function that returns one, got {prior!r}")

    @functools.wraps(model, updated=())
    def other(*args: Any, **kwargs: Any) -> Any:
        with _Reprior(priors) as replaced:
            result = model(*args, **kwargs)
        if missing := sorted(set(priors) - replaced.met):
            raise InputError(f"site '{missing[0]}' is not drawn by the model, so it has no prior to be replaced")
        return result

    return other


class Redrawn(Messenger):
    """Draws as a function makes them, (value, its distribution) -> value, for all that comes after them.

    To be entered around a handler that records, ``pyro.poutine.trace``; what is observed stays as it is.
    """

    def __init__(self, act: Callable[[Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.act = act

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg) and not (msg["infer"] or {}).get("_deterministic"):
            msg["value"] = self.act(msg["value"], msg["fn"])


PRECISIONS = ("float32", "bfloat16")
_LAYERS = ("linear", "bilinear", *(f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)))
_PRODUCTS = frozenset(getattr(torch.nn.functional, name) for name in _LAYERS)


class _RoundedProducts(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(_rounded, (args, kwargs or {}))
        out = func(*args, **kwargs)
        return out.float() if isinstance(out, Tensor) and out.dtype == torch.bfloat16 else out


@checked
def in_precision(program: Program, precision: str) -> Program:
    """The program with the products of its layers in ``precision``; parameters and densities keep their own.

    Args:
        program: model or guide.
        precision: "float32" changes nothing; "bfloat16" rounds the float32 inputs of linear layers and convolutions.

    Raises:
        InputError: for another precision.

    References:
        Micikevicius et al. (2018), Mixed precision training, arXiv:1710.03740.
        Kalamkar et al. (2019), A study of BFLOAT16 for deep learning training, arXiv:1905.12322.

    Example:
        >>> linear = in_precision(torch.nn.functional.linear, "bfloat16")
        >>> linear(torch.ones(1), torch.full((1, 1), 1 / 3))
        tensor([0.3340])
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "float32":
        return program

    @functools.wraps(program, updated=())
    def rounded(*args: Any, **kwargs: Any) -> Any:
        with _RoundedProducts():
            return program(*args, **kwargs)

    return rounded


def _rounded(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


class Placed(Messenger):
    """Latent sites take the values given here instead of draws."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values, self.log_jacobians = values, list[Tensor]()

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.value(msg["fn"], self.values[msg["name"]])
            msg["done"] = True

    def value(self, fn: Any, given: Tensor) -> Tensor:
        return given


class Unconstrained(Placed):
    """Latent sites take the images of unconstrained points; the Jacobians are kept. Discrete ones take their values."""

    def value(self, fn: Any, given: Tensor) -> Tensor:
        if base_measure(fn) == "mass":
            return given
        transform = to_support(fn)
        value = transform(given)
        self._keep_jacobian(fn, transform, given, value)
        return value

    def _keep_jacobian(self, fn: Any, transform: Any, real: Tensor, value: Tensor) -> None:
        log_jacobian = transform.log_abs_det_jacobian(real, value)
        inner = len(fn.event_shape) - transform.codomain.event_dim  # dimensions that the transform takes one by one
        self.log_jacobians.append(log_jacobian.sum(tuple(range(-inner, 0))) if inner else log_jacobian)


class Reached(Unconstrained):
    """Latent sites take the values given here; the Jacobians of the moves that reach them are kept."""

    def value(self, fn: Any, given: Tensor) -> Tensor:
        if base_measure(fn) == "density":
            transform = to_support(fn)
            self._keep_jacobian(fn, transform, transform.inv(given), given)
        return given
