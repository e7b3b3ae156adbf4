r"""Columns in a unit of their own: real ones as standard scores, positive ones about 1, each with its Jacobian.

.. math:: x_d = (s_d - m_d) / c_d, \qquad \log p(s) = \log p(x) - \sum_d \log c_d

Mean and standard deviation, and the geometric mean of what is positive, are those of observed training values alone.
"""

from dataclasses import replace

import numpy as np

from pyrovae.base.errors import InputError
from pyrovae.data.memmap import Array
from pyrovae.data.tables.kinds import Columns, Kind


def scaled(name: str, kind: Kind, train: Array) -> Kind:
    """The kind with the shift and the scale of its column.

    Args:
        name: of the table, for errors.
        kind: of the column.
        train: (N,) its values in the training rows, NaN where missing.

    Raises:
        InputError: for a column without two different values there.
    """
    seen = train[~np.isnan(train)]
    if len(seen) == 0 or seen.min() == seen.max():
        holds = f"holds {seen[0]:g} alone" if len(seen) else "has no values"
        raise InputError(
            f'{name}: column "{kind.name}" is constant in the training rows: it {holds} there; leave it out '
            "(kind ignored), or split the rows otherwise"
        )
    if kind.kind == "real":
        return replace(kind, shift=float(seen.mean()), scale=float(seen.std()))
    if kind.kind == "positive":
        return replace(kind, scale=float(np.exp(np.log(seen).mean())))
    return kind


def served(columns: Columns, values: Array) -> Array:
    """Values (N, D) as found -> as served, float64."""
    return (values - np.array(columns.shift)) / np.array(columns.scale)
