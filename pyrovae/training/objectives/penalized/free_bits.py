"""Free bits: so many nats of the KL cost nothing, so that latents are used before they are paid for."""

import math
from typing import Any

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent

from pyrovae.base.errors import InputError, nearest
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair, total_log_prob
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.objectives.scales import require_closed_form, require_one_scale

ADVICE = "give per='site' or per='datum', or a guide and a prior of independent coordinates"
PER = ("coordinate", "site", "datum")


class FreeBits(Objective):
    r"""The ELBO whose KL counts for no less than so many nats, in each group of latents.

    .. math:: \sum_n \mathrm{E}_q[\log p(x_n \mid z)]
        - N \sum_g \max\Big( \lambda, \frac{1}{N} \sum_n \mathrm{KL}_g(x_n) \Big)

    over the N data of a batch and groups g of latents: with ``per="coordinate"`` each coordinate of each latent, with
    ``"site"`` each latent site. With ``per="datum"`` there is one group, and the floor is that of each datum:
    the sum over n of max(lambda, KL(x_n)). A group below its floor gives no gradient. Data that are masked out count
    with a KL of zero. KL is in closed form; where two families have none, log q - log p at the draw stands for it, and
    its mean over K particles meets the floor. Handlers of scale (a KL warm-up) multiply what is left.

    Args:
        nats: lambda, at least 0.
        per: what each has a floor of its own.
        num_particles: K.
        vectorize_particles: run all particles at once where the programs allow it; False loops over them.
        plate: name of the data plate, where several plates hold all sites.

    Raises:
        InputError: for negative nats and an unknown ``per``; naming the site, at first use, where the guide draws
            other latents than the model or in another order, for draws without gradients, for latents of
            several scales, and for coordinates that are not independent (a full covariance, a flow).

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling (2016), Improved variational inference with inverse
        autoregressive flow, arXiv:1606.04934, appendix C.8.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> bound = FreeBits(100, per="datum").bound(oracle.model, oracle.guide, x)
        >>> bool(abs(bound.loss + bound.reconstruction - 300) < 1e-10)
        True
    """

    def __init__(
        self,
        nats: float = 0.5,
        per: str = "coordinate",
        num_particles: int = 1,
        *,
        vectorize_particles: bool = True,
        plate: str | None = None,
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        if not (math.isfinite(nats) and nats >= 0):
            raise InputError(f"nats must be a number, 0 or more, got {nats}")
        if per not in PER:
            raise InputError(f"per='{per}':{nearest(per, PER)} there are {', '.join(PER)}")
        self.nats, self.per = float(nats), per

    @pyro.validation_enabled(False)
    def bound(self, model: Program, guide: Program, *args: Any) -> Bound:
        particles, runs = self.prepare(model, guide, *args), self.runs(model, guide, *args)
        found = bounds.mean([bounds.closed_form(run) for run in runs], self.num_particles)
        observed = [total_log_prob(site) for run in runs for site in run.observed.values()]
        tables = [
            torch.cat([self._table(run, name, particles) for run in runs]) for name in particles.structure.latents
        ]
        scale = next(iter(runs[0].latent.values()))["scale"]
        return found._replace(loss=scale * self._paid(tables) - torch.stack(observed).sum() / self.num_particles)

    def _paid(self, tables: list[Tensor]) -> Tensor:
        """The KL that counts, of tables (K, N, ...) for each site: a sum over data."""
        if self.per == "datum":
            each = torch.stack([_of_data(table) for table in tables]).sum(0).mean(0)
            return each.clamp(min=self.nats).sum()
        tables = [_of_data(table) if self.per == "site" else table for table in tables]
        floored = [table.mean((0, 1)).clamp(min=self.nats).sum() for table in tables]
        return tables[0].shape[1] * torch.stack(floored).sum()

    def _table(self, run: TracePair, name: str, particles: Particles) -> Tensor:
        """KL of a site, by coordinates where these are asked for: (K, N, ...), or (1, N, ...) of one run in a loop."""
        guide, model = run.drawn[name], run.latent[name]
        by_coordinate = self.per == "coordinate"
        q, p = (coordinates(name, site["fn"], ADVICE) if by_coordinate else site["fn"] for site in (guide, model))
        kl, batch_dim = bounds.kl_of(q, p, guide["value"]), len(guide["fn"].batch_shape)
        mask = guide["mask"]
        if isinstance(mask, Tensor):
            mask = mask.reshape(*mask.shape, *[1] * (kl.dim() - batch_dim))
        return particles.from_program(scale_and_mask(kl, mask=mask), batch_dim)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        require_closed_form(type(self).__name__, structure, run)
        require_one_scale(type(self).__name__, run)
        if not run.latent:
            raise InputError("the model has no latent site: no KL is free; use SampledELBO")
        if self.per == "coordinate":
            for site in (*run.drawn.values(), *run.latent.values()):
                coordinates(site["name"], site["fn"], ADVICE)


def _of_data(table: Tensor) -> Tensor:
    """(K, N, ...) -> (K, N)."""
    return table.reshape(*table.shape[:2], -1).sum(-1)


def coordinates(name: str, fn: Any, advice: str) -> Any:
    """The distribution of each coordinate of a site, in a batch of them.

    Args:
        name: of the site.
        fn: its distribution.
        advice: what to do where coordinates are not independent.

    Raises:
        InputError: naming the site, where coordinates are not independent.
    """
    base = fn
    while isinstance(base, Independent):
        base = base.base_dist
    if len(base.event_shape) > 0:
        raise InputError(
            f"site '{name}': {type(base).__name__} has no density for each coordinate, as these depend on each other; "
            f"{advice}"
        )
    return base
