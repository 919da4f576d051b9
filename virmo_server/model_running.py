"""The tables of the server's own running: who may use it, what happened, and which of several processes leads.

As in ``model``, only data and its constraints.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from virmo_server.database import Base, UtcDateTime
from virmo_server.model import Role, words_type

#: Numbers rows of tables that grow for ever; SQLite counts with 64 bits anyway, but calls it INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")


class EventKind(StrEnum):
    """What an event is about."""

    DEVICE = "device"
    VM = "vm"
    IMAGE = "image"
    ORDER = "order"
    ALERT = "alert"


class Event(Base):
    """Something changed; written in the transaction that changed it, read by the event stream of every process."""

    __tablename__ = "event"
    __table_args__ = ({"sqlite_autoincrement": True},)  # numbers of events that were pruned never come again

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    kind: Mapped[EventKind] = mapped_column(words_type(EventKind))
    device: Mapped[str | None] = mapped_column(String(64))  #: its name at that time
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class TracedExchange(Base):
    """A DM message of one of a device's last sessions, and the answer to it."""

    __tablename__ = "traced_exchange"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), index=True)
    serial: Mapped[str] = mapped_column(String(32))  #: of the DM session
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    media_type: Mapped[str] = mapped_column(String(64))
    question_size: Mapped[int]  #: octets of the message as it was
    answer_size: Mapped[int]
    bodies: Mapped[bytes] = mapped_column(LargeBinary)  #: of both, as ``dm.trace`` seals them


class Operator(Base):
    """A person who logs in; ``password`` is a salted scrypt hash."""

    __tablename__ = "operator"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[Role] = mapped_column(words_type(Role))
    password: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    failures: Mapped[int] = mapped_column(default=0)  #: wrong passwords in a row
    locked_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Login(Base):
    """An operator's browser that has logged in; only the SHA-256 of what its cookie holds is kept."""

    __tablename__ = "login"

    id: Mapped[int] = mapped_column(primary_key=True)
    operator_id: Mapped[int] = mapped_column(ForeignKey("operator.id", ondelete="CASCADE"), index=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class AuditRecord(Base):
    """A request that would change something: who asked for what, and what came of it."""

    __tablename__ = "audit_record"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    actor: Mapped[str] = mapped_column(String(64), index=True)
    role: Mapped[Role | None] = mapped_column(words_type(Role))
    operation: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(String(255))  #: path below the API's prefix
    status: Mapped[int]  #: HTTP status
    detail: Mapped[str] = mapped_column(Text)


class Lease(Base):
    """Work that one process at a time does; void when its holder does not renew it."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class InstallReport(Base):
    """What a device reported to the installNotifyURI of a download descriptor (DLOTA)."""

    __tablename__ = "install_report"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("image.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    status: Mapped[int]
    text: Mapped[str] = mapped_column(String(255))
