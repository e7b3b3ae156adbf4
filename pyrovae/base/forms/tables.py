"""Tables of numbers as a reader sees them: aligned text, or HTML without any script."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


def text(value: float | str | None, form: str) -> str:
    """A number in a format such as ".3f", a dash for None and NaN, and what is text already as it is.

    Example:
        >>> text(2.5, ".2f"), text(None, ".2f"), text(float("nan"), ".2f"), text("highest", ".2f")
        ('2.50', '-', '-', 'highest')
    """
    if isinstance(value, str):
        return value
    return "-" if value is None or math.isnan(value) else format(value, form)


class TextTable(NamedTuple):
    """Rows of numbers under one head.

    Example:
        >>> print(TextTable([("", "<5", ""), ("mean", ">7", ".2f")], [("a", 1.0), ("b", None, "  see a")]))
                mean
        a       1.00
        b          -  see a
    """

    columns: Sequence[tuple[str, str, str]]  # head, alignment with width, and format of the numbers
    rows: Sequence[Sequence[Any] | str]  # a cell for each column and perhaps a remark; or one line of text

    def cells(self) -> Iterator[list[str]]:
        """Every row as text, the head first, not aligned."""
        forms = [form for _, _, form in self.columns]
        yield [head for head, _, _ in self.columns]
        for row in self.rows:
            yield [row] if isinstance(row, str) else list(map(text, row, [*forms, ""]))

    def __str__(self) -> str:
        pads = [pad for _, pad, _ in self.columns]
        return "\n".join(
            cells[0] if len(cells) == 1 else "".join(map(format, cells, [*pads, ""])) for cells in self.cells()
        )

    def to_html(self) -> str:
        """As an HTML table."""
        rows = ("".join(f"<td>{html.escape(cell.strip())}</td>" for cell in cells) for cells in self.cells())
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def quantities(width: int, rows: Sequence[tuple[str, Mapping[str, Any], str] | str]) -> TextTable:
    """Means with their errors, in nats: of each quantity its label, the numbers by name, and a remark."""
    columns = [("", f"<{width}", ""), ("mean", ">12", "z.3f"), ("data SE", ">10", "z.3f"), ("MC SE", ">10", "z.4f")]
    cells = [
        row if isinstance(row, str) else (row[0], row[1]["mean"], row[1]["data_se"], row[1].get("mc_se", ""), row[2])
        for row in rows
    ]
    return TextTable(columns, cells)
