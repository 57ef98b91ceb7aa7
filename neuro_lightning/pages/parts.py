"""What a page is made of: sections with text, tables and pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted.

    Attributes:
        columns: their names.
        rows: cells: numbers, text, or None for nothing.
        digits: of numbers that are not whole.
        strong: a row that holds one of these is bold.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    digits: int = 4
    strong: frozenset[str] = frozenset()

    def shown(self, cell: Any) -> str:
        """A cell as text."""
        if cell is None or (isinstance(cell, float) and cell != cell):
            return "-"
        if isinstance(cell, float):
            return f"{cell:.{self.digits}f}" if abs(cell) < 1e5 else f"{cell:.3g}"
        return str(cell)

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers, which are aligned to the right."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(isinstance(cell, int | float) for cell in cells)


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        source: the picture itself, as the address that HTML takes.
        title: what it shows.
    """

    source: str
    title: str

    @classmethod
    def of_file(cls, path: Path, title: str) -> Picture:
        """The picture of a PNG file."""
        return cls(f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", title)


@dataclass
class Section:
    """A part of a page, with a heading.

    Attributes:
        title: the heading.
        name: for links to it.
        lines: paragraphs of text.
        tables: tables.
        pictures: pictures.
        code: blocks of code with what each is.
        spaces: drawings that turn, each a Plotly figure as JSON with what it shows.
    """

    title: str
    name: str
    lines: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    code: list[tuple[str, str]] = field(default_factory=list)
    spaces: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lines or self.tables or self.pictures or self.code or self.spaces)


@dataclass
class Page:
    """A page.

    Attributes:
        title: its heading.
        facts: name and value of what stands below the heading.
        sections: in their order; empty ones are left out.
        warning: a line that stands out, such as that the data are simulated.
    """

    title: str
    facts: list[tuple[str, str]]
    sections: list[Section]
    warning: str = ""
