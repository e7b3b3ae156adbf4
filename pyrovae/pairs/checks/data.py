"""Where the data lie: inside of the support of their likelihood; where that moves with the latents, at some of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.base.errors import InputError
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.supports import (
    UNCHECKED,
    base_measure,
    in_image,
    innermost,
    is_narrowed,
    layers,
    may_miss,
    may_move,
    of_full_shape,
    scored,
    support_of,
    support_text,
    whole_event,
)
from pyrovae.pairs.terms import to_rows
from pyrovae.pairs.traces import Sites, TracePair, site_log_prob

# What to do about data outside a support; a distribution may add its own ``advice`` to it.
ADVICE: dict[Any, str] = {
    constraints.boolean: "; binarize the data (binarization='dynamic', 'static' or 'threshold')",
    constraints.unit_interval: "; divide the data by their maximum (divisor=)",
}
IMPOSSIBLE = (
    "{family} has no density there, so log p(x|z) is minus infinity, and with it the ELBO. Draw in the guide only "
    "latents that the datum allows, from a support that moves with it: where z must be above x, from "
    "TransformedDistribution(Exponential(rate), AffineTransform(loc=x, scale=1)). evaluate weighs other draws by zero"
)
LOOKS = 100  # draws of the latents from the guide, and from the prior, before a datum is called impossible


def check_data(run: TracePair, again: Sequence[Callable[[], Sites]]) -> None:
    """Demands that data that count are inside of the support of their likelihood.

    Args:
        run: of the pair.
        again: what runs the model on other latents; each is called ``LOOKS`` times where data are outside of a support
            that may move with the latents, until none is outside at all of them.

    Raises:
        InputError: naming the site, the first value and its place.
    """
    outside = {}
    for name, site in run.observed.items():
        if (found := check_support(name, site)).any():
            outside[name] = found
    with torch.no_grad(), pyro.validation_enabled(False), preserve_rng_state():
        for run_again in [*again] * LOOKS if outside else ():
            outside = _still(outside, run_again()) if outside else {}
    for name, found in outside.items():
        tried = f"; so at {LOOKS * len(again)} other draws of the latents. If one allows it, let the guide draw that"
        raise InputError(_message(name, run.observed[name], found) + tried)


def not_finite(x: Tensor, whose: str = "", start: int = 0) -> InputError | None:
    """What to say where programs fail on data (N, ...) of which some are missing or infinite; None where none are.

    Args:
        x: the data.
        whose: rows they are, in words.
        start: number of the first.
    """
    rows = ~x.isfinite().reshape(len(x), -1).all(1)
    if not rows.any():
        return None
    return InputError(
        f"{int(rows.sum())} rows hold values that are missing or infinite, the first is row "
        f"{start + int(rows.nonzero()[0])}{whose}: impute them, or leave what is missing out of the likelihood, by "
        "observed_entries(model), and give the guide numbers in its place (x.nan_to_num())"
    )


def check_given(run: TracePair, again: Callable[[], Sites]) -> None:
    """Demands that what is observed under a bounded support is the data's alone, not computed from latents.

    Args:
        run: of the pair.
        again: runs the model on other latents; only where a support is bounded, and does not move itself.

    Raises:
        InputError: naming the site: where its value leaves the support, its density goes on.
    """
    bounded = {name: site for name, site in run.observed.items() if _is_bounded(site["fn"])}
    if not bounded:
        return
    with torch.no_grad(), pyro.validation_enabled(False), preserve_rng_state():
        found = again()
    for name, site in bounded.items():
        value, other = site["value"], found[name]["value"] if name in found else site["value"]
        same = value.shape == other.shape and bool(((value == other) | (value.isnan() & other.isnan())).all())
        if not same:
            family = type(layers(site["fn"])[-1]).__name__
            raise InputError(
                f"site '{name}' observes something that changes with the latents, and {family} has a bounded support: "
                "log p(x|z) would go on outside of it. Observe the data as they are and move the distribution: "
                f"TransformedDistribution({family}(...), AffineTransform(loc=z, scale=1)) in place of obs=x - z"
            )


def _is_bounded(fn: Any) -> bool:
    """Whether a support is neither all real numbers nor two values, and stays where it is."""
    base = layers(fn)[-1]
    single = innermost(support_of(base))
    free = single is None or single is constraints.boolean or isinstance(single, UNCHECKED)
    return not (free or may_miss(fn))


def check_possible(run: TracePair, dim: int, whose: str = "", start: int = 0) -> None:
    """Demands that each datum is possible at the latents that the guide drew for it: elsewhere its ELBO is not finite.

    Args:
        run: of the pair.
        dim: of the data plate.
        whose: the rows are, in words.
        start: number of the first.

    Raises:
        InputError: naming the site, and the first row.
    """
    for name, site in run.observed.items():
        if not may_miss(site["fn"]):
            continue
        with pyro.validation_enabled(False):
            impossible = to_rows((site_log_prob(site) == -math.inf).int(), dim) > 0
        if impossible.any():
            family, row = type(layers(site["fn"])[-1]).__name__, start + int(impossible.nonzero()[0])
            raise InputError(
                f"site '{name}': {int(impossible.sum())} of {len(impossible)} rows{whose}, the first is row {row}, are "
                f"impossible under latents that the guide drew: {IMPOSSIBLE.format(family=family)}"
            )


def check_support(name: str, site: Any) -> Tensor:
    """Raises InputError, naming the first, if values that count are outside of the support whatever the latents are.

    Returns:
        Which are outside of it at these latents.
    """
    value, base = site["value"], layers(site["fn"])[-1]
    outside = found = _outside(site)
    if found.any() and may_move(base):
        fine = value.isfinite()
        if base_measure(base) == "mass":
            fine = fine & (value % 1 == 0)
        outside = outside & ~whole_event(of_full_shape(base, fine), outside.dim())
    if outside.any():
        raise InputError(_message(name, site, outside))
    return found


def _still(outside: dict[str, Tensor], sites: Sites) -> dict[str, Tensor]:
    """What is outside in one more run too, site by site."""
    both = {name: before & _outside(sites[name]) for name, before in outside.items() if name in sites}
    return {name: found for name, found in both.items() if found.any()}


def _outside(site: Any) -> Tensor:
    """Which values that count are outside of their support; one alone, which is not, where that is not known."""
    value, base = site["value"], layers(site["fn"])[-1]
    support = support_of(base)
    if isinstance(base, torch.distributions.Multinomial):  # its density is that of as many draws as a row counts
        support = constraints.independent(constraints.nonnegative_integer, 1)
    if support is None:
        return torch.zeros(1, dtype=torch.bool)
    if may_move(base):
        value = of_full_shape(base, value)
    inside = in_image(base, value) if is_narrowed(base) else support.check(value)
    if value.is_floating_point():
        inside = inside & whole_event(value.isfinite(), inside.dim())
    return ~inside & scored(site, inside, value.dim() - inside.dim())


def _message(name: str, site: Any, outside: Tensor) -> str:
    value, base = site["value"], layers(site["fn"])[-1]
    places = outside.nonzero()
    first = tuple(places[0].tolist())
    example = of_full_shape(base, value)[first]
    found = f"{example.item():g}" if example.dim() == 0 else str(example.tolist())
    advice = ADVICE.get(support_of(base), "") + getattr(base, "advice", "")
    if example.isnan().any():
        advice = ": mask what is missing, by observed_entries(model) or as in dist.Normal(loc, scale).mask(seen)"
    return (
        f"site '{name}': {len(places)} of {outside.numel()} values are outside the support of {type(base).__name__} "
        f"({support_text(base)}), the first is {found} at {first}{advice}"
    )
