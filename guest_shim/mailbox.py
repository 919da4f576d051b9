"""A link through XenStore nodes, for guests and dom0s without libxenvchan. The same on both sides.

Each direction is a ring of :data:`SLOTS` nodes that its sender writes in turn, and a node ``ack`` in the other
direction with the number of the last one that was read. A node holds the session (4 characters), the slot's number (8
hexadecimal digits) and at most :data:`SLOT_BYTES` of the stream, so that a value of another session is never taken for
one of this. One watch on the receiver's directory tells what changed. Within the quotas of a guest (2048 bytes a node).
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol

from guest_shim.link import LinkClosed

SLOTS = 16
_HEADER = 12
#: Bytes of the stream in one node: XenStore's limit for a guest's node, without our header.
SLOT_BYTES = 2048 - _HEADER
#: Slots after which the reader tells the writer: often enough for it never to wait, seldom enough to cost little.
_ACK_EVERY = SLOTS // 2
ACK = "ack"
#: All names that change below a directory.
NAMES = frozenset([ACK, *(str(slot) for slot in range(SLOTS))])


class NodeStore(Protocol):
    """What is used of XenStore."""

    def read(self, path: str) -> bytes | None:
        """A node's value."""

    def write(self, path: str, value: bytes) -> None:
        """Set a node's value."""


class Changes(Protocol):
    """Tells which nodes of the receiver's directory changed."""

    def fileno(self) -> int:
        """Readable when some did."""

    def take(self) -> set[str]:
        """Their names since the last call. May raise :class:`LinkClosed`."""

    def close(self) -> None:
        """No more is told."""


class MailboxLink:
    """A :class:`~guest_shim.link.Link`."""

    name = "xenstore"
    piece = 32 * 1024  # a quarter of a second, for which a small message waits
    polls_writing = False
    drained = False
    full = False

    def __init__(
        self,
        store: NodeStore,
        *,
        inbox: str,
        outbox: str,
        session: str,
        changes: Changes,
        failures: tuple[type[Exception], ...],
        consumed: Callable[[], None] = lambda: None,
    ) -> None:
        """``failures``: what ``store`` raises when it cannot; ``consumed`` is called for each change that was ours."""
        if len(session) != _HEADER - 8:
            raise ValueError(f"a session has {_HEADER - 8} characters, not {session!r}")
        self._store = store
        self._inbox, self._outbox = inbox, outbox
        self._session = session
        self._changes = changes
        self._failures = failures
        self._consumed = consumed
        self._dirty: set[str] = set()
        self._sent = 0  # numbers begin at 1
        self._acked = 0  # of what we sent
        self._read = 0
        self._told = 0  # of what we read

    def fileno(self) -> int:
        """The changes'."""
        return self._changes.fileno()

    def receive(self) -> bytes:
        """What lies in the slots that changed, in their order."""
        self._dirty |= self._changes.take()
        received = bytearray()
        try:
            if ACK in self._dirty:
                self._dirty.discard(ACK)
                self._take_ack()
            while True:
                slot = str((self._read + 1) % SLOTS)
                if slot not in self._dirty:
                    break
                self._dirty.discard(slot)
                value = self._store.read(f"{self._inbox}/{slot}")
                if value is None or not value.startswith(self._header(self._read + 1)):
                    break
                self._read += 1
                self._consumed()
                received += value[_HEADER:]
                if self._read - self._told >= _ACK_EVERY:
                    self._store.write(f"{self._outbox}/{ACK}", self._header(self._read))
                    self._told = self._read
        except self._failures as error:
            raise LinkClosed(f"XenStore: {error}") from None
        return bytes(received)

    def send(self, data: bytes | memoryview) -> int:
        """The beginning of ``data`` into the next slot, if it is free."""
        self.full = self._sent - self._acked >= SLOTS
        if self.full:
            return 0
        piece = bytes(data[:SLOT_BYTES])
        number = self._sent + 1
        try:
            self._store.write(f"{self._outbox}/{number % SLOTS}", self._header(number) + piece)
        except self._failures as error:
            raise LinkClosed(f"XenStore: {error}") from None
        self._sent = number
        self.full = self._sent - self._acked >= SLOTS
        return len(piece)

    def close(self) -> None:
        """Hear of no more changes; the nodes stay for the next session, which knows them for old."""
        self._changes.close()

    def _take_ack(self) -> None:
        value = self._store.read(f"{self._inbox}/{ACK}") or b""
        try:
            number = int(value[_HEADER - 8 :], 16) if value.startswith(self._session.encode()) else 0
        except ValueError:  # the other side may write what it likes into its own node
            return
        if self._acked < number <= self._sent:
            self._acked = number
            self._consumed()

    def _header(self, number: int) -> bytes:
        return f"{self._session}{number & 0xFFFFFFFF:08x}".encode("ascii")


class ChangeSet:
    """Names noted by one thread and taken by another, with a descriptor to poll. A :class:`Changes`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._read, self._write = os.pipe()
        self._closed = False

    def note(self, names: frozenset[str]) -> None:
        """These changed."""
        with self._lock:
            if not self._closed:
                if not self._names:
                    os.write(self._write, b"\0")
                self._names |= names

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._read

    def take(self) -> set[str]:
        """See :class:`Changes`."""
        with self._lock:
            names, self._names = self._names, set()
            if names:
                os.read(self._read, 1)
            return names

    def close(self) -> None:
        """Close the descriptors."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read)
                os.close(self._write)
