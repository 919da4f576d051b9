"""Keeps the DM messages of each device's last sessions, for people who have to see what was said.

Messages hold credentials, so they are kept sealed by the vault, and are shown without them. Writing must be cheap: the
text is made when somebody looks.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Integer, bindparam, delete, func, insert, select
from sqlalchemy.orm import Session, aliased

from dom0_agent.omadm.codec import codec_for
from dom0_agent.omadm.trace import trace_lines
from virmo_server.model import Device
from virmo_server.model_running import TracedMessage
from virmo_server.statements import Prepared, Write
from virmo_server.vault import Vault

#: Larger messages are counted, not kept: they carry an object that belongs to no trace.
MAX_KEPT_BYTES = 64 * 1024
#: What is too old is dropped by one session of so many, which their random serials say: to look for it costs the
#: database a third of a session without orders.
PRUNED_BY_ONE_OF = 8
_WINDOW_BITS, _MEMORY_LEVEL = 13, 6
_KEEP = Prepared(
    insert(TracedMessage).inline(), ("device_id", "serial", "at", "from_device", "media_type", "size", "body")
)
_LAST = aliased(TracedMessage)
_NEWEST = (
    select(_LAST.serial)
    .where(_LAST.device_id == bindparam("device"))
    .group_by(_LAST.serial)
    .order_by(func.max(_LAST.id).desc())
    .limit(bindparam("kept", type_=Integer))
)
_PRUNE = Prepared(
    delete(TracedMessage).where(TracedMessage.device_id == bindparam("device"), TracedMessage.serial.not_in(_NEWEST))
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
        rows = [
            {
                "device_id": device_id,
                "serial": serial,
                "at": exchange.at,
                "from_device": from_device,
                "media_type": media_type,
                "size": len(body),
                "body": self._vault.seal_bytes(_compressed(body)) if len(body) <= MAX_KEPT_BYTES else b"",
            }
            for from_device, body in ((True, exchange.untrusted_question), (False, exchange.answer))
        ]
        return [(_KEEP, rows)]

    def show(self, session: Session, device: Device, limit: int) -> list[ShownSession]:
        """The last ``limit`` sessions of those that are to be kept, newest first."""
        serials = self._serials(session, device, min(limit, self._sessions))
        shown: dict[str, list[ShownMessage]] = {serial: [] for serial in serials}
        query = select(TracedMessage).where(TracedMessage.device_id == device.id, TracedMessage.serial.in_(shown))
        for row in session.scalars(query.order_by(TracedMessage.id)):
            message = ShownMessage(row.at, row.from_device, row.media_type, row.size, self._lines(row))
            shown[row.serial].append(message)
        return [ShownSession(serial, messages) for serial, messages in shown.items()]

    def _serials(self, session: Session, device: Device, limit: int) -> Sequence[str]:
        return session.scalars(_NEWEST, {"device": device.id, "kept": limit}).all()

    def _lines(self, row: TracedMessage) -> list[str]:
        if not row.body:
            return [f"{row.size} octets, too many to be kept"]
        return trace_lines(codec_for(row.media_type), zlib.decompress(self._vault.open_bytes(row.body)))


def _compressed(body: bytes) -> bytes:
    """For ``zlib.decompress``. With zlib's own large window, to prepare it costs more than a message."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
    return compressor.compress(body) + compressor.flush()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message of a device, its answer, and when that was."""

    untrusted_question: bytes
    answer: bytes
    at: datetime
