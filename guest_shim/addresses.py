"""The IP addresses of this machine's network interfaces, asked of the kernel (rtnetlink).

A program that prints them takes a slow guest longer to start than a server waits for an answer. Sockets' module is only
loaded when it is needed: a shim idles most of its life.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import struct

#: Seconds for the kernel's answer.
DEADLINE = 5.0
_HEADER, _ADDRESS, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBI"), struct.Struct("=HH")
#: linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
_ERROR, _DONE, _NEW, _GET = 2, 3, 20, 22
_REQUEST_ALL = 0x301
_OF_PEER, _OWN = 1, 2
_RECEIVE = 65536


def addresses() -> dict[str, list[str]]:
    """Interface → addresses, as text. What the kernel does not tell is missing: no error."""
    import socket

    found: dict[str, list[str]] = {}
    request = _HEADER.pack(_HEADER.size + _ADDRESS.size, _GET, _REQUEST_ALL, 1, 0) + _ADDRESS.pack(0, 0, 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
            kernel.settimeout(DEADLINE)
            kernel.send(request)
            while _read(kernel.recv(_RECEIVE), found):
                pass
    except OSError:  # also when it does not answer in time
        return found
    return found


def _read(data: bytes, found: dict[str, list[str]]) -> bool:
    """Put a datagram's addresses into ``found``; whether more datagrams come."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind in (_DONE, _ERROR) or length < _HEADER.size:
            return False
        if kind == _NEW:
            _note(data[at + _HEADER.size : at + length], found)
        at += _aligned(length)
    return True


def _note(message: bytes, found: dict[str, list[str]]) -> None:
    import socket

    family, _, _, _, index = _ADDRESS.unpack_from(message)
    told: dict[int, bytes] = {}
    at = _ADDRESS.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            break
        told[kind] = message[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    raw = told.get(_OWN) or told.get(_OF_PEER)  # on a point-to-point link the second is the other end's
    if raw is not None and family in (socket.AF_INET, socket.AF_INET6):
        found.setdefault(socket.if_indextoname(index), []).append(socket.inet_ntop(family, raw))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
