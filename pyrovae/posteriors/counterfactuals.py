r"""What a datum would be under another label or covariate: its latents are kept, what it is given is changed.

.. math:: z \sim p(z \mid x, y), \qquad x' \sim p(x' \mid z, y')

Abduction, action and prediction (Pearl 2009) in the fitted model: an effect in the world only where nothing else moves
both y and z. Where the prior p(z | y) depends on y, keeping z keeps what the model calls the same z.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, UntrustedPosterior, check_at_least_one, warn
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.random import seed_everything
from pyrovae.base.records import Record, number, spread
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import as_split
from pyrovae.evidence import estimators
from pyrovae.evidence.reliability import UNRELIABLE_FRACTION, is_unreliable
from pyrovae.pairs.context import isolated
from pyrovae.pairs.handlers import Placed, unconditioned
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.terms import LogTerms
from pyrovae.pairs.traces import Program, sites_of
from pyrovae.posteriors.draws import mean_of
from pyrovae.posteriors.resampling import resample


@dataclass(frozen=True, eq=False, repr=False)
class Counterfactual(Record):
    """Data as they would be under another y, from S draws of the latents of each of N data; on the CPU.

    Means are those of p(x | z, y), not draws: what differs between ``means`` and ``factual`` is due to y alone. A site
    that has no mean (classes) has ``values`` alone.
    """

    values: dict[str, Tensor]  # observed site -> draws of x' under the new y, (S, N, *event)
    means: dict[str, Tensor]  # observed site -> means of x' under the new y, (S, N, *event)
    factual: dict[str, Tensor]  # observed site -> means of x under its own y, (S, N, *event)
    ess: Tensor  # (N,): effective sample size of the K weighted draws that the S were taken from
    pareto_k: Tensor  # (N,): k-hat of their weights; -inf where the guide is exact, NaN where undefined
    num_particles: int
    protocol: Protocol

    def __len__(self) -> int:
        return len(self.ess)

    def __repr__(self) -> str:
        num_draws = len(next(iter(self.values.values())))
        return f"Counterfactual({', '.join(self.values)}: S={num_draws}, N={len(self)})"

    @property
    def unreliable(self) -> Tensor:
        """Whether nothing vouches for the draws of a datum, (N,): k-hat, or too few effective draws."""
        return is_unreliable(self.pareto_k, self.ess, self.num_particles)

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data for whose draws nothing vouches."""
        return self.unreliable.double().mean().item()

    def effect(self) -> dict[str, Tensor]:
        """Mean over draws of the change of the mean, observed site -> (N, *event)."""
        return {name: (mean.double() - self.factual[name].double()).mean(0) for name, mean in self.means.items()}

    def numbers(self) -> dict[str, Any]:
        """The effect over all data, site by site, and the effective sample size."""
        changes = {name: self._of_site(name) for name in self.means}
        return {
            "num_data": len(self),
            "sites": changes,
            "ess": spread(self.ess),
            "fraction_unreliable": self.fraction_unreliable,
        }

    def _of_site(self, name: str) -> dict[str, float | None]:
        change = self.effect()[name]
        drawn = self.means[name].double() - self.factual[name].double()
        return {
            "mean": number(change.mean()),
            "sd_of_data": number(change.std(0, correction=0).mean()),
            "sd_of_draws": number(drawn.std(0, correction=0).mean()),
        }

    def lines(self) -> list[str | TextTable]:
        account = self.numbers()
        ess = account["ess"]
        return [
            str(self.protocol),
            f"what N = {len(self)} data would be under another y, from {len(next(iter(self.values.values())))} draws "
            "of the latents of each",
            "",
            TextTable(_COLUMNS, [(name, *row.values()) for name, row in account["sites"].items()]),
            "",
            f"the draws were taken by their weights from K = {self.num_particles} of the guide; effective sample size: "
            f"median {ess['median']:.1f}, least {ess['min']:.1f}",
            f"unreliable draws (k-hat above its threshold or undefined): {self.fraction_unreliable:.1%} of data",
        ]


_COLUMNS = [
    ("change of the mean of", "<24", ""),
    ("mean", ">10", ".4g"),
    ("sd over data", ">14", ".4g"),
    ("over draws", ">12", ".4g"),
]


@checked
def counterfactual(
    model: Program,
    guide: Program,
    data: Any,
    *,
    y: Any,
    num_draws: int = 10,
    num_particles: int = 1000,
    seed: int = 0,
) -> Counterfactual:
    """Data as they would be under another y, their latents kept.

    Args:
        model: program of p(x, z | y).
        guide: program of q(z | x, y).
        data: a Split or a tuple of tensors as the programs take them, the last what they are conditioned on, (N, ...).
        y: what stands in its place: a number, the y of one datum, or that of each, (N, ...).
        num_draws: S, of the latents of each datum.
        num_particles: K, draws of the guide from which these are taken by their weights; their effective sample size
            says how well the guide covers the posterior.
        seed: of the draws.

    Returns:
        The :class:`Counterfactual`.

    Raises:
        InputError: for data without a last tensor to be changed, or a y of another shape; naming the site, where
            draws have no weights.

    Warns:
        UntrustedPosterior: if nothing vouches for the draws of more than 5 % of the data.

    References:
        Pearl (2009), Causality: models, reasoning and inference, section 7.1.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> covariates = torch.tensor([[0.0], [1.0]])
        >>> def model(x, c):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z + 3 * c[:, 0], 1.0), obs=x)
        >>> def guide(x, c):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal((x - 3 * c[:, 0]) / 2, 0.5**0.5))
        >>> found = counterfactual(model, guide, (torch.zeros(2), covariates), y=2.0)
        >>> found.effect()["x"].round(decimals=3)
        tensor([6., 3.], dtype=torch.float64)
    """
    check_at_least_one(num_draws=num_draws, num_particles=num_particles)
    split = as_split(data)
    with isolated(model, guide) as (model, guide, device):
        seed_everything("counterfactual", seed)
        args = split.to(device).batch(slice(0, len(split)))
        others = (*args[:-1], _in_place_of(args, y))
        latents = Latents(model, guide, args)
        values, ess, pareto_k = _resampled(latents, num_draws, num_particles)
        now, then = (_decoded(latents, values, given) for given in (args, others))
    found = Counterfactual(then[0], then[1], now[1], ess.cpu(), pareto_k.cpu(), num_particles, split.protocol)
    if found.fraction_unreliable > UNRELIABLE_FRACTION:
        warn(
            UntrustedPosterior(
                f"nothing vouches for the draws of {found.fraction_unreliable:.0%} of {len(found)} data: raise "
                "num_particles, or fit the guide on"
            )
        )
    return found


def _in_place_of(args: Sequence[Tensor], y: Any) -> Tensor:
    """The new y of each datum, of the shape of the old one."""
    if len(args) < 2:
        raise InputError("the data are one tensor: give (x, y), the last what the programs are conditioned on")
    new = torch.as_tensor(y, device=args[-1].device).to(args[-1])
    try:
        return new.expand_as(args[-1]).contiguous()
    except RuntimeError as error:
        shapes = f"{tuple(args[-1].shape)} in the data, {tuple(new.shape)} in its place"
        raise InputError(f"y has the shape {shapes}: give a number, the y of one datum, or that of each") from error


def _resampled(latents: Latents, num_draws: int, num_particles: int) -> tuple[Values, Tensor, Tensor]:
    """Latents (S, N, ...) of the posterior, and effective sample size and k-hat of the draws they are from, (N,)."""
    drawn = [latents.draw(size) for size in latents.part_sizes(num_particles)]
    values = {name: torch.cat([part[name] for part in drawn]) for name in latents.sites}
    terms = LogTerms(*map(torch.cat, zip(*(_terms(latents, part) for part in drawn), strict=True)))
    log_weight = terms.log_weight
    rows, data = resample(log_weight, num_draws), torch.arange(latents.num_data, device=log_weight.device)
    taken = {name: value[rows, data] for name, value in values.items()}
    return taken, estimators.ess(log_weight), estimators.pareto_k(log_weight, terms.resolution)


def _terms(latents: Latents, values: Values) -> LogTerms:
    """The densities of draws of the guide, (k, N) each, in the dtype of the programs."""
    joint, log_guide = latents.log_joint(values), latents.log_guide(values)
    return LogTerms(joint.log_likelihood.to(log_guide), joint.log_prior.to(log_guide), log_guide)


def _decoded(latents: Latents, values: Values, args: Sequence[Tensor]) -> tuple[Values, Values]:
    """Draws and means of all that is observed, (S, N, ...), at latents (S, N, ...)."""
    alone, runs = latents.particles.by("looped"), []
    for draw in range(len(next(iter(values.values())))):
        placed = {
            name: alone.to_program(value[draw : draw + 1], latents.sites[name].batch_dim)
            for name, value in values.items()
        }
        found = sites_of(Placed(placed)(unconditioned(latents.model)), *args, role="model")
        runs.append({name: site for name, site in found.items() if site["infer"].get("was_observed")})
    drawn = {name: torch.stack([run[name]["value"] for run in runs]).cpu() for name in runs[0]}
    means = {name: [mean for run in runs if (mean := mean_of(run[name])) is not None] for name in runs[0]}
    return drawn, {name: torch.stack(parts).cpu() for name, parts in means.items() if parts}
