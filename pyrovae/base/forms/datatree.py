"""Groups as ArviZ takes them: named variables over chains, draws and data, in an xarray DataTree.

Group and dimension names are those of ArviZ's schema: posterior (chain, draw, datum, ...), log_likelihood (chain, draw,
datum), sample_stats, posterior_predictive, observed_data and constant_data (datum).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pyrovae.base.errors import InputError


class Variable(NamedTuple):
    """Values with the name of each dimension."""

    values: Tensor | Sequence[Any]
    dims: tuple[str, ...]


Groups = dict[str, dict[str, Variable]]


def draws(values: Mapping[str, Tensor], *lead: str) -> dict[str, Variable]:
    """Variables drawn once for each chain and draw, (C, S, ...) each.

    Args:
        values: name -> tensor.
        lead: what its dimensions behind chain and draw are called; those behind these are named after the variable,
            but for the one of a single vector, which is "latent".

    Example:
        >>> import torch
        >>> {name: one.dims for name, one in draws({"z": torch.zeros(1, 9, 4, 2)}, "datum").items()}
        {'z': ('chain', 'draw', 'datum', 'latent')}
        >>> {name: one.dims for name, one in draws({"mu": torch.zeros(1, 9), "tau": torch.zeros(1, 9, 3)}).items()}
        {'mu': ('chain', 'draw'), 'tau': ('chain', 'draw', 'tau_dim_0')}
    """
    lead = ("chain", "draw", *lead)
    vector = len(values) == 1 and next(iter(values.values())).dim() == len(lead) + 1
    return {name: Variable(value, (*lead, *_rest(name, value, lead, vector))) for name, value in values.items()}


def one_chain(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draws (S, ...) as those of a single chain, (1, S, ...)."""
    return {name: value[None] for name, value in values.items()}


def data(values: Mapping[str, Tensor], *lead: str) -> dict[str, Variable]:
    """Variables without draws, whose dimensions behind those that are named are named after the variable."""
    return {name: Variable(value, (*lead, *_rest(name, value, lead, False))) for name, value in values.items()}


def _rest(name: str, value: Tensor, lead: Sequence[str], vector: bool) -> list[str]:
    return ["latent"] if vector else [f"{name}_dim_{place}" for place in range(value.dim() - len(lead))]


def tree(groups: Groups, attrs: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> Any:
    """The DataTree of groups.

    Args:
        groups: name -> variables.
        attrs: of the whole.
        names: dimension -> what its places are called; others are numbered from 0.

    Raises:
        InputError: where ArviZ is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise InputError('to_datatree() needs ArviZ: pip install "pyrovae[arviz]"') from error
    datasets = {}
    for group, variables in groups.items():
        arrays = {name: (one.dims, _array(one.values)) for name, one in variables.items()}
        sizes = {dim: size for dims, array in arrays.values() for dim, size in zip(dims, array.shape, strict=True)}
        coords = {dim: np.array(names[dim]) if dim in names else np.arange(size) for dim, size in sizes.items()}
        datasets[f"/{group}"] = xarray.Dataset(arrays, coords)
    found = xarray.DataTree.from_dict(datasets)
    found.attrs.update({name: value for name, value in attrs.items() if value is not None})
    return found


def _array(values: Tensor | Sequence[Any]) -> Any:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.array(values)
