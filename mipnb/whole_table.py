"""A table that is shown whole: long words are wrapped, not cut off."""

from __future__ import annotations

import textwrap

import pandas as pd

_WIDTH = 64  # letters of a cell's line, as plain text


class WholeTable(pd.DataFrame):
    """A data frame whose display leaves out no row, no column and no letter; what is taken from it is one, too."""

    @property
    def _constructor(self) -> type[WholeTable]:
        return WholeTable

    def _repr_html_(self) -> str:
        """As a notebook shows it; the page wraps long cells by itself."""
        with pd.option_context(
            "display.max_colwidth", None, "display.max_rows", None, "display.max_columns", None
        ):
            return super()._repr_html_()

    def __repr__(self) -> str:
        """As plain text: a long cell goes on in the lines below its row."""
        columns = [self.index.astype(str), *(column.astype(str) for _, column in self.items())]
        rows = [[textwrap.wrap(cell, _WIDTH) or [""] for cell in row] for row in zip(*columns, strict=True)]
        lines = [
            [cell[line] if line < len(cell) else "" for cell in row]
            for row in rows
            for line in range(max(map(len, row)))
        ]
        head = [str(self.index.name or ""), *map(str, self.columns)]
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        padded = (
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in [head, *lines]
        )
        return "\n".join(line.rstrip() for line in padded)
