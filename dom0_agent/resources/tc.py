"""Runs ``tc`` and ``ip`` and reads what they print. Knows their syntax; must not know VMs or shares.

What can be done in one process is: ``-batch`` takes any number of commands, and ``show`` commands among them answer in
order. Output is JSON, but for classes, whose text iproute2 does not yet print as JSON.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.hypervisor.tool import ToolRunner

#: Seconds for one call.
DEADLINE = 60.0
_CLASS = re.compile(
    r"class htb (?P<id>[0-9a-f]+:[0-9a-f]+) .*?\brate (?P<rate>\d+[KMGT]?)bit ceil (?P<ceil>\d+[KMGT]?)bit.*"
)
_SENT = re.compile(r"\s*Sent (?P<bytes>\d+) bytes .*\(dropped (?P<dropped>\d+),.*")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class TcError(HypervisorError):
    """tc or ip did not do it. The message says what it complained of."""


@dataclass(frozen=True, slots=True)
class HtbClass:
    """A class as ``tc -s class show`` tells of it."""

    classid: str
    rate: int  #: bits a second
    ceil: int  #: bits a second
    sent: int = 0  #: bytes
    dropped: int = 0  #: packets


@dataclass(frozen=True, slots=True)
class Shown:
    """What the ``show`` commands of a batch said: JSON documents in order, and all classes."""

    documents: tuple[Any, ...]
    classes: tuple[HtbClass, ...]


class Tc:
    """``prefix`` goes before each command: ``("ip", "netns", "exec", NAME)`` in tests."""

    def __init__(self, run: ToolRunner, prefix: Sequence[str] = ()) -> None:
        self._run = run
        self._prefix = tuple(prefix)

    def batch(self, commands: Sequence[str], *, statistics: bool = False) -> Shown:
        """Run tc commands in order, in one process; stops at the first that fails (:class:`TcError`)."""
        if not commands:
            return Shown((), ())
        options = ["-s"] if statistics else []
        with tempfile.NamedTemporaryFile("w", prefix="virmo-tc-", encoding="ascii") as file:
            file.write("\n".join(commands) + "\n")
            file.flush()
            output = self._call(["tc", "-j", *options, "-batch", file.name])
        return parse(output)

    def links(self, kind: str) -> dict[str, str]:
        """Interfaces of a kind with their aliases (empty when they have none)."""
        try:
            listed = json.loads(self._call(["ip", "-j", "link", "show", "type", kind]) or "[]")
            return {str(link["ifname"]): str(link.get("ifalias", "")) for link in listed if link}
        except (ValueError, KeyError, TypeError) as error:
            raise TcError(f"ip said of the {kind} interfaces what cannot be understood: {error!r}") from error

    def ip(self, *arguments: str) -> None:
        """One ``ip`` command."""
        self._call(["ip", *arguments])

    def _call(self, argv: Sequence[str]) -> str:
        result = self._run([*self._prefix, *argv], DEADLINE)
        if result.returncode != 0:
            raise TcError(f"{' '.join(argv[:4])} failed: {result.untrusted_complaint}")
        return result.untrusted_stdout


def parse(output: str) -> Shown:
    """What a batch printed. :class:`TcError` for what looks like JSON and is none."""
    documents: list[Any] = []
    classes: list[HtbClass] = []
    for line in output.splitlines():
        match, sent = _CLASS.fullmatch(line), _SENT.fullmatch(line)
        if match is not None:
            classes.append(HtbClass(match["id"], _bits(match["rate"]), _bits(match["ceil"])))
        elif sent is not None and classes:
            last = classes[-1]
            counted = HtbClass(last.classid, last.rate, last.ceil, int(sent["bytes"]), int(sent["dropped"]))
            classes[-1] = counted
        elif line.startswith("["):  # one document a line
            try:
                documents.append(json.loads(line))
            except ValueError as error:
                raise TcError(f"tc printed what is not JSON: {line[:200]!r}") from error
    return Shown(tuple(documents), tuple(classes))


def _bits(text: str) -> int:
    unit = text[-1] if text[-1] in _UNITS else ""
    return int(text[: len(text) - len(unit)]) * _UNITS[unit]
