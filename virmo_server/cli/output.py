"""How results look: tables on a terminal and in files, JSON for programs. Knows nothing of what is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

#: Width of tables that do not go to a terminal: nothing may be cut off there.
FILE_WIDTH = 200
STATE_COLOURS = {
    "done": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "yellow",
    "accepted": "cyan",
    "sent": "cyan",
    "queued": "blue",
}


class Output:
    """Writes results to standard output, as JSON when ``as_json``."""

    def __init__(self, *, as_json: bool, console: Console | None = None) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() else FILE_WIDTH
        self._console = console or Console(width=width, highlight=False, soft_wrap=False)

    @property
    def is_terminal(self) -> bool:
        """Whether a person watches."""
        return self._console.is_terminal

    @property
    def console(self) -> Console:
        """For progress bars."""
        return self._console

    def json(self, value: Any) -> None:
        """One JSON document."""
        print(json.dumps(value, indent=2, ensure_ascii=False))

    def line(self, text: str) -> None:
        """A sentence for people; nothing in JSON mode."""
        if not self.as_json:
            self._console.print(escape(text))

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
        """Rows of plain text; ``empty`` is said when there are none."""
        if not rows:
            self._console.print(escape(empty))
            return
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(coloured(cell) for cell in row))
        self._console.print(table)

    def facts(self, values: Mapping[str, str]) -> None:
        """Names and values, one a line."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in values.items():
            table.add_row(escape(name), coloured(value))
        self._console.print(table)


def coloured(text: str) -> str:
    """Order states get their colour; everything else is shown literally, also ``[brackets]``."""
    colour = STATE_COLOURS.get(text)
    return f"[{colour}]{text}[/{colour}]" if colour else escape(text)


def ago(text: str | None, now: datetime | None = None) -> str:
    """An ISO time as ``5 s ago``; ``never`` for ``None``."""
    if text is None:
        return "never"
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(text)).total_seconds())
    if seconds < 0:
        return f"in {_span(-seconds)}"
    return "now" if seconds == 0 else f"{_span(seconds)} ago"


def _span(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def size(number: int) -> str:
    """Bytes for people."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
