"""Where the two programs draw: what the prior can the guide must too, and neither on the edge of a support."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.checks.weights import is_function
from pyrovae.pairs.handlers import Placed
from pyrovae.pairs.structure import Shown, Structure
from pyrovae.pairs.supports import (
    base_measure,
    bounds,
    drawn_text,
    draws_of,
    ends,
    innermost,
    is_angle,
    is_known,
    is_masked,
    is_narrowed,
    latent_support,
    layers,
    may_move,
    over_event,
    possible,
    scored,
    whole_event,
    whole_line,
)
from pyrovae.pairs.terms import latent_log_prob, to_rows
from pyrovae.pairs.traces import TracePair, site_log_prob, sites_of

NUM_DRAWS = 1000  # of each site, over all data
MOST_CLASSES = 100  # that are looked at one by one
MOST_MISSED = 30  # draws of a datum that the guide misses, of which the likelihood is asked
UNDERFLOW = 0.01  # of the prior's draws may lie so far out in the guide's support that its density there is zero
NUM_WRAPPED = 100  # draws of each datum that are looked at where a guide may leave the circle
SELDOM = math.log(20)  # times less often: such angles are hardly reached
LOST = 0.03  # of a datum's evidence
ON_EDGE = 0.005  # of the draws may lie on the edge of their support


def check_guide_covers(shown: Shown, num_draws: int = NUM_DRAWS) -> None:
    """Looks whether draws of the prior are such as the guide can draw, where the likelihood allows them.

    Raises:
        InputError: naming the site, both families, and how many data have draws of the prior that the guide misses.
    """
    run, structure = shown.run, shown.structure
    for name, theirs in run.latent.items():
        ours = run.drawn[name]
        if is_function(ours) or (whole_line(ours["fn"]) and whole_line(theirs["fn"])):
            continue
        draws = _sample(theirs, structure, num_draws)
        num_sampled, draws = len(draws), torch.cat([draws, *_beyond(ours, theirs)])
        missed = ~_can_draw(ours, draws, theirs) & ~_near_edge(theirs, draws)
        by_datum = torch.zeros_like(_of_data(missed, structure))
        for found, is_missed in _one_by_one(draws, missed, theirs["value"]):
            possible_there = _log_joint(shown, name, found) > -math.inf
            by_datum = by_datum | (possible_there & _of_data(is_missed[None], structure))
        if by_datum.any():
            raise InputError(_missed(name, ours, theirs, missed[:num_sampled], by_datum))


def check_guide_inside(run: TracePair, structure: Structure, again: Callable[[], TracePair]) -> None:
    """Demands that the guide draws what the prior can: elsewhere its ELBO is minus infinity.

    Args:
        run: of the pair.
        structure: what it showed.
        again: runs the pair anew, where the support of a latent may move with another.

    Raises:
        InputError: naming the site.
    """
    for name, site in run.latent.items():
        ours = run.drawn[name]
        supports = [str(latent_support(fn)) for fn in (ours["fn"], site["fn"])]
        if is_function(ours) or (supports[0] == supports[1] and not is_narrowed(layers(site["fn"])[-1])):
            continue
        if len(run.latent) > 1 and may_move(layers(site["fn"])[-1]):
            runs = (again() for _ in range(-(-NUM_DRAWS // int(site["fn"].batch_shape[structure.dim]))))
            looks = [possible(one.latent[name]) for one in runs]
            inside = None if looks[0] is None else torch.stack([look for look in looks if look is not None])
        else:
            inside = possible({**site, "value": _sample(ours, structure, NUM_DRAWS)})
        if inside is not None and not inside.all():
            family, prior = (type(layers(found["fn"])[-1]).__name__ for found in (ours, site))
            raise InputError(
                f"site '{name}': {(~inside).double().mean():.1%} of the draws of the guide ({family}) are outside the "
                f"support of the prior ({prior}, {drawn_text(layers(site['fn'])[-1])}), where log p(z) is minus "
                f"infinity, and so the ELBO. Give '{name}' the prior's support in the guide (evaluate weighs such "
                "draws by zero)"
            )


def check_off_edges(run: TracePair, structure: Structure, num_draws: int = NUM_DRAWS) -> None:
    """Raises InputError, naming the site, if draws of the guide pile up where their number format ends."""
    for name, site in run.drawn.items():
        support = latent_support(site["fn"])
        if is_function(site) or not _has_edges(support):
            continue
        draws = _sample(site, structure, num_draws)
        on_edge = _on_edge(support, draws) & scored(site, draws, 0)
        fraction = float(on_edge.double().mean())
        if _exceeds(int(on_edge.sum()), on_edge.numel(), ON_EDGE):
            family, dtype = type(layers(site["fn"])[-1]).__name__, str(draws.dtype).removeprefix("torch.")
            raise InputError(
                f"site '{name}': {fraction:.1%} of the guide's draws ({family}) lie on the edge of their support in "
                f"{dtype}, where no density is theirs to be weighed by. Draw '{name}' less near the edge or on the "
                "unconstrained scale; float64 reaches nearer to it"
            )


def check_angles_wrap(shown: Shown) -> None:
    """Looks at what a guide on the line draws of an angle beyond pi: it stands for an angle across the seam.

    The prior draws nothing out there, and if the guide hardly reaches across, no weight shows what is lost.

    Raises:
        InputError: naming the site, both families, and the greatest part of a datum's evidence that lies there.
    """
    for name, site in shown.run.latent.items():
        ours, prior = shown.run.drawn[name], layers(site["fn"])[-1]
        alike = str(latent_support(ours["fn"])) == str(latent_support(prior))
        if is_function(ours) or not is_angle(prior) or alike:
            continue
        lost = _across_the_seam(shown, name)
        if (lost > LOST).any():
            guide = layers(ours["fn"])[-1]
            raise InputError(
                f"site '{name}': the guide ({type(guide).__name__}) draws beyond the support of an angle "
                f"({type(prior).__name__}, {drawn_text(prior)}), and hardly reaches the angles across the seam that "
                f"this stands for: up to {lost.max():.0%} of the evidence of a datum would be lost without a sign. "
                f"Draw '{name}' in the guide from a family that wraps (VonMises)"
            )


def _across_the_seam(shown: Shown, name: str) -> Tensor:
    """The part of each datum's evidence at angles that the guide reaches from beyond pi far more than as they are."""
    site, dim, within, across = shown.run.drawn[name], shown.structure.dim, list[Tensor](), list[Tensor]()
    for value in draws_of(site["fn"], NUM_WRAPPED):
        wrapped = torch.where(value.abs() > math.pi, (value + math.pi) % (2 * math.pi) - math.pi, value)
        log_guide, at_wrapped = (to_rows(site_log_prob({**site, "value": one}), dim) for one in (value, wrapped))
        log_weight = _log_joint(shown, name, wrapped) - log_guide
        moved = ~whole_event(wrapped == value, len(site["fn"].batch_shape))
        stays = to_rows(moved.int(), dim) == 0
        far = ~stays & (at_wrapped < log_guide - SELDOM)
        within.append(torch.where(stays, log_weight, -math.inf))
        across.append(torch.where(far, log_weight, -math.inf))
    both = torch.stack([torch.stack(part).logsumexp(0) for part in (within, across)])
    return both.softmax(0)[1].nan_to_num(0.0)


def told_beyond(run: TracePair) -> str | None:
    """Why the ELBO is minus infinity: the guide's support ends farther out than the prior's; None where it does not.

    Told by the ends of both, however seldom a draw lies out there.
    """
    for name, site in run.latent.items():
        ours = run.drawn[name]
        reach, allowed = (_reach(one["fn"]) for one in (ours, site))
        if is_function(ours) or is_masked(site) or reach is None or allowed is None:
            continue
        if bool((reach[0] < allowed[0]).any() | (reach[1] > allowed[1]).any()):
            guide, prior = (layers(one["fn"])[-1] for one in (ours, site))
            return (
                f"site '{name}': the guide ({type(guide).__name__}, {drawn_text(guide)}) reaches beyond the prior "
                f"({type(prior).__name__}, {drawn_text(prior)}), so ELBO and KL to the prior are infinite for every "
                "datum, also where none of the draws shows it; log p(x) is not touched"
            )
    return None


def _reach(fn: Any) -> tuple[Tensor, Tensor] | None:
    """The ends of a support, infinite where it has none; None where they are not known, or not those of every draw."""
    base = layers(fn)[-1]
    single = innermost(latent_support(fn))
    low, high = bounds(single)
    mixed = isinstance(base, torch.distributions.MixtureSameFamily) and isinstance(low, Tensor) and low.dim() > 0
    if is_narrowed(base) or mixed or (low is None and high is None and not whole_line(fn)):
        return None
    return torch.as_tensor(-math.inf if low is None else low), torch.as_tensor(math.inf if high is None else high)


# --------------------------------------------------------------------------------------------------------- draws


def _near_edge(site: Any, draws: Tensor) -> Tensor:
    """Where draws (n, *batch, *event) of a site lie so near the edge of its support that rounding hides a density."""
    support, batch_dim = latent_support(site["fn"]), draws.dim() - len(site["fn"].event_shape)
    if not _has_edges(support):
        return torch.zeros(draws.shape[:batch_dim], dtype=torch.bool, device=draws.device)
    return ~whole_event(~_on_edge(support, draws, torch.finfo(draws.dtype).eps ** 0.5), batch_dim)


def _sample(site: Any, structure: Structure, num_draws: int) -> Tensor:
    """Values of a site, so many over all data: (n, *batch, *event)."""
    return draws_of(site["fn"], -(-num_draws // int(site["fn"].batch_shape[structure.dim])))


def _beyond(ours: Any, theirs: Any) -> list[Tensor]:
    """Values of the prior just beyond the guide's support, and of classes it never draws, each (1, *batch, *event).

    However seldom the prior draws them, a datum may lie there.
    """
    value, found = theirs["value"], list[Tensor]()
    (base, prior), single = (layers(site["fn"])[-1] for site in (ours, theirs)), innermost(latent_support(ours["fn"]))
    if isinstance(base, torch.distributions.Categorical):
        num_classes = prior.param_shape[-1] if isinstance(prior, torch.distributions.Categorical) else 0
        found = [torch.full_like(value, float(one)) for one in range(min(num_classes, MOST_CLASSES))]
    elif isinstance(base, torch.distributions.Bernoulli):
        found = [torch.zeros_like(value), torch.ones_like(value)]
    elif single is not None and not isinstance(base, torch.distributions.MixtureSameFamily):
        discrete = getattr(single, "is_discrete", False)
        for bound, sign in zip(bounds(single), (-1, 1), strict=True):
            bound = None if bound is None else torch.as_tensor(bound, dtype=value.dtype, device=value.device)
            if bound is not None and (bound.dim() == 0 or bound.shape == value.shape):
                found.append((bound + sign * (1.0 if discrete else 1e-3 * (1 + bound.abs()))).expand(value.shape))
    allowed = [possible({**theirs, "value": one}) for one in found]
    event_dim = len(theirs["fn"].event_shape)
    kept = []
    for one, inside in zip(found, allowed, strict=True):
        if inside is None:
            kept.append(one[None])
        elif inside.any():
            kept.append(torch.where(over_event(inside, event_dim), one, value)[None])
    return kept


def _exceeds(count: int, num_draws: int, fraction: float) -> bool:
    """Whether so many of the draws are more than a fraction by 4 standard errors, and so not by chance."""
    return count > num_draws * fraction + 4 * (num_draws * fraction) ** 0.5


def _can_draw(site: Any, draws: Tensor, prior: Any) -> Tensor:
    """Where a site gives values (n, *batch, *event) of the prior a density: (n, *batch).

    In the guide's support a few may lie so far out that a density underflows; of the prior's own family all may.
    """
    event_dim = len(site["fn"].event_shape)
    inside = possible({**site, "value": draws})
    if inside is None:
        inside = torch.ones(draws.shape[: draws.dim() - event_dim], dtype=torch.bool, device=draws.device)
    base, family = layers(site["fn"])[-1], type(layers(prior["fn"])[-1])
    is_mass = base_measure(site["fn"]) == "mass"
    if type(base) is family and is_known(base) and not is_narrowed(base) and not is_mass:
        return inside
    harmless = torch.where(over_event(inside, event_dim), draws, site["value"].to(draws))
    with pyro.validation_enabled(False):
        try:
            silent = inside & ~(site_log_prob({**site, "value": harmless}) > -math.inf)  # a NaN too
        except (NotImplementedError, KeyError, ValueError):  # a flow without an inverse
            return inside
    far_out = not is_mass and not _exceeds(int(silent.sum()), silent.numel(), UNDERFLOW)
    return inside if far_out else inside & ~silent


def _one_by_one(draws: Tensor, missed: Tensor, own: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Draws (*batch, *event) that are missed, the last (those just beyond a bound) first; and where they are (*batch).

    Elsewhere they are a draw of the guide's ``own``.
    """
    numbers = torch.arange(1, len(missed) + 1, device=missed.device).reshape(-1, *[1] * (missed.dim() - 1))
    most = min(MOST_MISSED, int(missed.sum(0).max()))
    for number in (missed * numbers).topk(most, 0).values if most else ():
        wide = number.reshape(*number.shape, *[1] * (draws.dim() - 1 - number.dim())).expand(draws.shape[1:])
        found = draws.gather(0, wide.sub(1).clamp_min(0)[None])[0]
        yield torch.where(wide > 0, found, own), number > 0


def _log_joint(shown: Shown, name: str, value: Tensor) -> Tensor:
    """log p(x, z) of each datum, one latent another than the guide drew: (N,)."""
    values = {latent: site["value"] for latent, site in shown.run.latent.items()} | {name: value}
    with pyro.validation_enabled(False):
        found = sites_of(Placed(values)(shown.model), *shown.args).values()
        log_probs = [site_log_prob(site) if site["is_observed"] else latent_log_prob(site) for site in found]
        return torch.stack([to_rows(log_prob, shown.structure.dim) for log_prob in log_probs]).sum(0)


def _missed(name: str, ours: Any, theirs: Any, missed: Tensor, by_datum: Tensor) -> str:
    guide, prior = (layers(site["fn"])[-1] for site in (ours, theirs))
    fraction = missed.double().mean()
    how_many = f"{fraction:.2%} of the prior's draws" if fraction else "what the prior seldom draws"
    return (
        f"site '{name}': the guide ({type(guide).__name__}, {drawn_text(guide)}) cannot draw all that the prior "
        f"({type(prior).__name__}, {drawn_text(prior)}) can: {how_many}, for "
        f"{int(by_datum.sum())} of {len(by_datum)} data, would have an infinite weight, and importance sampling misses "
        f"them without a sign. Give '{name}' the prior's support in the guide"
    )


def _of_data(table: Tensor, structure: Structure) -> Tensor:
    """Whether anything of a datum is so: (n, *batch) -> (N,)."""
    return table.movedim(structure.dim, 0).flatten(1).any(1)


# ------------------------------------------------------------------------------------------------------ supports


def _has_edges(support: Any) -> bool:
    """Whether a support has ends, known for each draw: those of a mixture's components are not."""
    mixed = type(support).__name__ == "MixtureSameFamilyConstraint"
    found = [end for end in ends(innermost(support)) if end is not None]
    return bool(found) and not (mixed and any(isinstance(end, Tensor) and end.dim() for end in found))


def _on_edge(support: Any, draws: Tensor, near: float | None = None) -> Tensor:
    """Where draws are the last numbers before the end of their support, or within ``near`` of it."""
    base, numbers = innermost(support), torch.finfo(draws.dtype)
    below, above = (numbers.tiny, numbers.eps) if near is None else (near, near)
    low, high = ends(base)
    edge = torch.zeros_like(draws, dtype=torch.bool)
    if low is not None:
        edge = edge | (draws <= low + below)
    if high is not None:
        edge = edge | (draws >= high - above * abs(high))
    return edge
