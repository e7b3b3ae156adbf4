r"""A mixture of diagonal normals whose draws carry gradients, of all its parameters.

.. math:: q(z) = \sum_c \pi_c\, q_c(z), \qquad q_c(z) = \prod_d N(z_d; m_{cd}, s_{cd}^2)

A draw z moves with the centres and the scales by what each component answers for, and with the logits so that the
distribution function of each coordinate, given those before it, stays where it is:

.. math:: dz = \sum_c \frac{\pi_c q_c(z)}{q(z)} \Big(dm_c + \frac{z - m_c}{s_c} ds_c\Big) - J^{-1} dF, \qquad
    F_d = \sum_c \pi_{c \mid z_{<d}} \Phi\Big(\frac{z_d - m_{cd}}{s_{cd}}\Big), \quad
    J_{dj} = \partial F_d / \partial z_j

Both are right in expectation; the first part is bounded, where the second alone would not be.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import pad


class NormalMixture(dist.MixtureSameFamily):
    """A mixture of C diagonal normals over vectors, with gradients through its draws.

    Args:
        locs: (..., C, D).
        scales: (..., C, D), positive.
        logits: of the components, (..., C).
        many: whether densities are found by a matrix product, in double as its terms cancel: squares of C x D
            differences for each value would take the time of a network. For components without batch dimensions that a
            network gives; where they are parameters themselves, torch 2.15 fails to compile a step with it.

    References:
        Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients, arXiv:1805.08498.
        Jankowiak and Karaletsos (2019), Pathwise derivatives for multivariate distributions, arXiv:1806.01856.

    Example:
        >>> locs = torch.tensor([[-1.0], [1.0]], requires_grad=True)
        >>> mixture = NormalMixture(locs, torch.ones(2, 1), torch.zeros(2))
        >>> z = mixture.rsample((5,))
        >>> (slope,) = torch.autograd.grad(z.sum(), locs)
        >>> round(slope.sum().item(), 4)  # both centres moved by one move every draw by one
        5.0
    """

    arg_constraints: ClassVar = {
        "locs": constraints.independent(constraints.real, 2),
        "scales": constraints.independent(constraints.positive, 2),
        "logits": constraints.real_vector,
    }
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(
        self, locs: Tensor, scales: Tensor, logits: Tensor, validate_args: bool | None = None, *, many: bool = False
    ) -> None:
        self._many = (locs, scales, logits) if many else None
        batch = torch.broadcast_shapes(locs.shape[:-2], scales.shape[:-2], logits.shape[:-1])
        self.locs, self.scales = (each.expand(batch + each.shape[-2:]) for each in (locs, scales))
        self.logits = logits.expand(batch + logits.shape[-1:])
        super().__init__(
            dist.Categorical(logits=self.logits, validate_args=False),
            dist.Normal(self.locs, self.scales, validate_args=False).to_event(1),
            validate_args=validate_args,
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NormalMixture":
        batch = Size(batch_shape)
        locs, scales = (each.expand(batch + each.shape[-2:]) for each in (self.locs, self.scales))
        new = NormalMixture(locs, scales, self.logits.expand(*batch, -1), validate_args=self._validate_args)
        new._many = self._many
        return new

    def with_parts(self, change: Callable[[Any], Any]) -> "NormalMixture":
        """The same of changed components, as a function of normals gives them."""
        part = change(dist.Normal(self.locs, self.scales))
        return NormalMixture(part.loc, part.scale, self.logits)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, of the broadcast batch shape; constants are summed once, not for each value."""
        if self._validate_args:
            self._validate_sample(value)
        if self._many is not None:
            log_prob = _by_products(value, *self._many)
            return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))
        away = (value[..., None, :] - self.locs) * self.scales.reciprocal()
        constant = self.scales.log().sum(-1) + 0.5 * self.locs.shape[-1] * math.log(2 * math.pi)
        return (self.logits.log_softmax(-1) - constant - 0.5 * away.square().sum(-1)).logsumexp(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self._drawn(Size(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        z = self.sample(sample_shape)
        return z + self._by_parameters(z) if torch.is_grad_enabled() else z

    def _drawn(self, sample_shape: Size) -> Tensor:
        which = self.mixture_distribution.sample(sample_shape)[..., None, None]
        which = which.expand(*which.shape[:-1], self.locs.shape[-1])
        lead = which.shape[:-2]
        loc, scale = (each.expand(lead + each.shape[-2:]).gather(-2, which)[..., 0, :] for each in self._both)
        return loc + scale * torch.randn_like(loc)

    @property
    def _both(self) -> tuple[Tensor, Tensor]:
        return self.locs, self.scales

    def _by_parameters(self, z: Tensor) -> Tensor:
        """Zeros of the shape of draws (..., D), whose gradient is that of the draws by all parameters."""
        loc, scale = (each.detach() for each in self._both)
        score = (z[..., None, :] - loc) / scale
        each = -score.square() / 2 - scale.log()  # log density but for a constant, (..., C, D)
        answers = (self.logits.detach() + each.sum(-1)).softmax(-1)[..., None]
        moved = (answers * ((self.locs - loc) + (self.scales - scale) * score)).sum(-2)
        return moved - self._by_logits(score, each, scale)

    def _by_logits(self, score: Tensor, each: Tensor, scale: Tensor) -> Tensor:
        earlier = pad(each, (1, 0))[..., :-1].cumsum(-1)
        given = (self.logits[..., None] + earlier).softmax(-2)  # of the components, given the coordinates before
        fixed = given.detach()
        below, above = torch.special.ndtr(score), torch.special.ndtr(-score)
        # F less one where it is above a half: no tail loses its digits.
        is_high = (fixed * below).sum(-2, keepdim=True) > 0.5
        below = torch.where(is_high, -above, below)
        total = (given * below).sum(-2)
        density = (fixed * each.exp()).sum(-2) / math.sqrt(2 * math.pi)
        density = density.clamp_min(torch.finfo(density.dtype).tiny)
        by_earlier = (fixed * (below - total.detach()[..., None, :])).mT @ (-score / scale)
        slope = by_earlier.tril(-1) + density.diag_embed()
        return torch.linalg.solve_triangular(slope, (total - total.detach())[..., None], upper=False)[..., 0]


def _by_products(value: Tensor, locs: Tensor, scales: Tensor, logits: Tensor) -> Tensor:
    """Log density of one mixture at values (..., D), with the differences' squares multiplied out: (...,)."""
    locs, scales, z = locs.double(), scales.double(), value.double()
    precision = scales.reciprocal().square()
    squares = z.square() @ precision.mT - 2 * z @ (locs * precision).mT + (locs.square() * precision).sum(-1)
    constant = scales.log().sum(-1) + 0.5 * locs.shape[-1] * math.log(2 * math.pi)
    return (logits.double().log_softmax(-1) - constant - 0.5 * squares).logsumexp(-1).to(value.dtype)
