r"""Mirrors: what turns latents into others of the same density, and so a mode that is found into those that are not.

Decoders of the size of z, of its square or of products know no sign, and sums of parts that are alike no order: a
posterior then has a mode for each, and a guide that learned one of them has good weights and is wrong by the logarithm
of their number. So a few draws u are turned by each of

.. math:: u_i \to -u_i, \qquad u \to -u, \qquad u_i \leftrightarrow u_{i + 1}

all of which leave volumes as they are. Where the model likes T u as well as u, and what drew u would hardly draw T u,
there is a mode that it misses.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture, tril_of
from pyrovae.evidence.ladder.adaptation.modes import by_mass, log_mass_of
from pyrovae.pairs.latents import Latents

MOST_SIGNS, MOST_ORDERS = 50, 20  # coordinates, up to which each is turned, and exchanged with the next
MOST_IMAGES = 64  # of a mode


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

    def of(self, u: Tensor) -> Tensor:
        """Images of points (..., D)."""
        return u[..., list(self.place)] * u.new_tensor(self.sign)

    def after(self, other: "Mirror") -> "Mirror":
        """This of the image of the other."""
        places = tuple(other.place[place] for place in self.place)
        return Mirror(places, tuple(a * other.sign[place] for a, place in zip(self.sign, self.place, strict=True)))


def mirrors(num_dims: int) -> list[Mirror]:
    """Those that are tried: M."""
    none, every = Mirror.none(num_dims), range(num_dims)
    some = every[:: -(-num_dims // MOST_SIGNS)]
    found = [none.turned(at) for at in some]
    if num_dims > 1:
        found.append(none.turned(*every))
    if 1 < num_dims <= MOST_ORDERS:
        found += [_exchanged(at, num_dims) for at in every[:-1]]
    return found


def _exchanged(at: int, num_dims: int) -> Mirror:
    places = list(range(num_dims))
    places[at], places[at + 1] = at + 1, at
    return Mirror(tuple(places), (1,) * num_dims)


def images(u: Tensor, number: int) -> Tensor:
    """The first of points (K, n, D), each turned by one mirror, all of them in turns: (number, n, D)."""
    each = mirrors(u.shape[-1])
    return torch.stack([each[at % len(each)].of(one) for at, one in enumerate(u[:number])])


def by_mirror(those: Tensor, num_dims: int) -> Tensor:
    """What is said of each image, (R * M, n), mirror by mirror: (R, M, n)."""
    return those.unflatten(0, (-1, len(mirrors(num_dims))))


def mirrored(latents: Latents, near: Mixture, those: Tensor) -> Mixture:
    """The first component and its images by some mirrors of each datum, (M, n), and by these of each other, by mass."""
    one, num_dims = near.components[0], near.num_dims
    patterns = [tuple(column) for column in those.T.tolist()]
    groups = {pattern: _together(pattern, num_dims) for pattern in set(patterns)}
    most = max(len(group) for group in groups.values())
    of_each = [[*groups[pattern], *groups[pattern][:1] * (most - len(groups[pattern]))] for pattern in patterns]
    place, sign = (torch.tensor([[mirror[part] for mirror in row] for row in of_each]) for part in (0, 1))
    again = torch.tensor([[at > 0 and mirror == row[0] for at, mirror in enumerate(row)] for row in of_each])
    found = [one, *(_image(one, place[:, at], sign[:, at]) for at in range(1, most))]
    return by_mass(log_mass_of(latents, found).masked_fill(again.T.to(one.loc.device), -math.inf), found)


def _together(pattern: tuple[bool, ...], num_dims: int) -> list[Mirror]:
    """What comes of some mirrors one after another, in any order: their group, what leaves all as it is in front.

    A mirror with which there are too many is left out.
    """
    found, some = [Mirror.none(num_dims)], list[Mirror]()
    for mirror in (mirror for mirror, is_one in zip(mirrors(num_dims), pattern, strict=True) if is_one):
        more = _group([*some, mirror], num_dims)
        if len(more) <= MOST_IMAGES:
            found, some = more, [*some, mirror]
    return found


def _group(some: list[Mirror], num_dims: int) -> list[Mirror]:
    """The group of some mirrors, or more of it than is wanted."""
    found = {Mirror.none(num_dims): None}
    new = list(found)
    while new and len(found) <= MOST_IMAGES:
        new = [one for one in dict.fromkeys(m.after(each) for each in new for m in some) if one not in found]
        found |= dict.fromkeys(new)
    return list(found)


def _image(one: Gaussian, place: Tensor, sign: Tensor) -> Gaussian:
    """The Gaussian of the images of draws of one, by a mirror of each datum, (n, D)."""
    place, sign = place.to(one.loc.device), sign.to(one.loc)
    rows = one.scale_tril.gather(1, place[..., None].expand_as(one.scale_tril)) * sign[..., None]
    return one._replace(loc=one.loc.gather(1, place) * sign, scale_tril=tril_of(rows))
