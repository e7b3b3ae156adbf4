"""Missing entries at draws of the latents: drawn, and their moments by the law of total variance."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.memory import of_device
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.evidence.comparisons.hidden import Hidden
from pyrovae.evidence.plan import DATA_AT_ONCE, Plan
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.missing.completing import Completer


class Entries(NamedTuple):
    """Data completed: draws (L, N, *shape), mean and standard deviation of each entry (N, *shape)."""

    draws: Tensor
    mean: Tensor
    sd: Tensor


def completed(pair: Hidden, values: Values, plan: Plan, *, progress: bool) -> Entries:
    """The missing entries drawn from p(x_m | x_o, z) at draws of the latents (L, N, ...), and their moments."""
    return completed_by(pair, values, plan, lambda latents: Completer(latents, pair.whole).at, progress)


def completed_by(
    pair: Hidden,
    values: Values,
    plan: Plan,
    of_block: Callable[[Latents], Callable[[Values], Sequence[Tensor]]],
    progress: bool,
) -> Entries:
    """Draws, and moments over them, of what a function of a block's latents gives: draws, means and variances."""
    found = _by_blocks(pair, values, plan, of_block, of_draws, progress)
    draws = torch.cat([one.draws for one in found], 1).cpu()
    return Entries(draws, *(torch.cat([getattr(one, name) for one in found]).cpu() for name in ("mean", "sd")))


def log_likelihoods(pair: Hidden, values: Values, plan: Plan, *, progress: bool) -> Tensor:
    """log p(x_o | z) at draws of the latents (L, N, ...): (L, N) nats, float64."""

    def of_block(latents: Latents) -> Callable[[Values], tuple[Tensor]]:
        return lambda part: (latents.log_joint(part).log_likelihood.double(),)

    return torch.cat(_by_blocks(pair, values, plan, of_block, lambda table: table, progress), 1).cpu()


def _by_blocks(
    pair: Hidden,
    values: Values,
    plan: Plan,
    of_block: Callable[[Latents], Callable[[Values], Sequence[Tensor]]],
    reduce: Callable[..., Any],
    progress: bool,
) -> list[Any]:
    """What is made of each block of data, and of parts of its draws of the latents, (K, n, ...) each, side by side."""
    num_draws = len(next(iter(values.values())))

    def begin(run: Pair) -> Any:
        source = pair.split.to(run.device)

        def work(block: Block) -> Any:
            latents = run.latents(source.batch(block.rows))
            at = of_block(latents)
            here = {name: value[:, block.rows].to(run.device) for name, value in values.items()}
            sizes = latents.part_sizes(num_draws)
            parts = zip(*(value.split(sizes) for value in here.values()), strict=True)
            found = [at(dict(zip(here, part, strict=True))) for part in parts]
            block.tick(block.num_data)
            return reduce(*(torch.cat(each) for each in zip(*found, strict=True)))

        return work

    def rows(run: Pair) -> int:
        return plan.batch_size or of_device(DATA_AT_ONCE, run.device)

    memory = f"{num_draws} draws of {{num_data}} data: lower num_draws or batch_size"
    blocks = Blocks(len(pair.split), rows, ("completion", plan.seed), memory)
    return block_by_block(
        pair.model, pair.guide, blocks, begin, lambda done, _: list(done), plate=plan.plate, progress=progress
    )


def of_draws(draws: Tensor, means: Tensor, variances: Tensor) -> Entries:
    """Moments of entries from those given each of L latents (L, n, *shape): the law of total variance.

    Where a distribution has no mean, or none that is known, the median of the draws takes its place, and of classes the
    value that was drawn most often.
    """
    mean = means.double().mean(0)
    variance = variances.double().mean(0) + means.double().var(0, correction=0)
    if bool(mean.isnan().any()):
        are_whole = (draws == draws.round()).all(0)
        middle = torch.where(are_whole, draws.mode(0).values, draws.median(0).values)
        mean = torch.where(mean.isnan(), middle.double(), mean)
    return Entries(draws, mean.to(draws), variance.sqrt().to(draws))
