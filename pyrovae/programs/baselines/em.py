"""What a VAE is to be compared with: finite mixtures fitted by expectation-maximisation, without an encoder."""

import math

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.mixtures import FiniteMixture, MeanFamily


def fit_mixture(
    x: Tensor,
    num_components: int,
    family: MeanFamily,
    *,
    maximum: float,
    num_iterations: int = 200,
    tolerance: float = 1e-4,
    smoothing: float = 1.0,
    num_restarts: int = 1,
    seed: int = 0,
) -> FiniteMixture:
    """A mixture fitted in float64 by EM, for families whose maximum-likelihood parameter is the data mean.

    With r_nk = p(k | x_n), s the smoothing and m the overall mean, an iteration sets w_k = mean_n r_nk and
    m_k = (sum_n r_nk x_n + s m) / (sum_n r_nk + s), kept maximum / (2 N + 2) away from 0 and from the
    maximum, so that no datum has probability zero. At s = 0 the log-likelihood never decreases.

    Args:
        x: data in [0, maximum], shape (N, *event).
        num_components: C; one component is the model of independent dimensions.
        family: as for `FiniteMixture`: Bernoulli, binomial or Poisson.
        maximum: of the means: 1 for Bernoulli, the number of trials, math.inf for Poisson.
        num_iterations: the most iterations of each restart.
        tolerance: stop when the mean log-likelihood changes by less than this, in nats per datum.
        smoothing: pseudo-observations of the overall mean in each component.
        num_restarts: k-means++ starts, of which the one with the best log-likelihood is returned.
        seed: of the starts; the global generator is left alone.

    Raises:
        InputError: if data lie outside [0, maximum], C is not in 1..N, or the family is of another kind.

    References:
        Dempster, Laird and Rubin (1977), doi:10.1111/j.2517-6161.1977.tb01600.x.
    """
    if not 1 <= num_components <= len(x):
        raise InputError(f"expected 1 <= num_components <= {len(x)}, the number of data; got {num_components}")
    if not bool(((x >= 0) & (x <= maximum) & x.isfinite()).all()):
        raise InputError(f"data must be finite and lie in [0, {maximum}]; got {float(x.min())} to {float(x.max())}")
    if smoothing < 0 or num_iterations < 1 or num_restarts < 1:
        raise InputError("smoothing must not be negative; num_iterations and num_restarts must be at least 1")
    rows = x.detach().double()
    em = _EM(rows, family, maximum, smoothing)
    generator = torch.Generator().manual_seed(seed)
    starts = [rows[spread_rows(rows, num_components, generator)] for _ in range(num_restarts)]
    _, weights, means = max((em.run(start, num_iterations, tolerance) for start in starts), key=lambda fit: fit[0])
    return FiniteMixture(weights, means, family)


class _EM:
    """EM for fixed data and family: log p(x | m) = x . eta(m) - A(m) + h(x), as a matrix product.

    Against one reference mean h(x) drops out; the rest is affine in x, read off by a derivative at x = 0.
    """

    def __init__(self, x: Tensor, family: MeanFamily, maximum: float, smoothing: float) -> None:
        self.x, self.flat, self.family, self.smoothing = x, x.reshape(len(x), -1), family, smoothing
        largest = torch.full_like(x[0], maximum) if math.isfinite(maximum) else x.amax(0).clamp_min(1.0)
        margin = largest / (2 * len(x) + 2)
        self.bounds = (margin, maximum - margin)
        self.overall = x.mean(0).clamp(*self.bounds)
        self.base = family(self.overall).log_prob(x)
        self.base_slope, self.base_intercept = self._affine(self.overall[None])

    def run(self, start: Tensor, num_iterations: int, tolerance: float) -> tuple[float, Tensor, Tensor]:
        """Mean log-likelihood, weights and means from components that start halfway to the rows `start`."""
        means = ((start + self.overall) / 2).clamp(*self.bounds)
        weights = torch.full((len(start),), 1 / len(start)).to(means)
        self._check_family(means)
        responsibility, score = self._expect(weights, means)
        for _ in range(num_iterations):
            weights, means = self._maximize(responsibility, means)
            previous, (responsibility, score) = score, self._expect(weights, means)
            if abs(score - previous) < tolerance:
                break
        return score, weights, means

    def _expect(self, weights: Tensor, means: Tensor) -> tuple[Tensor, float]:
        log_joint = weights.log() + self._log_likelihood(means)
        log_evidence = log_joint.logsumexp(1, keepdim=True)
        return (log_joint - log_evidence).exp(), float(log_evidence.mean())

    def _maximize(self, responsibility: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        count = responsibility.sum(0)
        total = responsibility.T @ self.flat + self.smoothing * self.overall.flatten()
        mass = (count + self.smoothing)[:, None]
        # A component that has lost all its data stays where it is, at weight zero.
        updated = torch.where(mass > 1e-10, total / mass, means.reshape(len(means), -1))
        return count / count.sum(), updated.reshape(means.shape).clamp(*self.bounds)

    def _log_likelihood(self, means: Tensor) -> Tensor:
        slope, intercept = self._affine(means)
        return self.base[:, None] + (intercept - self.base_intercept) + self.flat @ (slope - self.base_slope).T

    def _affine(self, means: Tensor) -> tuple[Tensor, Tensor]:
        origin = torch.zeros_like(means, requires_grad=True)
        with torch.enable_grad():
            intercept = self.family(means).log_prob(origin)
            (slope,) = torch.autograd.grad(intercept.sum(), origin)
        return slope.reshape(len(means), -1), intercept.detach()

    def _check_family(self, means: Tensor) -> None:
        direct = self.family(means).log_prob(self.x[:8, None])
        if not torch.allclose(self._log_likelihood(means)[:8], direct, rtol=1e-6, atol=1e-6):
            raise InputError(
                "the log density of this family is not affine in x up to a base measure, so EM by means "
                "cannot fit it; use a Bernoulli, binomial or Poisson family"
            )


def spread_rows(x: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
    """Indices of rows far from each other: each drawn by its squared distance to those before (k-means++)."""
    flat = x.reshape(len(x), -1).cpu()
    distance, chosen = torch.ones(len(flat), dtype=flat.dtype), []
    for _ in range(num_rows):
        chosen.append(torch.multinomial(distance + 1e-12, 1, generator=generator))
        to_last = (flat - flat[chosen[-1]]).square().sum(1)
        distance = to_last if len(chosen) == 1 else torch.minimum(distance, to_last)
    return torch.cat(chosen)
