r"""Guesses of x from y, for a guide that was trained on x: it proposes latents and no more, weights do the rest.

The first is a mean, by a few draws each,

.. math:: x^{(0)} = E_{p(z)} \, E[x \mid y, z], \qquad x^{(r+1)} = E_{q(z \mid x^{(r)})} \, E[x \mid y, z]

Where y leaves several answers open, that is one of them at best. So there are many more, each from one draw of the
prior, which show where else to look:

.. math:: z_0 \sim p(z), \qquad z_{r+1} \sim q(z \mid E[x \mid y, z_r])
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.memory import blocks_of, explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.data.split import Split
from pyrovae.evidence.comparisons.hidden import AT_ONCE, Hidden
from pyrovae.evidence.ladder.rungs import MOST_COORDINATES, SEARCHED
from pyrovae.evidence.plan import Plan
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.missing.completing import beside_filled, guessed, reads_missing
from pyrovae.pairs.missing.observed import MOMENTS
from pyrovae.pairs.operators.operator import Operator
from pyrovae.pairs.operators.through import observed_through, restoring
from pyrovae.pairs.traces import Program, plain_traces, sites_of

NUM_GUESSES, ROUNDS = 200, 2  # of each datum, and how often each is made better


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
        return Hidden(of_y, guide, data, of_x, torch.ones(0).bool(), False), _joined(starts)
    pair = beside_filled(of_y, guide)
    whole, _ = beside_filled(of_x, guide)
    filled = data.replaced([*tensors, torch.cat(parts)])
    return Hidden(*pair, filled, whole, torch.ones(0).bool(), True), _joined(starts)


def _starts(
    model: Program, guide: Program, args: Sequence[Any], operator: Operator, plate: str | None
) -> Values | None:
    """Latents that the guide draws of many guesses, site -> (S, n, ...) on the CPU, where these can be of use."""
    drawing = restoring(model, operator)
    first = mean_restored(sites_of(drawing, *args, role="model"))
    latents = Latents(*beside_filled(observed_through(model, operator), guide), [*args, first], plate=plate)
    if latents.structure.has_discrete or not SEARCHED < latents.num_dims <= MOST_COORDINATES:
        return None
    both, found = beside_filled(drawing, guide), list[Values]()
    for _ in range(NUM_GUESSES):
        guess = mean_restored(sites_of(drawing, *args, role="model"))
        for _ in range(ROUNDS):
            sites = plain_traces(*both, [*args, guess]).joint
            found.append(latents.lifted({name: sites[name]["value"] for name in latents.sites}))
            guess = mean_restored(sites)
    return {name: torch.cat([one[name] for one in found]).cpu() for name in latents.sites}


def _joined(blocks: Sequence[Values | None]) -> Values | None:
    """Those of all blocks, site -> (S, N, ...)."""
    known = [one for one in blocks if one is not None]
    return {name: torch.cat([one[name] for one in known], 1) for name in known[0]} if known else None


def mean_restored(sites: Any) -> Tensor:
    """The mean of x given y and z, in a run of the model that restores it; what was drawn where there is no mean."""
    site = next(site for site in sites.values() if MOMENTS in (site["infer"] or {}))
    mean = site["infer"][MOMENTS][0]
    return torch.where(mean.isfinite(), mean, site["value"])
