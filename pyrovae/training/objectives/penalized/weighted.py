"""The ELBO's two terms, each by a weight: beta-VAE, and either of them alone."""

import math
from abc import abstractmethod
from typing import Any

import pyro

from pyrovae.base.errors import InputError
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.objective import Objective


class TwoTerms(Objective):
    r"""The ELBO with its terms weighted, all of them sampled.

    .. math:: \sum_n \frac{1}{K} \sum_k \big[ a \log p(x_n \mid z_{nk})
        - b \, (\log q(z_{nk} \mid x_n) - \log p(z_{nk})) \big]

    Weights multiply the scales that sites have. Draws without gradients are trained by their score function.
    """

    @property
    @abstractmethod
    def weights(self) -> tuple[float, float]:
        """a, of the reconstruction, and b, of the KL."""

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        runs = [self._weighted(run) for run in self.runs(model, guide, *args)]
        return bounds.mean([bounds.sampled(run) for run in runs], self.num_particles)

    def _weighted(self, run: TracePair) -> TracePair:
        of_reconstruction, of_kl = self.weights
        for site in run.every_site:
            site["scale"] = site["scale"] * (of_reconstruction if site["is_observed"] else of_kl)
        return run


class WeightedELBO(TwoTerms):
    r"""The ELBO with beta times its KL: beta-VAE.

    .. math:: \sum_n \frac{1}{K} \sum_k \big[ \log p(x_n \mid z_{nk})
        - \beta \, (\log q(z_{nk} \mid x_n) - \log p(z_{nk})) \big]

    For beta > 1 a bound on the evidence still, for beta < 1 none. The history's ELBO is the true one. Draws without
    gradients are trained by their score function. With the KL in closed form: :class:`AnalyticKLELBO` of programs that
    :func:`pyrovae.tempered` weighs; a beta that rises to 1: ``kl_warmup`` of :func:`pyrovae.fit`.

    Args:
        beta: at least 0.
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: for a negative beta.

    References:
        Higgins et al. (2017), beta-VAE: learning basic visual concepts with a constrained variational framework, ICLR.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> bound = WeightedELBO(4).bound(oracle.model, oracle.guide, x)
        >>> bool(abs(bound.loss - (4 * bound.kl_prior - bound.reconstruction)) < 1e-10)
        True
    """

    def __init__(
        self, beta: float, num_particles: int = 1, *, vectorize_particles: bool = True, plate: str | None = None
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if not (math.isfinite(beta) and beta >= 0):
            raise InputError(f"beta must be a number, 0 or more, got {beta}")
        self.beta = float(beta)

    @property
    def weights(self) -> tuple[float, float]:
        return 1.0, self.beta


class ReconstructionOnly(TwoTerms):
    r"""The reconstruction alone: what an autoencoder with a noisy code is trained on; for teaching.

    .. math:: \sum_n \frac{1}{K} \sum_k \log p(x_n \mid z_{nk})

    Nothing keeps the guide near the prior: its draws lose their noise, and log p(x) is lost with them.

    Args:
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    References:
        Kingma & Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> bound = ReconstructionOnly().bound(oracle.model, oracle.guide, x)
        >>> bool(abs(bound.loss + bound.reconstruction) < 1e-10)
        True
    """

    weights = (1.0, 0.0)


class KLOnly(TwoTerms):
    r"""The KL alone, to be made small: the guide becomes the prior, and data are forgotten; for teaching.

    .. math:: -\sum_n \frac{1}{K} \sum_k \big[ \log q(z_{nk} \mid x_n) - \log p(z_{nk}) \big]

    Args:
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: at first use, for a pair without latents.

    References:
        Kingma & Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> bound = KLOnly().bound(oracle.model, oracle.guide, x)
        >>> bool(abs(bound.loss - bound.kl_prior) < 1e-10)
        True
    """

    weights = (0.0, 1.0)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        if not run.latent:
            raise InputError("the model has no latent site: there is no KL to make small; use SampledELBO")
