"""The shim's XenStore client over ``/dev/xen/xenbus``.

A guest writes relative paths: they go to its own ``/local/domain/N``, also after a restore gave it another N. A tiny
client on purpose: a guest has no pyxs, and needs five operations. Must run on Python 3.9, standard library alone.
"""

from __future__ import annotations

import os
import select
import struct
import time

from guest_shim.transport import TransportError

#: Where Linux offers XenStore to a guest; the second is the name before Linux 3.x moved it.
DEVICES = ("/dev/xen/xenbus", "/proc/xen/xenbus")
#: Seconds until XenStore must have answered; a suspend in between stops this clock too.
DEADLINE = 10.0
#: Bytes of a packet's payload, a limit of the protocol.
PAYLOAD_CAP = 4096

_HEADER = struct.Struct("=IIII")  # operation, request id, transaction id, length: the machine's own byte order
_READ, _WATCH, _WRITE, _RM, _WATCH_EVENT, _ERROR = 2, 4, 11, 13, 15, 16
#: Changes that are taken at a time; a watch's owner is dom0, but nothing is endless here.
_EVENTS_CAP = 1024


class XenBus:
    """One open XenStore device. Not thread-safe."""

    def __init__(self, descriptor: int, deadline: float = DEADLINE) -> None:
        """Use an open XenStore device (or anything that speaks its protocol); it is ours from now on."""
        self._descriptor = descriptor
        self._deadline = deadline
        self._next_id = 1
        self._changed: list[bytes] = []  # what watches told while an answer was awaited

    def read(self, path: str) -> bytes | None:
        """A node's value, ``None`` when there is none."""
        try:
            return self._request(_READ, path.encode("ascii") + b"\0")
        except _NoEntryError:
            return None

    def write(self, path: str, value: bytes) -> None:
        """Set a node's value and make its parents."""
        self._request(_WRITE, path.encode("ascii") + b"\0" + value)

    def remove(self, path: str) -> None:
        """Remove a node and all below it; no error when it is not there."""
        try:
            self._request(_RM, path.encode("ascii") + b"\0")
        except _NoEntryError:
            return

    def watch(self, path: str) -> None:
        """Have :meth:`changes` tell of changes at or below ``path``; it tells of it once at once.

        Use a :class:`XenBus` of its own for watches: then its descriptor is readable when something changed.
        """
        self._request(_WATCH, path.encode("ascii") + b"\0" + path.encode("ascii") + b"\0")

    def changes(self) -> list[str]:
        """The paths that changed since the last call. Does not block. :class:`TransportError`."""
        try:
            while len(self._changed) < _EVENTS_CAP and select.select([self._descriptor], [], [], 0)[0]:
                kind, _, _, payload = self._packet(time.monotonic() + self._deadline)
                if kind == _WATCH_EVENT:
                    self._changed.append(payload)
        except OSError as error:
            raise TransportError(f"XenStore: {error}") from None
        paths, self._changed = self._changed, []
        return [path.split(b"\0", 1)[0].decode("ascii", "replace") for path in paths]

    def fileno(self) -> int:
        """The device's."""
        return self._descriptor

    def close(self) -> None:
        """Close the device."""
        os.close(self._descriptor)

    def _packet(self, end: float) -> tuple[int, int, int, bytes]:
        kind, answered, transaction, length = _HEADER.unpack(self._receive(_HEADER.size, end))
        if length > PAYLOAD_CAP:
            raise TransportError(f"XenStore announced a packet of {length} bytes")
        return kind, answered, transaction, self._receive(length, end) if length else b""

    def _request(self, operation: int, payload: bytes) -> bytes:
        if len(payload) > PAYLOAD_CAP:
            raise ValueError(f"a XenStore packet of {len(payload)} bytes is over {PAYLOAD_CAP}")
        request_id, self._next_id = self._next_id, self._next_id % 0xFFFFFFFF + 1
        end = time.monotonic() + self._deadline
        try:
            # the kernel takes header and payload in one write or in two; one is atomic for other readers of the log
            written = os.write(self._descriptor, _HEADER.pack(operation, request_id, 0, len(payload)) + payload)
            if written != _HEADER.size + len(payload):
                raise TransportError("XenStore took only part of a packet")
            while True:
                kind, answered, _, answer = self._packet(end)
                if kind == _WATCH_EVENT:
                    self._changed.append(answer)
                elif answered == request_id:  # else an answer that a deadline gave up on
                    break
        except OSError as error:
            raise TransportError(f"XenStore: {error}") from None
        if kind == _ERROR:
            name = answer.rstrip(b"\0").decode("ascii", "replace")
            if name == "ENOENT":
                raise _NoEntryError(name)
            raise TransportError(f"XenStore refused with {name}")
        return answer

    def _receive(self, size: int, end: float) -> bytes:
        chunks = bytearray()
        while len(chunks) < size:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TransportError("XenStore gave no answer in time")
            chunk = os.read(self._descriptor, size - len(chunks))
            if not chunk:
                raise TransportError("XenStore closed the connection")
            chunks += chunk
        return bytes(chunks)


class _NoEntryError(Exception):
    """ENOENT: an answer, not a failure."""


def open_device(device: str | None = None) -> int:
    """A descriptor of ``device``, or of the first of :data:`DEVICES` there is. :class:`TransportError` if none is."""
    errors = []
    for candidate in (device,) if device else DEVICES:
        try:
            return os.open(candidate, os.O_RDWR)
        except OSError as error:
            errors.append(f"{candidate}: {error.strerror}")
    raise TransportError("no XenStore here (" + "; ".join(errors) + "); is this a Xen guest?")
