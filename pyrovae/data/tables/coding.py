"""Values of columns as numbers: labels become places among them, and what a kind does not allow is refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pyrovae.base.errors import InputError, nearest
from pyrovae.data.memmap import Array
from pyrovae.data.tables.kinds import Columns, Kind, is_number
from pyrovae.data.tables.names import CODED, KINDS
from pyrovae.data.tables.reading import Raw, Table, label_of

_ALLOWED: dict[str, Callable[[Array], Array]] = {
    "real": lambda x: np.isfinite(x),
    "positive": lambda x: np.isfinite(x) & (x > 0),
    "count": lambda x: np.isfinite(x) & (x >= 0) & (x == np.floor(x)),
    "proportion": lambda x: (x > 0) & (x < 1),
}


def with_labels(table: Table, raw: Raw, kind: Kind) -> Kind:
    """The kind with the labels that its column shows, sorted, numbers as numbers; and how many cells are empty.

    Raises:
        InputError: for a column of one value or of none; a binary one of more than two; an ordinal one of text whose
            order is not known, or with a level that never occurs.
    """
    distinct = sorted(set(raw.cells[~raw.missing].tolist()), key=_by_number)
    if len(distinct) < 2:
        holds = f"holds {label_of(distinct[0])} alone" if distinct else "has no values"
        raise InputError(f'{table.name}: column "{raw.name}" is constant: it {holds}; leave it out (kind ignored)')
    kind = replace(kind, num_missing=int(raw.missing.sum()))
    if kind.kind not in CODED:
        return kind
    if kind.kind == "binary" and len(distinct) > 2:
        raise InputError(
            f'{table.name}: column "{raw.name}" was declared binary, but holds {len(distinct)} values '
            f"({_some(distinct)}); declare it ordinal or categorical"
        )
    if kind.kind == "ordinal":
        return _ordered(table, raw, kind, distinct)
    return replace(kind, labels=tuple(map(label_of, distinct)))


def _ordered(table: Table, raw: Raw, kind: Kind, distinct: list) -> Kind:
    """An ordinal column with its levels in their order, each of which occurs."""
    if raw.is_text and not kind.labels:
        raise InputError(
            f'{table.name}: column "{raw.name}" of text was declared ordinal, and the order of its levels is not known '
            f'({_some(distinct)}); name them, the lowest first: columns={{"{raw.name}": [...]}}, or '
            f"--columns {raw.name}:low<middle<high"
        )
    labels = kind.labels
    if not labels and all(float(value).is_integer() for value in distinct) and distinct[-1] - distinct[0] < 1000:
        labels = tuple(map(label_of, np.arange(distinct[0], distinct[-1] + 1)))
    labels = labels or tuple(map(label_of, distinct))
    unused = [label for label in labels if label not in set(map(label_of, distinct))]
    if unused:
        raise InputError(
            f'{table.name}: ordinal column "{raw.name}" has a gap: level {", ".join(unused)} never occurs, so that '
            "nothing is known of its cut points; merge levels, or name those that occur, the lowest first"
        )
    return replace(kind, labels=labels)


def coded(table: Table, raw: Raw, kind: Kind) -> Array:
    """The values of a column before any scaling: (N,) float64, NaN where missing; labels as their places.

    Raises:
        InputError: naming column and rows, for text where numbers were declared, for values that the kind does not
            allow, and for labels that are none of the kind's.
    """
    if kind.labels:
        return _places(table, raw, kind)
    if raw.is_text:
        bad = np.array([cell is not None and not is_number(cell) for cell in raw.cells])
        raise InputError(
            f'{table.name}: column "{raw.name}" was declared {kind.kind}, but is text: "{raw.cells[bad][0]}" in '
            f"{table.place(bad)}; declare it categorical, or correct it"
        )
    bad = ~(_ALLOWED[kind.kind](raw.cells) | raw.missing)
    if bad.any():
        raise InputError(
            f'{table.name}: column "{raw.name}" is {kind.kind}, {KINDS[kind.kind]}, but holds '
            f"{raw.cells[bad][0]:g} in {table.place(bad)}; declare it otherwise, or correct it"
        )
    return raw.cells


def as_found(columns: Columns, values: Array) -> Array:
    """Values (n, D) with labels as their places -> with labels that are numbers as these numbers, text as it sorts.

    A column then has the same source rows whatever its kind, so that likelihoods of its kinds can be compared.
    """
    found = values.copy()
    for place, one in enumerate(columns):
        if one.labels:
            numeric = all(map(is_number, one.labels))
            order = [float(label) if numeric else float(sorted(one.labels).index(label)) for label in one.labels]
            seen = ~np.isnan(values[:, place])
            found[seen, place] = np.array(order)[values[seen, place].astype(int)]
    return found


def _places(table: Table, raw: Raw, kind: Kind) -> Array:
    place = {label: float(number) for number, label in enumerate(kind.labels)}
    texts = [None if gone else label_of(cell) for cell, gone in zip(raw.cells, raw.missing, strict=True)]
    bad = np.array([text is not None and text not in place for text in texts])
    if bad.any():
        unknown = texts[bad.nonzero()[0][0]]
        hint = nearest(unknown, kind.labels) or f" there are {', '.join(kind.labels)}"
        where = f'of the {kind.kind} column "{raw.name}" in {table.place(bad)}'
        raise InputError(f'{table.name}: unknown label "{unknown}" {where};{hint}')
    return np.array([np.nan if text is None else place[text] for text in texts])


def _by_number(cell: object) -> tuple[bool, float, str]:
    """What labels are sorted by: numbers first, as numbers, then text."""
    text = str(cell)
    return (False, float(text), text) if is_number(text) else (True, 0.0, text)


def _some(values: list) -> str:
    return ", ".join(map(label_of, values[:5])) + (", ..." if len(values) > 5 else "")
