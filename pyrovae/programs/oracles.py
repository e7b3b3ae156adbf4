"""Programs whose evidence and posterior are known exactly: rulers to hold a measurement against.

Linear-Gaussian (probabilistic PCA, factor analysis), with the posterior precision Lambda::

    z ~ N(0, I),  x | z ~ N(W z + b, diag(s^2)),  Lambda = I + W' diag(s^-2) W
    p(x) = N(b, W W' + diag(s^2)),  p(z | x) = N(Lambda^-1 W' diag(s^-2) (x - b), Lambda^-1)

Finite mixture::

    k ~ Categorical(w),  x | k ~ family(m_k),  log p(x) = logsumexp_k [log w_k + log p(x | m_k)]
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyrovae.errors import InputError

Family = Callable[[Tensor], TorchDistributionMixin]
Program = Callable[[Tensor], None]


class LinearGaussian(nn.Module):
    """The linear-Gaussian model of D features and Z latents, with guides of known error.

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

    loadings: Tensor
    bias: Tensor
    noise_scale: Tensor

    def __init__(self, loadings: Tensor, bias: Tensor, noise_scale: Tensor) -> None:
        super().__init__()
        if loadings.ndim != 2:
            raise InputError(f"loadings must have shape (D, Z); got {tuple(loadings.shape)}")
        if not bool((noise_scale > 0).all()):
            raise InputError("noise_scale must be positive everywhere; it is a standard deviation")
        _keep(self, "loadings", loadings, loadings.shape)
        _keep(self, "bias", bias, loadings.shape[:1])
        _keep(self, "noise_scale", noise_scale, loadings.shape[:1])

    def model(self, x: Tensor) -> None:
        """The program p(z) p(x | z) for x of shape (N, D)."""
        _enter("linear_gaussian", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.loadings[0]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.loadings.T + self.bias, self.noise_scale).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """The exact posterior p(z | x) as a program: every importance weight is p(x)."""
        _enter("linear_gaussian", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))

    def precision(self) -> Tensor:
        """Posterior precision Lambda = I + W' diag(s^-2) W, shape (Z, Z), the same for every datum."""
        whitened = self.loadings / self.noise_scale.expand(len(self.loadings))[:, None]
        return torch.ones_like(whitened[0]).diag() + whitened.T @ whitened

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z | x) for x of shape (N, D): batch shape (N,), event shape (Z,)."""
        scale_tril = _scale_tril(self.precision())
        return dist.MultivariateNormal(self._posterior_mean(x, scale_tril), scale_tril=scale_tril)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (N,), for x of shape (N, D); costs O(D Z^2), never D^3."""
        _check_rows(x, self.loadings.shape[:1])
        loc, scale = self.bias.expand(x.shape[1:]), self.noise_scale.expand(x.shape[1:])
        return dist.LowRankMultivariateNormal(loc, self.loadings, scale**2).log_prob(x)

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, Tensor]:
        """x (N, D) and its latents z (N, Z) drawn from the model; the global generator is left alone."""
        generator = torch.Generator(self.loadings.device).manual_seed(seed)
        num_features, num_latents = self.loadings.shape
        with torch.no_grad():
            z = self.loadings.new_empty(num_data, num_latents).normal_(generator=generator)
            noise = self.loadings.new_empty(num_data, num_features).normal_(generator=generator)
            return z @ self.loadings.T + self.bias + self.noise_scale * noise, z

    def mean_field_guide(self, scale: float = 1.0, shift: float = 0.0) -> Program:
        """A factorised Normal guide of known error.

        Its means are the posterior means plus `shift` posterior standard deviations, its standard deviations
        scale / sqrt(diag(Lambda)). At (1, 0) it minimises KL(q || p(z | x)) over all factorised Normals.
        """

        def guide(x: Tensor) -> None:
            _enter("linear_gaussian", self)
            precision = self.precision()
            mean = self._posterior_mean(x, _scale_tril(precision), shift)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(mean, scale * precision.diagonal().rsqrt()).to_event(1))

        return guide

    def scaled_guide(self, scale: float, shift: float = 0.0) -> Program:
        """The posterior with its scale_tril times `scale` and its mean moved by `shift` posterior sds.

        The importance weights have finite variance exactly if scale > 1 / sqrt(2).
        """

        def guide(x: Tensor) -> None:
            _enter("linear_gaussian", self)
            root = _scale_tril(self.precision())
            mean = self._posterior_mean(x, root, shift)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=scale * root))

        return guide

    def kl_mean_field(self, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """KL(q || p(z | x)) of `mean_field_guide(scale, shift)` in nats, shape (): the same for every datum.

        With d = shift * sqrt(diag(Lambda^-1)), twice the KL is
        Z (scale^2 - 1 - log scale^2) + d' Lambda d + sum log diag(Lambda) - log det Lambda.
        """
        precision = self.precision()
        moved = shift * _scale_tril(precision).norm(dim=1)
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

    def _posterior_mean(self, x: Tensor, scale_tril: Tensor, shift: float = 0.0) -> Tensor:
        _check_rows(x, self.loadings.shape[:1])
        projected = ((x - self.bias) / self.noise_scale**2) @ self.loadings
        return projected @ scale_tril @ scale_tril.T + shift * scale_tril.norm(dim=1)


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
    generator = torch.Generator().manual_seed(seed + 1)
    noise_scale = 0.5 + torch.rand(num_features, generator=generator, dtype=torch.float64)
    return LinearGaussian(loadings, bias, noise_scale)


class FiniteMixture(nn.Module):
    """A mixture of C components with the latent component "k", drawn exactly by the guide.

    Args:
        weights: mixing proportions, shape (C,), that sum to one.
        means: mean parameters, shape (C, *event).
        family: maps mean parameters (..., *event) to a distribution of that event shape,
            e.g. ``lambda mean: dist.Binomial(16, probs=mean / 16).to_event(2)``.

    Raises:
        InputError: if the shapes do not agree or the weights are not proportions.

    Example:
        >>> means = torch.tensor([0.1, 0.9])
        >>> coins = FiniteMixture(torch.tensor([0.5, 0.5]), means, lambda mean: dist.Bernoulli(mean))
        >>> coins.log_evidence(torch.tensor([1.0])).exp()
        tensor([0.5000])
    """

    weights: Tensor
    means: Tensor

    def __init__(self, weights: Tensor, means: Tensor, family: Family) -> None:
        super().__init__()
        if weights.ndim != 1 or bool((weights < 0).any()) or abs(float(weights.sum()) - 1) > 1e-5:
            raise InputError("weights must be proportions of shape (C,): not negative, and summing to one")
        if means.shape[:1] != weights.shape:
            raise InputError(f"expected means of shape ({len(weights)}, *event); got {tuple(means.shape)}")
        event_shape = tuple(family(means).event_shape)
        if event_shape != tuple(means.shape[1:]):
            raise InputError(
                f"family must give the event shape {tuple(means.shape[1:])} of its means; got {event_shape}; "
                "declare the event dimensions with .to_event"
            )
        _keep(self, "weights", weights, weights.shape)
        _keep(self, "means", means, means.shape)
        self.family = family

    def model(self, x: Tensor) -> None:
        """The program p(k) p(x | k) for x of shape (N, *event)."""
        _enter("finite_mixture", self)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(self.weights))
            pyro.sample("x", self.family(self.means[k]), obs=x)

    def guide(self, x: Tensor) -> None:
        """The exact posterior p(k | x) as a program: every importance weight is p(x)."""
        _enter("finite_mixture", self)
        with pyro.plate("data", len(x)):
            pyro.sample("k", self.posterior(x))

    def posterior(self, x: Tensor) -> dist.Categorical:
        """p(k | x) for x of shape (N, *event): batch shape (N,), over C components."""
        return dist.Categorical(logits=self._log_joint(x))

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (N,), for x of shape (N, *event)."""
        return self._log_joint(x).logsumexp(-1)

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, Tensor]:
        """x (N, *event) and its components k (N,) drawn from the model; the global generator is restored."""
        with torch.no_grad(), _seeded(seed, self.means.device):
            k = dist.Categorical(self.weights).sample((num_data,))
            return self.family(self.means[k]).sample(), k

    def _log_joint(self, x: Tensor) -> Tensor:
        _check_rows(x, self.means.shape[1:])
        return dist.Categorical(self.weights).logits + self.family(self.means).log_prob(x.unsqueeze(1))


def fit_mixture(
    x: Tensor,
    num_components: int,
    family: Family,
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
    starts = [rows[_spread_rows(rows, num_components, generator)] for _ in range(num_restarts)]
    fits = [em.run(start, num_iterations, tolerance) for start in starts]
    _, weights, means = max(fits, key=lambda fit: fit[0])
    return FiniteMixture(weights, means, family)


class _EM:
    """EM for fixed data and family: log p(x | m) = x . eta(m) - A(m) + h(x), as a matrix product.

    Against one reference mean h(x) drops out; the rest is affine in x, read off by a derivative at x = 0.
    """

    def __init__(self, x: Tensor, family: Family, maximum: float, smoothing: float) -> None:
        self.x, self.flat, self.family, self.smoothing = x, x.reshape(len(x), -1), family, smoothing
        margin = (maximum if math.isfinite(maximum) else max(1.0, float(x.max()))) / (2 * len(x) + 2)
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
        return count / count.sum(), updated.clamp(*self.bounds).reshape(means.shape)

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


def _spread_rows(x: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
    """Indices of rows far from each other: each drawn by its squared distance to those before (k-means++)."""
    flat = x.reshape(len(x), -1).cpu()
    distance, chosen = torch.ones(len(flat), dtype=flat.dtype), []
    for _ in range(num_rows):
        chosen.append(torch.multinomial(distance + 1e-12, 1, generator=generator))
        to_last = (flat - flat[chosen[-1]]).square().sum(1)
        distance = to_last if len(chosen) == 1 else torch.minimum(distance, to_last)
    return torch.cat(chosen)


def _random_loadings(num_features: int, num_latents: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    loadings = torch.randn(num_features, num_latents, generator=generator, dtype=torch.float64)
    return loadings, torch.randn(num_features, generator=generator, dtype=torch.float64)


def _scale_tril(precision: Tensor) -> Tensor:
    """The lower-triangular L with L L' = precision^-1, without forming the inverse."""
    flipped = torch.linalg.cholesky(precision.flip(0, 1)).flip(0, 1).T
    return torch.linalg.solve_triangular(flipped, torch.ones_like(precision[0]).diag(), upper=False)


def _keep(module: nn.Module, name: str, tensor: Tensor, shape: torch.Size) -> None:
    """Store a tensor of this shape (or a scalar) on the module: parameters as such, the rest as buffers."""
    if tensor.shape not in (shape, torch.Size([])):
        raise InputError(f"expected {name} of shape {tuple(shape)}; got {tuple(tensor.shape)}")
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor.detach().expand(shape).clone())


def _enter(name: str, module: nn.Module) -> None:
    """Make the module's weights parameters of the running program, where it has any."""
    if any(True for _ in module.parameters()):
        pyro.module(name, module)


def _check_rows(x: Tensor, event_shape: torch.Size) -> None:
    if x.ndim == 0 or x.shape[1:] != event_shape:
        expected = ", ".join(["N", *map(str, event_shape)])
        raise InputError(f"expected data of shape ({expected}); got {tuple(x.shape)}")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the device's global generator for one block and put its state back afterwards."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        generator = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
        generator.manual_seed(seed)
        yield
