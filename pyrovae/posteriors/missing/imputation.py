r"""impute(): data with their missing entries filled in, once by means or several times by draws, in their own type.

.. math:: x_m = E[x_m \mid x_o] \qquad \text{or} \qquad x_m^{(1)}, \ldots, x_m^{(M)} \sim p(x_m \mid x_o)

Means have the least squared error, and too little spread: what is estimated from completed data is estimated from
draws, and pooled by :func:`~pyrovae.pool`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.data.split import Dataset, Split, as_split
from pyrovae.data.tables.assembly import load_like
from pyrovae.data.tables.coding import label_of
from pyrovae.data.tables.kinds import Columns, Kind
from pyrovae.data.tables.reading import is_frame, read_table
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.missing.conditional import conditional

KINDS = ("mean", "draws")
FOR_MEANS = 1000  # draws of latents that a mean is taken over


@checked
def impute(
    model: Program,
    guide: Program,
    data: Any,
    *,
    kind: str = "mean",
    num_imputations: int = 20,
    num_particles: int = 1000,
    method: str = "auto",
    like: Dataset | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    plate: str | None = None,
    progress: bool = True,
) -> Any:
    """Fills in the missing entries (NaN) of data.

    Args:
        model: program of p(x, z), with one plate over the data, for complete data.
        guide: program of q(z|x); where it does not read missing entries, it is given a guess of them.
        data: a tensor or an array (N, ...), a tuple of these, of which the first is completed, a
            :class:`~pyrovae.data.Split`, or a frame of pandas or polars.
        kind: "mean" gives each entry its mean given what was observed (a probability, for a binary one), and classes
            that which is most probable; "draws" gives several completed data sets, whose spread is that of what is
            not known.
        num_imputations: M, of "draws".
        num_particles: K, that draws are resampled from.
        method: as in :func:`~pyrovae.conditional`.
        like: for a frame, the data set whose columns and scales it shares, as ``pv.data.load`` gave it.
        seed: of all draws.
        batch_size: data in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The data, completed, in the type that they came in; of "draws" a list of M. In a frame labels are labels, counts
        are whole, and all are in the unit of the source. What was observed stays as it was.

    Raises:
        InputError: for another kind, a frame without ``like``, data without missing entries of real numbers; and as
            :func:`~pyrovae.conditional`.

    Warns:
        UntrustedPosterior: if nothing vouches for the draws of more than 5 % of the data with missing entries.

    References:
        Rubin (1987), Multiple Imputation for Nonresponse in Surveys, Wiley.
        Mattei and Frellsen (2019), MIWAE, arXiv:1812.02633.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.missing_entries(4, 1)
        >>> x, _ = oracle.draw(6, seed=0)
        >>> whole = impute(oracle.complete.model, oracle.guide, x)
        >>> bool(whole.isfinite().all()), torch.equal(whole[~x.isnan()], x[~x.isnan()])
        (True, True)
    """
    if kind not in KINDS:
        raise InputError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")
    check_at_least_one(num_imputations=num_imputations)
    split, given_back = _read(data, like)
    x, *others = split.drawn(seed).tensors
    rows = x.isnan().flatten(1).any(1).nonzero().flatten()
    num_draws = num_imputations if kind == "draws" else max(FOR_MEANS, num_particles)
    filled = x[None]
    if len(rows):
        few = split.drawn(seed)[rows] if len(rows) < len(x) else split
        how: dict[str, Any] = {"batch_size": batch_size, "plate": plate, "progress": progress}
        found = conditional(
            model, guide, few, num_draws=num_draws, num_particles=num_particles, method=method, seed=seed, **how
        )
        some = found.draws if kind == "draws" else found.mean[None]
        filled = x.expand(len(some), *x.shape).index_copy(1, rows.to(x.device), some.to(x))
    elif kind == "draws":
        filled = filled.expand(num_imputations, *x.shape)
    completed = [given_back(one.clone(), others) for one in filled]
    return completed if kind == "draws" else completed[0]


def _read(data: Any, like: Dataset | None) -> tuple[Split, Callable[[Tensor, list[Tensor]], Any]]:
    """The data as a split, and what makes of a completed first tensor what they were."""
    if is_frame(data):
        if like is None or like.columns is None:
            raise InputError(
                "a frame is imputed in the columns of the data set that was fitted: give like=, what "
                "pv.data.load(frame) returned"
            )
        columns = like.columns
        return load_like(data, like), lambda x, _: completed_frame(data, columns, x)
    if like is not None:
        raise InputError("like= is for frames alone, whose columns it knows; leave it out")
    split = as_split(data)
    if isinstance(data, Split):
        return split, lambda x, others: split.replaced([x, *others])
    first = data[0] if isinstance(data, (tuple, list)) else data
    back = (lambda x: x.cpu().numpy()) if isinstance(first, np.ndarray) else (lambda x: x)
    if isinstance(data, (tuple, list)):
        return split, lambda x, _: type(data)([back(x), *data[1:]])
    return split, lambda x, _: back(x)


def completed_frame(frame: Any, columns: Columns, x: Tensor) -> Any:
    """A frame with what is missing in its columns taken from rows, in the types and units of these columns.

    Args:
        frame: of pandas or polars.
        columns: those of the rows; others in the frame stay as they are.
        x: rows (N, D), read where the frame has none.
    """
    rows, table = columns.decoded(torch.where(x.isnan(), 0.0, x)), read_table(frame)
    found = {
        kind.name: _as_series(frame[kind.name], kind, rows[kind.name], table.column(kind.name).missing)
        for kind in columns
    }
    if hasattr(frame, "with_columns"):
        return frame.with_columns([series.alias(name) for name, series in found.items()])
    return frame.assign(**found)


def _as_series(series: Any, kind: Kind, values: list[Any], missing: Any) -> Any:
    """A column with values where it had none, of the type that it has where that holds them."""
    cells = series.to_list()
    own = {label_of(cell): cell for cell, gone in zip(cells, missing, strict=True) if not gone}
    new = [_cell(kind, value, own) if gone else cell for cell, value, gone in zip(cells, values, missing, strict=True)]
    try:
        return _series_like(series, new, series.dtype)
    except (TypeError, ValueError):  # a mean among whole numbers
        return _series_like(series, new, None)


def _series_like(series: Any, cells: list[Any], dtype: Any) -> Any:
    if hasattr(series, "alias"):  # of polars
        return type(series)(series.name, cells, dtype=dtype)
    return type(series)(cells, index=series.index, dtype=dtype, name=series.name)


def _cell(kind: Kind, value: Any, own: dict[str, Any]) -> Any:
    """A value as the column has it: a label as its cells are written, a count whole."""
    if kind.labels:
        return own.get(value, value)
    return float(max(0, round(value))) if kind.kind == "count" else value
