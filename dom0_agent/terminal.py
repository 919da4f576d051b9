"""Plain tables for ``virmoctl`` and ``virmo-agent``; no colours where nobody looks, no library for so little."""

from __future__ import annotations

import sys
from collections.abc import Sequence

STYLES = {"ok": "32", "warn": "33", "fail": "31", "bold": "1"}


def styled(text: str, style: str) -> str:
    """``text`` in a style of :data:`STYLES`, when standard output is a terminal."""
    return f"\033[{STYLES[style]}m{text}\033[0m" if sys.stdout.isatty() else text


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Left-aligned columns, as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    head = "  ".join(name.ljust(width) for name, width in zip(header, widths, strict=True)).rstrip()
    return "\n".join([styled(head, "bold"), *lines])


def size(amount: int) -> str:
    """Bytes for people: ``134 MiB``."""
    value = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError  # the loop always returns at its last unit
