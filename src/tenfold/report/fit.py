"""Tables as wide as the terminal: no figure is ever cut or broken; columns that do not fit go into
a further table, with the first column again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

BREAKABLE = 18  # letters of a word without digits at its head that stay together at least
BETWEEN = 3  # between two columns
EDGES = 2


@dataclass(slots=True)
class Fitted:
    """A table by rows. ``right`` are the columns set right; ``keep`` those never broken."""

    columns: list[str]
    right: Sequence[str] = ()
    keep: Sequence[str] = ("chip", "dtype", "name")
    title: str = ""
    rows: list[tuple[Text, ...]] = field(default_factory=list)
    sections: set[int] = field(default_factory=set)

    def add_column(self, name: str, *, right: bool = False) -> None:
        self.columns.append(name)
        if right:
            self.right = (*self.right, name)

    def add_row(self, *cells: str | Text) -> None:
        self.rows.append(tuple(Text(c) if isinstance(c, str) else c for c in cells))

    def add_section(self) -> None:
        """A line under the last row."""
        self.sections.add(len(self.rows) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        for part, chosen in enumerate(self._parts(options.max_width)):
            widths = self._widths(chosen, options.max_width)
            yield self._table(chosen, widths, self.title if part == 0 else "")

    def _parts(self, width: int) -> list[list[int]]:
        """The columns of each table, the first in all of them."""
        needed = [self._least(i) for i in range(len(self.columns))]
        parts: list[list[int]] = [[0]]
        for i in range(1, len(self.columns)):
            used = sum(needed[j] + BETWEEN for j in parts[-1])
            if len(parts[-1]) > 1 and used + needed[i] + EDGES > width:
                parts.append([0])
            parts[-1].append(i)
        return parts

    def _least(self, column: int) -> int:
        """The width below which a figure would be broken."""
        cells = (row[column].plain for row in self.rows if column < len(row))
        whole = self.columns[column] in self.keep
        texts = list(cells)
        words = (w for t in texts for w in ([t] if whole else t.split()))
        lengths = [len(w) if whole or _figure(w) else min(len(w), BREAKABLE) for w in words]
        return max([*lengths, *(len(w) for w in self.columns[column].split())], default=1)

    def _widths(self, chosen: Sequence[int], width: int) -> list[int]:
        """What each column gets: what it needs at least, and of the rest as much as it can use, the
        narrowest wish first.
        """
        least = [self._least(i) for i in chosen]
        wishes = [max(self._natural(i) - n, 0) for i, n in zip(chosen, least, strict=True)]
        left = max(0, width - EDGES - sum(least) - BETWEEN * (len(chosen) - 1))
        given = [0] * len(chosen)
        for rank, i in enumerate(sorted(range(len(chosen)), key=lambda i: wishes[i])):
            given[i] = min(wishes[i], left // (len(chosen) - rank))
            left -= given[i]
        return [n + g for n, g in zip(least, given, strict=True)]

    def _natural(self, column: int) -> int:
        """The width in which no cell takes two lines."""
        cells = (row[column].plain for row in self.rows if column < len(row))
        lines = (line for cell in cells for line in cell.split("\n"))
        return max([len(self.columns[column]), *map(len, lines)])

    def _table(self, chosen: Sequence[int], widths: Sequence[int], title: str) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left"
        )
        for i, width in zip(chosen, widths, strict=True):
            name = self.columns[i]
            table.add_column(
                name,
                justify="right" if name in self.right else "left",
                no_wrap=name in self.keep,
                overflow="fold",
                width=width,
            )
        for number, row in enumerate(self.rows):
            cells = (row[i] if i < len(row) else Text() for i in chosen)
            table.add_row(*cells, end_section=number in self.sections)
        return table


def _figure(word: str) -> bool:
    """Whether a word is a number, an interval or an amount."""
    return word.lstrip("(+-$~<").lstrip("=")[:1].isdigit()
