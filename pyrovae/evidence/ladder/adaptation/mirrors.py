r"""Mirrors: what turns latents into others of the same density, and so a mode that is found into those that are not.

Decoders of the size of z, of its square or of products know no sign, and sums of parts that are alike no order: a
posterior then has a mode for each, and a guide that learned one of them has good weights and is wrong by the logarithm
of their number. So a few draws u are turned about the prior's mean m by each of

.. math:: u_s - m_s \to -(u_s - m_s), \qquad u_s - m_s \leftrightarrow u_t - m_t

all of which leave volumes as they are. Here s and t are single coordinates, all of them, whole sites of one shape,
slices of sites, or blocks that a vector may be made of. Where the model likes T u as well as u, and what drew u would
hardly draw T u, there is a mode that it misses.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture, tril_of
from pyrovae.evidence.ladder.adaptation.modes import by_mass, log_mass_of
from pyrovae.pairs.latents import Latents

MOST_SIGNS, MOST_BLOCKS = 200, 20  # coordinates, up to which each is turned, and a vector is taken to pieces
MOST_MIRRORS = 100  # where there are not as many signs
MOST_IMAGES = 64  # of a mode
CHOICE, FARTHER = 16, 0.75  # points, of which one is turned: that whose image is farther than those of so many
Shapes = tuple[tuple[int, ...], ...]  # of each site of a datum in unconstrained space
Part = tuple[int, ...]  # coordinates


class Mirror(NamedTuple):
    """u -> sign * u[place], coordinate by coordinate."""

    place: tuple[int, ...]
    sign: tuple[int, ...]

    @classmethod
    def none(cls, num_dims: int) -> "Mirror":
        """What leaves all as it is."""
        return cls(tuple(range(num_dims)), (1,) * num_dims)

    def turned(self, *places: int) -> "Mirror":
        """With the signs of some coordinates turned."""
        return self._replace(sign=tuple(-sign if at in places else sign for at, sign in enumerate(self.sign)))

    def exchanged(self, one: Part, other: Part) -> "Mirror":
        """With some coordinates in the place of others."""
        place = list(self.place)
        for a, b in zip(one, other, strict=True):
            place[a], place[b] = place[b], place[a]
        return self._replace(place=tuple(place))

    def of(self, u: Tensor) -> Tensor:
        """Images of points (..., D)."""
        return u[..., list(self.place)] * u.new_tensor(self.sign)

    def after(self, other: "Mirror") -> "Mirror":
        """This of the image of the other."""
        places = tuple(other.place[place] for place in self.place)
        return Mirror(places, tuple(a * other.sign[place] for a, place in zip(self.sign, self.place, strict=True)))


@lru_cache
def mirrors(shapes: Shapes) -> tuple[Mirror, ...]:
    """Those that are tried for latents of such sites: M."""
    num_dims = sum(map(math.prod, shapes))
    none, every = Mirror.none(num_dims), range(num_dims)
    signs = dict.fromkeys([*((at,) for at in every[:: -(-num_dims // MOST_SIGNS)]), tuple(every)])
    pairs = list(pairwise(every)) if num_dims <= MOST_BLOCKS else []
    found = [none.turned(*part) for part in signs]
    for parts in _pieces(shapes):
        found += [none.exchanged(*two) for two in pairwise(parts)] + [none.turned(*part) for part in parts]
    found += [none.turned(*two) for two in pairs]
    return tuple(dict.fromkeys(found))[: max(len(signs), MOST_MIRRORS)]


def _pieces(shapes: Shapes) -> Iterator[Sequence[Part]]:
    """Ways to take latents to pieces of one size each: as sites say first, and all of them where they are few."""
    places = torch.arange(sum(map(math.prod, shapes)))
    parts = places.split([math.prod(shape) for shape in shapes])
    sites = [at.reshape(shape).squeeze() for at, shape in zip(parts, shapes, strict=True)]
    leading = [_slices(at, 0) for at in sites if at.dim()]
    alike = [[_coordinates(at) for at in sites if at.shape == shape] for shape in {at.shape: 0 for at in sites}]
    yield from _together_of(leading + alike)
    yield from _together_of(alike + leading)
    yield from (same for same in alike if len(same) > 1)
    yield from (_slices(at, axis) for at in sites if at.dim() > 1 for axis in range(at.dim()))
    if len(places) <= MOST_BLOCKS:
        sizes = [size for size in range(1, len(places)) if len(places) % size == 0]
        yield from (_slices(places.unflatten(0, (-1, size)), axis) for axis in (0, 1) for size in sizes)


def _together_of(ways: Sequence[Sequence[Part]]) -> Iterator[Sequence[Part]]:
    """Of ways to take different latents to as many pieces, the first pieces as one, the second, and so on."""
    for number in {len(parts): 0 for parts in ways if len(parts) > 1}:
        found, num_ways = list[Part]([()] * number), 0
        for parts in (parts for parts in ways if len(parts) == number):
            if not {*chain(*found)} & {*chain(*parts)}:
                found, num_ways = [one + other for one, other in zip(found, parts, strict=True)], num_ways + 1
        if num_ways > 1:
            yield found


def _coordinates(at: Tensor) -> Part:
    return tuple(at.flatten().tolist())


def _slices(at: Tensor, axis: int) -> list[Part]:
    return [_coordinates(one) for one in at.unbind(axis)]


def images(latents: Latents, u: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Points (K, n, D) turned by one mirror after the other, so many by each: (number * M, n, D); and which, (..., n).

    Of a few that may be turned those are whose images lie farther than those of most, though not farthest: what is near
    is drawn as it is.
    """
    each, center = mirrors(latents.shapes), latents.prior_mean().to(u)
    some = u[: CHOICE * number] - center
    found, which = list[Tensor](), list[Tensor]()
    for mirror in each:
        turned = mirror.of(some)
        start = int(FARTHER * (len(some) - number))
        order = (turned - some).square().sum(-1).argsort(0)[start : start + number]
        found.append(turned.gather(0, order[..., None].expand(*order.shape, u.shape[-1])) + center)
        which.append(order)
    return torch.stack(found, 1).flatten(0, 1), torch.stack(which, 1).flatten(0, 1)


def by_mirror(those: Tensor, shapes: Shapes) -> Tensor:
    """What is said of each image, (R * M, n), mirror by mirror: (R, M, n)."""
    return those.unflatten(0, (-1, len(mirrors(shapes))))


def mirrored(latents: Latents, near: Mixture, those: Tensor) -> Mixture:
    """The first component and its images by some mirrors of each datum, (M, n), and by these of each other, by mass."""
    one, center = near.components[0], latents.prior_mean().to(near.components[0].loc)
    patterns = [tuple(column) for column in those.T.tolist()]
    groups = {pattern: _together(pattern, latents.shapes) for pattern in set(patterns)}
    most = max(len(group) for group in groups.values())
    of_each = [[*groups[pattern], *groups[pattern][:1] * (most - len(groups[pattern]))] for pattern in patterns]
    place, sign = (torch.tensor([[mirror[part] for mirror in row] for row in of_each]) for part in (0, 1))
    again = torch.tensor([[at > 0 and mirror == row[0] for at, mirror in enumerate(row)] for row in of_each])
    found = [one, *(_image(one, center, place[:, at], sign[:, at]) for at in range(1, most))]
    return by_mass(log_mass_of(latents, found).masked_fill(again.T.to(one.loc.device), -math.inf), found)


@lru_cache
def _together(pattern: tuple[bool, ...], shapes: Shapes) -> tuple[Mirror, ...]:
    """What comes of some mirrors one after another, in any order: their group, what leaves all as it is in front.

    A mirror with which there are too many is left out.
    """
    num_dims = sum(map(math.prod, shapes))
    found, some = [Mirror.none(num_dims)], list[Mirror]()
    for mirror in (mirror for mirror, is_one in zip(mirrors(shapes), pattern, strict=True) if is_one):
        more = found if mirror in found else _group([*some, mirror], num_dims)
        if len(found) < len(more) <= MOST_IMAGES:
            found, some = more, [*some, mirror]
    return tuple(found)


def _group(some: list[Mirror], num_dims: int) -> list[Mirror]:
    """The group of some mirrors, or more of it than is wanted."""
    found = {Mirror.none(num_dims): None}
    new = list(found)
    while new and len(found) <= MOST_IMAGES:
        new = [one for one in dict.fromkeys(m.after(each) for each in new for m in some) if one not in found]
        found |= dict.fromkeys(new)
    return list(found)


def _image(one: Gaussian, center: Tensor, place: Tensor, sign: Tensor) -> Gaussian:
    """The Gaussian of the images of draws of one, by a mirror of each datum, (n, D), about a center (n, D)."""
    place, sign = place.to(one.loc.device), sign.to(one.loc)
    rows = one.scale_tril.gather(1, place[..., None].expand_as(one.scale_tril)) * sign[..., None]
    loc = center + (one.loc - center).gather(1, place) * sign
    return one._replace(loc=loc, scale_tril=tril_of(rows))
