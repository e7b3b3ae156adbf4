"""InfoVAE: the draws of the guide over all data are kept where those of the prior are, by a kernel."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.objective import Objective, Prepared
from pyrovae.training.objectives.scales import require_gradients, require_one_scale


class MMD(Objective):
    r"""The ELBO, its KL by a weight, less the squared maximum mean discrepancy between q(z) and p(z).

    .. math:: \sum_n \big[ \mathrm{E}_q \log p(x_n \mid z) - \beta\, \mathrm{KL}(x_n) \big]
        - N \lambda\, \mathrm{MMD}^2, \quad
        \mathrm{MMD}^2 = \mathrm{E}\, k(z, z') + \mathrm{E}\, k(y, y') - 2\, \mathrm{E}\, k(z, y)

    with z from the guide, one for each of the N data of a batch, y from the prior, as many, and
    k(z, y) = exp(-|z - y|^2 / h), h the mean of |y - y'|^2; pairs of unlike draws alone count, so that the estimate
    may be negative; given the width h it has no bias (from the draws' own h a little, in batches below ten). beta = 1
    is a penalty beside the ELBO, beta = 0 the MMD-VAE; in InfoVAE's words alpha = 1 - beta, and its lambda is this one
    plus beta. Draws of the prior are held: the penalty moves the guide. All latents of a datum make one z. Handlers of
    scale, and a plate whose rows stand for others, multiply the penalty as they do the KL.

    Args:
        weight: lambda, at least 0.
        beta: of the KL, at least 0.
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: for negative weights; naming the site, at first use, for draws without gradients, and for latents
            of several scales; for a batch of one datum.

    References:
        Zhao, Song & Ermon (2019), InfoVAE: balancing learning and inference in variational autoencoders, AAAI,
        arXiv:1706.02262.
        Gretton, Borgwardt, Rasch, Schölkopf & Smola (2012), A kernel two-sample test, JMLR 13.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> bound = MMD(0, beta=2).bound(oracle.model, oracle.guide, x)  # no penalty, and twice the KL
        >>> bool(abs(bound.loss - (2 * bound.kl_prior - bound.reconstruction)) < 1e-10)
        True
    """

    def __init__(
        self,
        weight: float = 10.0,
        beta: float = 1.0,
        num_particles: int = 1,
        *,
        vectorize_particles: bool = True,
        plate: str | None = None,
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if not all(math.isfinite(number) and number >= 0 for number in (weight, beta)):
            raise InputError(f"weight and beta must be numbers, 0 or more, got {weight} and {beta}")
        self.weight, self.beta = float(weight), float(beta)

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        num_data = self.prepare(model, guide, *args).num_data
        latents = self._latents(num_data).on(args)
        runs = self.runs(model, guide, *args)
        drawn = {name: torch.cat([_read(latents, run, name) for run in runs]) for name in latents.sites}
        with torch.no_grad():
            prior = _as_points(latents.by("looped").draw_prior(1), latents.sites)[0]
        scale = next(iter(runs[0].drawn.values()))["scale"]
        for site in (each for run in runs for each in run.every_site if not each["is_observed"]):
            site["scale"] = site["scale"] * self.beta
        elbo = bounds.mean([bounds.sampled(run) for run in runs], self.num_particles)
        penalty = torch.stack([squared_mmd(z, prior) for z in _as_points(drawn, latents.sites)]).mean()
        return elbo._replace(loss=elbo.loss + scale * num_data * self.weight * penalty)

    def _latents(self, num_data: int) -> Latents:
        latents = self._prepared[num_data].latents
        assert latents is not None
        return latents

    def _look(self, model: Program, guide: Program, args: Sequence[Any]) -> Prepared:
        found = super()._look(model, guide, args)
        if found.particles.num_data < 2:
            raise InputError("MMD compares the draws of several data: give a batch of two or more")
        return replace(found, latents=Latents.of(found.particles))

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        require_gradients(type(self).__name__, run)
        require_one_scale(type(self).__name__, run)


def _read(latents: Latents, run: TracePair, name: str) -> Tensor:
    return latents.particles.from_program(run.latent[name]["value"], latents.every_site[name].batch_dim)


def _as_points(values: Values, names: Any) -> Tensor:
    """Latents as one vector each: (K, N, ...) of each site -> (K, N, coordinates)."""
    return torch.cat([values[name].reshape(*values[name].shape[:2], -1) for name in names], -1)


def squared_mmd(z: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate of the squared maximum mean discrepancy.

    Args:
        z: points (N, D) of the one distribution.
        y: points (N, D) of the other, whose mean squared distance is the width of the kernel.

    Returns:
        A scalar; zero in expectation where both are one distribution.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [2.0]])
        >>> round(squared_mmd(points + 100, points).item(), 3)  # E k(z, z') + E k(y, y')
        0.899
    """
    num = len(z)
    pairs = num * (num - 1)
    distances = [_squared_distances(*points) for points in ((z, z), (y, y), (z, y))]
    width = distances[1].sum() / pairs
    unlike = 1 - torch.eye(num, dtype=z.dtype, device=z.device)
    same, other, across = ((-each / width).exp() * unlike for each in distances)
    return (same.sum() + other.sum() - 2 * across.sum()) / pairs


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] - b).square().sum(-1)
