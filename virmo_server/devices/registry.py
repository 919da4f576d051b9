"""Registration of devices and look-up by what operators call them. Secrets leave this module once, at registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session, selectinload

from virmo_server.clock import Clock
from virmo_server.credentials import new_dm_secret, new_nonce
from virmo_server.model import Device, DeviceLabel
from virmo_server.problem import conflict, not_found
from virmo_server.vault import Vault


@dataclass(frozen=True, slots=True)
class NewDevice:
    """What an operator gives; secrets that are ``None`` are made."""

    name: str
    dev_id: str
    client_name: str | None = None
    client_secret: str | None = None
    server_secret: str | None = None
    base_url: str | None = None
    notify_url: str | None = None
    labels: Sequence[str] = ()
    auth: str = "md5"
    certificate_subject: str | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """Both ways of authentication, in clear, for the agent's configuration."""

    client_name: str
    client_secret: str
    client_nonce: bytes
    server_name: str
    server_secret: str
    server_nonce: bytes


def register(
    session: Session, new: NewDevice, *, server_id: str, vault: Vault, clock: Clock
) -> tuple[Device, Credentials]:
    """Add a device; :class:`Problem` 409 when its name, DevId or credential name is taken.

    The server's credential name is its ServerID: package 0 is digested with the ServerID, so both must be equal for
    clients that mix them up (``oma-dm`` 10).
    """
    client_name = new.client_name or new.name
    taken = session.scalars(
        select(Device).where(
            or_(Device.name == new.name, Device.dev_id == new.dev_id, Device.client_name == client_name)
        )
    ).first()
    if taken is not None:
        raise conflict(
            f"device {taken.name!r} (DevId {taken.dev_id}, client name {taken.client_name!r}) is registered already:"
            " its name, DevId and client name must differ from the new one's"
        )
    credentials = Credentials(
        client_name=client_name,
        client_secret=new.client_secret or new_dm_secret(),
        client_nonce=new_nonce(),
        server_name=server_id,
        server_secret=new.server_secret or new_dm_secret(),
        server_nonce=new_nonce(),
    )
    device = Device(
        dev_id=new.dev_id,
        name=new.name,
        created_at=clock(),
        auth_scheme=new.auth,
        base_url=new.base_url,
        notify_url=new.notify_url,
        certificate_subject=new.certificate_subject,
        labels=[DeviceLabel(label=label) for label in sorted(set(new.labels))],
    )
    _set_credentials(device, credentials, vault)
    session.add(device)
    session.flush()
    return device, credentials


def renew_credentials(device: Device, *, server_id: str, vault: Vault) -> Credentials:
    """New secrets for a device whose old ones are lost or leaked; the old ones are void at once."""
    credentials = Credentials(
        client_name=device.client_name,
        client_secret=new_dm_secret(),
        client_nonce=new_nonce(),
        server_name=server_id,
        server_secret=new_dm_secret(),
        server_nonce=new_nonce(),
    )
    _set_credentials(device, credentials, vault)
    return credentials


def find_device(session: Session, reference: str) -> Device:
    """The device with this name or DevId, or a :class:`Problem` 404."""
    device = session.scalars(select(Device).where(or_(Device.name == reference, Device.dev_id == reference))).first()
    if device is None:
        raise not_found("device", reference, "see 'virmo device list'")
    return device


def lock_device(session: Session, device_id: int) -> None:
    """Until the transaction ends nobody else changes what belongs to this device. Read what you change after it."""
    session.execute(select(Device.id).where(Device.id == device_id).with_for_update(key_share=True))


def find_and_lock_device(session: Session, reference: str) -> Device:
    """As :func:`find_device`, and :func:`lock_device`."""
    device = find_device(session, reference)
    lock_device(session, device.id)
    session.refresh(device)
    return device


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Which devices: with this label; with this word in name, DevId, manufacturer, model or a label. Empty: any."""

    label: str = ""
    word: str = ""

    def conditions(self) -> list[ColumnElement[bool]]:
        """For queries on :class:`Device`."""
        found = []
        if self.label:
            found.append(Device.labels.any(DeviceLabel.label == self.label))
        if self.word:
            columns = (Device.name, Device.dev_id, Device.man, Device.mod)
            in_label = Device.labels.any(DeviceLabel.label.icontains(self.word, autoescape=True))
            found.append(or_(in_label, *(column.icontains(self.word, autoescape=True) for column in columns)))
        return found


EVERY_DEVICE = DeviceFilter()


def list_devices(
    session: Session, which: DeviceFilter = EVERY_DEVICE, *, offset: int = 0, limit: int | None = None
) -> list[Device]:
    """These devices by name; at most ``limit`` of them, after the first ``offset``."""
    query = select(Device).options(selectinload(Device.labels)).order_by(Device.name).where(*which.conditions())
    return list(session.scalars(query.offset(offset).limit(limit)))


def _set_credentials(device: Device, credentials: Credentials, vault: Vault) -> None:
    device.client_name = credentials.client_name
    device.client_secret = vault.seal(credentials.client_secret)
    device.client_nonce = credentials.client_nonce
    device.server_name = credentials.server_name
    device.server_secret = vault.seal(credentials.server_secret)
    device.server_nonce = credentials.server_nonce
    device.auth_failed_at = None
    device.auth_failure = None
