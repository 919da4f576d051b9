"""A parser of the part of Kconfig's language that this external tree uses; it stops at the first line it does not know.

Not an evaluator: whether an option can be chosen is asked of a real Buildroot (buildroot/scripts/check).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SYMBOL = r"[A-Z][A-Z0-9_a-z]*"
_EXPRESSION = rf"!?\(?!?{_SYMBOL}\)?(?:\s*(?:&&|\|\|)\s*!?\(?!?{_SYMBOL}\)?)*"
_COMMENT = r"\s*(?:#.*)?"

_TOP = {
    "config": re.compile(rf"(?:menu)?config (?P<symbol>{_SYMBOL})"),
    "open": re.compile(rf'(?P<word>menu|if) (?P<rest>"[^"]+"|{_EXPRESSION})'),
    "close": re.compile(r"(?P<word>endmenu|endif)"),
    "comment": re.compile(r'comment "(?P<text>[^"]+)"'),
    "source": re.compile(r'source "(?P<path>[^"]+)"'),
}
_INNER = {
    "prompt": re.compile(r'\t(?:bool|string|int) "(?P<text>[^"]+)"'),
    "hidden": re.compile(r"\t(?:bool|string|int)"),
    "depends": re.compile(rf"\tdepends on (?P<expression>{_EXPRESSION}){_COMMENT}"),
    "select": re.compile(rf"\tselect (?P<symbol>{_SYMBOL})(?: if (?P<expression>{_EXPRESSION}))?{_COMMENT}"),
    "default": re.compile(rf'\tdefault (?:"[^"]*"|{_SYMBOL}|\d+)(?: if {_EXPRESSION})?{_COMMENT}'),
}


class KconfigSyntaxError(Exception):
    """A line is not of the language. The message begins with file and line."""


@dataclass
class Option:
    """A ``config`` entry."""

    symbol: str
    prompt: str = ""
    help: str = ""
    depends: list[str] = field(default_factory=list)
    selects: list[str] = field(default_factory=list)


@dataclass
class KconfigFile:
    """What a file declares."""

    options: list[Option] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def comment(self, text: str) -> Option:
        """Note a ``comment`` entry; it takes ``depends on`` lines like an option."""
        self.comments.append(text)
        return Option(symbol="")


def parse(file: Path) -> KconfigFile:
    """Read a file. :class:`KconfigSyntaxError` at the first mistake."""
    reader = _Reader(file)
    for number, line in _logical_lines(file.read_text(encoding="utf-8")):
        reader.line(number, line)
    if reader.blocks:
        raise KconfigSyntaxError(f"{file}: {reader.blocks[-1]} is never closed")
    return reader.result


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; those that end in a backslash joined with the next."""
    joined = ""
    for number, line in enumerate(text.splitlines(), 1):
        joined += line.strip() if joined else line
        if joined.endswith("\\"):
            joined = joined.removesuffix("\\")
        else:
            yield number, joined
            joined = ""


class _Reader:
    """Takes the file line by line."""

    def __init__(self, file: Path) -> None:
        self.result = KconfigFile()
        self.blocks: list[str] = []
        self._file = file
        self._option: Option | None = None
        self._in_help = False

    def line(self, number: int, line: str) -> None:
        if self._in_help and self._option and (line.startswith("\t  ") or not line):
            self._option.help += line.strip() + "\n"
            return
        self._in_help = line == "\thelp" and self._option is not None
        if self._in_help or not line or line.startswith("#"):
            return
        kinds = _INNER if line.startswith("\t") else _TOP
        for kind, pattern in kinds.items():
            match = pattern.fullmatch(line)
            if match and (self._top(kind, match) if kinds is _TOP else self._inner(kind, match)):
                return
        raise KconfigSyntaxError(f"{self._file}:{number}: not understood: {line!r}")

    def _top(self, kind: str, match: re.Match[str]) -> bool:
        """A line that begins in the first column; whether it may stand here."""
        self._option = None
        match kind:
            case "config":
                self._option = Option(match["symbol"])
                self.result.options.append(self._option)
            case "comment":
                self._option = self.result.comment(match["text"])
            case "source":
                self.result.sources.append(match["path"])
            case "open":
                self.blocks.append(match["word"])
            case "close":
                return bool(self.blocks) and self.blocks.pop() == match["word"].removeprefix("end")
        return True

    def _inner(self, kind: str, match: re.Match[str]) -> bool:
        """An attribute of the entry above; whether there is one."""
        if self._option is None:
            return False
        match kind:
            case "prompt":
                self._option.prompt = match["text"]
            case "depends":
                self._option.depends.append(match["expression"])
            case "select":
                self._option.selects.append(match["symbol"])
        return True
