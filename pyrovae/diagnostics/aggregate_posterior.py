r"""The aggregate posterior of a data set: the mixture of what the guide says of each datum, scored at its own draws.

.. math:: q(z) = \frac1N \sum_{n=1}^N q(z \mid x_n), \qquad q(z_j) = \frac1N \sum_{n=1}^N q(z_j \mid x_n)

The sums run over *all* data, N densities for each draw, so neither is an estimate; blocks of data and of draws keep
memory flat.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from pyrovae.base.memory import ELEMENTS_AT_ONCE, blocks_of, explain_out_of_memory, fitting
from pyrovae.base.random import seed_everything
from pyrovae.data.split import Split
from pyrovae.diagnostics.factorization import GUIDE, Drawn, Factors, draw, join, listed
from pyrovae.evidence.blocks import Pair
from pyrovae.pairs.checks import looks
from pyrovae.pairs.latents import Latents, Values

DATA_AT_ONCE = 100  # whose latents are drawn together, at most: a draw depends on no batch size
IN_CACHE = 2**18  # densities summed at once, few enough for a processor's cache
T = TypeVar("T")


class Aggregate(NamedTuple):
    """The aggregate posterior at S draws for each of M data, in nats, float64."""

    log_density: Tensor  # (S, M)
    log_factors: Tensor  # (S, M, F), each factor averaged over the data by itself
    means: dict[str, Tensor]  # latent site whose mean is known -> (N, D of the site), of the N data


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
        pair.weigh_rows(source)
        self.width = max(64, sum(column.shape[1:].numel() for column in source.columns))

    def draw(self, rows: Tensor, num_draws: int, *, key: int = 0) -> Drawn:
        """S draws z ~ q(z|x) for the data in M rows, in random order; raises as ``factorization.draw`` does."""
        # Each block is scored twice: for its own data, and for one another's.
        blocks = self.each_block(rows, lambda latents: draw(latents, num_draws), at_once=2 * num_draws, key=(0, key))
        return join(blocks)

    def each_block(self, rows: Tensor, work: Callable[[Latents], T], *, at_once: int, key: tuple[int, ...]) -> list[T]:
        """What ``work``, which holds so many draws of each datum, makes of the data in M rows.

        It is done in small blocks, each with random numbers of its own.
        """
        most = min(DATA_AT_ONCE, max(2, ELEMENTS_AT_ONCE // (at_once * self.width)))
        size = max(2, fitting(most, at_once * self.pair.row_growth))
        done = []
        for index, part in enumerate(rows.split(size)):
            with explain_out_of_memory(f"{at_once} latents for each of {size} data: lower num_draws"):
                latents = self.pair.latents(self.source.batch(part))
                if index == 0:
                    looks.check_edges(latents.particles.shown)
                    latents.require_guide_density()
                    looks.require_exchangeable(latents.particles.shown, "ELBO surgery")
                seed_everything("surgery", self.seed, *key, index)
                done.append(work(latents))
        return done

    def score(self, drawn: Drawn, *, batch_size: int, tick: Callable[[int], Any] = lambda num_data: None) -> Aggregate:
        """The aggregate posterior at these draws, its data in blocks of ``batch_size``; ``tick`` is told of each.

        Raises:
            FloatingPointError: naming the sites, if it is NaN at some draw.
        """
        values = {name: value.flatten(0, 1).unsqueeze(1) for name, value in drawn.values.items()}
        each = torch.full_like(drawn.log_guide.flatten(0, 1), -math.inf)  # sums over data of each factor's density
        total, means = each[:, 0].clone(), []  # and of all factors together
        for rows in blocks_of(len(self.source), batch_size):
            with explain_out_of_memory(f"what the guide says of {batch_size} data: lower batch_size"):
                latents = self.pair.latents(self.source.batch(rows))
                once = Factors(latents.particles.example.drawn, latents.structure, GUIDE)
                for part in self._parts(drawn, latents):
                    placed = {name: value[part] for name, value in values.items()}
                    log_factors = _log_factors(latents, once, drawn, placed)
                    together = log_factors.sum(-1, dtype=torch.float64).logsumexp(1)
                    total[part] = torch.logaddexp(total[part], together)
                    each[part] = torch.logaddexp(each[part], log_factors.logsumexp(1).double())
                means.append(once.means())
            tick(latents.num_data)
        _check_defined(total, values)
        log_num_data, shape = math.log(len(self.source)), drawn.log_guide.shape
        averages = (total - log_num_data).view(shape[:2]), (each - log_num_data).view(shape)
        known = [name for name in values if all(name in block for block in means)]
        return Aggregate(*averages, {name: torch.cat([block[name] for block in means]) for name in known})

    def _parts(self, drawn: Drawn, latents: Latents) -> list[slice]:
        """Slices of the draws, so many that the data can score them at once."""
        width = sum(value[0, 0].numel() for value in drawn.values.values())
        at_once = ELEMENTS_AT_ONCE // max(self.width, width) if drawn.reruns else IN_CACHE // width
        most = max(1, at_once // latents.num_data)
        return blocks_of(drawn.log_likelihood.numel(), min(most, latents.particles.at_once()) if drawn.reruns else most)


def _log_factors(latents: Latents, once: Factors, drawn: Drawn, values: Values) -> Tensor:
    """Log density of each of K latents given each of n data: (K, 1, ...) -> (K, n, F) nats."""
    beside = {name: value.expand(-1, latents.num_data, *value.shape[2:]) for name, value in values.items()}
    if drawn.reruns:
        return latents.log_guide(beside)[..., None]
    log_factors = once.log_coordinates(beside)
    return log_factors.sum(-1, keepdim=True, dtype=torch.float64) if drawn.reason else log_factors


def _check_defined(total: Tensor, names: Iterable[str]) -> None:
    undefined = int(total.isnan().sum())
    if undefined:
        raise FloatingPointError(
            f"{listed(names)}: the guide's log density is NaN for {undefined} of {len(total)} draws, given "
            "data that they were not drawn for; look at its support there"
        )


MEAN_DRAWS = 100  # where a mean is not known in closed form; the noise taken away is so small against a variance of 1


def mean_variances(
    run: Aggregation, rows: Tensor, sites: Iterable[str], means: dict[str, Tensor], *, reruns: bool
) -> Tensor:
    """Variance over data of the mean of each coordinate: (D,), NaN for one that has no mean, such as a class.

    Args:
        run: the pair on its data.
        rows: M data to draw for, where means are not known in closed form.
        sites: latent ones.
        means: of those where it is known, as one run of the guide shows them, over all N data.
        reruns: whether sites of the guide depend on each other's draws, so that these are not their means given x.
    """
    variances = {} if reruns else {name: mean.double().var(0) for name, mean in means.items()}
    if missing := [name for name in sites if name not in variances]:
        blocks = run.each_block(rows, _moments, at_once=MEAN_DRAWS, key=(1,))
        for name in missing:
            mean, noise = (torch.cat(parts) for parts in zip(*(block[name] for block in blocks), strict=True))
            variances[name] = mean.var(0) - noise.mean(0)
            if name in means:
                variances[name] = variances[name].masked_fill(means[name].isnan().any(0), math.nan)
    return torch.cat([variances[name] for name in sites])


def _moments(latents: Latents) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean of the draws of each of n data and its own variance: site -> (n, D of the site) each."""
    draws = latents.draw(MEAN_DRAWS)
    flat = {name: value.reshape(MEAN_DRAWS, latents.num_data, -1).double() for name, value in draws.items()}
    return {name: (value.mean(0), value.var(0) / MEAN_DRAWS) for name, value in flat.items()}
