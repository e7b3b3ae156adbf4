"""Before a first step the pair is run once over all data: what cannot be fitted is refused by row and site."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.base.memory import blocks_of, memory_advice, out_of_memory
from pyrovae.data.split import Split
from pyrovae.inference.pairs import Program, evaluation_mode
from pyrovae.inference.structure import Structure, inspect_pair


def look_at_data(
    model: Program,
    guide: Program,
    modules: Sequence[nn.Module],
    splits: Mapping[str, Split],
    *,
    batch_size: int,
    plate: str | None,
) -> Structure:
    """Runs the pair once over all data: every ``pyro.param`` exists afterwards, and every value is in support.

    Returns:
        The structure that the last batch showed.

    Raises:
        InputError: naming the site or the row.
    """
    structure, size = None, max(batch_size, 500)
    with torch.no_grad(), memory_advice(f"{size} data at once, even without gradients"), evaluation_mode(modules):
        for name, split in splits.items():
            for rows in blocks_of(len(split), size):
                structure = _inspect(model, guide, split.batch(rows), plate, split=name, start=rows.start)
    assert structure is not None
    return structure


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
