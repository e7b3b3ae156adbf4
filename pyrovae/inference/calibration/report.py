r"""calibrate(): the guide held against latents that are known, on data simulated from the model itself.

.. math:: z, x \sim p(z)\, p(x \mid z), \qquad z_1, \dots, z_L \sim q(z \mid x)

Where the guide is the posterior, z is one more draw among z_1..z_L: its rank is uniform in every coordinate, and so
is that of log p(x, z), which sees how coordinates hang together. The same is asked of importance-resampled draws.
"""

from dataclasses import dataclass
from typing import Any

import torch

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.base.memory import blocks_of
from pyrovae.base.progress import bar, kept_on_interrupt
from pyrovae.base.random import CALIBRATION, seed_everything, seed_of
from pyrovae.data.split import as_split
from pyrovae.inference.blocks import undisturbed
from pyrovae.inference.calibration.members import LOG_JOINT, Ranking, Tables
from pyrovae.inference.calibration.ranks import NUM_REPLICATES, RankTest, check_level, rank_test
from pyrovae.inference.pairs import Program


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """How the latents behind simulated data rank among the guide's draws, and among importance-resampled ones."""

    guide: RankTest
    resampled: RankTest
    num_particles: int  # K, of which the resampled draws are taken
    seed: int
    way: str  # how the programs were run: "vectorized", "tiled" or "looped"

    def __repr__(self) -> str:
        return f"Calibration(S={self.num_simulations}, {self.verdict})"

    def __str__(self) -> str:
        return self.summary()

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

    def to_dict(self) -> dict[str, Any]:
        """The account as plain values for JSON."""
        return {
            "num_simulations": self.num_simulations,
            "num_draws": self.guide.num_draws,
            "num_particles": self.num_particles,
            "level": self.guide.level,
            "seed": self.seed,
            "way": self.way,
            "verdict": self.verdict,
            "guide": self.guide.to_dict(),
            "resampled": self.resampled.to_dict(),
        }

    def summary(self) -> str:
        """The account as text, with a line for each quantity that leaves its bands."""
        size = f"S = {self.num_simulations} data simulated from the model, L = {self.guide.num_draws} draws for each"
        resampled = f"draws resampled from K = {self.num_particles} particles by their weights"
        return "\n".join(
            [
                f"{size}; {len(self.guide.names)} quantities, bands at {100 * self.guide.level:g}% for all together",
                "",
                *_account(_claim("the guide", "is", self.guide), self.guide),
                *_account(_claim(resampled, "are", self.resampled), self.resampled),
                "",
                LEGEND,
            ]
        )


LEGEND = f"""\
mean rank: of the truth among its draws, 0.5 where they are right
spread: standard deviation of the ranks relative to that of uniform ones, 1 where the draws are right, above it where
  they are too narrow
{LOG_JOINT} shifted up: the draws lie at higher density than the truth, too close to the mode; shifted down: at lower
  density than the truth, too far out
p: at least 1/{NUM_REPLICATES + 1}, by {NUM_REPLICATES} replicates of the null distribution
this holds on data like the model's own; of data that the model does not fit it says nothing"""


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
        >>> calibrate(oracle.model, oracle.scaled_guide(0.7), x, num_simulations=200).verdict
        'the guide is too narrow at z[0], z[1]; shifted up at log p(x, z)'
    """
    check_at_least_one(num_simulations=num_simulations, num_draws=num_draws, batch_size=batch_size)
    check_at_least_one(num_particles=num_particles)
    if num_particles < num_draws:
        raise InputError(f"num_particles must be at least num_draws, got {num_particles} and {num_draws}")
    check_level(level)
    split, done = as_split(template), list[Tables]()

    def record() -> Calibration:
        generator = torch.Generator().manual_seed(seed_of(CALIBRATION, seed))
        tables = [torch.cat(parts, 1) for parts in zip(*done, strict=True)]
        tests = [rank_test(table, run.names, level=level, generator=generator) for table in tables]
        return Calibration(tests[0], tests[1], num_particles, seed, run.way)

    with kept_on_interrupt(done, record), undisturbed(model, guide) as (model, guide, device):
        run = Ranking(model, guide, split.to(device).tensors, num_draws, num_particles, plate)
        with bar(shown=progress, total=num_simulations, desc="calibration", unit="x", delay=2) as shown:
            for index, rows in enumerate(blocks_of(num_simulations, batch_size)):
                seed_everything(CALIBRATION, seed, index)
                done.append(run.block(rows))
                shown.update(rows.stop - rows.start)
    return record()


def _claim(subject: str, verb: str, test: RankTest) -> str:
    return f"{subject}: {test.verdict}" if test.passed else f"{subject} {verb} {test.verdict}"


def _account(claim: str, test: RankTest) -> list[str]:
    """Lines on one kind of draws."""
    return [f"{claim} (p = {test.p_value:.3f})", *test.table()]
