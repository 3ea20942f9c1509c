"""Tables of numbers, printed as plain text and written as Markdown or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Value = float | str | None
"""A number, a word, or None where there is nothing to say."""

NOT_IN_MODEL = "not in this model"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Parameters
    ----------
    label
        What was measured; unique in its table.
    values
        One for each column.
    """

    label: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Parameters
    ----------
    title
        Heading.
    columns
        Name of the first column, of the labels, then of the others.
    rows
        From top to bottom.
    note
        What must be known to read it, below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def __getitem__(self, cell: tuple[str, str]) -> Value:
        """Value at (label, column)."""
        label, column = cell
        rows = {row.label: row.values for row in self.rows}
        return rows[label][self.columns.index(column) - 1]

    def plain(self) -> str:
        """Aligned text; numbers to the right."""
        lines = [self.columns, *((row.label, *map(written, row.values)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [f"{first:<{widths[0]}}  {_cells(rest, widths[1:])}".rstrip() for first, *rest in lines]
        return "\n".join([self.title, "-" * len(self.title), *text, *([self.note] if self.note else [])])

    def markdown(self) -> str:
        """The same as a Markdown table."""
        lines = [(row.label, *map(written, row.values)) for row in self.rows]
        rule = ("---", *["---:"] * (len(self.columns) - 1))
        table = "\n".join(f"| {' | '.join(line)} |" for line in (self.columns, rule, *lines))
        return f"### {self.title}\n\n{table}\n" + (f"\n{self.note}\n" if self.note else "")

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, with every digit."""
        return asdict(self)


def _cells(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def written(value: Value) -> str:
    """Three digits or so: 0.835, -1.27, 13.4, 1250."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    size = abs(value)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:.{digits}f}"
