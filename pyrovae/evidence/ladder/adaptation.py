r"""How a proposal comes near the posterior of each datum: Newton's method at the mode and on the ELBO, then moments.

All of it reads one thing of the model, the gradient of log p(x, u) at points of unconstrained space. With a scale L
of each datum, pairs of points m +- r L v along orthogonal directions v give mean slope and curvature, exactly where
the density is Gaussian:

.. math:: \bar g = \tfrac{1}{2M} \sum_v (g_+ + g_-), \qquad L^T H L \, v \approx L^T (g_+ - g_-) / 2r

One standard deviation along each axis from a mode, that is Laplace's approximation (and blind to kinks of networks,
which a derivative at the mode is not). Along random directions, at the lengths of draws of N(m, L L^T), it is the
gradient of the ELBO by mean and covariance.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Chi2

from pyrovae.base.random import categories, noise
from pyrovae.evidence import estimators
from pyrovae.evidence.ladder.kernels import by_parts
from pyrovae.evidence.proposals.students import Students
from pyrovae.pairs.latents import Latents

MODE_STEPS = 3  # of Newton's method
MODE_BOUNDS = (1e-2, 1e6)  # of a curvature, in units of the last scale
BACKTRACKS = (1.0, 0.5, 0.25, 0.1, 0.02)  # parts of a step that are tried
ELBO_STEPS = 10  # of Newton's method on the ELBO
LEAST_PAIRS = 8  # of draws in each of them
ELBO_RATE = 0.4  # of a step: what its few draws say counts for so much
ELBO_BOUNDS = (0.2, 5.0)  # of a curvature, in units of the last one
LONGEST = 2.0  # standard deviations by which such a step moves the mean
MOMENT_ROUNDS, MOMENT_DRAWS = 3, 500
NUM_COMPONENTS = 4  # of a mixture, about draws far apart
NUM_SOUGHT, AT_ONCE = 16, 4  # modes that are looked for from draws of the prior, so many of them in a round
ALONE = 0.2  # of the prior's deviations, by which those of a round are apart at least
NUM_HIGHEST, NUM_FARTHEST = 16, 16  # of given starts, from which modes are looked for
NUM_KEPT = 8  # of these, that are climbed to the end
FAR = 0.55  # of the distance of independent starts, by which the highest of them are apart
NEAR = 0.3  # of the deviations of starts, for a first look at slopes
TAIL = 0.05  # of the mass of a mode, at first, for a Gaussian that is wider
GRADIENT = 3  # decoder passes that a gradient counts for
FEWER = 4  # times fewer points at once where gradients are asked for: what they need is kept till then


class Gaussian(NamedTuple):
    """N(loc, scale_tril scale_tril') for each of n data, float64; and the dtype of the latents.

    Several of the same data stand in front, (C, n, D), where it says so.
    """

    loc: Tensor  # (n, D)
    scale_tril: Tensor  # (n, D, D)
    dtype: torch.dtype

    def moved(self, step: Tensor, precision: Tensor) -> "Gaussian":
        """By a step (n, D), and with a precision (n, D, D), both in units of the scale."""
        loc = self.loc + (self.scale_tril @ step[..., None]).squeeze(-1)
        upper = torch.linalg.cholesky_ex(precision.flip(-2, -1)).L.flip(-2, -1)  # U U' = precision
        scale_tril = torch.linalg.solve_triangular(upper.mT, self.scale_tril, upper=False, left=False)
        return self._replace(loc=loc, scale_tril=scale_tril)

    @classmethod
    def joined(cls, parts: "Sequence[Gaussian]") -> "Gaussian":
        """Those of unlike data."""
        loc, scale_tril = (torch.cat([getattr(one, name) for one in parts]) for name in ("loc", "scale_tril"))
        return cls(loc, scale_tril, parts[0].dtype)

    def of(self, rows: Tensor) -> "Gaussian":
        """Those of some of the data."""
        return self._replace(loc=self.loc[rows], scale_tril=self.scale_tril[rows])

    def distance(self, u: Tensor) -> Tensor:
        """Of points (..., n, D) from the mean, in standard deviations: (..., n)."""
        axes = torch.eye(self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        whitening = torch.linalg.solve_triangular(self.scale_tril, axes.expand_as(self.scale_tril), upper=False)
        return torch.einsum("nij,...nj->...ni", whitening, u - self.loc).norm(dim=-1)

    def each(self) -> "list[Gaussian]":
        """Several, one by one."""
        return [Gaussian(*one, self.dtype) for one in zip(self.loc, self.scale_tril, strict=True)]

    def where(self, these: Tensor, other: "Gaussian") -> "Gaussian":
        """This for some of the data, (n,), the other for the rest."""
        loc = torch.where(these[:, None], self.loc, other.loc)
        return Gaussian(loc, torch.where(these[:, None, None], self.scale_tril, other.scale_tril), self.dtype)

    def finite_or(self, other: "Gaussian") -> "Gaussian":
        """This where it is finite, else the other."""
        return self.where(self.loc.isfinite().all(-1) & self.scale_tril.isfinite().flatten(1).all(-1), other)


class Mixture(NamedTuple):
    """Gaussians and their log weights (C, n)."""

    log_weight: Tensor
    components: list[Gaussian]

    @classmethod
    def alone(cls, one: Gaussian) -> "Mixture":
        return cls(one.loc.new_zeros(1, len(one.loc)), [one])

    @classmethod
    def joined(cls, mixtures: "Sequence[Mixture]") -> "Mixture":
        """Those of unlike data, of as many components each."""
        components = [Gaussian.joined(each) for each in zip(*(one.components for one in mixtures), strict=True)]
        return cls(torch.cat([one.log_weight for one in mixtures], 1), components)

    @property
    def num_dims(self) -> int:
        """D."""
        return self.components[0].loc.shape[1]

    def students(self, df: float, widened: float) -> Students:
        """Student's t about the same means, scales so many times as wide."""
        loc = torch.stack([one.loc for one in self.components])
        scale_tril = torch.stack([one.scale_tril for one in self.components])
        return Students(self.log_weight, loc, widened * scale_tril, df, self.components[0].dtype)

    @property
    def heaviest(self) -> Gaussian:
        """The component of each datum that weighs most."""
        return _kept(self.components, self.log_weight.argmax(0))

    def beside(self, other: "Mixture", part: float = 0.5) -> "Mixture":
        """This, and another mixture that is so large a part of the whole."""
        each = [self.log_weight.log_softmax(0) + math.log1p(-part), other.log_weight.log_softmax(0) + math.log(part)]
        return Mixture(torch.cat(each), [*self.components, *other.components])

    def finite_or(self, other: "Mixture") -> "Mixture":
        """With the first component of another in place of those that are not finite."""
        log_weight = _some_finite(self.log_weight).log_softmax(0)
        return Mixture(log_weight, [one.finite_or(other.components[0]) for one in self.components])

    def of(self, rows: Tensor) -> "Mixture":
        """Those of some of the data."""
        return Mixture(self.log_weight[:, rows], [one.of(rows) for one in self.components])


def log_joint(latents: Latents, u: Tensor) -> Tensor:
    """log p(x, u) in unconstrained space, a few points at a time: (K, n, D) -> (K, n) nats, float64."""
    return by_parts(log_joint_at, latents, u).double()


def log_joint_at(latents: Latents, u: Tensor) -> Tensor:
    """The same, of all points at once and in the precision of the programs."""
    return latents.log_joint_unconstrained(u).log_density


def laplace_cost(num_dims: int) -> int:
    """Decoder passes of :func:`laplace` for each datum."""
    return (MODE_STEPS + 1) * 2 * num_dims * GRADIENT + MODE_STEPS * (1 + len(BACKTRACKS))


def newton_cost(num_dims: int) -> int:
    """Decoder passes of :func:`newton` for each datum."""
    return ELBO_STEPS * 2 * num_frames(num_dims) * num_directions(num_dims) * GRADIENT


def moments_cost(_: int) -> int:
    """Decoder passes of :func:`moments` for each datum."""
    return MOMENT_ROUNDS * MOMENT_DRAWS


def slopes(latents: Latents, u: Tensor) -> Tensor:
    """The gradient of log p(x, u) at points, zero where it is not finite: (K, n, D), float64."""
    return by_parts(_slope, latents, u, fewer=FEWER).double().nan_to_num(0.0, 0.0, 0.0)


def _slope(latents: Latents, u: Tensor) -> Tensor:
    u = u.detach().requires_grad_()
    with torch.enable_grad():
        total = log_joint_at(latents, u).sum() + 0 * u.sum()  # a density may be constant
        (slope,) = torch.autograd.grad(total, u)
    return slope


def started(u: Tensor, log_joint: Tensor) -> Gaussian:
    """Where to begin: the mean and the spread of draws (K, n, D), those where the model has a density."""
    inside = (u.isfinite().all(-1) & log_joint.isfinite())[..., None]
    count, places = inside.sum(0), torch.where(inside, u, 0.0).double()
    mean = places.sum(0) / count.clamp_min(1)
    away = torch.where(inside, places - mean, 0.0)
    spread = (away.square().sum(0) / (count - 1).clamp_min(1)).sqrt()
    return Gaussian(mean, torch.where(spread > 0, spread, 1.0).diag_embed(), u.dtype)


def laplace(latents: Latents, start: Gaussian) -> Gaussian:
    """Laplace's approximation: damped Newton steps to a mode, then the curvature there; of several starts at once too.

    References:
        Tierney and Kadane (1986), Accurate approximations for posterior moments and marginal densities, JASA 81:82.
    """
    found = start
    axes = torch.eye(start.loc.shape[-1], dtype=torch.float64, device=start.loc.device).expand_as(start.scale_tril)
    for number in range(MODE_STEPS + 1):
        slope, curvature = differences(latents, found, axes, torch.ones_like(found.loc))
        values, vectors = torch.linalg.eigh(_symmetric(curvature, axes))
        precision = _of_eigen(values.abs().clamp(*MODE_BOUNDS), vectors)  # uphill at a saddle too
        step = torch.zeros_like(slope)
        if number < MODE_STEPS:
            step = _solved(precision, slope)
            step = step * _part(latents, found, step)
        found = found.moved(step, precision)
    return found


def _part(latents: Latents, found: Gaussian, step: Tensor) -> Tensor:
    """The part of a step (..., n, D) that leads highest, zero where all lead down: (..., n, 1)."""
    parts = torch.tensor((0.0, *BACKTRACKS), dtype=torch.float64, device=step.device)
    whole = (found.scale_tril @ step[..., None]).squeeze(-1)
    points = torch.stack([found.loc + part * whole for part in parts])
    height = log_joint(latents, points.flatten(0, -3).to(found.dtype)).reshape(points.shape[:-1])
    return parts[height.nan_to_num(-math.inf, -math.inf, -math.inf).argmax(0)][..., None]


def newton(latents: Latents, start: Gaussian, num_steps: int = ELBO_STEPS) -> Gaussian:
    r"""The Gaussian of largest ELBO, by natural gradients: a fixed point of

    .. math:: S^{-1} = -E_q[\nabla^2 \log p(x, u)], \qquad E_q[\nabla \log p(x, u)] = 0

    each expectation by pairs of draws along D/2 random orthogonal directions: without noise where the posterior is
    Gaussian. Curvature across two directions that were not drawn stays as it was.

    References:
        Opper and Archambeau (2009), The variational Gaussian approximation revisited, Neural Computation 21:786.
        Khan and Lin (2017), Conjugate-computation variational inference, arXiv:1703.04265.
    """
    found, num_dims = start, start.loc.shape[1]
    identity = torch.eye(num_dims, dtype=torch.float64, device=start.loc.device)
    for _ in range(num_steps):
        slope, excess = (each.mean(0) for each in _on_random_directions(latents, found))
        precision = _bounded(identity + ELBO_RATE * excess, *ELBO_BOUNDS)
        step = _solved(precision, slope)
        step = ELBO_RATE * step * (LONGEST / step.norm(dim=-1, keepdim=True).clamp_min(LONGEST))
        found = found.moved(step, precision)
    return found


def _on_random_directions(latents: Latents, found: Gaussian) -> tuple[Tensor, Tensor]:
    """Slope, and by how much minus the curvature exceeds one, in units of the scale: (F, n, D) and (F, n, D, D), as
    each of F frames tells.
    """
    frames = [_frame(found) for _ in range(num_frames(found.loc.shape[1]))]
    directions, lengths = (torch.stack(each) for each in zip(*frames, strict=True))
    slope, curvature = differences(latents, found, directions, lengths)
    return slope, _symmetric(curvature - directions, directions)


def _frame(found: Gaussian) -> tuple[Tensor, Tensor]:
    """Random orthonormal directions (n, D, M), and the lengths (n, M) of standard normal draws along them."""
    num_dims = found.loc.shape[1]
    normal = partial(torch.randn, dtype=found.loc.dtype, device=found.loc.device)
    directions = torch.linalg.qr(noise(normal, *found.loc.shape, num_directions(num_dims), data=0)).Q
    lengths = noise(Chi2(found.loc.new_tensor(num_dims)).sample, *directions.shape[::2], data=0).sqrt()
    return directions, lengths


def num_directions(num_dims: int) -> int:
    """Of the pairs of draws that are orthogonal to each other."""
    return (num_dims + 1) // 2


def num_frames(num_dims: int) -> int:
    """Sets of such pairs in a step on the ELBO: a few directions alone are few draws."""
    return max(1, LEAST_PAIRS // num_directions(num_dims))


def differences(latents: Latents, at: Gaussian, directions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and minus the curvature in units of the scale, L' g and -L' H L v, by gradients at pairs of points.

    Args:
        latents: of n data.
        at: centres of the pairs, and scales L.
        directions: orthonormal columns v, (..., n, D, M).
        lengths: of each, (..., n, M).

    Returns:
        (..., n, D) and (..., n, D, M), float64.
    """
    along = (at.scale_tril @ directions * lengths[..., None, :]).movedim(-1, 0)  # (M, ..., n, D): from the centre
    points = torch.cat([at.loc + along, at.loc - along]).to(at.dtype)
    slope = slopes(latents, points.flatten(0, -3)).reshape(points.shape)
    ahead, behind = slope.chunk(2)
    change = (ahead - behind).movedim(0, -1) / (2 * lengths[..., None, :])
    return (at.scale_tril.mT @ slope.mean(0)[..., None]).squeeze(-1), -at.scale_tril.mT @ change


def _symmetric(columns: Tensor, directions: Tensor) -> Tensor:
    """The symmetric matrix that is A V on the span of V and zero across its complement, from A V: (n, D, D)."""
    within = directions.mT @ columns
    across = columns @ directions.mT
    return across + across.mT - directions @ ((within + within.mT) / 2) @ directions.mT


def _solved(precision: Tensor, slope: Tensor) -> Tensor:
    """Newton's step P^-1 g: (n, D, D), (n, D) -> (n, D)."""
    return torch.linalg.solve_ex(precision, slope[..., None]).result.squeeze(-1)


def _bounded(matrix: Tensor, low: float, high: float) -> Tensor:
    """Symmetric matrices (n, D, D), their eigenvalues brought within bounds; those that are need no look at them."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inside = [torch.linalg.cholesky_ex(part).info == 0 for part in (matrix - low * identity, high * identity - matrix)]
    outside = ~(inside[0] & inside[1]) & matrix.isfinite().flatten(1).all(-1)
    if outside.any():
        values, vectors = torch.linalg.eigh(matrix[outside])
        matrix = matrix.clone()
        matrix[outside] = _of_eigen(values.clamp(low, high), vectors)
    return matrix


def _of_eigen(values: Tensor, vectors: Tensor) -> Tensor:
    """V diag(values) V': (n, D, D)."""
    return vectors * values[..., None, :] @ vectors.mT


def _tril(half: Tensor) -> Tensor:
    """The lower triangular L with L L' = A A', its diagonal positive: no square is formed."""
    upper = torch.linalg.qr(half.mT).R
    return (upper * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None]).mT.contiguous()


def moments(latents: Latents, start: Mixture, wide: Callable[[Mixture], Students]) -> Mixture:
    r"""Weights, means and covariances of the components by weighted draws, round after round.

    Draws are weighed by the density of the mixture, Pareto-smoothed, and shared among the components by what each
    holds of it; the moments of a component count for as much as its effective number S of draws tells, S / (S + 2 D).

    References:
        Cappe, Douc, Guillin, Marin and Robert (2008), Adaptive importance sampling in general mixture classes,
        Statistics and Computing 18:447.
    """
    found = start
    for _ in range(MOMENT_ROUNDS):
        proposal = wide(found)
        u = proposal.sample(MOMENT_DRAWS)
        each = proposal.log_prob_of_each(u)  # (C, K, n)
        total = each.logsumexp(0)
        log_weight = estimators.psis((log_joint(latents, u) - total).nan_to_num(-math.inf))
        shares = log_weight.softmax(0) * (each - total).exp()
        components = [_moved(one, share, u.double()) for one, share in zip(found.components, shares, strict=True)]
        log_weight = (shares.sum(1) + 1e-3).log().log_softmax(0)
        found = Mixture(log_weight, components)
    return found


def _moved(start: Gaussian, share: Tensor, u: Tensor) -> Gaussian:
    """A component, moved to the moments of its share (K, n) of the points (K, n, D)."""
    total = share.sum(0)
    weight = share / total.clamp_min(1e-300)
    size = 1 / weight.square().sum(0).clamp_min(1e-300) * (total > 0)
    part = (size / (size + 2 * u.shape[-1]))[:, None]
    mean = torch.einsum("kn,kni->ni", weight, u)
    away = (weight.sqrt()[..., None] * (u - mean)).movedim(0, -1)  # (n, D, K)
    both = torch.cat([part[..., None].sqrt() * away, (1 - part)[..., None].sqrt() * start.scale_tril], -1)
    return start._replace(loc=part * mean + (1 - part) * start.loc, scale_tril=_tril(both))


def apart(latents: Latents, near: Mixture, u: Tensor, log_weight: Tensor) -> Mixture:
    """Laplace's approximations about posterior draws far apart, weighed by the mass that they say they hold.

    Points (K, n, D) are resampled by their weights (K, n); each start is the farthest from all before it, in units of
    the spread of the first component that is near (Gonzalez 1985). In place of modes that are
    found twice stand wider Gaussians of little weight, for what leans or has heavy tails.
    """
    chosen = categories(_some_finite(log_weight), len(u))
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
    log_mass, modes = _log_mass(latents, found), list(found)
    for row, one in enumerate(modes[1:], 1):
        again = torch.stack([other.distance(one.loc) < 1 for other in modes[:row]]).any(0)
        wide = first._replace(scale_tril=2.0**row * first.scale_tril)
        found[row] = wide.where(again, one)
        log_mass[row] = torch.where(again, log_mass[0] + math.log(TAIL), log_mass[row])
    return _by_mass(log_mass, found)


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
        for one, top in zip(climbed, _heights(latents, climbed), strict=True):
            away = one.distance(u)
            explained = (top - away.square() / 2 > height - math.log(10)) | (away < 3)
            stands_for = stands_for.masked_fill(explained, -math.inf)
        found += climbed
    return _by_mass(_log_mass(latents, found), found)


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
    log_mass, kept = _log_mass(latents, found), list[Gaussian]()
    for _ in range(NUM_KEPT):
        kept.append(_kept(found, log_mass.argmax(0)))
        near = torch.stack([kept[-1].distance(one.loc) for one in found]) < math.sqrt(num_dims)
        log_mass = log_mass.masked_fill(near, -math.inf)
    kept = _climbed(latents, kept)
    return _by_mass(_once(_log_mass(latents, kept), kept), kept)


def each_by_newton(latents: Latents, modes: Mixture) -> Mixture:
    """Each mode by Newton's method on the ELBO, weighed by the mass it then holds."""
    found = [newton(latents, one).finite_or(one) for one in modes.components]
    return _by_mass(_once(_log_mass(latents, found), found), found)


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


def _kept(several: list[Gaussian], which: Tensor) -> Gaussian:
    """One of several for each datum, by its number (n,)."""
    data = torch.arange(len(which), device=which.device)
    loc = torch.stack([one.loc for one in several])[which, data]
    scale_tril = torch.stack([one.scale_tril for one in several])[which, data]
    return several[0]._replace(loc=loc, scale_tril=scale_tril)


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


def _log_mass(latents: Latents, modes: list[Gaussian]) -> Tensor:
    """The mass below each of C modes by height and width, up to a constant: (C, n)."""
    log_dets = torch.stack([one.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) for one in modes])
    return (_heights(latents, modes) + log_dets).nan_to_num(-math.inf, -math.inf, -math.inf)


def _heights(latents: Latents, modes: list[Gaussian]) -> Tensor:
    """log p(x, u) at each of C means: (C, n)."""
    return log_joint(latents, torch.stack([one.loc for one in modes]).to(modes[0].dtype))


def _by_mass(log_mass: Tensor, modes: list[Gaussian]) -> Mixture:
    """Modes in proportion to masses exp(log_mass), (C, n), none of which is left out for good."""
    return Mixture(_some_finite(log_mass).log_softmax(0).clamp_min(-20.0).log_softmax(0), modes)


def _some_finite(log_weight: Tensor) -> Tensor:
    """Log weights (C, n), all alike for data where none is finite."""
    return torch.where(log_weight.isfinite().any(0) & ~log_weight.isnan().any(0), log_weight, 0.0)
