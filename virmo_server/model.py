"""The tables of the server. Only data and its constraints; what it means is decided in the packages that use it.

Nothing here is SQLite's own, so that PostgreSQL can take its place.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from virmo_server.database import Base, UtcDateTime


class OrderState(StrEnum):
    """Life of an order. ``accepted``: the device said 202 and will report the end by a Generic Alert."""

    QUEUED = "queued"
    SENT = "sent"
    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Nothing more will happen."""
        return self in FINAL_STATES


def words_type(kind: type[StrEnum]) -> Enum:
    """Column type of an enumeration: its words, checked on the way in and out, in a plain character column."""
    return Enum(
        kind, native_enum=False, create_constraint=False, length=16, values_callable=lambda k: [e.value for e in k]
    )


FINAL_STATES = frozenset({OrderState.DONE, OrderState.FAILED, OrderState.EXPIRED, OrderState.CANCELLED})
OPEN_STATES = frozenset(OrderState) - FINAL_STATES


class SignatureState(StrEnum):
    """What is known of an image's signature; bad ones do not enter the library."""

    NONE = "none"
    UNCHECKED = "unchecked"  #: there is one, and no CA to check it with; or it was not looked for
    GOOD = "good"


class Role(StrEnum):
    """What a token may do; each role includes the ones before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Device(Base):
    """A board. ``*_secret`` are sealed by the vault."""

    __tablename__ = "device"

    id: Mapped[int] = mapped_column(primary_key=True)
    dev_id: Mapped[str] = mapped_column(String(255), unique=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    base_url: Mapped[str | None] = mapped_column(String(1024))  #: how this device reaches us, if not by public_url
    notify_url: Mapped[str | None] = mapped_column(String(1024))  #: where the agent listens for package 0
    auth_scheme: Mapped[str] = mapped_column(String(16))  #: md5, hmac or basic, both ways
    client_name: Mapped[str] = mapped_column(String(255), unique=True)
    client_secret: Mapped[str] = mapped_column(Text)
    client_nonce: Mapped[bytes] = mapped_column(LargeBinary)
    server_name: Mapped[str] = mapped_column(String(255))
    server_secret: Mapped[str] = mapped_column(Text)
    server_nonce: Mapped[bytes] = mapped_column(LargeBinary)
    last_seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  #: last authenticated message
    man: Mapped[str | None] = mapped_column(String(255))  #: DevInfo/Man
    mod: Mapped[str | None] = mapped_column(String(255))  #: DevInfo/Mod
    dm_version: Mapped[str | None] = mapped_column(String(255))  #: DevInfo/DmV
    auth_failed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    auth_failure: Mapped[str | None] = mapped_column(String(255))
    notified_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    notify_error: Mapped[str | None] = mapped_column(String(255))
    notify_window_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  #: begin of the minute that is counted
    notify_count: Mapped[int] = mapped_column(default=0)  #: notifications in that minute
    virmo_root: Mapped[str | None] = mapped_column(String(255))  #: discovered by MOID; None: not yet looked for
    vmimg_root: Mapped[str | None] = mapped_column(String(255))
    certificate_subject: Mapped[str | None] = mapped_column(String(1024))  #: of the client certificate it must show
    labels: Mapped[list[DeviceLabel]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, order_by="DeviceLabel.label"
    )


class DeviceLabel(Base):
    """A word that operators put on devices to address many of them at once."""

    __tablename__ = "device_label"

    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    label: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class DmSession(Base):
    """A DM session between two HTTP requests; keyed as OMA-TS-DM-Protocol has it, never by cookie or address."""

    __tablename__ = "dm_session"

    source: Mapped[str] = mapped_column(String(255), primary_key=True)  #: Source/LocURI of the client
    session_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    serial: Mapped[str] = mapped_column(String(32))  #: ours, unique: devices reuse session ids
    device_id: Mapped[int | None] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"))
    state: Mapped[bytes] = mapped_column(LargeBinary)
    begun: Mapped[bool]  #: the device has proved who it is, and earlier sessions are settled
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class KnownNode(Base):
    """A node of a device's tree as it was last seen. ``value`` is ``None`` for interior nodes."""

    __tablename__ = "known_node"

    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    uri: Mapped[str] = mapped_column(String(1024), primary_key=True)
    format: Mapped[str | None] = mapped_column(String(16))
    value: Mapped[str | None] = mapped_column(Text)
    known_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Vm(Base):
    """A VM on a device: the operator's name for the node below the VirMO root. Its state is in the known tree."""

    __tablename__ = "vm"
    __table_args__ = (UniqueConstraint("device_id", "name"), UniqueConstraint("device_id", "node"))

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(64))
    node: Mapped[str] = mapped_column(String(64))


class DeliveredImage(Base):
    """An image entry on a device: the operator's name for the node below the VMImgMO root."""

    __tablename__ = "delivered_image"
    __table_args__ = (UniqueConstraint("device_id", "name"), UniqueConstraint("device_id", "node"))

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(64))
    node: Mapped[str] = mapped_column(String(64))
    image_id: Mapped[str | None] = mapped_column(ForeignKey("image.id"))


class Image(Base):
    """A file of the library. ``id`` is random: it is also what lets a device that was told the URL fetch the file."""

    __tablename__ = "image"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    file_name: Mapped[str] = mapped_column(String(255))
    media_type: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    signature_state: Mapped[SignatureState] = mapped_column(words_type(SignatureState))
    signed_by: Mapped[str | None] = mapped_column(String(255))  #: subject of the certificate
    signature: Mapped[bytes | None] = mapped_column(LargeBinary)  #: one that is not in the file: CMS, DER


class OrderGroup(Base):
    """One request for many devices; ``rate`` is how many of its orders may be open on devices at once."""

    __tablename__ = "order_group"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(64))
    rate: Mapped[int | None]


class Order(Base):
    """Something an operator wants of one device. ``memory`` belongs to the procedure, ``step`` names its next step.

    ``session_serial``: the DM session in which the step's commands are under way, ``None`` when none are; ``answers``
    are those that came already, by index. ``polled_serial``: the last session in which the device was asked for State.
    ``losses`` counts sendings in a row that were never answered. ``doubtful``: there was one, so that the device may
    have done what it was told although nobody heard of it.
    """

    __tablename__ = "order"
    __table_args__ = (Index("ix_order_device_state", "device_id", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"))
    group_id: Mapped[int | None] = mapped_column(ForeignKey("order_group.id"), index=True)
    after_id: Mapped[int | None] = mapped_column(ForeignKey("order.id"))  #: begins when that order is done
    kind: Mapped[str] = mapped_column(String(32))
    target: Mapped[str] = mapped_column(String(80))  #: orders with the same target on a device run one after another
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[OrderState] = mapped_column(words_type(OrderState))
    step: Mapped[str] = mapped_column(String(32))
    memory: Mapped[dict[str, Any]] = mapped_column(JSON)
    correlator: Mapped[str] = mapped_column(String(64), unique=True)
    session_serial: Mapped[str | None] = mapped_column(String(32))
    polled_serial: Mapped[str | None] = mapped_column(String(32))
    answers: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    losses: Mapped[int] = mapped_column(default=0)
    doubtful: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(64))
    deadline: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    dm_status: Mapped[int | None]  #: of the command that decided the order
    message: Mapped[str] = mapped_column(Text, default="")
    device: Mapped[Device] = relationship()


class OrderEvent(Base):
    """A line of an order's audit trail."""

    __tablename__ = "order_event"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("order.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(64))
    state: Mapped[OrderState] = mapped_column(words_type(OrderState))
    step: Mapped[str] = mapped_column(String(32))
    text: Mapped[str] = mapped_column(Text)


class ReceivedAlert(Base):
    """A Generic Alert of a device, whether or not an order waited for it."""

    __tablename__ = "received_alert"

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), index=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("order.id", ondelete="SET NULL"))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    type: Mapped[str] = mapped_column(String(255))
    format: Mapped[str] = mapped_column(String(16))
    mark: Mapped[str | None] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(String(1024))
    correlator: Mapped[str | None] = mapped_column(String(255))
    data: Mapped[str] = mapped_column(Text)


class Token(Base):
    """A key to the HTTP API; only its SHA-256 is kept."""

    __tablename__ = "token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[Role] = mapped_column(words_type(Role))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
