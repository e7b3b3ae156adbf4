r"""A VAE of p(x | y): both programs are given what is conditioned on, labels, covariates or an outline.

.. math:: p(x \mid y) = \int p(x \mid z, y)\, p(z \mid y)\, dz, \qquad q(z \mid x, y) \approx p(z \mid x, y)

For one y many x are right: what tells them apart is z. Evaluated, it has log p(x | y); :func:`pyrovae.sample` draws
several x for one y, and :func:`pyrovae.counterfactual` asks what a datum would be under another.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pyro
from pyro.distributions import TorchDistribution
from torch import Tensor, nn


class ConditionalVAE(nn.Module):
    """A pair of programs given y: ``model`` draws p(z | y) p(x | z, y), ``guide`` draws q(z | x, y).

    Args:
        prior: ``() -> Distribution`` over one latent, p(z) the same for each y; or ``y -> Distribution``, a p(z | y)
            that is learned.
        decoder: ``(z, y) -> Distribution`` over one datum, p(x | z, y), for z of shape ``(..., *latent)``.
        encoder: ``(x, y) -> Distribution`` over one latent, q(z | x, y), for x of shape ``(N, *shape)``.

    References:
        Sohn, Lee and Yan (2015), Learning structured output representation using deep conditional generative models.
        Kingma, Mohamed, Rezende and Welling (2014), Semi-supervised learning with deep generative models,
        arXiv:1406.5298.

    Example:
        >>> import torch, pyrovae as pv
        >>> label = pv.networks.OneHot(10)
        >>> reads_z, reads_x = pv.networks.mlp(2 + 10, 32), pv.networks.mlp(64 + 10, 32)
        >>> vae = pv.ConditionalVAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     decoder=pv.Conditional(pv.families.bernoulli(), (8, 8), pv.networks.beside([2, label], reads_z)),
        ...     encoder=pv.Conditional(pv.families.normal(), (2,), pv.networks.beside([(8, 8), label], reads_x)),
        ... )
        >>> sevens = pv.sample(vae.model, torch.zeros(1, 8, 8), torch.tensor([7]), num_samples=20)
        >>> sevens.values["x"].shape
        torch.Size([20, 8, 8])
    """

    def __init__(
        self,
        prior: Callable[..., TorchDistribution],
        decoder: Callable[[Tensor, Tensor], TorchDistribution],
        encoder: Callable[[Tensor, Tensor], TorchDistribution],
    ) -> None:
        super().__init__()
        self.prior, self.decoder, self.encoder = prior, decoder, encoder
        self.prior_given = prior if takes_one(prior) else lambda y: prior()

    def model(self, x: Tensor, y: Tensor) -> None:
        """The generative process of data x (N, *shape), given y (N, ...)."""
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior_given(y))  # z ~ p(z | y)
            pyro.sample("x", self.decoder(z, y), obs=x)  # x ~ p(x | z, y)

    def guide(self, x: Tensor, y: Tensor) -> None:
        """The amortized approximate posterior, for data x (N, *shape), given y (N, ...)."""
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x, y))  # z ~ q(z | x, y)


def takes_one(function: Callable[..., Any]) -> bool:
    """Whether a function, or a module, can be called with one argument.

    Example:
        >>> takes_one(lambda: 0), takes_one(lambda y: 0), takes_one(nn.Identity())
        (False, True, True)
    """
    try:
        inspect.signature(function.forward if isinstance(function, nn.Module) else function).bind(None)
    except TypeError:
        return False
    return True
