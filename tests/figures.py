"""Tables of what was measured, in Markdown, written by the run that measured it: they cannot tell anything else.

A file has sections; a run writes those that it measured anew, and leaves the others as their runs wrote them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: The file of what was measured of resources, and what it begins with.
RESOURCES = Path(__file__).parent / "RESOURCES.md"
TITLE = """# Resources as measured

Each section is written by the run that measured it, and says when. Where Xen is nested in an emulated board, times are
that board's.
"""


@dataclass
class Table:
    """One section: ``rows`` are added while it is measured."""

    heading: str
    about: str
    columns: tuple[str, ...]
    rows: list[Sequence[object]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """A row, one cell for each column."""
        assert len(cells) == len(self.columns), (cells, self.columns)
        self.rows.append(cells)

    def markdown(self, when: str) -> str:
        """The section."""
        lines = [f"## {self.heading}", "", f"{self.about} {when}", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "| " + " | ".join("---" for _ in self.columns) + " |"]
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def write(path: Path, tables: Sequence[Table]) -> None:
    """Put the tables that have rows into a file; sections of other tables stay."""
    when = f"Measured {time.strftime('%Y-%m-%d')} on a machine with {os.cpu_count()} CPUs."
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    sections = {found.splitlines()[0]: found for found in re.findall(r"^## .*?(?=^## |\Z)", text, re.M | re.S)}
    for table in tables:
        if table.rows:
            sections[f"## {table.heading}"] = table.markdown(when)
    body = "\n".join(section.strip() + "\n" for section in sections.values())
    path.write_text(f"{TITLE.strip()}\n\n{body}", encoding="utf-8")
