"""Where the shims of simulated domains connect: Unix sockets, one listening thread, and one for each channel.

Keeps the last facts heard of each guest. A guest that breaks the protocol or its budget loses its channel, and nothing
else happens. Knows sockets and channels, not domains: a listener has a key that its maker chose.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from dom0_agent.guest.budget import Penalties
from dom0_agent.guest.channel import Channel, ChannelObserver
from dom0_agent.guest.config import GuestConfig
from dom0_agent.guest.facts import NO_FACTS
from dom0_agent.hypervisor.interface import GuestFacts
from guest_shim.unix_socket import SocketLink

#: Connections that one guest may hold: one, and one that is being replaced.
CONNECTIONS_CAP = 2
#: Seconds that the channels' threads get at the end.
_JOIN = 2.0


@dataclass(eq=False)
class _Listener:
    key: Hashable
    socket: socket.socket
    facts: GuestFacts = NO_FACTS
    channels: list[Channel] = field(default_factory=list)

    def note(self, facts: GuestFacts) -> None:
        """The last that was heard."""
        self.facts = facts


class _NobodyListens:
    """Until the agent's hub is attached: facts are kept, what is said is not confirmed to anybody."""

    def opened(self, channel: Channel) -> None:
        """It is shown to whoever attaches."""

    def said(self, channel: Channel, number: int, verb: str, fields: Mapping[str, Any], payload: bytes) -> None:
        """There is nobody to tell."""

    def cut_off(self, key: Hashable, reason: str) -> None:
        """There is nobody to tell."""

    def closed(self, channel: Channel) -> None:
        """There is nobody to tell."""


class UnixChannelServer:
    """All listeners; a :class:`~dom0_agent.guest.source.ChannelSource`."""

    def __init__(self, config: GuestConfig | None = None) -> None:
        self._config = config or GuestConfig()
        self._penalties = Penalties(self._config, time.monotonic)
        self._observer: ChannelObserver = _NobodyListens()
        self._selector = selectors.DefaultSelector()
        self._lock = threading.RLock()
        self._listeners: dict[Hashable, _Listener] = {}
        self._threads: set[threading.Thread] = set()
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="guest-listener", daemon=True)
        self._thread.start()

    def attach(self, observer: ChannelObserver, config: GuestConfig) -> None:
        """See :class:`~dom0_agent.guest.source.ChannelSource`."""
        with self._lock:
            self._observer = observer
            self._config = config
            self._penalties = Penalties(config, time.monotonic)
            channels = [channel for listener in self._listeners.values() for channel in listener.channels]
            for channel in channels:
                if channel.hello is not None:
                    observer.opened(channel)

    def follow(self, domains: Mapping[UUID, int]) -> None:
        """Whoever makes the listeners follows the domains."""

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
            self._penalties.forget(key)
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
        """End all threads and channels; the guests will come back to the next agent."""
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
            threads = list(self._threads)
        for thread in threads:
            thread.join(_JOIN)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    # -- a channel's observer: what the hub hears, and what we note for it -------------------------------------------

    def opened(self, channel: Channel) -> None:
        """Pass it on."""
        with self._lock:
            observer = self._observer
        observer.opened(channel)

    def said(self, channel: Channel, number: int, verb: str, fields: Mapping[str, Any], payload: bytes) -> None:
        """Pass it on."""
        self._observer.said(channel, number, verb, fields, payload)

    def cut_off(self, key: Hashable, reason: str) -> None:
        """Nobody tells us."""

    def closed(self, channel: Channel) -> None:
        """Who broke the rules has to wait."""
        with self._lock:
            listener = self._listeners.get(channel.key)
            if listener is not None and channel in listener.channels:
                listener.channels.remove(channel)
            if channel.pump.broken:
                self._penalties.add(channel.key)
            self._threads.discard(threading.current_thread())
            observer = self._observer
        observer.closed(channel)

    # -- the listening thread ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                with self._lock:
                    if self._closed:
                        return
                    if isinstance(key.data, _Listener):
                        self._accept(key.data)

    def _accept(self, listener: _Listener) -> None:
        try:
            accepted, _ = listener.socket.accept()
        except OSError:  # forgotten, or the guest gave up meanwhile
            return
        if self._penalties.left(listener.key) > 0:
            accepted.close()
            return
        while len(listener.channels) >= CONNECTIONS_CAP:
            listener.channels.pop(0).close("it opened another one")
        channel = Channel(listener.key, SocketLink(accepted), self, self._config.budget, on_facts=listener.note)
        listener.channels.append(channel)
        thread = threading.Thread(target=channel.run, name=f"guest-{listener.key}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _drop_listener(self, listener: _Listener) -> None:
        self._selector.unregister(listener.socket)
        listener.socket.close()
        for channel in listener.channels:
            channel.close("the domain is gone")
