"""The frames between a guest's shim and the agent in dom0: the wire contract that both sides import.

A frame is the length of its header (4 bytes, big-endian), the header (a JSON object, UTF-8) and, when the header has
``"payload": n``, n raw bytes. Sans-IO: bytes in, frames out. Both sides use the same caps: the peer is never believed.
What the frames make together is :mod:`guest_shim.endpoint`'s. Must run on Python 3.9 with the standard library alone.

The first frame each way is ``hello``::

    shim → agent  {"type": "hello", "versions": [1], "shim": "0.1.0", "boot_id": "…", "beats": 17, "instance": "…",
                   "resumed": false, "objects": [{"moid", "live", "operations"}], "capabilities": ["clock"]}
    agent → shim  {"type": "hello", "version": 1}

then, in any order, version 1 has

========== ============== =============================================================================================
type       direction      meaning
========== ============== =============================================================================================
request    agent → shim   ``id``, ``verb``, ``fields``, ``size`` of the payload, ``deadline`` in seconds from now
answer     shim → agent   ``id`` of the request, ``status``, ``fields``, ``size``
cancel     agent → shim   ``id``: nobody waits for this request any more
say        shim → agent   ``id`` (grows by one in a shim's life), ``verb``, ``fields``, ``size``: told by itself
heard      agent → shim   ``id``: this and all that was said before arrived
data       both           ``id``, ``kind``: the next piece of the payload of that request, answer or say
credit     both           ``bytes``: so many more bytes of payload may be sent
beat       shim → agent   ``beats``, about once a second
ping, pong agent → shim   keep-alive, and its answer
bye        both           ``reason``: the sender closes
========== ============== =============================================================================================

A payload of up to 16 MiB travels in pieces of at most 512 KiB, the first with its message's own frame; fields that are
too long for a header travel in front of the payload, ``"spilled"`` bytes of JSON. Pieces of several messages may
alternate; all but the last of a message have at least 1 KiB. A sender starts with a credit of 1 MiB and gets it back in
parts of at least 512 KiB: nothing can be made of many tiny frames. Frames of other types are a later version's: they
are ignored.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

#: Protocol versions this module speaks, best first.
VERSIONS = (1,)
#: Bytes of a header: the longest are inventories' URIs, well below 4 KiB.
HEADER_CAP = 16 * 1024
#: Bytes of a payload: longer things travel in several frames.
PAYLOAD_CAP = 512 * 1024
#: Levels of nesting in a header or in spilled fields; ours have four.
DEPTH_CAP = 8
#: Bytes of a message's whole payload.
MESSAGE_CAP = 16 * 1024 * 1024
#: Bytes of fields that are too long for a header.
FIELDS_CAP = 1024 * 1024
#: Bytes of a piece that is not its message's last.
PIECE_MINIMUM = 1024
#: Bytes of a payload that are kept as they came, before the rest: what trickles must not cost many times its size.
PIECE_KEPT = 4096
#: Bytes of payload that may be on their way without the receiver's credit.
WINDOW = 1024 * 1024
#: Bytes of credit that are given back at least.
CREDIT_MINIMUM = WINDOW // 2

_LENGTH = struct.Struct(">I")
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class ProtocolError(Exception):
    """The peer's bytes are not a frame we accept; the channel must be closed."""


class Frame(NamedTuple):
    """What travels at once. Each message makes one: a tuple takes a third of the time."""

    type: str
    fields: dict[str, Any]
    payload: bytes = b""  #: or its beginning, when it did not come at once
    more: tuple[bytes, ...] = ()  #: the rest, as it came: whoever needs it in one piece joins it once

    def size(self) -> int:
        """Bytes of the payload."""
        return len(self.payload) + sum(map(len, self.more))


def encode(frame: Frame) -> bytes:
    """The bytes of a frame. :class:`ProtocolError` when it is over a cap."""
    header = encode_header(frame.type, frame.fields, frame.size())
    return b"".join((head(frame.type, header, frame.size()), frame.payload, *frame.more))


def encode_header(type_: str, fields: dict[str, Any], size: int) -> bytes:
    """The header of a frame whose payload has ``size`` bytes; may be over the cap."""
    header: dict[str, Any] = {**fields, "type": type_}
    if size:
        header["payload"] = size
    return encode_json(header)


def head(type_: str, header: bytes, size: int) -> bytes:
    """All of a frame that is in front of its payload. :class:`ProtocolError` when it is over a cap."""
    if len(header) > HEADER_CAP or size > PAYLOAD_CAP:
        raise ProtocolError(f"a {type_} frame is over the caps: {len(header)} + {size} bytes")
    return _LENGTH.pack(len(header)) + header


def encode_json(value: Any) -> bytes:
    """Compact JSON. :class:`ValueError` or :class:`TypeError` when ``value`` is not JSON's."""
    return _ENCODER.encode(value).encode("utf-8", "replace")


def decode_json(untrusted_raw: bytes, what: str) -> Any:
    """Parse JSON that is not too deep. :class:`ProtocolError` names ``what`` it was."""
    if _depth(untrusted_raw) > DEPTH_CAP:
        raise ProtocolError(f"{what} is nested deeper than {DEPTH_CAP}")
    try:
        text = untrusted_raw.decode("utf-8")
        value, end = _DECODER.raw_decode(text)
    except ValueError as error:  # also UnicodeDecodeError
        raise ProtocolError(f"{what} is not JSON: {error}") from None
    if end != len(text):
        raise ProtocolError(f"{what} is more than JSON")
    return value


class FrameReader:
    """Collects bytes into frames; holds at most one frame's worth of them beside what the caller just gave."""

    def __init__(self) -> None:
        self._head = b""  # the beginning of a header
        self._header: dict[str, Any] | None = None  # it is complete, its payload is not
        self._pieces: list[bytes] = []  # of the payload
        self._missing = 0  # bytes of it

    def feed(self, untrusted_data: bytes | bytearray | memoryview) -> list[Frame]:
        """The frames that are complete now. :class:`ProtocolError` on the first byte that is not acceptable."""
        data, at = untrusted_data, 0
        if self._head:
            data, self._head = self._head + bytes(data), b""
        end = len(data)
        frames: list[Frame] = []
        while True:
            if self._header is None:
                begins = self._begin(data, at)
                if begins < 0:
                    self._head = bytes(data[at:])
                    return frames
                at = begins
            header, pieces = self._header, self._pieces
            if self._missing:
                took = min(self._missing, end - at)
                piece = bytes(data[at : at + took])
                if pieces and len(pieces[-1]) < PIECE_KEPT:
                    pieces[-1] += piece
                else:
                    pieces.append(piece)
                self._missing -= took
                at += took
                if self._missing:
                    return frames
            assert header is not None
            frames.append(Frame(header.pop("type"), header, pieces[0] if pieces else b"", tuple(pieces[1:])))
            pieces.clear()
            self._header = None
            if at == end:
                return frames

    def _begin(self, data: bytes | bytearray | memoryview, at: int) -> int:
        """Take the header that begins here; where its payload begins, -1 when the header is not complete yet."""
        if len(data) - at < _LENGTH.size:
            return -1
        (length,) = _LENGTH.unpack_from(data, at)
        if length > HEADER_CAP:
            raise ProtocolError(f"a header of {length} bytes is announced, over {HEADER_CAP}")
        end = at + _LENGTH.size + int(length)
        if len(data) < end:
            return -1
        self._header = _parse_header(bytes(data[at + _LENGTH.size : end]))
        self._missing = _payload_length(self._header)
        return end


def choose_version(untrusted_versions: Any) -> int:
    """The best version that both speak. :class:`ProtocolError` when there is none."""
    offered: Sequence[Any] = untrusted_versions if isinstance(untrusted_versions, list) else ()
    for version in VERSIONS:
        if version in offered:
            return version
    raise ProtocolError(f"no common protocol version: we speak {list(VERSIONS)}")


def _parse_header(untrusted_raw: bytes) -> dict[str, Any]:
    header = decode_json(untrusted_raw, "a header")
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ProtocolError("a header is not an object with a type")
    return header


def _payload_length(untrusted_header: dict[str, Any]) -> int:
    length = untrusted_header.pop("payload", 0)
    if type(length) is not int or not 0 <= length <= PAYLOAD_CAP:
        raise ProtocolError(f"a payload of {length!r} bytes is announced; 0 to {PAYLOAD_CAP} are allowed")
    return length


def _depth(raw: bytes) -> int:
    """The nesting, without parsing: a parser that recurses must not meet it first. Brackets in strings do not count."""
    if raw.count(b"[") + raw.count(b"{") <= DEPTH_CAP:
        return 0  # cannot be too deep, and most headers are like this
    depth = deepest = 0
    for byte in _STRING.sub(b"", raw):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
