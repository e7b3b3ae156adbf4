r"""An autoencoder as a pair of programs: the guide is a point, and nothing is asked of where it lies.

.. math:: z = f(x), \qquad \max_{f, \theta} \sum_n \log p_\theta(x_n \mid f(x_n))

Its ELBO has one term, the reconstruction: neither program has a density of z, so that there is no log p(x) either.
"""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrovae.base.errors import check_at_least_one
from pyrovae.programs.networks.events import NetworkBuilder
from pyrovae.programs.priors.gaussian import StandardNormal


class Autoencoder(nn.Module):
    """A deterministic autoencoder, by the decoder and the networks of a VAE; ``pyrovae.fit`` trains it as any pair.

    With a corruption it is a denoising one: in training the code is that of x as it is corrupted anew at each step,
    and the decoder is to give x as it was. With ``pyrovae.objectives.Contractive`` it is a contractive one. It has no
    evidence; :func:`~pyrovae.baselines.with_density` makes a pair of it that has.

    Args:
        num_latents: Z, of one code.
        decoder: ``z -> Distribution`` over one datum x, p(x|z), for z of shape (..., Z).
        encoder: a network ``x -> (..., Z)``, or a function from Z to such a network (as ``networks.mlp`` returns).
        corruption: x -> a corrupted x of its shape, as :mod:`~pyrovae.programs.baselines.corruptions` has them.

    References:
        Hinton and Salakhutdinov (2006), Reducing the dimensionality of data with neural networks, Science 313.
        Vincent, Larochelle, Bengio and Manzagol (2008), Extracting and composing robust features with denoising
        autoencoders, ICML.

    Example:
        >>> import torch, pyrovae as pv
        >>> autoencoder = Autoencoder(
        ...     2,
        ...     decoder=pv.Conditional(pv.families.bernoulli(), (8, 8), pv.networks.mlp(2, 32, seed=0)),
        ...     encoder=pv.networks.mlp((8, 8), 32, seed=1),
        ... )
        >>> pv.posterior(autoencoder.model, autoencoder.guide, torch.zeros(5, 8, 8)).values["z"].shape
        torch.Size([1, 5, 2])
    """

    def __init__(
        self,
        num_latents: int,
        *,
        decoder: Callable[[Tensor], TorchDistribution],
        encoder: nn.Module | NetworkBuilder,
        corruption: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents)
        self.prior = StandardNormal(num_latents)
        self.decoder = decoder
        self.encoder = encoder if isinstance(encoder, nn.Module) else encoder(num_latents)
        self.corruption = corruption

    def model(self, x: Tensor) -> None:
        """x from a code, for data x of shape (N, *shape); codes are drawn from N(0, I) where none are given."""
        pyro.module("autoencoder", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior().mask(False))  # which no code has to be likely under
            pyro.sample("x", self.decoder(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """The code of each datum, for data x of shape (N, *shape)."""
        pyro.module("autoencoder", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(self.code(x)).to_event(1).mask(False))

    def code(self, x: Tensor) -> Tensor:
        """f(x), (N, *shape) -> (N, Z); in training mode of x as it is corrupted."""
        return self.encoder(self.corruption(x) if self.training and self.corruption else x)
