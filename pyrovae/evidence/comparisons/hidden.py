"""A pair for data of which some entries are hidden: the model counts what is observed, the guide reads what it can."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import blocks_of, explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.data.missing.masks import as_mask, hide
from pyrovae.data.split import Split
from pyrovae.evidence.ladder.rungs import MOST_COORDINATES, SEARCHED
from pyrovae.evidence.plan import Plan
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.missing.completing import beside_filled, filled, of_many_guesses, reader, reads_missing
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
    starts: Values | None = None  # latents by many guesses of whole data, site -> (S, N, ...), where modes are sought


def hidden(model: Program, guide: Program, data: Split, observed: Any, plan: Plan, *, search: bool = True) -> Hidden:
    """Hides entries of the first tensor of the data.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x); one that does not read NaN is given data completed by a guess.
        data: whose first tensor may have missing entries already.
        observed: booleans, (N, *shape) or (*shape), True for what stays; None hides nothing more.
        plan: of the evidence of what is observed.
        search: whether latents are asked for from which modes can be sought, which costs some 17,000 decoder passes.

    Raises:
        InputError: for a mask that does not fit.
    """
    data = data.drawn(plan.seed)
    x, *others = data.tensors
    mask = ~x.isnan() & (True if observed is None else as_mask(observed, x.shape).to(x.device))
    tensors = [x if bool(mask.all()) else hide(x, mask), *others]
    of_observed = observed_entries(model)
    if bool(mask.all()):
        return Hidden(of_observed, guide, data.replaced(tensors), model, mask, False)
    found, starts = _guessed(model, guide, tensors, plan, search=search and plan.method != "importance")
    if found is None:
        return Hidden(of_observed, guide, data.replaced(tensors), model, mask, False, starts)
    pair, (whole, _) = beside_filled(of_observed, guide), beside_filled(model, guide)
    return Hidden(*pair, data.replaced([*tensors, found]), whole, mask, True, starts)


def models_missingness(model: Program, data: Split) -> bool:
    """Whether a model observes which entries are missing, so that to hide one is another datum."""
    with isolated(model, model) as (model, _, device):
        seed_everything("hidden", 0)
        sites = sites_of(model, *data.to(device).batch(slice(0, 1)), role="model")
    return any(COMPLETE in (site["infer"] or {}) for site in sites.values())


def check_data_alone(model: Program, data: Split) -> None:
    """Raises InputError if the model is one of what is missing too, so that what is hidden would count as missing."""
    if models_missingness(model, data):
        raise InputError(
            "the model says too which entries are missing (with_missingness): to hide one is another datum to it, and "
            "the difference no density of the entry; ask the pair without the mechanism"
        )


def _guessed(
    model: Program, guide: Program, tensors: list[Tensor], plan: Plan, *, search: bool
) -> tuple[Tensor | None, Values | None]:
    """The first tensor, completed for a guide that does not read what is missing, None where it does; and latents by
    many other guesses.
    """
    with isolated(model, guide) as (model, guide, device):
        missing = tensors[0].flatten(1).isnan().any(1)
        some = missing.nonzero().flatten()
        seed_everything("hidden", plan.seed)
        reads = reads_missing(guide, [tensor[some].to(device) for tensor in tensors])
        parts, starts = list[Tensor](), list[Values | None]()
        with explain_out_of_memory("data to be completed for the guide: give fewer of them at once"):
            for index, rows in enumerate(blocks_of(len(missing), AT_ONCE)):
                here = [tensor[rows].to(device) for tensor in tensors]
                seed_everything("hidden, filled", plan.seed, index)
                if not reads:
                    parts.append(filled(model, guide, here).cpu())
                seed_everything("hidden, starts", plan.seed, index)
                starts.append(_starts(model, guide, here, plan) if search else None)
    return None if reads else torch.cat(parts), joined_starts(starts)


def _starts(model: Program, guide: Program, args: list[Tensor], plan: Plan) -> Values | None:
    """Latents by many guesses of whole data, site -> (S, n, ...) on the CPU, where these can be of use."""
    drawing, read = reader(model, args)
    whole = read(sites_of(drawing, *args, role="model"))
    latents = Latents(*beside_filled(observed_entries(model), guide), [*args, whole], plate=plan.plate)
    return of_many_guesses(latents, drawing, guide, args, read) if seeks_from_starts(latents) else None


def seeks_from_starts(latents: Latents) -> bool:
    """Whether modes are sought from starts: where there are too many coordinates for a search from the prior, and not
    too many for curvature.
    """
    return not latents.structure.has_discrete and SEARCHED < latents.num_dims <= MOST_COORDINATES


def joined_starts(blocks: Sequence[Values | None]) -> Values | None:
    """Starts of all blocks of data, site -> (S, N, ...)."""
    known = [one for one in blocks if one is not None]
    return {name: torch.cat([one[name] for one in known], 1) for name in known[0]} if known else None
