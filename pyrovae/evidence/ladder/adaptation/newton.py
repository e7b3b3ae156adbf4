r"""Newton's method at the mode and on the ELBO, by the gradient of log p(x, u) at points of unconstrained space.

With a scale L of each datum, pairs of points m +- r L v along orthogonal directions v give mean slope and curvature,
exactly where the density is Gaussian:

.. math:: \bar g = \tfrac{1}{2M} \sum_v (g_+ + g_-), \qquad L^T H L \, v \approx L^T (g_+ - g_-) / 2r

One standard deviation along each axis from a mode, that is Laplace's approximation (and blind to kinks of networks,
which a derivative at the mode is not). Along random directions, at the lengths of draws of N(m, L L^T), it is the
gradient of the ELBO by mean and covariance.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Chi2

from pyrovae.base.random import noise
from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian
from pyrovae.evidence.ladder.kernels import by_parts
from pyrovae.pairs.latents import Latents

MODE_STEPS = 3  # of Newton's method
MODE_BOUNDS = (1e-2, 1e6)  # of a curvature, in units of the last scale
BACKTRACKS = (1.0, 0.5, 0.25, 0.1, 0.02)  # parts of a step that are tried
ELBO_STEPS = 10  # of Newton's method on the ELBO
LEAST_PAIRS = 8  # of draws in each of them
ELBO_RATE = 0.4  # of a step: what its few draws say counts for so much
ELBO_BOUNDS = (0.2, 5.0)  # of a curvature, in units of the last one
LONGEST = 2.0  # standard deviations by which such a step moves the mean
GRADIENT = 3  # decoder passes that a gradient counts for
FEWER = 4  # times fewer points at once where gradients are asked for: what they need is kept till then


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
