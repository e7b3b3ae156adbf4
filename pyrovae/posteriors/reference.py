r"""reference_posterior(): the posterior of one datum by a method that the guide has no say in, drawn beside the guide.

Along each coordinate, in standard deviations of the posterior,

.. math:: \text{shift} = (E_q[z] - E[z \mid x]) / \mathrm{sd}(z \mid x), \qquad
    \text{ratio} = \mathrm{sd}_q(z) / \mathrm{sd}(z \mid x)

Up to two coordinates a grid is exact; beyond it, the no-U-turn sampler; for discrete latents, resampled particles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, UntrustedPosterior, nearest, warn
from pyrovae.base.forms import datatree
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.memory import explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.base.records import Record
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import Split, as_split
from pyrovae.evidence.numerics.digits import warn_of_lost_digits
from pyrovae.pairs.checks import looks
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents, Values, coordinates
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.grid import MOST_COORDINATES, Grid, on_grid
from pyrovae.posteriors.methods import Answer, Evidence, Moments, Plan, plain_moments
from pyrovae.posteriors.nuts import Chains, by_nuts
from pyrovae.posteriors.resampling import Weights, by_resampling
from pyrovae.posteriors.unconstrained import of_one_datum

METHODS: dict[str, Callable[[Latents, Plan], Answer]] = {
    "grid": on_grid,
    "nuts": by_nuts,
    "resampled": by_resampling,
}


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorDraws(Record):
    """The posterior of one datum, and the guide beside it; every tensor is on the CPU."""

    method: str  # "grid", "nuts" or "resampled"
    values: Values  # site -> (C, S, *event): draws of the posterior, in C chains
    guide_values: Values  # site -> (S, *event): draws of the guide
    moments: Moments  # of the posterior, each site -> (*event); better than the draws' where the method knows better
    mean_error: Values  # site -> (*event): of its mean
    guide_moments: Moments
    log_evidence: Evidence | None  # nats; None for NUTS, which does not give it
    diagnostics: Grid | Chains | Weights  # of the grid its density too, for a picture
    seed: int
    protocol: Protocol

    def __repr__(self) -> str:
        return f"PosteriorDraws({self.method}, {len(self.names)} coordinates, {self.verdict})"

    @property
    def names(self) -> list[str]:
        """A name for each coordinate of each site: "z[3]", or the site's own where it has but one."""
        return coordinates({name: mean.shape for name, mean in self.moments.mean.items()})

    def row_names(self) -> list[str]:
        return self.names

    def table(self) -> dict[str, Tensor]:
        """Columns of float64, one row for each coordinate in the order of ``names``."""
        mean, sd = (_column(values) for values in self.moments)
        guide_mean, guide_sd = (_column(values) for values in self.guide_moments)
        return {
            "mean": mean,
            "mean_error": _column(self.mean_error),
            "sd": sd,
            "guide_mean": guide_mean,
            "guide_sd": guide_sd,
            "shift": (guide_mean - mean) / sd,
            "ratio": guide_sd / sd,
        }

    @property
    def verdict(self) -> str:
        """One sentence: "the guide's sd is 0.71 of the posterior's, its mean 0.02 posterior sds away"."""
        table, names = self.table(), self.names
        shift, ratio = table["shift"].abs(), table["ratio"]
        if len(names) == 1:
            return f"the guide's sd is {ratio[0]:.2f} of the posterior's, its mean {shift[0]:.2f} posterior sds away"
        least, most, far = (int(index) for index in (ratio.argmin(), ratio.argmax(), shift.argmax()))
        return (
            f"the guide's sd is {ratio[least]:.2f} ({names[least]}) to {ratio[most]:.2f} ({names[most]}) of the "
            f"posterior's, its mean up to {shift[far]:.2f} posterior sds away ({names[far]})"
        )

    def numbers(self) -> dict[str, Any]:
        """Of every coordinate the columns of the table, what the method says of itself, and the verdict."""
        return {
            "coordinates": self.named_rows(),
            "diagnostics": self.diagnostics.lines(),
            "doubts": self.diagnostics.doubts(),
            "verdict": self.verdict,
        }

    def lines(self) -> list[str | TextTable]:
        chains, num_draws = next(iter(self.values.values())).shape[:2]
        lines = [str(self.protocol), *self.diagnostics.lines()]
        if self.log_evidence:
            lines.append(f"log p(x) = {self.log_evidence.value:.6f} nats, error {self.log_evidence.error:.1e}")
        rows = [(name, *row.values()) for name, row in self.named_rows().items()]
        return [
            *lines,
            "",
            TextTable(_COLUMNS, rows),
            "",
            self.verdict,
            f"shift and ratio in posterior sds; draws kept: {chains} x {num_draws}; the guide's columns are of "
            f"{num_draws} draws, errors about {1 / math.sqrt(num_draws):.0%} of its sd",
            *self.diagnostics.doubts(),
        ]

    def groups(self) -> datatree.Groups:
        """Draws of the posterior in their chains, and those of the guide beside them."""
        guide = datatree.draws(datatree.one_chain(self.guide_values))
        return {"posterior": datatree.draws(self.values), "guide": guide, **super().groups()}


_COLUMNS = [
    ("", "<14", ""),
    ("mean", ">10", ".4f"),
    ("error", ">10", ".1e"),
    ("sd", ">10", ".4f"),
    ("guide mean", ">12", ".4f"),
    ("guide sd", ">10", ".4f"),
    ("shift", ">8", ".2f"),
    ("ratio", ">8", ".2f"),
]


@checked
def reference_posterior(
    model: Program,
    guide: Program,
    datum: Any,
    *,
    method: str = "auto",
    num_draws: int = 2000,
    num_particles: int = 10_000,
    num_warmup: int = 500,
    num_chains: int = 4,
    seed: int = 0,
    plate: str | None = None,
    progress: bool = True,
) -> PosteriorDraws:
    """The posterior p(z|x) of one datum as it is, to hold its guide against.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        datum: a :class:`~pyrovae.data.Split`, a tensor (1, ...) or a tuple of tensors with one row.
        method: "grid" (at most two real coordinates; gives log p(x) too), "nuts" (any number), "resampled" (any
            latents, discrete ones too; gives log p(x) too), or "auto": the first of these that the latents allow.
        num_draws: S; for "nuts" the draws of each chain.
        num_particles: K of "resampled".
        num_warmup: steps of each chain of "nuts" that are not kept.
        num_chains: of "nuts", one after the other.
        seed: of all draws.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`PosteriorDraws`. Nothing else changes: parameter store, random state and modes are kept.

    Raises:
        InputError: for more than one row; naming the site, for discrete latents where the method takes none and for
            a pair without per-datum weights; for more than two coordinates on a grid.
        FloatingPointError: where a density is NaN or infinite.

    Warns:
        EdgeOfSupport: on a grid, where the posterior reaches the edge of a support, beyond what its numbers hold.
        UntrustedPosterior: where chains disagree or diverge, weights have too heavy a tail, or a grid is too coarse.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 1)
        >>> x, _ = oracle.draw(1, seed=0)
        >>> found = reference_posterior(oracle.model, pv.widened(oracle.guide, 0.5), x)
        >>> abs(found.log_evidence.value - oracle.log_evidence(x).item()) < 1e-9
        True
        >>> found.verdict
        "the guide's sd is 0.50 of the posterior's, its mean 0.01 posterior sds away"
    """
    plan = Plan(num_draws, num_particles, num_warmup, num_chains, seed, progress)
    split = _one_row(datum)
    with isolated(model, guide) as (model, guide, device):
        split = split.drawn(seed)
        seed_everything("reference", seed)
        latents = Latents(model, guide, split.to(device).tensors, plate=plate)
        looks.check_edges(latents.particles.shown)
        warn_of_lost_digits(latents.particles)
        method = _chosen(method, latents)
        with explain_out_of_memory("the posterior of one datum: lower num_draws or num_particles"):
            guide_values = _guide_draws(latents, num_draws)
            answer = METHODS[method](latents, plan)
    found = _beside(guide_values, answer, method=method, seed=seed, protocol=split.protocol)
    for doubt in found.diagnostics.doubts():
        warn(UntrustedPosterior(doubt))
    return found


def _beside(guide_values: Values, answer: Answer, **how: Any) -> PosteriorDraws:
    """The posterior as a method gives it, beside draws of the guide."""
    return PosteriorDraws(
        values=_on_cpu(answer.values),
        guide_values=guide_values,
        moments=Moments(*map(_on_cpu, answer.moments)),
        mean_error=_on_cpu(answer.mean_error),
        guide_moments=plain_moments(guide_values),
        log_evidence=answer.log_evidence,
        diagnostics=answer.diagnostics,
        **how,
    )


def _one_row(datum: Any) -> Split:
    split = as_split(datum)
    if len(split) != 1:
        raise InputError(
            f"expected one datum, a tensor (1, ...), got {len(split)} rows: index the one you mean, data[i : i + 1]"
        )
    return split


def _chosen(method: str, latents: Latents) -> str:
    """The method asked for, or the best that the latents allow."""
    elsewhere = [name for name, site in latents.sites.items() if not site.has_bijection]
    if method == "auto":
        return "resampled" if elsewhere else "grid" if latents.num_dims <= MOST_COORDINATES else "nuts"
    if method not in METHODS:
        raise InputError(f"expected method auto, {', '.join(METHODS)}, got '{method}'{nearest(method, METHODS)}")
    if elsewhere and method != "resampled":
        site = latents.sites[elsewhere[0]]
        kind = "is discrete" if site.is_discrete else "has no bijection with unconstrained space"
        raise InputError(
            f"site '{elsewhere[0]}' {kind} ({site.family}): method='{method}' works in unconstrained space. "
            "Use method='resampled', which takes any latents"
        )
    if method == "grid" and latents.num_dims > MOST_COORDINATES:
        raise InputError(
            f"a grid takes at most {MOST_COORDINATES} real coordinates, the latents have {latents.num_dims}: "
            "use method='nuts'"
        )
    return method


def _guide_draws(latents: Latents, num_draws: int) -> Values:
    parts = [of_one_datum(latents.draw(size)) for size in latents.part_sizes(num_draws)]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in latents.sites}


def _on_cpu(values: Values) -> Values:
    return {name: value.cpu() for name, value in values.items()}


def _column(values: Values) -> Tensor:
    return torch.cat([value.flatten().double() for value in values.values()])
