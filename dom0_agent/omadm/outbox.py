"""Packs answers and commands into messages no larger than the peer's MaxMsgSize (digest 2.3-2.5).

An outbox numbers what it packs, splits Results with several Items, cuts a value that is too large for one message into
chunks, and reports which number each element got. It knows no authentication and no state of a session.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.frozen import frozen
from dom0_agent.omadm.status import ProtocolError

logger = logging.getLogger(__name__)

#: Octets of a message kept free for a closing Alert 1222 (about 60 octets in XML) and its successors' digits.
_RESERVE = 96
#: A chunk is never smaller than this (octets), whatever MaxMsgSize a peer names: below it a session would not advance.
MIN_CHUNK = 64

#: elements whose only Item may travel in chunks
_CHUNKABLE = (c.Add, c.Replace, c.Exec, c.Results)


#: An element to be sent, and the ref that comes back with its number for whoever wants the answer (or ``None``).
Waiting = tuple[c.BodyElement, str | None]


@frozen
class Numbered:
    """An element with a ref as it was sent, numbered ``cmd_id``, and its members numbered inside it."""

    element: c.BodyElement
    cmd_id: str
    ref: str


@frozen
class Packed:
    """One packed message and its elements with a ref; ``open_chunk``: CmdID of a chunk in it that more will follow."""

    body: bytes
    numbered: tuple[Numbered, ...]
    open_chunk: str | None = None


@dataclass(slots=True)
class _Page:
    """The message being packed."""

    fragments: list[bytes]
    numbered: list[Numbered]
    size: int = 0
    next_id: int = 1


class Outbox:
    """Elements that wait to be sent, in order; ``sent_of_chunked`` items of data of the first are already out."""

    def __init__(self, codec: Codec, waiting: Iterable[Waiting] = (), sent_of_chunked: int = 0) -> None:
        self._codec = codec
        self._waiting = deque(waiting)
        self.sent_of_chunked = sent_of_chunked

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> Sequence[Waiting]:
        """What waits, for persistence."""
        return tuple(self._waiting)

    def add(self, elements: Iterable[c.BodyElement]) -> None:
        """Queue elements behind those that wait."""
        self._waiting.extend(zip(elements, repeat(None)))

    def add_with_ref(self, element: c.BodyElement, ref: str | None) -> None:
        """Queue one element whose number shall be reported with ``ref``."""
        self._waiting.append((element, ref))

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self.sent_of_chunked = 0

    @property
    def chunked_ref(self) -> str | None:
        """The ref of the element that is being sent in chunks, if there is one and it has a ref."""
        return self._waiting[0][1] if self.sent_of_chunked else None

    def drop_chunked(self) -> Waiting | None:
        """Forget the element that is being sent in chunks, because the peer refused it; returns it."""
        if not self.sent_of_chunked:
            return None
        self.sent_of_chunked = 0
        return self._waiting.popleft()

    def restart_chunked(self) -> None:
        """Send the element that was being sent in chunks again from its first octet (Alert 1225)."""
        self.sent_of_chunked = 0

    def pack(
        self,
        header: c.SyncHdr,
        first: Iterable[c.BodyElement] = (),
        last: Iterable[c.BodyElement] = (),
        *,
        limit: int | None = None,
        final: bool = True,
    ) -> Packed:
        """A message: ``first`` whatever their size, as much of the queue as fits ``limit`` octets, then ``last``.

        ``final`` asks for Final, which is left out as long as something waits. At least one waiting element, or a
        chunk of it, goes into each message, so that a session always advances.
        """
        page = _Page([], [])
        for element in first:
            self._put(page, element, None)
        open_chunk = None
        if limit is None:
            for element, ref in self._waiting:
                self._put(page, element, ref)
            self._waiting.clear()
        elif self._waiting:
            page.size += len(self._codec.frame(header, (), final)) + _RESERVE
            open_chunk = self._fill(page, limit)
        for element in last:
            self._put(page, element, None)
        body = self._codec.frame(header, page.fragments, final and not self._waiting)
        return Packed(body, tuple(page.numbered), open_chunk)

    def _put(self, page: _Page, element: c.BodyElement, ref: str | None) -> None:
        element, fragment, next_id = self._encoded(element, page.next_id)
        self._accept(page, element, ref, fragment, next_id)

    @staticmethod
    def _accept(page: _Page, element: c.BodyElement, ref: str | None, fragment: bytes, next_id: int) -> None:
        page.fragments.append(fragment)
        if ref is not None:
            page.numbered.append(Numbered(element, str(page.next_id), ref))
        page.size += len(fragment)
        page.next_id = next_id

    def _encoded(self, element: c.BodyElement, number: int) -> tuple[c.BodyElement, bytes, int]:
        """The element with its members numbered, its octets, and the next free number."""
        next_id = number + 1
        if isinstance(element, (c.Atomic, c.Sequence)):
            element, next_id = _number_members(element, next_id)
        return element, self._codec.fragment(element, str(number)), next_id

    def _fill(self, page: _Page, limit: int) -> str | None:
        """Move what fits from the queue to the page; the CmdID of a chunk at its end that more will follow."""
        placed = 0
        while self._waiting:
            plain, ref = self._waiting[0]
            if self.sent_of_chunked:
                return self._put_chunk(page, plain, ref, limit)
            element, fragment, next_id = self._encoded(plain, page.next_id)
            if page.size + len(fragment) > limit:
                parts = _parts(plain)
                if parts:
                    self._waiting.popleft()
                    self._waiting.extendleft((part, ref) for part in reversed(parts))
                    continue
                if placed:
                    return None
                if _can_be_chunked(element):
                    return self._put_chunk(page, plain, ref, limit)
                logger.warning("message over limit limit=%d element=%s size=%d", limit, element.NAME, len(fragment))
            self._waiting.popleft()
            self._accept(page, element, ref, fragment, next_id)
            placed += 1
        return None

    def _put_chunk(self, page: _Page, element: c.BodyElement, ref: str | None, limit: int) -> str | None:
        """The next chunk of the first element (OMA-TS-DM Protocol 7.2); its CmdID if more will follow."""
        assert isinstance(element, _CHUNKABLE)
        item = self._codec.carry(element.items[0])
        data = item.data if item.data is not None else ""
        offset = self.sent_of_chunked
        meta = item.meta
        if offset == 0:
            meta = replace(meta if meta is not None else c.Meta(), size=carried_size(data))
        number = str(page.next_id)
        take = room = max(limit - page.size, MIN_CHUNK)
        while True:
            more = offset + take < len(data)
            part = replace(item, data=data[offset : offset + take], meta=meta, more_data=more)
            chunk = replace(element, items=(part,))
            fragment = self._codec.fragment(chunk, number)
            if len(fragment) <= room or take <= MIN_CHUNK:
                break
            take = max(MIN_CHUNK, min(take - 1, take * room // len(fragment)))
        self._accept(page, chunk, ref, fragment, page.next_id + 1)
        if more:
            self.sent_of_chunked = offset + take
            return number
        self._waiting.popleft()
        self.sent_of_chunked = 0
        return None


def carried_size(data: c.Data) -> int:
    """``Size`` of an object: octets as the syntax carries them (digest 2.5)."""
    return len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "surrogatepass"))


def _number_members(container: c.Container, next_id: int) -> tuple[c.Container, int]:
    members: list[c.BodyElement] = []
    for plain in container.commands:
        cmd_id = str(next_id)
        next_id += 1
        member = plain
        if isinstance(member, c.Container):
            member, next_id = _number_members(member, next_id)
        if isinstance(member, c.UnknownCommand):
            raise ProtocolError(f"{member.name} is no command of OMA DM and cannot be sent")
        members.append(replace(member, cmd_id=cmd_id))
    return replace(container, commands=tuple(members)), next_id


def _parts(element: c.BodyElement) -> list[c.BodyElement]:
    """Results with several Items as two with half of them each; nothing for other elements."""
    if not isinstance(element, c.Results) or len(element.items) < 2:
        return []
    middle = len(element.items) // 2
    return [replace(element, items=half) for half in (element.items[:middle], element.items[middle:])]


def _can_be_chunked(element: c.BodyElement) -> bool:
    return isinstance(element, _CHUNKABLE) and len(element.items) == 1 and bool(element.items[0].data)
