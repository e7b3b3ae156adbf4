"""Modes, looked for from draws that lie far apart: Laplace's approximation about each, by the mass that it holds."""

import math

import torch
from torch import Tensor

from pyrovae.base.random import categories
from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture, one_of_each, some_finite
from pyrovae.evidence.ladder.adaptation.newton import laplace, laplace_cost, log_joint, newton, started
from pyrovae.pairs.latents import Latents

NUM_COMPONENTS = 4  # of a mixture, about draws far apart
NUM_SOUGHT, AT_ONCE = 16, 4  # modes that are looked for from draws of the prior, so many of them in a round
ALONE = 0.2  # of the prior's deviations, by which those of a round are apart at least
NUM_HIGHEST, NUM_FARTHEST = 16, 16  # of given starts, from which modes are looked for
NUM_KEPT = 8  # of these, that are climbed to the end
FAR = 0.55  # of the distance of independent starts, by which the highest of them are apart
NEAR = 0.3  # of the deviations of starts, for a first look at slopes
TAIL = 0.05  # of the mass of a mode, at first, for a Gaussian that is wider


def apart(latents: Latents, near: Mixture, u: Tensor, log_weight: Tensor) -> Mixture:
    """Laplace's approximations about posterior draws far apart, weighed by the mass that they say they hold.

    Points (K, n, D) are resampled by their weights (K, n); each start is the farthest from all before it, in units of
    the spread of the first component that is near (Gonzalez 1985). In place of modes that are
    found twice stand wider Gaussians of little weight, for what leans or has heavy tails.
    """
    chosen = categories(some_finite(log_weight), len(u))
    u = u.gather(0, chosen[..., None].expand(*chosen.shape, u.shape[-1])).double()
    first = near.components[0]
    spread = first.scale_tril.square().sum(-1).sqrt()
    found, starts = [first], [first.loc]
    for _ in range(NUM_COMPONENTS - 1):
        before = [*starts, *(one.loc for one in found[1:])]
        away = torch.stack([((u - place) / spread).square().sum(-1) for place in before]).amin(0)
        place = u.gather(0, away.argmax(0)[None, :, None].expand(1, *first.loc.shape))[0]
        starts.append(place)
        found.append(laplace(latents, first._replace(loc=place, scale_tril=spread.diag_embed())))
    log_mass, modes = log_mass_of(latents, found), list(found)
    for row, one in enumerate(modes[1:], 1):
        again = torch.stack([other.distance(one.loc) < 1 for other in modes[:row]]).any(0)
        wide = first._replace(scale_tril=2.0**row * first.scale_tril)
        found[row] = wide.where(again, one)
        log_mass[row] = torch.where(again, log_mass[0] + math.log(TAIL), log_mass[row])
    return by_mass(log_mass, found)


def sought_cost(num_dims: int) -> int:
    """Decoder passes of :func:`sought` for each datum."""
    return NUM_SOUGHT * (laplace_cost(num_dims) + 1)


def sought(latents: Latents, u: Tensor, log_prior: Tensor, height: Tensor) -> Mixture:
    """Laplace's approximations about draws of the prior that lie apart, weighed by the mass they hold.

    A guide and all that starts from its draws may know one mode of several. Here a few are climbed to at once, from the
    draws that stand for most of the posterior and that no mode explains so far; round after round.

    Args:
        latents: of n data.
        u: draws of the prior, (K, n, D).
        log_prior: log p(u) there, (K, n).
        height: log p(x, u) there, (K, n).
    """
    spread = started(u, height).scale_tril.diagonal(dim1=-2, dim2=-1)
    scale = (spread * len(u) ** (-1 / u.shape[-1])).diag_embed()  # about as far apart as the draws are
    stands_for = (height - log_prior).nan_to_num(-math.inf, -math.inf, -math.inf)
    found = list[Gaussian]()
    for _ in range(NUM_SOUGHT // AT_ONCE):
        places = _likeliest(u, stands_for, ALONE * spread, AT_ONCE)
        climbed = _climbed(latents, Gaussian(places, scale.expand(AT_ONCE, *scale.shape), u.dtype).each())
        for one, top in zip(climbed, heights(latents, climbed), strict=True):
            away = one.distance(u)
            explained = (top - away.square() / 2 > height - math.log(10)) | (away < 3)
            stands_for = stands_for.masked_fill(explained, -math.inf)
        found += climbed
    return by_mass(log_mass_of(latents, found), found)


def started_cost(num_dims: int) -> int:
    """Decoder passes of :func:`sought_from` for each datum."""
    return (NUM_HIGHEST + NUM_FARTHEST + NUM_KEPT) * (laplace_cost(num_dims) + 1)


def sought_from(latents: Latents, starts: Tensor, height: Tensor) -> Mixture:
    """Laplace's approximations about starts far apart, weighed by the mass they hold.

    In many coordinates a start says little of the hill that it is on, how high it is and where others are. So the
    highest are climbed a part of the way, then those that lie farthest from all before (Gonzalez 1985); and the
    heaviest, where no heavier one is near, to the end.

    Args:
        latents: of n data.
        starts: points (S, n, D).
        height: log p(x, u) there, (S, n).
    """
    num_dims = starts.shape[-1]
    spread = started(starts, height).scale_tril.diagonal(dim1=-2, dim2=-1)
    height = height.nan_to_num(-math.inf, -math.inf, -math.inf)
    places = _likeliest(starts, height, FAR * math.sqrt(2 * num_dims) * spread, NUM_HIGHEST)
    places = torch.cat([places, _farthest(starts, height > -math.inf, places, spread)])
    scale = (NEAR * spread).diag_embed()
    found = _climbed(latents, [Gaussian(place, scale, starts.dtype) for place in places])
    log_mass, kept = log_mass_of(latents, found), list[Gaussian]()
    for _ in range(NUM_KEPT):
        kept.append(one_of_each(found, log_mass.argmax(0)))
        near = torch.stack([kept[-1].distance(one.loc) for one in found]) < math.sqrt(num_dims)
        log_mass = log_mass.masked_fill(near, -math.inf)
    kept = _climbed(latents, kept)
    return by_mass(_once(log_mass_of(latents, kept), kept), kept)


def each_by_newton(latents: Latents, modes: Mixture) -> Mixture:
    """Each mode by Newton's method on the ELBO, weighed by the mass it then holds."""
    found = [newton(latents, one).finite_or(one) for one in modes.components]
    return by_mass(_once(log_mass_of(latents, found), found), found)


def _once(log_mass: Tensor, modes: list[Gaussian]) -> Tensor:
    """Masses of C modes (C, n), nothing for one that is near a heavier one, or near an earlier one as heavy."""
    left, numbers = log_mass.clone(), torch.arange(len(modes), device=log_mass.device)[:, None]
    for row, one in enumerate(modes):
        near = torch.stack([other.distance(one.loc) for other in modes]) < math.sqrt(one.loc.shape[1])
        before = (log_mass > log_mass[row]) | ((log_mass == log_mass[row]) & (numbers < row))
        left[row] = left[row].masked_fill((near & before).any(0), -math.inf)
    return left


def _climbed(latents: Latents, starts: list[Gaussian]) -> list[Gaussian]:
    """Laplace's approximation from each start, a few at a time; the start itself where that is not finite."""
    found = list[Gaussian]()
    for first in range(0, len(starts), AT_ONCE):
        some = starts[first : first + AT_ONCE]
        start = Gaussian(torch.stack([s.loc for s in some]), torch.stack([s.scale_tril for s in some]), some[0].dtype)
        found += [one.finite_or(at) for one, at in zip(laplace(latents, start).each(), some, strict=True)]
    return found


def _farthest(u: Tensor, inside: Tensor, places: Tensor, spread: Tensor) -> Tensor:
    """Of points (K, n, D), those inside (K, n), each the farthest from all before: (NUM_FARTHEST, n, D), float64."""
    away, found = torch.where(inside, math.inf, -math.inf), list[Tensor]()
    for place in places:
        away = torch.minimum(away, ((u - place) / spread).norm(dim=-1))
    for _ in range(NUM_FARTHEST):
        found.append(u.gather(0, away.argmax(0)[None, :, None].expand(1, *u.shape[1:]))[0].double())
        away = torch.minimum(away, ((u - found[-1]) / spread).norm(dim=-1))
    return torch.stack(found)


def _likeliest(u: Tensor, log_weight: Tensor, radius: Tensor, num_places: int) -> Tensor:
    """Points (K, n, D) of the largest weights (K, n) that are a radius (n, D) apart, float64: (num_places, n, D)."""
    places = []
    for _ in range(num_places):
        index = log_weight.argmax(0)[None, :, None].expand(1, *u.shape[1:])
        places.append(u.gather(0, index)[0].double())
        log_weight = log_weight.masked_fill(((u - places[-1]) / radius).norm(dim=-1) < 1, -math.inf)
    return torch.stack(places)


def log_mass_of(latents: Latents, modes: list[Gaussian]) -> Tensor:
    """The mass below each of C modes by height and width, up to a constant: (C, n)."""
    log_dets = torch.stack([one.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) for one in modes])
    return (heights(latents, modes) + log_dets).nan_to_num(-math.inf, -math.inf, -math.inf)


def heights(latents: Latents, modes: list[Gaussian]) -> Tensor:
    """log p(x, u) at each of C means: (C, n)."""
    return log_joint(latents, torch.stack([one.loc for one in modes]).to(modes[0].dtype))


def by_mass(log_mass: Tensor, modes: list[Gaussian]) -> Mixture:
    """Modes in proportion to masses exp(log_mass), (C, n), none of which is left out for good."""
    return Mixture(some_finite(log_mass).log_softmax(0).clamp_min(-20.0).log_softmax(0), modes)
