r"""Replicated data of any pair, one block of data at a time, and what a check keeps of them.

A program is run without its observations, for many particles of each datum at once:

.. math:: \text{prior: } z \sim p(z), \quad \text{posterior: } z \sim q(z \mid x_n), \qquad x_{rep} \sim p(x \mid z)
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.errors import InputError, nearest
from pyrovae.base.memory import ELEMENTS_AT_ONCE, explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.diagnostics.statistics import Statistic, apply_statistics, default_statistics, p_value, randomised_pit
from pyrovae.evidence.blocks import Block
from pyrovae.pairs.checks.parameters import check_parameters
from pyrovae.pairs.handlers import unconditioned
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.supports import layers, seen, support_of

KINDS = ("prior", "posterior")


class Replicator:
    """The observed values at one site for one block of n data, and replications of them.

    To be used inside :func:`~pyrovae.pairs.context.isolated`.

    Args:
        particles: the pair on the block.
        site: name of the observed site; None where there is one alone.

    Raises:
        InputError: naming the site, if the pair has no per-datum weights, holds a factor, or observes no such site.
    """

    def __init__(self, particles: Particles, *, site: str | None = None) -> None:
        self.particles, self.num_data = particles, particles.num_data
        self.is_looked_at = False  # whether the model's parameters were, on draws of its own
        self.site = _chosen(particles.structure.observed, site)
        found = particles.example.observed[self.site]
        self.support = support_of(layers(found["fn"])[-1])
        values = torch.where(seen(found, self.support), found["value"].double(), math.nan)
        self.values = self._placed(particles.by("looped"), values, found["fn"])[0]

    def draws(self, kind: str, num_draws: int, *key: int) -> Iterator[Tensor]:
        """Replications of the values, (S_i, n, *event) float64, NaN where the data are masked; S_i add up to S.

        Args:
            kind: "prior" or "posterior".
            num_draws: S.
            key: whole numbers that the random numbers depend on.

        Raises:
            FloatingPointError: naming the site, if the model draws what is not finite.
        """
        size = max(1, ELEMENTS_AT_ONCE // max(self.values.numel(), 64 * self.num_data))
        for number, start in enumerate(range(0, num_draws, size)):
            seed_everything("checks", *key, KINDS.index(kind), number)
            count = min(size, num_draws - start)
            with explain_out_of_memory(f"{count} replications of {self.num_data} data at once: lower batch_size"):
                replicated = self._run(kind, count)
            masked = self.values.isnan()
            bad = ~(replicated.isfinite() | masked)
            if bad.any():
                raise FloatingPointError(
                    f"site '{self.site}': {int(bad.sum())} of {bad.numel()} values drawn from the {kind} predictive "
                    "are not finite; look at the parameters of its distribution"
                )
            yield replicated.masked_fill(masked, math.nan)

    def _run(self, kind: str, count: int) -> Tensor:
        guide = self.particles.guide if kind == "posterior" else lambda *args: None
        free = self.particles.of(unconditioned(self.particles.model), guide)
        runs = free.traces(count)
        if kind == "prior" and not self.is_looked_at:
            check_parameters("model", runs[0].joint)
            self.is_looked_at = True
        drawn = [run.joint[self.site] for run in runs]
        value = torch.cat([self._placed(free, site["value"], site["fn"]) for site in drawn])
        return value.reshape(count, *self.values.shape).double()

    def _placed(self, particles: Particles, value: Tensor, fn: Any) -> Tensor:
        """A value of one run of the site -> (K, n, ..., *event)."""
        return particles.from_program(value.expand(fn.batch_shape + fn.event_shape), len(fn.batch_shape))


def _chosen(observed: dict[str, str], site: str | None) -> str:
    for name, measure in observed.items():
        if measure == "factor":
            raise InputError(f"site '{name}' is a factor: no data can be drawn from a model that has one")
    if site is None and len(observed) == 1:
        return next(iter(observed))
    if site is None:
        raise InputError(f"the model observes several sites, {list(observed)}: choose one with site=")
    if site not in observed:
        raise InputError(f"site '{site}' is none of the observed sites, {list(observed)};{nearest(site, observed)}")
    return site


# ------------------------------------------------------------------------------------------ what is kept of them


class Part(NamedTuple):
    """One kind of replications of one block of n data under one statistic; a check joins them."""

    mean: Tensor  # (n,)
    p_value: Tensor  # (n,)
    total: Tensor  # (S,): sum over the block of each replicated data set


class Checked(NamedTuple):
    """What one block of n data gives."""

    site: str  # which was checked
    observed: dict[str, Tensor]  # statistic -> (n,)
    parts: dict[str, dict[str, Part]]  # kind -> statistic -> part
    pit: Tensor  # (n, *event)


def check_block(
    source: Replicator, block: Block, statistics: Mapping[str, Statistic] | None, num_draws: int, seed: int
) -> Checked:
    """Compares a block of data with S replications of each kind; without statistics, by those of its support."""
    values, parts = source.values, {}
    if statistics is None:
        statistics = default_statistics(source.support, values[0].numel())
    observed = apply_statistics(statistics, values)
    less = tied = torch.zeros_like(values)  # replications from the prior predictive below the observed, and equal to it
    for kind in KINDS:
        tables: dict[str, list[Tensor]] = {name: [] for name in statistics}
        for replicated in source.draws(kind, num_draws, seed, block.index):
            if kind == "prior":
                less, tied = less + (replicated < values).sum(0), tied + (replicated == values).sum(0)
            for name, found in apply_statistics(statistics, replicated.flatten(0, 1)).items():
                tables[name].append(found.unflatten(0, replicated.shape[:2]))
            block.tick(source.num_data * len(replicated) / (len(KINDS) * num_draws))
        whole = {name: torch.cat(table) for name, table in tables.items()}  # (S, n) each
        parts[kind] = {name: Part(t.mean(0), p_value(t, observed[name]), t.nansum(1)) for name, t in whole.items()}
    seed_everything("checks", seed, block.index)
    pit = randomised_pit(less, tied, num_draws).masked_fill(values.isnan(), math.nan)
    return Checked(source.site, observed, parts, pit)
