r"""Digits: what the programs' number format loses of the evidence, on a few draws that are scored in double too.

.. math:: \Delta_n = \log \tfrac1k \sum_k w_{kn} - \log \tfrac1k \sum_k w^{(64)}_{kn}

on the same draws z_kn, placed into the programs in double precision. No spread of the weights shows what a density
loses alike in all of them (lgamma of large numbers, a probability near one). Rounding that differs from draw to draw,
by s nats, averages out over K >> k draws: of it only log E exp = s^2 / 2 stays (of large s, s at most), and it makes
the error e_n = s / sqrt(k_eff) of Delta_n, k_eff the effective number of the k draws. One datum may hide its loss in
this error; many together do not: over the data,

.. math:: \text{rms}^2 = \operatorname{mean}_n (\Delta_n^2 - e_n^2), \qquad
    \operatorname{mean}_n \Delta_n \pm \tfrac1N \sqrt{\textstyle\sum_n e_n^2}

are without bias. Of many data one draw each, which the look at the programs made, comes first: where none is off by a
milli-nat, no other is scored.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.base.errors import InputError, LostDigits, warn
from pyrovae.base.random import preserve_rng_state
from pyrovae.evidence import estimators
from pyrovae.pairs.context import MOST_DOUBLED, double_precision, in_double, is_narrow
from pyrovae.pairs.handlers import Placed
from pyrovae.pairs.particles import ONE_BY_ONE, Particles, one_row
from pyrovae.pairs.terms import SiteTerms, sum_by_role
from pyrovae.pairs.traces import TracePair, site_log_prob

NUM_DRAWS = 16  # of each datum of a block, at most
FEW = 4  # of each of so many data, where they are run one by one
TELLING = 50  # data, of which one draw each says whether several need be looked at
LEAST = 0.01  # nats that may be lost of a datum where the stated error is smaller; of the mean of n, 1 / sqrt(n) of it
SPREADS = 4.0  # standard errors of a datum's draws that are put down to rounding that averages out
SURE = 3.0  # standard errors of what is told of all data together


@dataclass(frozen=True)
class Digits:
    """What a comparison with double precision showed, over the data that were compared."""

    dtype: str  # what the programs' densities are in
    num_compared: int  # data
    num_lost: int  # of them: by themselves they show that more than the stated error and 0.01 nat is off
    mean: float  # nats, of the evidence less that in double: what the mean over data is off by
    largest: float  # nats, that a datum is off by at least
    site: str  # whose density differs most
    lost: bool  # for a datum, for data on average or for their mean
    rms: float = math.nan  # nats, root mean square over data of how far the evidence is off
    mean_se: float = math.nan  # standard error of ``mean``

    @property
    def said(self) -> str:
        """The finding in a sentence, and what helps."""
        return (
            f"log p(x) in {self.dtype} is off by {self.rms:.2g} nats for a datum (root mean square; {self.largest:.2g} "
            f"or more at worst) and by {self.mean:+.2g} (standard error {self.mean_se:.1g}) in the mean, for "
            f"{self.num_compared} data that were compared with double precision on the same draws; site "
            f"'{self.site}' differs most: evaluate with dtype='float64', or mend its density"
        )


class Compared(NamedTuple):
    """A block of data beside double precision, (n,) nats each, and the site that differs most."""

    start: int
    off: Tensor  # the evidence by a few draws, less that in double
    error: Tensor  # its standard error, by rounding that differs from draw to draw
    left: Tensor  # what many draws leave of that
    site: str
    dtype: str

    @property
    def surely(self) -> Tensor:
        """How far the evidence of each datum is off at least."""
        return (self.off.abs() - SPREADS * self.error).clamp_min(0.0) + self.left


def compared(particles: Particles, start: int, num_draws: int = FEW) -> Compared | None:
    """Scores a few draws of a block twice; None where programs run in double already, or cannot be run in it."""
    parts = [particles]
    if particles.num_data >= TELLING and particles.strategy != ONE_BY_ONE:
        one = _twice(particles.by("looped"), lambda: [particles.example])
        if one is None or float((off := _log_ratio(*one)).abs().max()) < LEAST / 10:
            return None if one is None else _told(start, [(off, 0 * off, 0 * off)], *_most(*one))
    if particles.strategy == ONE_BY_ONE:
        num_draws = min(num_draws, FEW)
        rows = [one_row(particles.args, row) for row in range(min(FEW, particles.num_data))]
        plate = particles.structure.plate
        parts = [Particles(particles.model, particles.guide, row, plate=plate, strategy="looped") for row in rows]
    found = [_twice(part, partial(part.traces, num_draws), num_draws) for part in parts]
    pairs = [tables for tables in found if tables is not None]
    if len(pairs) < len(found):
        return None
    differences = [_difference(*tables) for tables in pairs]
    worst = max(range(len(pairs)), key=lambda part: float(differences[part][0].abs().max()))
    return _told(start, differences, *_most(*pairs[worst]))


def _told(start: int, parts: Sequence[tuple[Tensor, Tensor, Tensor]], site: str, dtype: str) -> Compared:
    off, error, left = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
    return Compared(start, off, error, left, site, dtype)


def digits(blocks: Sequence[Compared], mc_se: Tensor) -> Digits | None:
    """What blocks showed, beside the stated errors of the evidence, (N,): None where nothing was compared."""
    blocks = [block for block in blocks if block.start + len(block.off) <= len(mc_se)]  # not one that was cut short
    if not blocks:
        return None
    off, error, left, surely = (
        torch.cat([getattr(block, name) for block in blocks]) for name in ("off", "error", "left", "surely")
    )
    stated = mc_se.nan_to_num(0.0)
    se = torch.cat([stated[block.start :][: len(block.off)] for block in blocks]).clamp_min(LEAST)
    num_lost, mean, mean_se = int((surely > se).sum()), float(off.mean()), _of_mean(error)
    square, left_over = off.square() - error.square(), float(left.square().mean())
    rms_surely = math.sqrt(max(0.0, float(square.mean()) - SURE * _of_mean(square - square.mean())) + left_over)
    in_mean = abs(mean) > max(LEAST / math.sqrt(len(off)), _of_mean(stated), SURE * mean_se)
    lost = num_lost > 0 or in_mean or rms_surely > float(se.square().mean().sqrt())
    rms, largest = math.sqrt(max(0.0, float(square.mean())) + left_over), float(surely.max())
    worst = max(blocks, key=lambda block: float(block.surely.max()))
    return Digits(worst.dtype, len(off), num_lost, mean, largest, worst.site, lost, rms, mean_se)


def _of_mean(errors: Tensor) -> float:
    """The standard error of a mean of independent numbers, from theirs."""
    return float(errors.square().sum().sqrt()) / len(errors)


def warn_of_lost_digits(particles: Particles) -> None:
    """Warns :class:`LostDigits` if a few draws have another evidence in double; the random state is kept."""
    with preserve_rng_state():
        found = compared(particles, 0)
    lost = None if found is None else digits([found], torch.zeros_like(found.off))
    if lost is not None and lost.lost:
        warn(LostDigits(lost.said))


def check_double(particles: Particles) -> None:
    """Raises InputError, naming the site, if a density is of fewer digits for all that was made double."""
    for site in particles.example.every_site:
        if is_narrow(found := site_log_prob(site)):
            raise InputError(
                f"site '{site['name']}' is scored in {_name(found)} in spite of dtype=\"float64\": the programs write "
                "that dtype down; let them take the dtype of their data"
            )


def _twice(
    particles: Particles, run: Callable[[], Sequence[TracePair]], num_draws: int = 1
) -> tuple[SiteTerms, SiteTerms] | None:
    """The densities of a few draws in the programs' own precision and in double, (k, n) for each site."""
    try:
        runs = run()
        each = num_draws // len(runs)
        own = particles.read(runs, each)
        if not any(is_narrow(table) for role in own for table in role.values()):
            return None
        with double_precision(particles.model, particles.guide, MOST_DOUBLED):
            wide = particles.on(in_double(particles.args))
            return own, wide.read([_again(wide, run, each) for run in runs], each)
    except Exception:  # programs that write down a dtype or hold much, a device without float64: nothing is compared
        return None


def _again(particles: Particles, run: TracePair, num_draws: int) -> TracePair:
    """A run on the draws of another."""
    names, values = zip(*run.draws.items(), strict=True)
    placed = Placed(dict(zip(names, in_double(values), strict=True)))(particles.guide)
    (again,) = particles.of(particles.model, placed).traces(num_draws)
    return again


def _difference(own: SiteTerms, wide: SiteTerms) -> tuple[Tensor, Tensor, Tensor]:
    """How far the evidence is off, its standard error, and what many draws leave of rounding: (n,) nats each."""
    narrow, log_weight = sum_by_role(own).log_weight, sum_by_role(wide).log_weight
    counts = log_weight.isfinite()
    share = torch.where(counts, log_weight, -torch.inf).softmax(0).nan_to_num(0.0)
    off = torch.where(counts, narrow - log_weight, 0.0)
    spread = (share * (off - (share * off).sum(0)).square()).sum(0).nan_to_num(0.0, posinf=0.0).sqrt()
    error = torch.maximum(spread, spread.median()) * share.square().sum(0).sqrt()
    return _log_ratio(own, wide), error, torch.minimum(spread, spread.square() / 2)


def _log_ratio(own: SiteTerms, wide: SiteTerms) -> Tensor:
    """The evidence less that in double, by the draws that count in double: (n,) nats."""
    narrow, log_weight = sum_by_role(own).log_weight, sum_by_role(wide).log_weight
    counts = log_weight.isfinite()
    first, second = (estimators.log_evidence(torch.where(counts, table, -torch.inf)) for table in (narrow, log_weight))
    return torch.where(counts.any(0), first - second, 0.0).nan_to_num(0.0, posinf=torch.inf, neginf=-torch.inf)


def _most(own: SiteTerms, wide: SiteTerms) -> tuple[str, str]:
    """The site that differs most, and the dtype of its density."""
    off: dict[str, float] = {}
    for role, tables in own._asdict().items():
        for name, table in tables.items():
            difference = (table.double() - getattr(wide, role)[name].double()).abs()
            off[name] = max(off.get(name, 0.0), float(difference[difference.isfinite()].mean().nan_to_num(0.0)))
    site = max(off, key=lambda name: off[name])
    return site, next(_name(tables[site]) for tables in own if site in tables)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
