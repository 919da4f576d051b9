"""Hears from the kernel that a guest's interface has come: a hint to look at once, and not only at the next sweep.

One rtnetlink socket and one thread. Knows no VM; what is heard is only ever "look again".
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

RTMGRP_LINK = 1
RTM_NEWLINK = 16
IFLA_IFNAME = 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_LINK = struct.Struct("=BBHiII")  # ifinfomsg
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER = 65536


class Links:
    """Calls ``hint`` from a thread of its own when an interface whose name begins with ``prefix`` comes or changes."""

    def __init__(self, hint: Callable[[], None], prefix: str = "vif") -> None:
        self._hint = hint
        self._prefix = prefix
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK))
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._woken.send(b"\0")
        self._thread.join()
        for opened in (self._socket, self._wake, self._woken):
            opened.close()

    def _run(self) -> None:
        import select

        while True:
            readable, _, _ = select.select([self._socket, self._wake], [], [])
            if self._wake in readable:
                return
            try:
                messages = self._socket.recv(_BUFFER)
            except OSError as error:  # the kernel had more to tell than fits: something has changed
                logger.info("links_overrun error=%s", error)
                self._hint()
                continue
            if any(name.startswith(self._prefix) for name in new_links(messages)):
                self._hint()


def new_links(messages: bytes) -> Iterator[str]:
    """Names in the RTM_NEWLINK messages of a datagram; what is cut off is left out."""
    offset = 0
    while offset + _HEADER.size <= len(messages):
        length, kind, *_ = _HEADER.unpack_from(messages, offset)
        if length < _HEADER.size:
            return
        if kind == RTM_NEWLINK:
            yield from _names(messages[offset + _HEADER.size + _LINK.size : offset + length])
        offset += _aligned(length)


def _names(attributes: bytes) -> Iterator[str]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if length < _ATTRIBUTE.size:
            return
        if kind == IFLA_IFNAME:
            yield attributes[offset + _ATTRIBUTE.size : offset + length].rstrip(b"\0").decode("ascii", "replace")
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
