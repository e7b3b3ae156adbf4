"""A pair for data of which some entries are hidden: the model counts what is observed, the guide reads what it can."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.memory import blocks_of, explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.data.missing.masks import as_mask, hide
from pyrovae.data.split import Split
from pyrovae.pairs.context import isolated
from pyrovae.pairs.missing.completing import beside_filled, filled, reads_missing
from pyrovae.pairs.missing.observed import COMPLETE, observed_entries
from pyrovae.pairs.traces import Program, sites_of

AT_ONCE = 200  # rows that are completed for a guide


class Hidden(NamedTuple):
    """Data of which some entries are hidden, and the programs for what is observed."""

    model: Program
    guide: Program
    split: Split
    whole: Program  # the model as it is for complete data
    observed: Tensor  # (N, *shape), which entries of the first tensor are
    is_filled: bool  # whether the guide reads the data completed, for it does not read NaN


def hidden(model: Program, guide: Program, data: Split, observed: Any, seed: int) -> Hidden:
    """Hides entries of the first tensor of the data.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x); one that does not read NaN is given data completed by a guess.
        data: whose first tensor may have missing entries already.
        observed: booleans, (N, *shape) or (*shape), True for what stays; None hides nothing more.
        seed: of what completes data for a guide.

    Raises:
        InputError: for a mask that does not fit.
    """
    data = data.drawn(seed)
    x, *others = data.tensors
    mask = ~x.isnan() & (True if observed is None else as_mask(observed, x.shape).to(x.device))
    tensors = [x if bool(mask.all()) else hide(x, mask), *others]
    of_observed, is_filled = observed_entries(model), False
    whole, reading = model, guide
    if not bool(mask.all()):
        found = _read_by(model, guide, tensors, seed)
        if is_filled := found is not None:
            tensors.append(found)
            of_observed, reading = beside_filled(of_observed, guide)
            whole, _ = beside_filled(model, guide)
    return Hidden(of_observed, reading, data.replaced(tensors), whole, mask, is_filled)


def models_missingness(model: Program, data: Split) -> bool:
    """Whether a model observes which entries are missing, so that to hide one is another datum."""
    with isolated(model, model) as (model, _, device):
        seed_everything("hidden", 0)
        sites = sites_of(model, *data.to(device).batch(slice(0, 1)), role="model")
    return any(COMPLETE in (site["infer"] or {}) for site in sites.values())


def _read_by(model: Program, guide: Program, tensors: list[Tensor], seed: int) -> Tensor | None:
    """The first tensor, completed for a guide that does not read what is missing; None where it does."""
    with isolated(model, guide) as (model, guide, device):
        missing = tensors[0].flatten(1).isnan().any(1)
        some = missing.nonzero().flatten()
        seed_everything("hidden", seed)
        if reads_missing(guide, [tensor[some].to(device) for tensor in tensors]):
            return None
        parts = []
        with explain_out_of_memory("data to be completed for the guide: give fewer of them at once"):
            for index, rows in enumerate(blocks_of(len(missing), AT_ONCE)):
                seed_everything("hidden, filled", seed, index)
                parts.append(filled(model, guide, [tensor[rows].to(device) for tensor in tensors]).cpu())
        return torch.cat(parts)
