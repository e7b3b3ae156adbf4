r"""A variational autoencoder of a table: unlike columns, conditioned on covariates.

.. math:: p(x \mid c) = \int \prod_d p(x_d \mid z, c)\, p(z)\, dz, \qquad q(z \mid x, c)

Missing entries are left out by :func:`pyrovae.observed_entries` around the model; the guide is told which they are.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrovae.programs.distributions.events import MixedColumns


class TableVAE(nn.Module):
    """A pair of programs over the rows of a table.

    Columns of unlike kinds are sites of their own, ``x.real``, ``x.ordinal5`` and so on, each with its own base
    measure; where all columns are of one family there is one site ``x``.

    Args:
        prior: ``() -> Distribution`` over one latent z, p(z).
        decoder: ``(z, covariates) -> Distribution`` over one row, their features side by side.
        encoder: ``(N, F) -> Distribution`` over one latent, from the features of rows and of covariates.
        read: rows (N, D) -> features (N, F_x), :class:`~pyrovae.programs.guides.inputs.TableRows`.
        read_covariates: covariates (N, C) -> features (N, F_c); None where there are none.
        latent_dim: how many dimensions one latent has.

    References:
        Nazabal, Olmos, Ghahramani and Valera (2020), Handling incomplete heterogeneous data using VAEs,
        arXiv:1807.03653.
        Sohn, Lee and Yan (2015), Learning structured output representation using deep conditional generative models.
    """

    def __init__(
        self,
        prior: Callable[[], TorchDistribution],
        decoder: Callable[[Tensor], TorchDistribution],
        encoder: Callable[[Tensor], TorchDistribution],
        *,
        read: nn.Module,
        read_covariates: nn.Module | None = None,
        latent_dim: int = 1,
    ) -> None:
        super().__init__()
        self.prior, self.decoder, self.encoder = prior, decoder, encoder
        self.read, self.read_covariates = read, read_covariates
        self.latent_dim = latent_dim

    def model(self, x: Tensor, covariates: Tensor | None = None) -> None:
        """The generative process, for rows x (N, D) and covariates (N, C)."""
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())  # z ~ p(z)
            y = self.decoder(self.beside(z, covariates))
            for name, part, values in sites_of("x", y, x):  # x ~ p(x | z, c), the columns of each kind
                pyro.sample(name, part, obs=values)

    def guide(self, x: Tensor, covariates: Tensor | None = None) -> None:
        """The amortized approximate posterior, for rows x (N, D) and covariates (N, C)."""
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(self.features(x, covariates)))  # z ~ q(z | x, c)

    def features(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """What the encoder reads: (N, F)."""
        read = self.read(x)
        if self.read_covariates is None or covariates is None:
            return read
        return torch.cat([read, self.read_covariates(covariates)], -1)

    def beside(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        """What the decoder reads: latents (..., N, *latent), and the features of covariates beside them."""
        if self.read_covariates is None or covariates is None:
            return z
        flat = z.flatten(z.dim() - self.latent_dim)
        read = self.read_covariates(covariates)
        lead = torch.broadcast_shapes(flat.shape[:-1], read.shape[:-1])
        return torch.cat([flat.expand(*lead, -1), read.expand(*lead, -1)], -1)


def sites_of(name: str, y: TorchDistribution, x: Tensor) -> Iterator[tuple[str, TorchDistribution, Tensor]]:
    """The columns that one family scores together: their site, their distribution and their values (..., D_k)."""
    if not isinstance(y, MixedColumns):
        yield name, y, x
        return
    for label, part, places in zip(y.names, y.parts, y.columns, strict=True):
        yield name if len(y.parts) == 1 else f"{name}.{label}", part, columns_of(x, places)


def columns_of(x: Tensor, places: Sequence[int]) -> Tensor:
    """Some columns of rows, without an index that a graph on a device would have to fetch."""
    if list(places) == list(range(places[0], places[0] + len(places))):
        return x.narrow(-1, places[0], len(places))
    return torch.stack([x.select(-1, place) for place in places], -1)


def outside(y: TorchDistribution, x: Tensor) -> Tensor:
    """Which entries of rows (N, D) have no finite log density under a distribution of rows: (N, D) booleans.

    They are outside of the support, or on an end of it. Missing entries are not; where a support is of whole rows, all
    of a row is.
    """
    found = torch.zeros_like(x, dtype=torch.bool)
    is_mixed = isinstance(y, MixedColumns)
    parts, columns = (y.parts, y.columns) if is_mixed else ([y], [list(range(x.shape[-1]))])
    for part, places in zip(parts, columns, strict=True):
        values = columns_of(x, places)
        seen = ~values.isnan()
        base: Any = part.base_dist if isinstance(part, dist.Independent) else part
        inside = base.support.check(values.where(seen, 1.0))
        if base is not part and not base.support.is_discrete:
            harmless = values.where(seen & inside, 0.5)
            inside = inside & base.log_prob(harmless).isfinite()
        found[:, places] = ~(inside[:, None] if inside.dim() < 2 else inside) & seen
    return found
