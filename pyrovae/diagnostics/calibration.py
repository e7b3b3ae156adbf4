r"""calibrate(): the guide held against latents that are known, on data simulated from the model itself.

.. math:: z, x \sim p(z)\, p(x \mid z), \qquad z_1, \dots, z_L \sim q(z \mid x)

Where the guide is the posterior, z is one more draw among z_1..z_L: its rank is uniform in every coordinate, and so
is that of log p(x, z), which sees how coordinates hang together. The same is asked of importance-resampled draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.random import stream
from pyrovae.base.records import Record
from pyrovae.data.split import as_split
from pyrovae.diagnostics.rank_tests import NUM_REPLICATES, RankTest, check_level, rank_members, rank_test
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.evidence.resampling import resample
from pyrovae.pairs.checks import looks
from pyrovae.pairs.latents import Latents, Values, coordinates
from pyrovae.pairs.simulation import simulate
from pyrovae.pairs.supports import require_unmasked
from pyrovae.pairs.traces import Program

LOG_JOINT = "log p(x, z)"


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Record):
    """How the latents behind simulated data rank among the guide's draws, and among importance-resampled ones."""

    guide: RankTest
    resampled: RankTest
    num_particles: int  # K, of which the resampled draws are taken
    seed: int
    strategy: str  # how the programs were run: "vectorized", "tiled" or "looped"

    def __repr__(self) -> str:
        return f"Calibration(S={self.num_simulations}, {self.verdict})"

    def __len__(self) -> int:
        return self.num_simulations

    @property
    def num_simulations(self) -> int:
        """S."""
        return len(self.guide.ranks)

    @property
    def passed(self) -> bool:
        """Whether the guide's draws could be the posterior's."""
        return self.guide.passed

    @property
    def verdict(self) -> str:
        """On the guide: "the guide is too narrow at z[3]", "the guide: no miscalibration seen in 500 simulations"."""
        return _claim("the guide", "is", self.guide)

    def row_names(self) -> Sequence[str]:
        return self.guide.names

    def table(self) -> dict[str, Tensor]:
        """The columns of both tests, (D,) each, one row for each quantity."""
        tests = {"guide": self.guide.table(), "resampled": self.resampled.table()}
        return {f"{kind}_{name}": column for kind, table in tests.items() for name, column in table.items()}

    def numbers(self) -> dict[str, Any]:
        """The verdict, and both tests."""
        return {
            "num_simulations": self.num_simulations,
            "num_draws": self.guide.num_draws,
            "level": self.guide.level,
            "verdict": self.verdict,
            "guide": self.guide.numbers(),
            "resampled": self.resampled.numbers(),
        }

    def lines(self) -> list[str | TextTable]:
        size = f"S = {self.num_simulations} data simulated from the model, L = {self.guide.num_draws} draws for each"
        resampled = f"draws resampled from K = {self.num_particles} particles by their weights"
        return [
            f"{size}; {len(self.guide.names)} quantities, bands at {100 * self.guide.level:g}% for all together",
            "",
            f"{_claim('the guide', 'is', self.guide)} (p = {self.guide.p_value:.3f})",
            *self.guide.failures(),
            f"{_claim(resampled, 'are', self.resampled)} (p = {self.resampled.p_value:.3f})",
            *self.resampled.failures(),
            "",
            LEGEND,
        ]


LEGEND = f"""\
mean rank: of the truth among its draws, 0.5 where they are right
spread: standard deviation of the ranks relative to that of uniform ones, 1 where the draws are right, above it where
  they are too narrow
{LOG_JOINT} shifted up: the draws lie at higher density than the truth, too close to the mode; shifted down: at lower
  density than the truth, too far out
p: at least 1/{NUM_REPLICATES + 1}, by {NUM_REPLICATES} replicates of the null distribution
this holds on data like the model's own; of data that the model does not fit it says nothing"""


@checked
def calibrate(
    model: Program,
    guide: Program,
    template: Any,
    *,
    num_simulations: int = 500,
    num_draws: int = 99,
    num_particles: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 100,
    plate: str | None = None,
    progress: bool = True,
) -> Calibration:
    """Simulation-based calibration of a pair: is the guide the posterior, and if not, in which direction not?

    The test of the guide is exact: a guide that is the posterior fails with probability at most 1 - level, whatever
    the latents, discrete ones (whose ties are broken at random) too. That of the resampled draws is so up to the
    error of self-normalised weights, O(1 / ESS), and exact where the weights are equal: then they are a subset of
    the particles. A trained guide is never quite the posterior: with enough simulations any of them fails, so read
    the direction and the size.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        template: a :class:`~pyrovae.data.Split`, a tensor or a tuple of tensors of the shape of data; labels or
            covariates among them are conditioned on, row by row, and repeated as often as needed.
        num_simulations: S. 500 see a guide whose scale is 15% off, or shifted by 0.2 of it.
        num_draws: L, for each simulation.
        num_particles: K, at least L; the draws to resample from. The guide's draws are the first L of them.
        level: of the bands, for all coordinates of all sites together.
        seed: of simulations, draws and test; the noise is keyed by (seed, block).
        batch_size: simulations in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Calibration`. Nothing else changes: parameter store, random state and train/eval modes are kept.

    Raises:
        InputError: naming the site, for a pair without latents or without per-datum weights, and for a model that
            cannot be simulated from; for numbers below 1.
        FloatingPointError: naming the quantity, where a value is NaN or all weights are zero.
        Interrupted: on Ctrl-C, with the calibration by the blocks that were done.

    References:
        Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference algorithms with
        simulation-based calibration, arXiv:1804.06788.
        Yao, Vehtari, Simpson and Gelman (2018), Yes, but did it work?, arXiv:1802.02538.
        Modrák et al. (2023), Simulation-based calibration checking with data-dependent test quantities,
        arXiv:2211.02383.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(6, 2)
        >>> x, _ = oracle.draw(1, seed=0)
        >>> calibrate(oracle.model, pv.widened(oracle.guide, 0.7), x, num_simulations=200).verdict
        'the guide is too narrow at z[0], z[1]; shifted up at log p(x, z)'
    """
    check_at_least_one(num_simulations=num_simulations, num_draws=num_draws, batch_size=batch_size)
    check_at_least_one(num_particles=num_particles)
    if num_particles < num_draws:
        raise InputError(f"num_particles must be at least num_draws, got {num_particles} and {num_draws}")
    check_level(level)
    split = as_split(template)

    def begin(pair: Pair) -> Callable[[Block], Ranked]:
        given = split.to(pair.device).tensors
        return lambda block: _ranked(pair, given, block, num_draws, num_particles)

    def record(done: Sequence[Ranked], pair: Pair) -> Calibration:
        generator = stream("calibration", seed)
        tables = (torch.cat(parts, 1) for parts in zip(*(block.tables for block in done), strict=True))
        tests = [rank_test(table, done[0].names, level=level, generator=generator) for table in tables]
        return Calibration(tests[0], tests[1], num_particles, seed, pair.strategy)

    memory = f"{num_particles} particles of {{num_data}} data: lower batch_size or num_particles"
    blocks = Blocks(num_simulations, batch_size, ("calibration", seed), memory)
    return block_by_block(model, guide, blocks, begin, record, plate=plate, progress=progress)


def _claim(subject: str, verb: str, test: RankTest) -> str:
    return f"{subject}: {test.verdict}" if test.passed else f"{subject} {verb} {test.verdict}"


class Ranked(NamedTuple):
    """Ranks of the members of n simulations, (L + 1, n, D) for each kind of draws; the truth is the first member."""

    names: list[str]  # of the D quantities
    tables: tuple[Tensor, Tensor]  # of the guide's draws, and of the resampled


def _ranked(pair: Pair, template: Sequence[Tensor], block: Block, num_draws: int, num_particles: int) -> Ranked:
    """Simulates, draws and ranks: the truth hides at a random row among K particles, so that no rounding marks it."""
    args, simulated = simulate(pair.model, template, block.rows)
    latents = pair.latents(args)
    require_unmasked(latents.particles.example, latents.sites)
    if block.index == 0:
        latents.require_guide_density()
        looks.require_exchangeable(latents.particles.shown, "calibration")
    sizes, known = latents.part_sizes(num_particles + 1), latents.lifted(simulated)
    parts = [latents.draw(size) for size in sizes]
    values = {name: torch.cat([part[name] for part in parts]) for name in known}
    truth = torch.randint(num_particles + 1, (latents.num_data,), device=latents.args[0].device)
    for name, value in known.items():
        values[name][truth, torch.arange(latents.num_data, device=truth.device)] = value[0].to(values[name])
    names, quantities, log_weight = _scored(latents, values, sizes)

    def ranks(rows: Tensor) -> Tensor:
        chosen = torch.cat([truth[None], rows])[..., None].expand(-1, -1, len(names))
        return rank_members(quantities.gather(0, chosen).cpu()).int()

    others = torch.arange(num_particles, device=truth.device)[:, None]
    others = others + (others >= truth)  # the rows of the particles, (K, n)
    resampled = others.gather(0, resample(log_weight.gather(0, others), num_draws))
    block.tick(block.num_data)
    return Ranked(names, (ranks(others[:num_draws]), ranks(resampled)))


def _scored(latents: Latents, values: Values, sizes: Sequence[int]) -> tuple[list[str], Tensor, Tensor]:
    """Names of what is ranked, its values (K, n, D), and log p(x, z) - log q(z|x), (K, n), of latents (K, n, ...)."""
    split = {name: value.split(sizes) for name, value in values.items()}
    parts = [{name: value[number] for name, value in split.items()} for number in range(len(sizes))]
    joints = [latents.log_joint(part) for part in parts]
    log_joint = torch.cat([joint.log_likelihood.double() + joint.log_prior.double() for joint in joints])
    log_weight = log_joint - torch.cat([latents.log_guide(part).double() for part in parts])
    names = [*coordinates({name: value.shape[2:] for name, value in values.items()}), LOG_JOINT]
    columns = [value.reshape(*log_joint.shape, -1).double() for value in values.values()]
    quantities = torch.cat([*columns, log_joint[..., None]], -1)
    for name, undefined in zip(names, quantities.isnan().any(0).unbind(-1), strict=True):
        if undefined.any():
            raise FloatingPointError(
                f"'{name}' is NaN for {int(undefined.sum())} of {len(undefined)} simulations; "
                "look at its parameters there"
            )
    return names, quantities, log_weight
