r"""A density for the codes of an autoencoder, after its fit: a Gaussian mixture as p(z), and a guide around the codes.

.. math:: p(x) = \int p_\theta(x \mid z) \sum_c \pi_c \, N(z; m_c, S_c) \, dz, \qquad
    q(z \mid x) = N(f(x), \mathrm{diag}(s^2))

With the decoder as it is, log p(x) is defined, and is measured as that of any pair.
"""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.programs.baselines.autoencoders import Autoencoder
from pyrovae.programs.baselines.em_steps import mixture_steps
from pyrovae.programs.vae import VAE

LEAST_VARIANCE = 1e-3  # within a component, of that of a coordinate over all codes
LOOKED_AT = 500  # codes at which the curvature of log p(x, z) is taken


class CodeMixture(nn.Module):
    """A fixed mixture of C normals over codes: weights (C,), means (C, Z) and covariances (C, Z, Z)."""

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        self.weights, self.means = nn.Buffer(weights), nn.Buffer(means)
        self.roots = nn.Buffer(torch.linalg.cholesky(covariances))

    def forward(self) -> TorchDistribution:
        each = dist.MultivariateNormal(self.means, scale_tril=self.roots)
        return dist.MixtureSameFamily(dist.Categorical(self.weights), each)


class AroundCodes(nn.Module):
    """N(f(x), diag(s^2)) of a network f, (N, *shape) -> (N, Z), and scales s, (Z,)."""

    def __init__(self, network: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.network, self.scale = network, nn.Buffer(scale)

    def forward(self, x: Tensor) -> TorchDistribution:
        return dist.Normal(self.network(x), self.scale).to_event(1)


def with_density(autoencoder: Autoencoder, data: Any, *, num_components: int = 10, seed: int = 0) -> VAE:
    """A pair of the autoencoder's decoder that has a density, by a mixture fitted to its codes.

    The scales s are those of the factorised normal that is nearest to the posterior where log p(x, z) is quadratic
    around the codes: one over the root of its mean curvature. Where the guide is poor all the same, ``evaluate`` finds
    better proposals.

    Args:
        autoencoder: fitted; its networks become those of the pair, with no change to them.
        data: a Split, or a tensor (N, *shape), to whose codes the mixture is fitted: the training data.
        num_components: C, of full covariance.
        seed: of the starts of the mixture, and of rows that are drawn anew at each use.

    Raises:
        InputError: for what is no autoencoder, and where the codes do not vary or are fewer than C.

    References:
        Ghosh, Sajjadi, Vergari, Black and Schölkopf (2020), From variational to deterministic autoencoders, ICLR,
        arXiv:1903.12436 (ex-post density estimation).

    Example:
        >>> import pyrovae as pv
        >>> digits = pv.data.load("digits")
        >>> decoder = pv.Conditional(pv.families.binomial(16), (8, 8), pv.networks.mlp(2, 20, seed=0))
        >>> encoder = pv.networks.mlp((8, 8), 20, seed=1)
        >>> autoencoder = pv.baselines.Autoencoder(2, decoder=decoder, encoder=encoder)
        >>> pair = with_density(autoencoder, digits.train, num_components=2)
        >>> pv.evaluate(pair.model, pair.guide, digits.test[:5], num_particles=50).log_evidence.shape
        torch.Size([5])
    """
    if not isinstance(autoencoder, Autoencoder):
        raise InputError(
            f"expected an Autoencoder of pyrovae.baselines, got a {type(autoencoder).__name__}: other pairs "
            "have a density"
        )
    was_training = autoencoder.training
    autoencoder.eval()
    try:
        like = next(autoencoder.encoder.parameters())
        x = (data if isinstance(data, Tensor) else data.drawn(seed).x).to(like.device)
        with torch.no_grad():
            codes = autoencoder.encoder(x)
        *_, last = mixture_steps(codes, num_components, least_variance=LEAST_VARIANCE, tolerance=1e-5, seed=seed)
        prior = CodeMixture(**last.parameters).to(like)
        scale = _widths(autoencoder.decoder, prior, x[:LOOKED_AT], codes[:LOOKED_AT])
    finally:
        autoencoder.train(was_training)
    return VAE(prior, autoencoder.decoder, AroundCodes(autoencoder.encoder, scale))


def _widths(decoder: Any, prior: CodeMixture, x: Tensor, codes: Tensor) -> Tensor:
    """One over the root of the mean curvature of log p(x, z) at codes (N, Z), no wider than these are spread: (Z,)."""
    with torch.enable_grad():
        z = codes.clone().requires_grad_()
        log_joint = decoder(z).log_prob(x).sum() + prior().log_prob(z).sum()
        (slope,) = torch.autograd.grad(log_joint, z, create_graph=True)
        curved = [torch.autograd.grad(slope[:, j].sum(), z, retain_graph=True)[0][:, j] for j in range(z.shape[1])]
    curvature = -torch.stack(curved, 1).mean(0)
    return curvature.clamp_min(codes.var(0).clamp_min(1e-12).reciprocal()).rsqrt().detach()
