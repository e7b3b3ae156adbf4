r"""The aggregate posterior of a data set: the mixture of what the guide says of each datum, scored at its own draws.

.. math:: q(z) = \frac1N \sum_{n=1}^N q(z \mid x_n), \qquad q(z_j) = \frac1N \sum_{n=1}^N q(z_j \mid x_n)

The sums run over *all* data, N densities for each draw, so neither is an estimate; blocks of data and of draws keep
memory flat.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from pyrovae.base.memory import ELEMENTS_AT_ONCE, explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.data.split import Split
from pyrovae.diagnostics.factorization import GUIDE, Drawn, Factors, draw, join, listed
from pyrovae.evidence.blocks import Pair
from pyrovae.pairs.latents import Latents, Values

DATA_AT_ONCE = 100  # whose latents are drawn together, at most: a draw depends on no batch size
IN_CACHE = 2**18  # densities summed at once, few enough for a processor's cache
T = TypeVar("T")
Means = dict[str, Tensor | None]  # latent site -> (N, D of the site), as of Factors.means


class Aggregate(NamedTuple):
    """The aggregate posterior at S draws for each of M data, in nats, float64."""

    log_density: Tensor  # (S, M)
    log_factors: Tensor  # (S, M, F), each factor averaged over the data by itself
    means: Means  # of the N data


def join_aggregates(blocks: Sequence[Aggregate]) -> Aggregate:
    """The aggregate posterior of one data set at the draws of all blocks."""
    num_factors = min(block.log_factors.shape[-1] for block in blocks)  # one for all, if any does not factorise
    return Aggregate(
        torch.cat([block.log_density for block in blocks], 1),
        torch.cat([block.log_factors[..., :num_factors] for block in blocks], 1),
        blocks[0].means,
    )


class Aggregation:
    """A pair on a data set; for use inside ``isolated``.

    Args:
        pair: as it is measured.
        source: the N data that make the aggregate posterior, their rows fixed.
        seed: of the draws.
    """

    def __init__(self, pair: Pair, source: Split, *, seed: int) -> None:
        self.pair, self.source, self.seed = pair, source, seed
        self.width = max(64, sum(column.shape[1:].numel() for column in source.columns))

    def draw(self, rows: Tensor, num_draws: int, *, key: int = 0) -> Drawn:
        """S draws z ~ q(z|x) for the data in M rows, in random order; raises as ``factorization.draw`` does."""
        # Each block is scored twice: for its own data, and for one another's.
        return join(
            self.each_block(rows, lambda latents: draw(latents, num_draws), at_once=2 * num_draws, key=(0, key))
        )

    def each_block(self, rows: Tensor, work: Callable[[Latents], T], *, at_once: int, key: tuple[int, ...]) -> list[T]:
        """What ``work`` makes of the data in M rows, in small blocks, each with random numbers of its own.

        Args:
            rows: of the data.
            work: what is done with the latents of one block.
            at_once: draws for each datum that it holds in memory.
            key: of the random numbers.
        """
        size = min(DATA_AT_ONCE, max(2, ELEMENTS_AT_ONCE // (at_once * self.width)))
        done = []
        for index, part in enumerate(rows.split(size)):
            with explain_out_of_memory(f"{at_once} latents for each of {size} data: lower num_draws"):
                latents = self.pair.latents(self.source.batch(part))
                seed_everything("surgery", self.seed, *key, index)
                done.append(work(latents))
        return done

    def score(self, drawn: Drawn, *, batch_size: int, tick: Callable[[int], Any] = lambda num_data: None) -> Aggregate:
        """The aggregate posterior at these draws, its data in blocks of ``batch_size``; ``tick`` is told of each.

        Raises:
            FloatingPointError: naming the sites, if it is NaN at some draw.
        """
        values = {name: value.flatten(0, 1).unsqueeze(1) for name, value in drawn.values.items()}
        sums, means = _Sums(drawn.log_guide), []
        for start in range(0, len(self.source), batch_size):
            rows = slice(start, min(start + batch_size, len(self.source)))
            with explain_out_of_memory(f"what the guide says of {batch_size} data: lower batch_size"):
                block = _Block(self.pair.latents(self.source.batch(rows)), drawn)
                for part in self._parts(drawn, block.num_data):
                    sums.add(part, block.log_factors({name: value[part] for name, value in values.items()}))
            means.append(block.means)
            tick(block.num_data)
        sums.check(values)
        return Aggregate(*sums.log_mean(len(self.source)), _joined(means))

    def _parts(self, drawn: Drawn, num_data: int) -> Iterator[slice]:
        """Slices of the draws, so many that n data can score them at once."""
        width = sum(value[0, 0].numel() for value in drawn.values.values())
        at_once = ELEMENTS_AT_ONCE // max(self.width, width) if drawn.reruns else IN_CACHE // width
        size = max(1, at_once // num_data)
        return (slice(start, start + size) for start in range(0, drawn.log_likelihood.numel(), size))


class _Block:
    """What the guide says of n data."""

    def __init__(self, latents: Latents, drawn: Drawn) -> None:
        self.latents, self.num_data, self.drawn = latents, latents.num_data, drawn
        self.once = Factors(latents.particles.example.drawn, latents.structure, GUIDE)
        self.means = self.once.means()

    def log_factors(self, values: Values) -> Tensor:
        """Log density of each of K latents given each of the data: (K, 1, ...) -> (K, n, F) nats."""
        beside = {name: value.expand(-1, self.num_data, *value.shape[2:]) for name, value in values.items()}
        if self.drawn.reruns:
            return self.latents.log_guide(beside)[..., None]
        log_factors = self.once.log_coordinates(beside)
        return log_factors.sum(-1, keepdim=True, dtype=torch.float64) if self.drawn.reason else log_factors


class _Sums:
    """Sums over data of their densities at the draws (S, M): of all factors together, and of each by itself."""

    def __init__(self, like: Tensor) -> None:
        self.shape = like.shape
        self.each = torch.full_like(like.flatten(0, 1), -math.inf)
        self.total = self.each[:, 0].clone()

    def add(self, part: slice, log_factors: Tensor) -> None:
        """Adds the densities (K, n, F) of n data at K of the draws."""
        together = log_factors.sum(-1, dtype=torch.float64).logsumexp(1)
        self.total[part] = torch.logaddexp(self.total[part], together)
        self.each[part] = torch.logaddexp(self.each[part], log_factors.logsumexp(1).double())

    def check(self, names: Iterable[str]) -> None:
        """Raises FloatingPointError, naming the sites, where a sum is NaN."""
        undefined = int(self.total.isnan().sum())
        if undefined:
            raise FloatingPointError(
                f"{listed(names)}: the guide's log density is NaN for {undefined} of {len(self.total)} draws, given "
                "data that they were not drawn for; look at its support there"
            )

    def log_mean(self, num_data: int) -> tuple[Tensor, Tensor]:
        """Of the density, (S, M), and of its factors, (S, M, F)."""
        log_num_data = math.log(num_data)
        return (self.total - log_num_data).view(self.shape[:2]), (self.each - log_num_data).view(self.shape)


def _joined(blocks: Sequence[Means]) -> Means:
    columns = {name: [block[name] for block in blocks] for name in blocks[0]}
    return {n: None if any(part is None for part in column) else torch.cat(column) for n, column in columns.items()}  # type: ignore[arg-type]


MEAN_DRAWS = 100  # where a mean is not known in closed form; the noise taken away is so small against a variance of 1


def mean_variances(run: Aggregation, rows: Tensor, means: Means, *, reruns: bool) -> Tensor:
    """Variance over data of the mean of each coordinate: (D,), NaN for one that has no mean, such as a class.

    Args:
        run: the pair on its data.
        rows: M data to draw for, where means are not known in closed form.
        means: of the sites as one run of the guide shows them, over all N data.
        reruns: whether sites of the guide depend on each other's draws, so that these are not their means given x.
    """
    needed = reruns or any(mean is None for mean in means.values())
    from_draws = _from_draws(run, rows) if needed else {}
    return torch.cat([_variance(mean, from_draws.get(name), reruns) for name, mean in means.items()])


def _variance(mean: Tensor | None, from_draws: Any, reruns: bool) -> Tensor:
    if mean is None:
        return from_draws
    return from_draws.masked_fill(mean.isnan().any(0), math.nan) if reruns else mean.double().var(0)


def _from_draws(run: Aggregation, rows: Tensor) -> dict[str, Tensor]:
    """The variances of all sites without the noise of draws: site -> (D of the site,)."""
    blocks = run.each_block(rows, _moments, at_once=MEAN_DRAWS, key=(1,))
    variances = {}
    for name in blocks[0]:
        mean, noise = (torch.cat(parts) for parts in zip(*(block[name] for block in blocks), strict=True))
        variances[name] = mean.var(0) - noise.mean(0)
    return variances


def _moments(latents: Latents) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean of the draws of each of n data and its own variance: site -> (n, D of the site) each."""
    draws = latents.draw(MEAN_DRAWS)
    flat = {name: value.reshape(MEAN_DRAWS, latents.num_data, -1).double() for name, value in draws.items()}
    return {name: (value.mean(0), value.var(0) / MEAN_DRAWS) for name, value in flat.items()}
