"""Before a first step the pair is run once over all data: what cannot be fitted is refused by row and site."""

from collections.abc import Mapping, Sequence

import torch
from pyro.infer import ELBO, RenyiELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.base.memory import blocks_of, memory_advice, out_of_memory
from pyrovae.data.split import Split
from pyrovae.pairs.context import evaluation_mode
from pyrovae.pairs.structure import Structure, inspect_pair
from pyrovae.pairs.traces import Program


def check_pair(
    model: Program,
    guide: Program,
    modules: Sequence[nn.Module],
    splits: Mapping[str, Split],
    objective: ELBO,
    *,
    batch_size: int,
    plate: str | None,
) -> None:
    """Runs the pair once over all data: every ``pyro.param`` exists afterwards, and every value is in support.

    Raises:
        InputError: naming the site or the row, or what the objective cannot be used for.
    """
    structure, size = None, max(batch_size, 500)
    with torch.no_grad(), memory_advice(f"{size} data at once, even without gradients"), evaluation_mode(modules):
        for name, split in splits.items():
            for rows in blocks_of(len(split), size):
                structure = _inspect(model, guide, split.batch(rows), plate, split=name, start=rows.start)
    assert structure is not None
    check_objective(objective, structure)


def _inspect(
    model: Program, guide: Program, batch: tuple[Tensor, ...], plate: str | None, *, split: str, start: int
) -> Structure:
    try:
        return inspect_pair(model, guide, batch, plate=plate)
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        missing = ~batch[0].isfinite().flatten(1).all(1) if batch[0].dim() > 1 else ~batch[0].isfinite()
        if not missing.any():
            raise InputError(f"the programs do not run on the data: {str(error).splitlines()[0]}") from error
        raise InputError(
            f"{int(missing.sum())} rows hold values that are missing or infinite, the first is row "
            f"{start + int(missing.nonzero()[0])} of the {split}: impute them, or mask them in programs of your own"
        ) from error


def check_objective(objective: ELBO, structure: Structure) -> None:
    """Refuses an objective whose gradient would be wrong for this pair, without a word from Pyro.

    Raises:
        InputError: naming the site, for an importance-weighted bound over draws that carry no gradients, and for
            the closed-form KL over latents that the guide draws in another order than the model.
    """
    stuck = [name for name, reparameterized in structure.drawn.items() if not reparameterized]
    if isinstance(objective, RenyiELBO) and objective.alpha == 0 and stuck:
        raise InputError(
            f"site '{stuck[0]}' of the guide cannot be reparameterized: RenyiELBO(alpha=0) would give its parameters "
            "a gradient of zero. Use Trace_ELBO, or a guide family that can (a continuous one)"
        )
    shared = [name for name in structure.drawn if name in structure.latents]
    if isinstance(objective, TraceMeanField_ELBO) and shared != list(structure.latents):
        raise InputError(
            f"TraceMeanField_ELBO needs the guide to draw its latents in the model's order, {list(structure.latents)}, "
            f"but it draws {shared}: the closed-form KL would be wrong. Use Trace_ELBO"
        )
