r"""A VAE of data of which some are labelled: the class y is a latent, seen without error where a label is there (M2).

.. math:: p(x) = \sum_y p(y) \int p(x \mid z, y)\, p(z)\, dz, \qquad q(y, z \mid x) = q(y \mid x)\, q(z \mid x, y)

For a labelled datum the evidence is log p(x, y), for one without a label log p(x), y summed out.

A latent that is drawn in some rows and observed in others has no one set of sites, and Pyro's ``obs_mask`` makes two
sites of it, masked by turns: enumerated, a masked draw counts its row once for each class. Here y is drawn for every
row, in both programs and without a mask, and what is observed is its label:

.. math:: p(\mathrm{label} \mid y) = 1[\mathrm{label} = y], \qquad
    q(y \mid x, \mathrm{label}) = 1[y = \mathrm{label}] \quad \text{where there is one.}

The two weigh as an observed y does, log p(y) + 0 - 0, and what runs on any pair with a discrete latent runs on this.
"""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.conditional_vae import takes_one


class SemiSupervisedVAE(nn.Module):
    """A pair of programs: ``model`` draws p(y) p(z) p(x | z, y), ``guide`` draws q(y | x) q(z | x, y).

    It is trained by :class:`pyrovae.objectives.SummedELBO`, in which y is summed out; the loss of the classifier on
    labelled data is a term beside it, :class:`pyrovae.objectives.Classifying`. ``pyro.infer.TraceEnum_ELBO`` trains it
    too, with ``pyro.infer.config_enumerate`` around the guide.

    Args:
        prior: ``() -> Distribution`` over one latent z, or ``y -> Distribution``.
        decoder: ``(z, y) -> Distribution`` over one datum, p(x | z, y), for z ``(..., *latent)`` and y ``(...)``.
        encoder: ``(x, y) -> Distribution`` over one latent z, q(z | x, y).
        classifier: ``x -> Distribution`` over one class number, with ``logits`` (N, C): q(y | x).
        num_classes: C.
        class_probs: p(y), (C,); None gives each class the same.

    Raises:
        InputError: for class_probs that are not C numbers above 0.

    References:
        Kingma, Mohamed, Rezende and Welling (2014), Semi-supervised learning with deep generative models,
        arXiv:1406.5298.

    Example:
        >>> import pyrovae as pv
        >>> label, images = pv.networks.OneHot(10), (8, 8)
        >>> vae = pv.SemiSupervisedVAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     decoder=pv.Conditional(
        ...         pv.families.bernoulli(), images, pv.networks.beside([2, label], pv.networks.mlp(2 + 10, 32))
        ...     ),
        ...     encoder=pv.Conditional(
        ...         pv.families.normal(), 2, pv.networks.beside([images, label], pv.networks.mlp(64 + 10, 32))
        ...     ),
        ...     classifier=pv.Conditional(pv.families.categorical(10), (), pv.networks.mlp(images, 32)),
        ...     num_classes=10,
        ... )
        >>> x, y = torch.zeros(3, *images), torch.tensor([4, -1, -1])  # one of three is labelled
        >>> pv.log_terms(vae.model, vae.guide, x, y, num_particles=5).log_weight.shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        prior: Callable[..., TorchDistribution],
        decoder: Callable[[Tensor, Tensor], TorchDistribution],
        encoder: Callable[[Tensor, Tensor], TorchDistribution],
        classifier: Callable[[Tensor], TorchDistribution],
        num_classes: int,
        class_probs: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes)
        self.prior, self.decoder, self.encoder, self.classifier = prior, decoder, encoder, classifier
        self.prior_given = prior if takes_one(prior) else lambda y: prior()
        probs = torch.ones(num_classes) if class_probs is None else torch.as_tensor(class_probs)
        if probs.shape != (num_classes,) or not (probs > 0).all():
            raise InputError(f"class_probs are {num_classes} numbers above 0, one for each class; got {class_probs}")
        self.classes = nn.Buffer(torch.arange(num_classes), persistent=False)
        self.log_class_probs = nn.Buffer(probs.log().log_softmax(0))

    def model(self, x: Tensor, labels: Tensor) -> None:
        """The generative process, for data x (N, *shape) and labels (N,): a class number, or -1 where unknown."""
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=self.log_class_probs))  # y ~ p(y)
            z = pyro.sample("z", self.prior_given(y))  # z ~ p(z)
            pyro.sample("x", self.decoder(z, y), obs=x)  # x ~ p(x | z, y)
            seen = dist.Categorical(logits=self.certain(y)).mask(labels >= 0)
            pyro.sample("label", seen, obs=labels.clamp_min(0))  # the label is y, where there is one

    def guide(self, x: Tensor, labels: Tensor) -> None:
        """The amortized approximate posterior, for data x (N, *shape) and labels (N,), -1 where unknown."""
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            known = self.certain(labels)
            logits = torch.where((known == 0).any(-1, keepdim=True), known, self.classifier(x).logits)
            y = pyro.sample("y", dist.Categorical(logits=logits))  # y ~ q(y | x), or the label
            pyro.sample("z", self.encoder(x, y))  # z ~ q(z | x, y)

    def certain(self, y: Tensor) -> Tensor:
        """Logits of the distribution that gives y alone, (...) -> (..., C): 0 at y, else minus infinity."""
        return torch.zeros_like(self.log_class_probs).where(y[..., None] == self.classes, -torch.inf)
