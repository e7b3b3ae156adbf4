"""Linear-Gaussian programs (probabilistic PCA, factor analysis), whose evidence and posterior are Normal.

With the posterior precision Lambda::

    z ~ N(0, I),  x | z ~ N(W z + b, diag(s^2)),  Lambda = I + W' diag(s^-2) W
    p(x) = N(b, W W' + diag(s^2)),  p(z | x) = N(Lambda^-1 W' diag(s^-2) (x - b), Lambda^-1)
"""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.single_latent import SingleLatent
from pyrovae.programs.parameters import check_rows, learned_or_fixed, register_module, seeded


class LinearGaussian(SingleLatent):
    """The linear-Gaussian model of D features and Z latents, with factorised guides of known error.

    Args:
        loadings: W, shape (D, Z).
        bias: b, shape (D,), or a scalar.
        noise_scale: s > 0, shape (D,), or a scalar.

    Tensors become buffers of full shape; an `nn.Parameter` stays the parameter it is and is learned.

    Raises:
        InputError: if the shapes do not agree or a noise scale is not positive.

    References:
        Tipping and Bishop (1999), Probabilistic Principal Component Analysis, doi:10.1111/1467-9868.00196.

    Example:
        >>> oracle = LinearGaussian(torch.ones(2, 1), torch.zeros(2), torch.tensor(1.0))
        >>> oracle.precision()
        tensor([[3.]])
    """

    def __init__(self, loadings: Tensor, bias: Tensor, noise_scale: Tensor) -> None:
        super().__init__()
        if loadings.ndim != 2:
            raise InputError(f"loadings must have shape (D, Z); got {tuple(loadings.shape)}")
        self.loadings = learned_or_fixed("loadings", loadings, loadings.shape)
        self.bias = learned_or_fixed("bias", bias, loadings.shape[:1])
        self.noise_scale = learned_or_fixed("noise_scale", noise_scale, loadings.shape[:1], positive=True)

    def prior(self) -> TorchDistributionMixin:
        return dist.Normal(torch.zeros_like(self.loadings[0]), 1.0).to_event(1)

    def likelihood(self, z: Tensor) -> TorchDistributionMixin:
        return dist.Normal(z @ self.loadings.T + self.bias, self.noise_scale).to_event(1)

    def precision(self) -> Tensor:
        """Posterior precision Lambda = I + W' diag(s^-2) W, shape (Z, Z), the same for every datum."""
        whitened = self.loadings / self.noise_scale.expand(len(self.loadings))[:, None]
        return torch.ones_like(whitened[0]).diag() + whitened.T @ whitened

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z | x) for x of shape (N, D): batch shape (N,), event shape (Z,)."""
        check_rows(x, self.loadings.shape[:1])
        return information_normal(self.precision(), ((x - self.bias) / self.noise_scale**2) @ self.loadings)

    def evidence(self) -> dist.LowRankMultivariateNormal:
        """p(x): batch shape (), event shape (D,); a log density costs O(D Z^2), never D^3."""
        shape = self.loadings.shape[:1]
        bias, scale = self.bias.expand(shape), self.noise_scale.expand(shape)
        return dist.LowRankMultivariateNormal(bias, self.loadings, scale**2)

    def mean_field_guide(self, scale: float = 1.0, shift: float = 0.0) -> Callable[[Tensor], None]:
        """A factorised Normal guide of known error.

        Its means are the posterior means plus `shift` posterior standard deviations, its standard deviations
        scale / sqrt(diag(Lambda)). At (1, 0) it minimises KL(q || p(z | x)) over all factorised Normals.
        """

        def guide(x: Tensor) -> None:
            register_module(self)
            posterior = self.posterior(x)
            mean = posterior.mean + shift * posterior.stddev
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(mean, scale * self.precision().diagonal().rsqrt()).to_event(1))

        return guide

    def kl_mean_field(self, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """KL(q || p(z | x)) of `mean_field_guide(scale, shift)` in nats, shape (): the same for every datum.

        With d = shift * sqrt(diag(Lambda^-1)), twice the KL is
        Z (scale^2 - 1 - log scale^2) + d' Lambda d + sum log diag(Lambda) - log det Lambda.
        """
        precision = self.precision()
        moved = shift * precision_root(precision).norm(dim=1)
        width = len(precision) * (scale**2 - 1 - 2 * math.log(scale))
        coupling = precision.diagonal().log().sum() - torch.logdet(precision)
        return (width + moved @ precision @ moved + coupling) / 2

    def weight_variance_margin(self, scale: float = 1.0) -> float:
        """Smallest eigenvalue of 2 Lambda - Lambda_q, where Lambda_q = diag(Lambda) / scale^2.

        The weights p(x, z) / q(z) of `mean_field_guide(scale)` are proportional to p(z | x) / q(z), so
        E_q[w^2] is finite if and only if this number is positive; `shift` does not matter.
        """
        precision = self.precision()
        return float(torch.linalg.eigvalsh(2 * precision - precision.diagonal().diag() / scale**2)[0])


def ppca(
    num_features: int, num_latents: int, *, noise: float = 1.0, collinearity: float = 0.3, seed: int = 0
) -> LinearGaussian:
    """Probabilistic PCA in float64 whose loadings have norm sqrt(D) and all the same cosine to each other.

    With a = D / noise^2 and c = collinearity, Lambda = (1 + a (1 - c)) I + a c 11'. For two latents or more
    the weights of `mean_field_guide()` have the variance margin 1 + a (1 - 2 c), and E_q[w^p] is finite for
    p < (1 + a) / (a c): their tail has the Pareto shape k = a c / (1 + a). At c = 0 mean field is exact.

    Args:
        num_features: D, at least Z.
        num_latents: Z.
        noise: standard deviation of every feature given z.
        collinearity: the cosine c between any two columns of W, in [0, 1).
        seed: of the random directions and bias.

    Raises:
        InputError: if the numbers do not satisfy 1 <= Z <= D, 0 <= c < 1.

    Example:
        >>> light, heavy = ppca(20, 3, collinearity=0.3), ppca(20, 3, collinearity=0.9)
        >>> round(light.weight_variance_margin(), 6), round(heavy.weight_variance_margin(), 6)
        (9.0, -15.0)
    """
    if not 1 <= num_latents <= num_features:
        raise InputError(f"expected 1 <= num_latents <= num_features; got {num_latents} and {num_features}")
    if not 0 <= collinearity < 1:
        raise InputError(f"collinearity is a cosine in [0, 1); got {collinearity}")
    normal, bias = _random_loadings(num_features, num_latents, seed)
    cosines = torch.full((num_latents, num_latents), collinearity, dtype=torch.float64).fill_diagonal_(1.0)
    directions = torch.linalg.qr(normal).Q @ torch.linalg.cholesky(cosines).T
    return LinearGaussian(math.sqrt(num_features) * directions, bias, torch.tensor(noise).to(bias))


def factor_analysis(num_features: int, num_latents: int, *, seed: int = 0) -> LinearGaussian:
    """Factor analysis in float64: standard normal loadings and bias, noise scales uniform on (0.5, 1.5).

    Example:
        >>> factor_analysis(5, 2).noise_scale.shape
        torch.Size([5])
    """
    loadings, bias = _random_loadings(num_features, num_latents, seed)
    with seeded(seed + 1):
        noise_scale = 0.5 + torch.rand(num_features, dtype=torch.float64)
    return LinearGaussian(loadings, bias, noise_scale)


def precision_root(precision: Tensor) -> Tensor:
    """The lower-triangular L with L L' = precision^-1, without forming the inverse: (..., Z, Z), and so is L.

    Example:
        >>> precision_root(torch.tensor([[4.0]]))
        tensor([[0.5000]])
    """
    centre = torch.zeros_like(precision[..., 0])
    return dist.MultivariateNormal(centre, precision_matrix=precision, validate_args=False).scale_tril


def information_normal(precision: Tensor, information: Tensor) -> dist.MultivariateNormal:
    """N(Lambda^-1 h, Lambda^-1) of the precision Lambda (..., Z, Z) and the information h (..., Z)."""
    root = precision_root(precision)
    mean = (root @ (root.mT @ information.unsqueeze(-1))).squeeze(-1)
    return dist.MultivariateNormal(mean, scale_tril=root)


def _random_loadings(num_features: int, num_latents: int, seed: int) -> tuple[Tensor, Tensor]:
    with seeded(seed):
        loadings = torch.randn(num_features, num_latents, dtype=torch.float64)
        return loadings, torch.randn(num_features, dtype=torch.float64)
