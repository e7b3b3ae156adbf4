"""The variational autoencoder as two probabilistic programs (Kingma & Welling 2014).

The model says how data arise, the guide is the encoder that inverts it; whatever else happens to them
(training, warm-up, masking, generation, evaluation) is a handler around these lines, never a branch in them.
"""

from collections.abc import Callable

import pyro
from pyro.distributions import TorchDistribution
from torch import Tensor, nn


class VAE(nn.Module):
    r"""A pair of programs: ``model`` draws p(z) p(x|z), ``guide`` draws q(z|x).

    .. math:: p(x) = \int p(x \mid z)\, p(z)\, dz, \qquad q(z \mid x) \approx p(z \mid x)

    Args:
        prior: ``() -> Distribution`` over one latent z, p(z).
        decoder: ``z -> Distribution`` over one datum x, p(x|z), for z of shape ``(..., *latent)``.
        encoder: ``x -> Distribution`` over one latent z, q(z|x), for x of shape ``(N, *shape)``.

    References:
        Kingma and Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114.
        Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation, arXiv:1401.4082.

    Example:
        >>> import torch, pyrovae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     decoder=pv.Conditional(pv.families.bernoulli(), (8, 8), pv.networks.mlp(2, 32)),
        ...     encoder=pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp((8, 8), 32)),
        ... )
        >>> vae.encoder(torch.zeros(5, 8, 8)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self,
        prior: Callable[[], TorchDistribution],
        decoder: Callable[[Tensor], TorchDistribution],
        encoder: Callable[[Tensor], TorchDistribution],
    ) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.encoder = encoder

    def model(self, x: Tensor) -> None:
        """The generative process, for data x of shape (N, *shape)."""
        pyro.module("vae", self)  # its weights are parameters of the program
        with pyro.plate("data", len(x)):  # rows are independent given the weights
            z = pyro.sample("z", self.prior())  # z ~ p(z)
            pyro.sample("x", self.decoder(z), obs=x)  # x ~ p(x | z)

    def guide(self, x: Tensor) -> None:
        """The amortized approximate posterior, for data x of shape (N, *shape)."""
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x))  # z ~ q(z | x)
