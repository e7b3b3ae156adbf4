"""The kinds of columns by name, and how the command line names them; read without torch.

To add a kind: its line here, its check in :mod:`pyrovae.data.tables.coding`, and its likelihood in
:mod:`pyrovae.programs.families.columns`.
"""

from collections.abc import Mapping, Sequence

from pyrovae.base.errors import InputError, nearest

SUFFIXES = (".csv", ".parquet")  # of files that are tables
KINDS = {
    "real": "a number",
    "positive": "a number above 0",
    "count": "a whole number from 0",
    "binary": "one of two values",
    "ordinal": "one of several levels that have an order",
    "categorical": "one of several classes",
    "proportion": "a number between 0 and 1, both excluded",
}
CODED = ("binary", "ordinal", "categorical")  # kinds whose values are places among labels
MASSES = ("count", *CODED)  # kinds whose values are whole numbers
IGNORED = "ignored"  # said of a column that is to be left out
Declared = str | Sequence[str]  # a kind; or the levels of an ordinal column, the lowest first


def parse_columns(text: str) -> dict[str, Declared]:
    """What the command line says of columns: name:kind, or name:low<middle<high for levels, set apart by commas.

    Raises:
        InputError: for a part without a name or a kind.

    Example:
        >>> parse_columns("quality:ordinal,size:small<large")
        {'quality': 'ordinal', 'size': ['small', 'large']}
    """
    declared: dict[str, Declared] = {}
    for part in text.split(","):
        name, colon, kind = part.strip().rpartition(":")
        if not (colon and name and kind):
            raise InputError(f"columns: expected name:kind, set apart by commas, got '{part}'; e.g. quality:ordinal")
        declared[name] = kind.split("<") if "<" in kind else kind
    return declared


def check_kinds(declared: Mapping[str, Declared]) -> None:
    """Raises InputError for a kind that is none, offering the nearest."""
    for name, kind in declared.items():
        if not isinstance(kind, (str, Sequence)):
            raise InputError(f'column "{name}": expected a kind or a list of levels, got {kind!r}')
        if isinstance(kind, str) and kind not in (*KINDS, IGNORED):
            hint = nearest(kind, (*KINDS, IGNORED))
            raise InputError(f"column \"{name}\": unknown kind '{kind}';{hint} there are {', '.join(KINDS)}, {IGNORED}")
