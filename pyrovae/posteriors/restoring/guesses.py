r"""Guesses of x from y, for a guide that was trained on x: it proposes latents and no more, weights do the rest.

The first is a mean, by a few draws each,

.. math:: x^{(0)} = E_{p(z)} \, E[x \mid y, z], \qquad x^{(r+1)} = E_{q(z \mid x^{(r)})} \, E[x \mid y, z]

Where y leaves several answers open, that is one of them at best. So there are many more, each from one draw of the
prior, which show where else to look.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.memory import blocks_of, explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.data.split import Split
from pyrovae.evidence.comparisons.hidden import AT_ONCE, Hidden, joined_starts, seeks_from_starts
from pyrovae.evidence.plan import Plan
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.missing.completing import beside_filled, guessed, of_many_guesses, reads_missing
from pyrovae.pairs.missing.observed import MOMENTS
from pyrovae.pairs.operators.operator import Operator
from pyrovae.pairs.operators.through import observed_through, restoring
from pyrovae.pairs.traces import Program, sites_of


def shown(model: Program, guide: Program, data: Split, operator: Operator, plan: Plan) -> tuple[Hidden, Values | None]:
    """The pair of programs for y, of which the guide reads a guess of x beside it; and latents by other guesses.

    Where y is a mask's, and the guide reads missing entries (NaN), it reads y.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: whose first tensor is y, (N, *of_shape).
        operator: how y comes about from x.
        plan: of the evaluation of y.

    Returns:
        The pair; and latents, site -> (S, N, ...), where there are too many coordinates for a search from the prior.

    Raises:
        InputError: for y of another shape, and a likelihood without closed form.
    """
    seed, searches = plan.seed, plan.method != "importance"
    data = data.drawn(seed)
    tensors = list(data.tensors)
    operator.check(tensors[0], operator.of_shape, "y")
    of_y, of_x = observed_through(model, operator), restoring(model, operator)
    parts, starts = list[Tensor](), list[Values | None]()
    with isolated(model, guide) as (bare_model, bare_guide, device):
        reads = bool(tensors[0].isnan().any()) and reads_missing(bare_guide, [one.to(device) for one in tensors])
        drawing = restoring(bare_model, operator)
        with explain_out_of_memory("data to be guessed for the guide: give fewer of them at once"):
            for index, rows in enumerate(blocks_of(len(data), AT_ONCE)):
                here = [one[rows].to(device) for one in tensors]
                seed_everything("restored, guessed", seed, index)
                if not reads:
                    parts.append(guessed(drawing, bare_guide, here, mean_restored).cpu())
                seed_everything("restored, starts", seed, index)
                starts.append(_starts(bare_model, bare_guide, here, operator, plan.plate) if searches else None)
    if reads:
        return Hidden(of_y, guide, data, of_x, torch.ones(0).bool(), False), joined_starts(starts)
    pair = beside_filled(of_y, guide)
    whole, _ = beside_filled(of_x, guide)
    filled = data.replaced([*tensors, torch.cat(parts)])
    return Hidden(*pair, filled, whole, torch.ones(0).bool(), True), joined_starts(starts)


def _starts(
    model: Program, guide: Program, args: Sequence[Any], operator: Operator, plate: str | None
) -> Values | None:
    """Latents that the guide draws of many guesses, site -> (S, n, ...) on the CPU, where these can be of use."""
    drawing = restoring(model, operator)
    first = mean_restored(sites_of(drawing, *args, role="model"))
    latents = Latents(*beside_filled(observed_through(model, operator), guide), [*args, first], plate=plate)
    if not seeks_from_starts(latents):
        return None
    return of_many_guesses(latents, drawing, guide, args, mean_restored)


def mean_restored(sites: Any) -> Tensor:
    """The mean of x given y and z, in a run of the model that restores it; what was drawn where there is no mean."""
    site = next(site for site in sites.values() if MOMENTS in (site["infer"] or {}))
    mean = site["infer"][MOMENTS][0]
    return torch.where(mean.isfinite(), mean, site["value"])
