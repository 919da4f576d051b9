"""The messages of a session for people: recorded by whoever runs it, shown and kept by ``virmo-agent session``.

The daemon records into memory and hands the octets to the terminal that asked; nothing of a message is ever logged.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from dom0_agent.dm_session import MEDIA_TYPES, Trace
from dom0_agent.omadm.codec import codec_for
from dom0_agent.omadm.trace import trace_lines

MAX_RECORDED = 8 << 20  #: bytes of messages that are recorded for a terminal; what comes later is only counted


class Recorder:
    """A :data:`~dom0_agent.dm_session.Trace` into memory, of at most :data:`MAX_RECORDED` bytes."""

    def __init__(self, limit: int = MAX_RECORDED) -> None:
        self._left = limit
        self._messages: list[tuple[str, bytes]] = []
        self.left_out = 0  #: messages that did not fit

    def __call__(self, direction: str, body: bytes) -> None:
        """Record one message."""
        if self.left_out or len(body) > self._left:
            self.left_out += 1
            return
        self._left -= len(body)
        self._messages.append((direction, body))

    def as_json(self) -> list[list[str]]:
        """Direction and base64 of each message, for the control socket."""
        return [[direction, base64.b64encode(body).decode()] for direction, body in self._messages]


def play(messages: Iterable[Sequence[str]], trace: Trace) -> None:
    """Give ``trace`` what :meth:`Recorder.as_json` made."""
    for direction, body in messages:
        trace(direction, base64.b64decode(body))


def terminal_trace(encoding: str, *, show: bool, folder: Path | None) -> Trace | None:
    """Prints each message readably (``show``) and keeps its raw bytes in ``folder``; ``None`` when neither is wanted.

    ``encoding`` is ``dm.encoding``. Raises :class:`OSError` when ``folder`` cannot be made.
    """
    if not show and folder is None:
        return None
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # messages hold secrets
    codec = codec_for(MEDIA_TYPES[encoding])
    count = 0

    def trace(direction: str, body: bytes) -> None:
        nonlocal count
        count += 1
        if folder is not None:
            (folder / f"{count:04d}-{direction}.{encoding}").write_bytes(body)
        if show:
            print(f"{count} {direction}, {len(body)} bytes", *trace_lines(codec, body), sep="\n  ")

    return trace
