"""XenStore as dom0 uses it: reads, writes, watches; with deadlines and reconnection. The one place that wraps pyxs.

Knows paths and bytes; must not know what any node means. pyxs gives the wire format and the connection; its router is
not used: it waits for ever when xenstored dies and loses the watches. Here one thread reads; every request has a
deadline; a lost connection fails what was waiting, is opened again by the next request (or within
:data:`RECONNECT_PAUSE` when there are watches), and then every watch is set again and fires once, because something
may have changed unseen.

No transactions: a guest could make them fail for ever (XSA-206). What a guest wrote stays ``untrusted_``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Protocol

from pyxs._internal import NUL, Op, Packet
from pyxs.connection import PacketConnection
from pyxs.exceptions import ConnectionError as PyxsConnectionError
from pyxs.exceptions import PyXSError

logger = logging.getLogger(__name__)

#: Seconds until xenstored must have answered. It is single-threaded and shared: a storm of domain starts delays it.
REQUEST_DEADLINE = 10.0
#: Seconds until a hanging xenstored must have taken a connection or a packet: its queue is one connection long.
TRANSPORT_DEADLINE = 5.0
#: Seconds between attempts to reconnect while watches are set.
RECONNECT_PAUSE = 0.5
#: A node's value is at most this for a guest (quota); what is longer was not written by one of ours.
VALUE_CAP = 2048
#: Children listed of one directory; a guest's quota is 1000 nodes.
CHILDREN_CAP = 1000

#: How the daemons say that there is no such node: oxenstored answers EINVAL below a domain that is going or coming.
_NOTHING_THERE = frozenset({b"ENOENT", b"EACCES", b"ENOTDIR", b"EINVAL"})

_PATH = re.compile(rb"@(introduceDomain|releaseDomain)|/?[A-Za-z0-9_.-][A-Za-z0-9@_.-]*(/[A-Za-z0-9@_.-]+)*|/")
_PATH_CAP = 1024


class XenStoreError(Exception):
    """XenStore could not do it. The message names the operation and the path."""


class XenStoreDown(XenStoreError):  # noqa: N818
    """xenstored is not reachable, or did not answer in time."""


def default_socket() -> str:
    """Where xenstored listens, unless its environment says otherwise."""
    directory = os.environ.get("XENSTORED_RUNDIR", "/var/run/xenstored")
    return os.environ.get("XENSTORED_PATH", f"{directory}/socket")


class SocketConnection(PacketConnection):  # type: ignore[misc] # pyxs has no types
    """pyxs' packets over a socket of our own: pyxs' transport leaks its socket when xenstored is not there."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path or default_socket()

    def create_transport(self) -> SocketTransport:
        """Connect."""
        return SocketTransport(self.path)


class SocketTransport:
    """Whole reads and writes on a Unix socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # Python's own timeout makes the socket non-blocking, and then a full queue of connections is EAGAIN at
            # once. The kernel waits for a place in it when the socket blocks and has this deadline.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(TRANSPORT_DEADLINE))
            try:
                self._socket.connect(path)
            except BlockingIOError:
                raise TimeoutError(f"it took no connection within {TRANSPORT_DEADLINE:g} s") from None
            self._socket.settimeout(TRANSPORT_DEADLINE)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def recv(self, size: int) -> bytes:
        """Exactly ``size`` bytes; :class:`OSError` when there are no more."""
        data = bytearray()
        while len(data) < size:
            try:
                chunk = self._socket.recv(size - len(data))
            except TimeoutError:  # nothing to read is no failure: the requests have deadlines of their own
                continue
            if not chunk:
                raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            data += chunk
        return bytes(data)

    def send(self, data: bytes) -> None:
        """All of ``data``."""
        self._socket.sendall(data)

    def close(self) -> None:
        """Close it, and wake a thread that reads from it."""
        with contextlib.suppress(OSError):  # the other end is gone
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Connection(Protocol):
    """What is used of pyxs' connections."""

    def connect(self) -> None: ...
    def close(self, silent: bool = True) -> None: ...
    def send(self, packet: Packet) -> None: ...
    def recv(self) -> Packet: ...


class _Pending:
    """A request on its way."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.reply: Packet | None = None


class XenStore:
    """One connection to xenstored, shared by all threads of the agent."""

    def __init__(
        self,
        connect: Callable[[], Connection] = SocketConnection,
        deadline: float = REQUEST_DEADLINE,
    ) -> None:
        """``connect`` makes an unopened connection. Nothing is opened before the first request or watch."""
        self._make = connect
        self._deadline = deadline
        self._lock = threading.RLock()  # guards all below, and that a request's packet goes out whole
        self._connection: Connection | None = None
        self._pending: dict[int, _Pending] = {}
        self._next_id = 1
        self._watches: dict[bytes, tuple[bytes, Callable[[str], None]]] = {}
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None

    # -- requests ---------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes | None:
        """The untrusted value of a node, ``None`` when there is no such node (or it is not ours to read)."""
        try:
            untrusted_value = self._request(Op.READ, path)
        except _Refused as refusal:
            if refusal.name in _NOTHING_THERE:
                return None
            raise XenStoreError(f"reading {path}: {refusal}") from None
        if len(untrusted_value) > VALUE_CAP:
            raise XenStoreError(f"reading {path}: its value has {len(untrusted_value)} bytes, over {VALUE_CAP}")
        return untrusted_value

    def list(self, path: str) -> tuple[str, ...]:
        """The names of a node's children; none when there is no such node."""
        try:
            untrusted_names = self._request(Op.DIRECTORY, path)
        except _Refused as refusal:
            if refusal.name in _NOTHING_THERE:
                return ()
            raise XenStoreError(f"listing {path}: {refusal}") from None
        names = [name for name in untrusted_names.split(NUL) if name][:CHILDREN_CAP]
        return tuple(name.decode("ascii", "replace") for name in names)

    def write(self, path: str, value: bytes) -> None:
        """Set a node's value (also an empty one) and make its parents."""
        self._acknowledged(Op.WRITE, path, value)

    def remove(self, path: str) -> None:
        """Remove a node and all below it; no error when it is not there."""
        try:
            self._request(Op.RM, path)
        except _Refused as refusal:
            if refusal.name != b"ENOENT":
                raise XenStoreError(f"removing {path}: {refusal}") from None

    def set_permissions(self, path: str, *permissions: str) -> None:
        """Set a node's permissions: its owner first, as ``n0`` (owner dom0, others nothing), then ``r7``, ``b3``…"""
        for permission in permissions:
            if not re.fullmatch(r"[nrwb][0-9]{1,5}", permission):
                raise XenStoreError(f"setting permissions of {path}: {permission!r} is not one")
        self._acknowledged(Op.SET_PERMS, path, b"".join(p.encode() + NUL for p in permissions))

    # -- watches ----------------------------------------------------------------------------------------------------

    def watch(self, path: str, hint: Callable[[str], None]) -> Callable[[], None]:
        """Call ``hint(changed path)`` after each change at or below ``path``; returns what ends the watch.

        Also calls it once at the start and after each reconnection. ``hint`` runs in the reading thread: it must only
        set an event or queue, and never make a request. xenstored need not be up yet.
        """
        token = f"virmo-{os.getpid()}-{id(hint)}-{time.monotonic_ns()}".encode()
        with self._lock:
            if self._closed.is_set():
                raise XenStoreError("this XenStore connection is closed")
            self._watches[token] = (_encode(path), hint)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep_connected, name="xenstore-keeper", daemon=True)
                self._keeper.start()
        try:
            self._request(Op.WATCH, path, token + NUL)
        except XenStoreDown:
            logger.info("xenstore_watch_waits path=%s", path)
        except _Refused as refusal:
            if refusal.name != b"EEXIST":  # a reconnection was faster and has set it
                with self._lock:
                    del self._watches[token]
                raise XenStoreError(f"watching {path}: {refusal}") from None

        def unwatch() -> None:
            with self._lock:
                if self._watches.pop(token, None) is None or self._connection is None:
                    return
            try:
                self._request(Op.UNWATCH, path, token + NUL)
            except (XenStoreDown, _Refused):  # a connection that is gone has no watches
                return

        return unwatch

    def close(self) -> None:
        """End the connection and all watches. Not usable afterwards."""
        self._closed.set()
        with self._lock:
            self._watches.clear()
            self._drop(self._connection)
            keeper = self._keeper
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join(self._deadline)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _acknowledged(self, operation: int, path: str, rest: bytes) -> None:
        try:
            self._request(operation, path, rest)
        except _Refused as refusal:
            raise XenStoreError(f"changing {path}: {refusal}") from None

    def _request(self, operation: int, path: str, rest: bytes = b"") -> bytes:
        payload = _encode(path) + NUL + rest
        pending = _Pending()
        with self._lock:
            connection = self._open()
            request_id, self._next_id = self._next_id, self._next_id % 0xFFFFFFFF + 1
            self._pending[request_id] = pending
            try:
                connection.send(Packet(operation, payload, request_id))
            except (OSError, PyXSError) as error:
                self._pending.pop(request_id, None)
                self._drop(connection)
                raise XenStoreDown(f"xenstored went away at {path}: {error}") from error
        pending.answered.wait(self._deadline)
        with self._lock:
            self._pending.pop(request_id, None)
            reply = pending.reply
            if reply is None and not pending.answered.is_set():  # a daemon that owes an answer is not to be trusted
                self._drop(connection)
        if reply is None:
            raise XenStoreDown(f"xenstored gave no answer for {path} within {self._deadline:g} s or went away")
        if reply.op == Op.ERROR:
            raise _Refused(bytes(reply.payload).rstrip(NUL))
        return bytes(reply.payload)

    def _open(self) -> Connection:
        """The connection, opened if need be, with all watches set. The lock is held."""
        if self._closed.is_set():
            raise XenStoreError("this XenStore connection is closed")
        if self._connection is not None:
            return self._connection
        connection = self._make()
        try:
            connection.connect()
            for token, (path, _) in self._watches.items():
                # Answers need no waiter: the reader drops what nobody waits for (request id 0 is never ours).
                connection.send(Packet(Op.WATCH, path + NUL + token + NUL, 0))
        except (OSError, PyXSError) as error:
            connection.close()
            raise XenStoreDown(f"xenstored cannot be reached: {_plain(error)}; is the service running?") from error
        self._connection = connection
        threading.Thread(target=self._read_all, args=(connection,), name="xenstore-reader", daemon=True).start()
        return connection

    def _read_all(self, connection: Connection) -> None:
        try:
            while True:
                packet = connection.recv()
                if packet.op == Op.WATCH_EVENT:
                    self._event(bytes(packet.payload))
                    continue
                with self._lock:
                    pending = self._pending.get(packet.rq_id)
                    if pending is not None:
                        pending.reply = packet
                        pending.answered.set()
        except (OSError, PyXSError, AttributeError, ValueError) as error:
            # AttributeError, ValueError: pyxs' answers when another thread has closed the connection below it
            if not self._closed.is_set():
                logger.warning("xenstore_connection_lost error=%s", _plain(error))
        finally:
            with self._lock:
                self._drop(connection)

    def _event(self, untrusted_payload: bytes) -> None:
        path, _, rest = untrusted_payload.partition(NUL)
        token = rest.split(NUL, 1)[0]
        with self._lock:
            watch = self._watches.get(token)
        if watch is not None:
            watch[1](path.decode("ascii", "replace"))

    def _drop(self, connection: Connection | None) -> None:
        """Forget a connection and fail what waits on it. The lock is held."""
        if connection is None:
            return
        try:
            connection.close()
        except OSError:  # it was already broken, which is why it is dropped
            logger.debug("xenstore_close_failed", exc_info=True)
        if connection is self._connection:
            self._connection = None
            for pending in self._pending.values():
                pending.answered.set()

    def _keep_connected(self) -> None:
        """While there are watches, come back to xenstored after it went away."""
        while not self._closed.wait(RECONNECT_PAUSE):
            with self._lock:
                if self._connection is not None or not self._watches or self._closed.is_set():
                    continue
                try:
                    self._open()
                except XenStoreDown:
                    continue
            logger.info("xenstore_reconnected")


class _Refused(Exception):  # noqa: N818
    """xenstored answered with an error name."""

    def __init__(self, name: bytes) -> None:
        code = getattr(errno, name.decode("ascii", "replace"), None)
        super().__init__(os.strerror(code) if isinstance(code, int) else name.decode("ascii", "replace"))
        self.name = name


def _timeval(seconds: float) -> bytes:
    """``struct timeval``."""
    whole, part = divmod(seconds, 1)
    return struct.pack("@ll", int(whole), int(part * 1_000_000))


def _encode(path: str) -> bytes:
    raw = path.encode("ascii", "replace")
    if len(raw) > _PATH_CAP or not _PATH.fullmatch(raw):
        raise XenStoreError(f"{path[:200]!r} is not a XenStore path")
    return raw


def _plain(error: Exception) -> str:
    if isinstance(error, PyxsConnectionError) and error.args:
        return str(error.args[0])
    return str(error) or type(error).__name__
