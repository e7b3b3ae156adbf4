r"""Every value that the discrete latents of one datum can have together.

.. math:: d \in D_1 \times \cdots \times D_L, \qquad M = \prod_l |D_l|
"""

import math
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.latents import Latents, Values

MOST_VALUES = 1000  # of all discrete sites of a datum together


def every_value(latents: Latents) -> Values:
    """All M values of the discrete sites of a datum together: site -> (M, 1, *plates inside a datum, *event)."""
    found = {name: site for name, site in latents.every_site.items() if site.is_discrete}
    supports, shapes, places = {}, {}, list[int]()
    for name in found:
        message = latents.particles.example.latent[name]
        supports[name], value = _support(name, message), latents.lifted_one(name, message["value"])
        shapes[name] = value.shape[2 : value.dim() - len(message["fn"].event_shape)]
        places += [len(supports[name])] * shapes[name].numel()
    if math.prod(places) > MOST_VALUES:
        raise InputError(
            f"the discrete latents of a datum ({', '.join(found)}) have {math.prod(places):,} values together, more "
            f"than the {MOST_VALUES:,} that are summed out"
        )
    chosen = torch.cartesian_prod(*(torch.arange(size) for size in places)).reshape(-1, len(places))
    values, start = {}, 0
    for name, support in supports.items():
        shape = shapes[name]
        index = chosen[:, start : start + shape.numel()].to(support.device)
        values[name] = support[index].reshape(len(chosen), 1, *shape, *support.shape[1:])
        start += shape.numel()
    return values


def _support(name: str, message: Any) -> Tensor:
    """The values of one discrete draw: (C, *event)."""
    fn = message["fn"]
    try:
        support = fn.enumerate_support(expand=False)
    except NotImplementedError as error:
        raise InputError(f"site '{name}' ({type(fn).__name__}) has no finite number of values to sum out") from error
    return support.reshape(len(support), *fn.event_shape)
