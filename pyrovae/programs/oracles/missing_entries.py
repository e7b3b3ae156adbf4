"""A linear-Gaussian program for data with missing entries: each datum has its own posterior precision.

With o the observed entries of a datum, W_o and s_o their loadings and noise scales::

    z ~ N(0, I),  x_o | z ~ N(W_o z + b_o, diag(s_o^2)),  Lambda_o = I + W_o' diag(s_o^-2) W_o
    p(x_o) = N(b_o, W_o W_o' + diag(s_o^2)),  p(z | x_o) = N(Lambda_o^-1 W_o' diag(s_o^-2) (x_o - b_o), Lambda_o^-1)
"""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.linear_gaussian import LinearGaussian, factor_analysis, information_normal
from pyrovae.programs.parameters import check_rows, register_module, seeded


class MissingEntries(nn.Module):
    """A linear-Gaussian program whose data hold NaN where an entry is missing, at random.

    Args:
        complete: the program of complete data, D features and Z latents.
        missing: the fraction of entries that `draw` leaves out, in [0, 1).

    Raises:
        InputError: if the fraction is outside [0, 1).

    References:
        Little and Rubin (2002), Statistical Analysis with Missing Data, doi:10.1002/9781119013563.

    Example:
        >>> oracle = missing_entries(3, 1)
        >>> oracle.posterior(torch.full((1, 3), math.nan)).variance  # nothing seen, nothing learned
        tensor([[1.]], dtype=torch.float64)
    """

    def __init__(self, complete: LinearGaussian, missing: float) -> None:
        super().__init__()
        if not 0 <= missing < 1:
            raise InputError(f"missing is a fraction of entries in [0, 1); got {missing}")
        self.complete, self.missing = complete, missing

    def model(self, x: Tensor) -> None:
        """The program p(z) p(x_o | z) for x of shape (N, D); what is missing is masked and costs nothing."""
        register_module(self)
        seen = ~x.isnan()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.complete.prior())
            entries = dist.Normal(self.complete.likelihood(z).mean, self.complete.noise_scale)
            # A NaN under the mask would still make the gradient NaN.
            pyro.sample("x", entries.mask(seen).to_event(1), obs=x.where(seen, 0.0))

    def guide(self, x: Tensor) -> None:
        """The exact posterior p(z | x_o) as a program: every importance weight is p(x_o)."""
        register_module(self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))

    def precision(self, x: Tensor) -> Tensor:
        """Posterior precision Lambda_o of each datum, shape (N, Z, Z)."""
        whitened = self._seen_loadings(x) / self.complete.noise_scale[..., None]
        return torch.ones_like(whitened[0, 0]).diag() + whitened.mT @ whitened

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z | x_o) for x of shape (N, D): batch shape (N,), event shape (Z,)."""
        precision = self.precision(x)
        residual = (x - self.complete.bias).nan_to_num(0.0) / self.complete.noise_scale**2
        return information_normal(precision, residual @ self.complete.loadings)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x_o) in nats, shape (N,), for x of shape (N, D)."""
        loadings, seen = self._seen_loadings(x), ~x.isnan()
        # A missing entry counts as an independent one at its mean, whose variance makes its density there 1.
        variance = (self.complete.noise_scale**2).where(seen, 1 / (2 * math.pi))
        filled = x.where(seen, self.complete.bias)
        return dist.LowRankMultivariateNormal(self.complete.bias.expand_as(x), loadings, variance).log_prob(filled)

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, Tensor]:
        """x (N, D), NaN where missing, and its latents z (N, Z); the global generator is left alone."""
        x, z = self.complete.draw(num_data, seed)
        with seeded(seed + 1):
            missing = torch.rand(x.shape, device=x.device) < self.missing
        return x.masked_fill(missing, math.nan), z

    def _seen_loadings(self, x: Tensor) -> Tensor:
        """The loadings of each datum, (N, D, Z), zero where it has no entry."""
        check_rows(x, self.complete.loadings.shape[:1])
        return self.complete.loadings * (~x.isnan())[..., None]


def missing_entries(num_features: int, num_latents: int, *, missing: float = 0.3, seed: int = 0) -> MissingEntries:
    """Factor analysis in float64, of data in which a fraction `missing` of all entries is left out at random."""
    return MissingEntries(factor_analysis(num_features, num_latents, seed=seed), missing)
