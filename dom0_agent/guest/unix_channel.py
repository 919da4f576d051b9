"""Where the shims of simulated domains connect: Unix sockets, frames of ``guest_shim.protocol``, one thread for all.

Keeps the last facts heard of each guest. Everything read here is a guest's and untrusted: a frame that breaks a cap or
the protocol costs the guest its connection, and nothing else. Knows sockets and frames, not domains: a listener has a
key that its maker chose.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

from dom0_agent.guest.facts import NO_FACTS, parse_facts
from dom0_agent.hypervisor.interface import GuestFacts
from guest_shim.protocol import Frame, FrameReader, ProtocolError, choose_version, encode

logger = logging.getLogger(__name__)

#: Connections that one guest may hold: one, and one that is being replaced.
CONNECTIONS_CAP = 2
_RECEIVE = 16384


@dataclass(eq=False)
class _Listener:
    key: Hashable
    socket: socket.socket
    facts: GuestFacts = NO_FACTS
    connections: list[_Connection] = field(default_factory=list)


@dataclass(eq=False)
class _Connection:
    listener: _Listener
    socket: socket.socket
    reader: FrameReader = field(default_factory=FrameReader)
    greeted: bool = False


class UnixChannelServer:
    """All listeners, and the thread that serves them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._listeners: dict[Hashable, _Listener] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="guest-channel", daemon=True)
        self._thread.start()

    def listen(self, key: Hashable, directory: Path, name: str = "channel.sock") -> None:
        """Listen at ``directory/name`` for the guest ``key``; what was there before is replaced."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        anchor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=anchor)
            # a socket's path has at most 108 bytes, the directory's may have more: name it by its descriptor
            listening.bind(f"/proc/self/fd/{anchor}/{name}")
            listening.listen(CONNECTIONS_CAP)
        except OSError:
            listening.close()
            raise
        finally:
            os.close(anchor)
        listener = _Listener(key, listening)
        with self._lock:
            before = self._listeners.pop(key, None)
            if before is not None:
                self._drop_listener(before)
            self._listeners[key] = listener
            self._selector.register(listening, selectors.EVENT_READ, listener)

    def forget(self, key: Hashable) -> None:
        """Stop listening for ``key``; no error when nobody did."""
        with self._lock:
            listener = self._listeners.pop(key, None)
            if listener is not None:
                self._drop_listener(listener)

    def keys(self) -> frozenset[Hashable]:
        """Whom we listen for."""
        with self._lock:
            return frozenset(self._listeners)

    def facts(self, key: Hashable) -> GuestFacts:
        """What was last heard of a guest."""
        with self._lock:
            listener = self._listeners.get(key)
            return NO_FACTS if listener is None else listener.facts

    def close(self) -> None:
        """End the thread and all connections; the guests will come back to the next agent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake_write.send(b"\0")
        self._thread.join()
        with self._lock:
            for listener in self._listeners.values():
                self._drop_listener(listener)
            self._listeners.clear()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                with self._lock:
                    if self._closed:
                        return
                    if isinstance(key.data, _Listener):
                        self._accept(key.data)
                    elif isinstance(key.data, _Connection):
                        self._receive(key.data)

    def _accept(self, listener: _Listener) -> None:
        try:
            accepted, _ = listener.socket.accept()
        except OSError:  # forgotten, or the guest gave up meanwhile
            return
        accepted.setblocking(False)
        while len(listener.connections) >= CONNECTIONS_CAP:
            self._drop(listener.connections[0])
        connection = _Connection(listener, accepted)
        listener.connections.append(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            untrusted_data = connection.socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:  # closed by a drop of ours, or reset by the guest
            self._drop(connection)
            return
        if not untrusted_data:
            self._drop(connection)
            return
        try:
            for untrusted_frame in connection.reader.feed(untrusted_data):
                self._take(connection, untrusted_frame)
        except (ProtocolError, OSError) as error:
            logger.warning("guest_cut_off key=%s error=%s", connection.listener.key, error)
            self._drop(connection)

    def _take(self, connection: _Connection, untrusted_frame: Frame) -> None:
        if untrusted_frame.type == "hello":
            version = choose_version(untrusted_frame.fields.get("versions"))
            connection.listener.facts = parse_facts(
                untrusted_boot_id=_raw(untrusted_frame.fields.get("boot_id")),
                untrusted_beats=_raw(untrusted_frame.fields.get("beats")),
                untrusted_version=_raw(untrusted_frame.fields.get("shim")),
            )
            connection.greeted = True
            connection.socket.send(encode(Frame("hello", {"version": version})))
        elif not connection.greeted:
            raise ProtocolError(f"{untrusted_frame.type} before hello")
        elif untrusted_frame.type == "beat":
            heard = parse_facts(None, _raw(untrusted_frame.fields.get("beats")), None)
            known = connection.listener.facts
            connection.listener.facts = GuestFacts(known.boot_id, heard.beats, known.shim_version)
        # other types are of a later version's making: ignored, as the hello agreed on what must be understood

    def _drop(self, connection: _Connection) -> None:
        if connection in connection.listener.connections:
            connection.listener.connections.remove(connection)
            self._selector.unregister(connection.socket)
            connection.socket.close()

    def _drop_listener(self, listener: _Listener) -> None:
        self._selector.unregister(listener.socket)
        listener.socket.close()
        for connection in list(listener.connections):
            self._drop(connection)


def _raw(untrusted_value: object) -> bytes | None:
    """A JSON value as the bytes that XenStore would hold; what is neither text nor a number is nothing."""
    if isinstance(untrusted_value, str):
        return untrusted_value.encode("utf-8", "replace")
    if isinstance(untrusted_value, int) and not isinstance(untrusted_value, bool) and untrusted_value.bit_length() < 64:
        return str(untrusted_value).encode("ascii")
    return None
