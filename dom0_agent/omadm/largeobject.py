"""Puts a large object together from the chunks of successive messages (OMA-TS-DM Protocol 7.2; digest 2.5).

One object can be open at a time and direction. Chunks are kept as they came and joined once; base64 is not decoded
here. The assembler knows no message and no tree: it takes commands and says what to do with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.outbox import carried_size
from dom0_agent.omadm.status import Status

#: commands and answers whose last Item may be a chunk
Chunked = c.Add | c.Replace | c.Exec | c.Results
_CHUNKED = (c.Add, c.Replace, c.Exec, c.Results)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a command: ``command`` to be executed now, or answered with ``status``.

    ``broken`` is the command of an object that this one cut short: to be reported with Alert 1225.
    """

    command: c.BodyElement | None = None
    status: int | None = None
    broken: Chunked | None = None


class Assembler:
    """Buffers one incoming object of at most ``max_size`` octets."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._first: Chunked | None = None
        self._parts: list[c.Data] = []
        self._declared = 0
        self._received = 0

    @property
    def is_open(self) -> bool:
        """Whether an object is incomplete."""
        return self._first is not None

    @property
    def parts(self) -> tuple[c.BodyElement, ...]:
        """The open object as commands that :meth:`take` would buffer again, for persistence."""
        if self._first is None:
            return ()
        item = self._first.items[-1]
        meta = replace(item.meta or c.Meta(), size=self._declared)
        data = _joined(self._parts)
        return (replace(self._first, items=(*self._first.items[:-1], replace(item, meta=meta, data=data))),)

    def concerns(self, command: c.BodyElement) -> bool:
        """Whether :meth:`take` would do anything but hand the command back; quick, because it nearly never would."""
        if self._first is not None:
            return True
        return isinstance(command, _CHUNKED) and bool(command.items) and command.items[-1].more_data

    def take(self, command: c.BodyElement) -> Taken:
        """Handle the next command of the peer, in document order."""
        if isinstance(command, c.Alert) and command.code == AlertCode.NEXT_MESSAGE:
            return Taken(command=command)  # what a peer says between two chunks
        broken: Chunked | None = None
        if self._first is not None:
            if isinstance(command, _CHUNKED) and self._continues(command):
                return self._append(command)
            broken = self._first
            self._forget()
        if isinstance(command, _CHUNKED) and command.items and command.items[-1].more_data:
            taken = self._open(command)
            return replace(taken, broken=broken)
        return Taken(command=command, broken=broken)

    def _continues(self, command: Chunked) -> bool:
        assert self._first is not None
        if type(command) is not type(self._first) or len(command.items) != 1:
            return False
        old, new = self._first.items[-1], command.items[0]
        # LocURI SHOULD be repeated, so it may be missing; a new Size begins a new object
        same = (new.target in (None, old.target)) and (new.source in (None, old.source))
        meta = c.effective_meta(command.meta, new.meta)
        return same and (meta is None or meta.size is None)

    def _open(self, command: Chunked) -> Taken:
        item = command.items[-1]
        meta = c.effective_meta(command.meta, item.meta)
        if meta is None or meta.size is None:
            return Taken(status=Status.SIZE_REQUIRED)
        if meta.size > self._max_size:
            return Taken(status=Status.TOO_LARGE)
        self._first = command
        self._declared = meta.size
        return self._buffer(item)

    def _append(self, command: Chunked) -> Taken:
        item = command.items[0]
        taken = self._buffer(item)
        if taken.status != Status.CHUNK_ACCEPTED or item.more_data:
            return taken
        first = self._first
        assert first is not None
        data, complete = _joined(self._parts), self._received == self._declared
        self._forget()
        if not complete:
            return Taken(status=Status.SIZE_MISMATCH)
        whole = replace(first.items[-1], data=data, more_data=False)
        merged = replace(first, cmd_id=command.cmd_id, items=(*first.items[:-1], whole))
        if isinstance(merged, c.Results) and isinstance(command, c.Results):
            merged = replace(
                merged, msg_ref=command.msg_ref or merged.msg_ref, cmd_ref=command.cmd_ref or merged.cmd_ref
            )
        return Taken(command=merged)

    def _buffer(self, item: c.Item) -> Taken:
        data = item.data if item.data is not None else ""
        self._received += carried_size(data)
        if self._received > self._declared:
            self._forget()
            return Taken(status=Status.SIZE_MISMATCH)
        self._parts.append(data)
        return Taken(status=Status.CHUNK_ACCEPTED)

    def _forget(self) -> None:
        self._first = None
        self._parts = []
        self._declared = self._received = 0


def _joined(parts: list[c.Data]) -> c.Data:
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return "".join(texts)
    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)


def no_end_of_data(broken: Chunked) -> c.Alert:
    """Alert 1225 about an object whose last chunk never came."""
    item = broken.items[-1]
    return c.Alert(code=AlertCode.NO_END_OF_DATA, items=(c.Item(target=item.target, source=item.source),))
