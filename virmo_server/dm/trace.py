"""Keeps the DM messages of each device's last sessions, for people who have to see what was said.

Messages hold credentials, so they are kept sealed by the vault, and are shown without them. Writing must be cheap: the
text is made when somebody looks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Integer, bindparam, delete, func, insert, select
from sqlalchemy.orm import Session, aliased

from dom0_agent.omadm.codec import codec_for
from dom0_agent.omadm.trace import trace_lines
from virmo_server.model import Device
from virmo_server.model_running import TracedExchange
from virmo_server.statements import Prepared, Write
from virmo_server.vault import Vault

#: Larger messages are counted, not kept: they carry an object that belongs to no trace. Rows are read by it, too.
MAX_KEPT_BYTES = 64 * 1024
#: What is too old is dropped by one session of so many, which their random serials say: to look for it costs the
#: database a third of a session without orders.
PRUNED_BY_ONE_OF = 8
_WINDOW_BITS, _MEMORY_LEVEL = 13, 6
_KEEP = Prepared(
    insert(TracedExchange).inline(),
    ("device_id", "serial", "at", "media_type", "question_size", "answer_size", "bodies"),
)
_LAST = aliased(TracedExchange)
_NEWEST = (
    select(_LAST.serial)
    .where(_LAST.device_id == bindparam("device"))
    .group_by(_LAST.serial)
    .order_by(func.max(_LAST.id).desc())
    .limit(bindparam("kept", type_=Integer))
)
_PRUNE = Prepared(
    delete(TracedExchange).where(TracedExchange.device_id == bindparam("device"), TracedExchange.serial.not_in(_NEWEST))
)


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A message for people; ``lines`` as the agent's own trace has them."""

    at: datetime
    from_device: bool
    media_type: str
    size: int
    lines: list[str]


@dataclass(frozen=True, slots=True)
class ShownSession:
    """The messages of one DM session, in their order."""

    serial: str
    messages: list[ShownMessage]


class Trace:
    """The trace of the last ``sessions`` sessions of each device, older ones for a while; 0 keeps nothing."""

    def __init__(self, vault: Vault, sessions: int) -> None:
        self._vault = vault
        self._sessions = sessions

    def pruning(self, device_id: int, serial: str) -> list[Write]:
        """A session begins: what drops those that are too old, if this is one that does."""
        if not self._sessions or int(serial[-2:], 16) % PRUNED_BY_ONE_OF:
            return []
        return [(_PRUNE, [{"device": device_id, "kept": self._sessions - 1}])]

    def keeping(self, device_id: int, serial: str, media_type: str, exchange: Exchange) -> list[Write]:
        """What keeps a message and its answer."""
        if not self._sessions:
            return []
        bodies = (exchange.untrusted_question, exchange.answer)
        kept = b"".join(body for body in bodies if len(body) <= MAX_KEPT_BYTES)
        row = {
            "device_id": device_id,
            "serial": serial,
            "at": exchange.at,
            "media_type": media_type,
            "question_size": len(exchange.untrusted_question),
            "answer_size": len(exchange.answer),
            "bodies": self._vault.seal_bytes(_compressed(kept)),
        }
        return [(_KEEP, [row])]

    def show(self, session: Session, device: Device, limit: int) -> list[ShownSession]:
        """The last ``limit`` sessions of those that are to be kept, newest first."""
        serials = self._serials(session, device, min(limit, self._sessions))
        shown: dict[str, list[ShownMessage]] = {serial: [] for serial in serials}
        query = select(TracedExchange).where(TracedExchange.device_id == device.id, TracedExchange.serial.in_(shown))
        for row in session.scalars(query.order_by(TracedExchange.id)):
            shown[row.serial] += self._messages(row)
        return [ShownSession(serial, messages) for serial, messages in shown.items()]

    def _serials(self, session: Session, device: Device, limit: int) -> Sequence[str]:
        return session.scalars(_NEWEST, {"device": device.id, "kept": limit}).all()

    def _messages(self, row: TracedExchange) -> Iterator[ShownMessage]:
        kept = zlib.decompress(self._vault.open_bytes(row.bodies))
        for from_device, size in ((True, row.question_size), (False, row.answer_size)):
            if size > MAX_KEPT_BYTES:
                lines = [f"{size} octets, too many to be kept"]
            else:
                lines, kept = trace_lines(codec_for(row.media_type), kept[:size]), kept[size:]
            yield ShownMessage(row.at, from_device, row.media_type, size, lines)


def _compressed(body: bytes) -> bytes:
    """For ``zlib.decompress``. With zlib's own large window, to prepare it costs more than messages."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
    return compressor.compress(body) + compressor.flush()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message of a device, its answer, and when that was."""

    untrusted_question: bytes
    answer: bytes
    at: datetime
