r"""A first guess of x from y, for a guide that was trained on x: it proposes latents and no more, weights do the rest.

.. math:: x^{(0)} = E_{p(z)} \, E[x \mid y, z], \qquad x^{(r+1)} = E_{q(z \mid x^{(r)})} \, E[x \mid y, z]

each by a few draws.
"""

from typing import Any

import torch
from torch import Tensor

from pyrovae.base.memory import blocks_of, explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.data.split import Split
from pyrovae.evidence.comparisons.hidden import AT_ONCE, Hidden
from pyrovae.pairs.context import isolated
from pyrovae.pairs.missing.completing import beside_filled, guessed, reads_missing
from pyrovae.pairs.missing.observed import MOMENTS
from pyrovae.pairs.operators.operator import Operator
from pyrovae.pairs.operators.through import observed_through, restoring
from pyrovae.pairs.traces import Program


def shown(model: Program, guide: Program, data: Split, operator: Operator, seed: int) -> Hidden:
    """The pair of programs for y, of which the guide reads a guess of x beside it.

    Where y is a mask's, and the guide reads missing entries (NaN), it reads y.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: whose first tensor is y, (N, *of_shape).
        operator: how y comes about from x.
        seed: of the draws.

    Raises:
        InputError: for y of another shape, and a likelihood without closed form.
    """
    data = data.drawn(seed)
    tensors = list(data.tensors)
    operator.check(tensors[0], operator.of_shape, "y")
    of_y, of_x = observed_through(model, operator), restoring(model, operator)
    parts = []
    with isolated(model, guide) as (bare_model, bare_guide, device):
        reads = bool(tensors[0].isnan().any()) and reads_missing(bare_guide, [one.to(device) for one in tensors])
        if not reads:
            drawing = restoring(bare_model, operator)
            with explain_out_of_memory("data to be guessed for the guide: give fewer of them at once"):
                for index, rows in enumerate(blocks_of(len(data), AT_ONCE)):
                    seed_everything("restored, guessed", seed, index)
                    here = [one[rows].to(device) for one in tensors]
                    parts.append(guessed(drawing, bare_guide, here, mean_restored).cpu())
    if reads:
        return Hidden(of_y, guide, data, of_x, torch.ones(0).bool(), False)
    pair = beside_filled(of_y, guide)
    whole, _ = beside_filled(of_x, guide)
    return Hidden(*pair, data.replaced([*tensors, torch.cat(parts)]), whole, torch.ones(0).bool(), True)


def mean_restored(sites: Any) -> Tensor:
    """The mean of x given y and z, in a run of the model that restores it; what was drawn where there is no mean."""
    site = next(site for site in sites.values() if MOMENTS in (site["infer"] or {}))
    mean = site["infer"][MOMENTS][0]
    return torch.where(mean.isfinite(), mean, site["value"])
