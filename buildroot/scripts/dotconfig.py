"""Kconfig's files as data: what a defconfig or fragment asks for, and whether a ``.config`` grants it.

Kconfig drops an option whose dependencies are not met without a word: the board then boots without its shaper or its
back end. Everything here works on text; it runs no ``make`` and knows neither Buildroot nor the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

UNSET = "n"  #: how "# X is not set", "X=n" and an absent symbol all read

_ASSIGNED = re.compile(r"(?P<symbol>[A-Z][A-Za-z0-9_]*)=(?P<value>.*)")
_NOT_SET = re.compile(r"#\s*(?P<symbol>(?:CONFIG|BR2)_\w+) is not set\s*")


class DotconfigError(Exception):
    """A file cannot be read as Kconfig output. The message names file and line."""


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a defconfig or fragment."""

    symbol: str
    value: str  #: as written: y, m, n, a number, or a string with its quotes
    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A request that the ``.config`` does not grant."""

    request: Request
    found: str

    def __str__(self) -> str:
        asked, request = self.request.value, self.request
        return f"{request.file}:{request.line}: {request.symbol}: asked for {asked}, .config has {self.found}"


def parse(text: str, file: Path) -> list[Request]:
    """The requests in ``text``, in order. :class:`DotconfigError` for a line that is none and no comment."""
    requests = []
    for number, line in enumerate(text.splitlines(), 1):
        not_set = _NOT_SET.fullmatch(line)
        assigned = _ASSIGNED.fullmatch(line.rstrip())
        if not_set:
            requests.append(Request(not_set["symbol"], UNSET, file, number))
        elif assigned:
            requests.append(Request(assigned["symbol"], assigned["value"], file, number))
        elif line.strip() and not line.lstrip().startswith("#"):
            raise DotconfigError(
                f"{file}:{number}: neither SYMBOL=value, '# SYMBOL is not set' nor a comment: {line!r}"
            )
    return requests


def read(file: Path) -> list[Request]:
    """Parse a file. :class:`DotconfigError` when it cannot be read."""
    try:
        return parse(file.read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise DotconfigError(f"{file}: {error}") from error


def granted(file: Path) -> dict[str, str]:
    """Symbol → value of a ``.config``."""
    return {request.symbol: request.value for request in read(file)}


def wanted(files: Iterable[Path]) -> dict[str, Request]:
    """What all files together ask for; a later line wins, as when Kconfig merges fragments."""
    return {request.symbol: request for file in files for request in read(file)}


def lost(requests: Iterable[Request], config: dict[str, str]) -> list[Lost]:
    """The requests that ``config`` does not grant exactly: ``m`` is not ``y``, and a default is not what was asked."""
    pairs = ((request, config.get(request.symbol, UNSET)) for request in requests)
    return [Lost(request, found) for request, found in pairs if found != request.value]
