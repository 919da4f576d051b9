"""One end of a channel, sans-IO: messages in pieces, credit, what may come when. The same class on both sides.

Bytes go in by :meth:`Endpoint.receive` and come out as messages; messages go in by :meth:`Endpoint.send` and come out
as bytes by :meth:`Endpoint.take`. Knows no transport, no clock and no meaning of a verb. Not thread-safe.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from guest_shim.protocol import (
    CREDIT_MINIMUM,
    FIELDS_CAP,
    HEADER_CAP,
    MESSAGE_CAP,
    PAYLOAD_CAP,
    PIECE_MINIMUM,
    WINDOW,
    Frame,
    FrameReader,
    ProtocolError,
    decode_json,
    encode_header,
    encode_json,
    head,
)

AGENT, SHIM = "agent", "shim"
#: Messages that may be on their way in pieces at the same time.
PARTIAL_CAP = 16
#: Bytes of them all.
PARTIAL_BYTES_CAP = 2 * MESSAGE_CAP
#: Requests that the agent gave up and whose late answer is not a breach.
FORGIVEN_CAP = 256
#: Fields travel in a header up to this many bytes.
_INLINE = HEADER_CAP // 2
_NUMBER_CAP = 1 << 53

#: what each side takes: type → whether it has fields and a payload
_WITH_BODY = {AGENT: frozenset({"answer", "say"}), SHIM: frozenset({"request"})}
_PLAIN = {AGENT: frozenset({"beat", "pong", "bye"}), SHIM: frozenset({"cancel", "heard", "ping", "bye"})}
_NUMBERED = frozenset({"answer", "say", "request", "cancel", "heard"})


class Message(NamedTuple):
    """Something complete from the other side. ``header`` has what is not in the other attributes.

    A tuple takes a third of the time to make.
    """

    kind: str
    number: int
    header: dict[str, Any]
    fields: dict[str, Any]
    payload: bytes = b""


@dataclass
class _Partial:
    header: dict[str, Any]
    size: int
    spilled: int
    pieces: list[bytes] = field(default_factory=list)  #: joined once: copies cost
    held: int = 0  #: bytes in them


def _spilled(kind: str, fields: dict[str, Any]) -> bytes:
    raw = encode_json(fields)
    if len(raw) > FIELDS_CAP:
        raise ProtocolError(f"the fields of a {kind} have {len(raw)} bytes, over {FIELDS_CAP}")
    return raw


@dataclass
class _Outgoing:
    kind: str
    number: int
    rest: memoryview
    header: dict[str, Any] | None  #: until the first frame is out


#: Told of every frame from the other side: its type, its bytes, and whether it is (a piece of) an awaited answer.
Meter = Callable[[str, int, bool], None]


def _no_meter(_kind: str, _size: int, _awaited: bool) -> None:
    return


class Endpoint:
    """See the module."""

    def __init__(self, side: str, meter: Meter = _no_meter, piece: int = PAYLOAD_CAP) -> None:
        """``side`` is :data:`AGENT` or :data:`SHIM`; ``meter`` may raise :class:`ProtocolError`.

        ``piece``: bytes of a long payload that travel in one frame, which everything else then waits for.
        """
        self._most = piece
        self._takes_body, self._takes_plain = _WITH_BODY[side], _PLAIN[side]
        self._side = side
        self._meter = meter
        self._reader = FrameReader()
        self._greeted = False
        self._partial: dict[tuple[str, int], _Partial] = {}
        self._awaited: set[int] = set()  # agent: requests without an answer
        self._forgiven: OrderedDict[int, None] = OrderedDict()
        self._control: deque[bytes] = deque()
        self._outgoing: deque[_Outgoing] = deque()
        self._may_send = WINDOW
        self._may_come = WINDOW
        self._consumed = 0  # bytes that came since we gave credit last

    # -- out --------------------------------------------------------------------------------------------------------

    def send(
        self,
        kind: str,
        number: int = 0,
        header: dict[str, Any] | None = None,
        fields: dict[str, Any] | None = None,
        payload: bytes = b"",
    ) -> None:
        """Queue a message. :class:`ProtocolError`, :class:`ValueError` or :class:`TypeError` when it cannot travel."""
        size = len(payload)
        if size > MESSAGE_CAP:
            raise ProtocolError(f"a {kind} of {size} bytes is over {MESSAGE_CAP}")
        full: dict[str, Any] = dict(header or {})
        if number:
            full["id"] = number
        if fields:
            full["fields"] = fields
        if size:
            full["size"] = size
        at_once = not size or (size <= min(self._most, self._may_send) and not self._outgoing)
        raw = encode_header(kind, full, size if at_once else 0)
        if fields and len(raw) > _INLINE:
            del full["fields"]
            payload = _spilled(kind, fields) + payload
            full["spilled"], full["size"] = len(payload) - size, len(payload)
            at_once = False
            raw = encode_header(kind, full, 0)
        whole = head(kind, raw, 0)  # what is over a cap fails here, not when it is its turn
        if at_once:
            self._control.append(whole + payload)
            self._may_send -= size
        else:
            self._outgoing.append(_Outgoing(kind, number, memoryview(payload), full))
        if kind == "request":
            self._awaited.add(number)

    def cancel(self, number: int) -> None:
        """Agent: nobody waits for the answer to this request any more."""
        if number not in self._awaited:
            return
        self._awaited.discard(number)
        self._forgiven[number] = None
        if len(self._forgiven) > FORGIVEN_CAP:
            self._forgiven.popitem(last=False)
        self._partial.pop(("answer", number), None)
        if not self._withdraw("request", number):
            self.send("cancel", number)

    def has_more(self) -> bool:
        """Whether something waits to be sent, or for credit."""
        return bool(self._control or self._outgoing)

    def take(self) -> bytes | bytearray:
        """The bytes to send next; empty when there are none, or none that the other side gives credit for."""
        if self._control:
            joined = b"".join(self._control)
            self._control.clear()
            return joined
        for _ in range(len(self._outgoing)):
            out = self._outgoing[0]
            size = min(len(out.rest), self._most, self._may_send)
            if size < min(len(out.rest), PIECE_MINIMUM):
                if out.header is None:
                    return b""
                size = 0
            piece = out.rest[:size]
            out.rest = out.rest[size:]
            self._may_send -= size
            if out.header is not None:
                kind, fields = out.kind, out.header
                out.header = None
            else:
                kind, fields = "data", {"id": out.number, "kind": out.kind}
            self._outgoing.popleft()
            if out.rest:
                self._outgoing.append(out)  # the others' turn
            return bytearray().join((head(kind, encode_header(kind, fields, size), size), piece))
        return b""

    # -- in ---------------------------------------------------------------------------------------------------------

    def receive(self, untrusted_data: bytes | bytearray | memoryview) -> list[Message]:
        """The messages that are complete now. :class:`ProtocolError`: close the channel."""
        messages: list[Message] = []
        for frame in self._reader.feed(untrusted_data):
            message = self._take(frame)
            if message is not None:
                messages.append(message)
        return messages

    def _take(self, frame: Frame) -> Message | None:
        number = frame.fields.pop("id", 0)
        if type(number) is not int or not 0 <= number < _NUMBER_CAP:
            raise ProtocolError(f"a {frame.type[:20]} has no valid id")
        kind = frame.fields.get("kind") if frame.type == "data" else frame.type
        awaited = self._side == SHIM or (kind == "answer" and number in self._awaited)
        size = frame.size()
        self._meter(frame.type, size, awaited)
        self._account(size)
        if frame.type == "hello":
            if self._greeted:
                raise ProtocolError("a second hello")
            self._greeted = True
            return Message("hello", 0, frame.fields, {})
        if not self._greeted:
            raise ProtocolError(f"{frame.type[:20]} before hello")
        if frame.type == "credit":
            self._credit(frame.fields.get("bytes"))
            return None
        if frame.type == "data":
            return self._data(str(kind)[:20], number, frame, size)
        if frame.type in _NUMBERED and number == 0:
            raise ProtocolError(f"a {frame.type} without an id")
        if frame.type in self._takes_body:
            return self._begin(frame, number, size)
        if frame.type in self._takes_plain:
            if frame.type == "cancel":
                self._partial.pop(("request", number), None)
                self._withdraw("answer", number)
            return Message(frame.type, number, frame.fields, {})
        return None  # of a later version's making

    def _begin(self, frame: Frame, number: int, came: int) -> Message | None:
        header, key = frame.fields, (frame.type, number)
        size, spilled = header.pop("size", 0), header.pop("spilled", 0)
        if type(size) is not int or not 0 <= size <= MESSAGE_CAP + FIELDS_CAP:
            raise ProtocolError(f"a {frame.type} of {size!r} bytes is announced")
        if type(spilled) is not int or not 0 <= spilled <= min(size, FIELDS_CAP):
            raise ProtocolError(f"a {frame.type} with {spilled!r} bytes of fields is announced")
        if frame.type == "answer" and number not in self._awaited:
            if number in self._forgiven:
                return None
            raise ProtocolError("an answer to a request that was not made")
        if key in self._partial:
            raise ProtocolError(f"a {frame.type} begins twice")
        if came == size and not spilled and not frame.more:
            return self._complete(key, header, frame.payload, header.pop("fields", {}))
        if len(self._partial) >= PARTIAL_CAP:
            raise ProtocolError(f"more than {PARTIAL_CAP} messages in pieces")
        if size + sum(partial.size for partial in self._partial.values()) > PARTIAL_BYTES_CAP:
            raise ProtocolError(f"messages in pieces are over {PARTIAL_BYTES_CAP} bytes")
        self._partial[key] = _Partial(header, size, spilled)
        return self._add(key, frame, came)

    def _data(self, kind: str, number: int, frame: Frame, came: int) -> Message | None:
        if (kind, number) in self._partial:
            partial = self._partial[kind, number]
            if came < PIECE_MINIMUM and partial.held + came < partial.size:
                raise ProtocolError(f"a piece of {came} bytes that is not the last")
            return self._add((kind, number), frame, came)
        if kind == "answer" and number in self._forgiven:
            return None
        raise ProtocolError("a piece of a message that did not begin")

    def _add(self, key: tuple[str, int], frame: Frame, came: int) -> Message | None:
        partial = self._partial[key]
        if partial.held + came > partial.size:
            raise ProtocolError(f"a {key[0]} is longer than announced")
        partial.pieces += (frame.payload, *frame.more)
        partial.held += came
        if partial.held < partial.size:
            return None
        del self._partial[key]
        fields, data = partial.header.pop("fields", {}), b"".join(partial.pieces)
        if partial.spilled:
            fields = decode_json(data[: partial.spilled], f"the fields of a {key[0]}")
            data = data[partial.spilled :]
        return self._complete(key, partial.header, data, fields)

    def _complete(self, key: tuple[str, int], header: dict[str, Any], payload: bytes, fields: Any) -> Message:
        if not isinstance(fields, dict):
            raise ProtocolError(f"the fields of a {key[0]} are not an object")
        if key[0] == "answer":
            self._awaited.discard(key[1])
        return Message(key[0], key[1], header, fields, payload)

    def _account(self, size: int) -> None:
        """Payload came: it was within our credit, and is given back when it has become much."""
        if size > self._may_come:
            raise ProtocolError("more payload than there was credit for")
        self._may_come -= size
        self._consumed += size
        if self._consumed >= CREDIT_MINIMUM:
            self.send("credit", 0, {"bytes": self._consumed})
            self._may_come += self._consumed
            self._consumed = 0

    def _credit(self, untrusted_bytes: Any) -> None:
        if type(untrusted_bytes) is not int or not CREDIT_MINIMUM <= untrusted_bytes <= WINDOW:
            raise ProtocolError(f"credit of {untrusted_bytes!r} bytes")
        self._may_send += untrusted_bytes
        if self._may_send > WINDOW:
            raise ProtocolError("more credit than was used")

    def _withdraw(self, kind: str, number: int) -> bool:
        """Do not send (the rest of) a message; ``True`` when nothing of it is out yet."""
        for out in self._outgoing:
            if (out.kind, out.number) == (kind, number):
                self._outgoing.remove(out)
                return out.header is not None
        return False
