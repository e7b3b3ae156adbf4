"""The ELBO and a price on how much the guide's draws move with the data: the contractive autoencoder's."""

import math
from typing import Any

import pyro
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.objectives.scales import require_gradients, require_one_scale


class Contractive(Objective):
    r"""The ELBO less a weight times the squared Jacobian of each draw, at fixed noise, by its datum.

    .. math:: \sum_n \big[ \log p(x_n \mid z_n) - (\log q(z_n \mid x_n) - \log p(z_n))
        - \lambda \, \| \partial z_n / \partial x_n \|_F^2 \big], \qquad z_n \sim q(z \mid x_n)

    Of an autoencoder, whose draw is its code, it is the contractive autoencoder's loss. Every coordinate of z takes a
    backward pass. The first argument of the programs is x; the history's ELBO is without the penalty.

    Args:
        weight: lambda, at least 0; its unit is a nat times that of x squared.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: for a negative weight; for data that are whole numbers by type; naming the site, at first use, for
            draws without gradients, and for latents of several scales.

    References:
        Rifai, Vincent, Muller, Glorot and Bengio (2011), Contractive auto-encoders: explicit invariance during feature
        extraction, ICML.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> bound = Contractive(0).bound(oracle.model, oracle.guide, x)
        >>> bool(abs(bound.loss - (bound.kl_prior - bound.reconstruction)) < 1e-10)
        True
    """

    def __init__(self, weight: float = 0.1, *, plate: str | None = None) -> None:
        super().__init__(plate=plate)
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"weight must be a number, 0 or more, got {weight}")
        self.weight = float(weight)

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        x, *others = args
        if not x.is_floating_point():
            raise InputError(f"Contractive takes the slope of draws by x, which is of {x.dtype}: give x.float()")
        with torch.enable_grad():
            read = x if x.requires_grad else x.detach().requires_grad_()
            (run,) = self.runs(model, guide, read, *others)
            penalty = _squared_jacobian(run, read)
        elbo = bounds.sampled(run)
        scale = next(iter(run.drawn.values()))["scale"]
        return elbo._replace(loss=elbo.loss + scale * self.weight * penalty)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        require_gradients(type(self).__name__, run)
        require_one_scale(type(self).__name__, run)


def _squared_jacobian(run: TracePair, x: Tensor) -> Tensor:
    """Squared slopes of all coordinates of the draws by the data, summed over both; zero where there are none."""
    draws = [site["value"].reshape(len(x), -1) for site in run.drawn.values() if site["value"].requires_grad]
    slopes = [_slope(draw[:, j].sum(), x) for draw in draws for j in range(draw.shape[1])]
    return sum((slope.square().sum() for slope in slopes if slope is not None), x.new_zeros(()))


def _slope(value: Tensor, x: Tensor) -> Tensor | None:
    return torch.autograd.grad(value, x, create_graph=True, allow_unused=True)[0]
