"""Rows that tests of baselines share."""

from pyrovae.programs.baselines.rows import Rows


def rows_of(train, kinds=("real", "real"), **changed):
    """Rows that are trained and validated on alike, of one site."""
    places = {"x": list(range(train.shape[1]))}
    return Rows("rows", train, train, tuple(kinds), places, (0,) * train.shape[1], **changed)
