"""A device's credentials and nonces as the protocol library asks for them, and the record of failed authentications.

Device and account are one here: the account's name towards the library is the DevId.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, select, update

from dom0_agent.omadm.auth import AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.server_auth import DeviceCredentials, LockOut
from virmo_server.clock import Clock
from virmo_server.events.recorder import is_seen_worth_telling, telling
from virmo_server.model import Device
from virmo_server.model_running import EventKind
from virmo_server.statements import Prepared, Write
from virmo_server.vault import Vault

logger = logging.getLogger(__name__)

MAX_DEV_ID_CHARS = 255
#: Devices' addresses that need not be parsed again.
REMEMBERED_ADDRESSES = 4096
#: Columns that messages change, and those that they need besides.
_NOTED = (
    "client_nonce", "server_nonce", "last_seen_at", "man", "mod", "dm_version", "auth_failed_at", "auth_failure",
)  # fmt: skip
_NEEDED = (
    "id", "name", "dev_id", "base_url", "auth_scheme", "client_name", "client_secret", "server_name", "server_secret",
    "certificate_subject",
)  # fmt: skip
_SAVE = Prepared(update(Device).where(Device.id == bindparam("key")), _NOTED)
_SELECT = select(*(getattr(Device, column) for column in (*_NEEDED, *_NOTED))).where(
    Device.dev_id == bindparam("dev_id")
)
_BY_DEV_ID = Prepared(_SELECT.with_for_update(key_share=True))
_BY_DEV_ID_IF_FREE = Prepared(_SELECT.with_for_update(key_share=True, skip_locked=True))


@dataclass(frozen=True, slots=True)
class Addressee:
    """What each message needs of a registered device; the rest is read when an order or an alert needs it."""

    id: int
    name: str
    dev_id: str
    base_url: str | None
    auth_scheme: str
    client_name: str
    client_secret: str
    server_name: str
    server_secret: str
    certificate_subject: str | None
    noted: Mapping[str, Any]  #: by the names in :data:`_NOTED`, as they were before the message


def find_by_dev_ids(
    connection: Connection, untrusted_dev_ids: Sequence[str], *, wait: bool = True
) -> dict[str, Addressee]:
    """The registered devices among these, by DevId, locked: a device's messages are worked on one after another.

    Unless they shall ``wait``, those are left out that somebody else has locked.
    """
    statement = _BY_DEV_ID if wait else _BY_DEV_ID_IF_FREE
    found = {}
    for row in statement.first_of_each(connection, [{"dev_id": dev_id} for dev_id in untrusted_dev_ids]):
        if row is not None:
            needed = dict(zip(_NEEDED, row[: len(_NEEDED)], strict=True))
            device = Addressee(**needed, noted=dict(zip(_NOTED, row[len(_NEEDED) :], strict=True)))
            found[device.dev_id] = device
    return found


class DeviceAccess:
    """For one message: credential lookup, nonce store and failure record of the device that (so it says) sent it.

    What changes is noted, and written once, by what :meth:`saving` gives: a message changes the same few columns
    several times.
    """

    def __init__(
        self, services: AccessServices, addressee: Addressee | None, untrusted_dev_id: str, address: str
    ) -> None:
        self._vault = services.vault
        self.now = services.clock()  #: when the message came
        self._lock_out = services.lock_out
        self._untrusted_dev_id = untrusted_dev_id
        self._place = place(address, untrusted_dev_id)
        self.addressee = addressee
        #: whether the message began a session: the nonce that it was digested with may be out of step by nobody's fault
        self.is_first = True
        self._noted: dict[str, Any] = {} if addressee is None else dict(addressee.noted)

    def note(self, column: str, value: object) -> None:
        """A new value for one of :data:`_NOTED`."""
        self._noted[column] = value

    def note_failure(self, sentence: str) -> None:
        """The device could not prove who it is."""
        self.note("auth_failed_at", self.now)
        self.note("auth_failure", sentence[:255])

    def seen(self) -> None:
        """The device has proved who it is, now."""
        self.note("last_seen_at", self.now)

    def saving(self) -> list[Write]:
        """What writes that which was noted, and tells what operators look at."""
        device = self.addressee
        if device is None or self._noted == device.noted:
            return []
        writes: list[Write] = [(_SAVE, [{"key": device.id, **self._noted}])]
        failed_at, seen_at = self._noted["auth_failed_at"], self._noted["last_seen_at"]
        if failed_at != device.noted["auth_failed_at"]:
            writes.append(telling(self.now, EventKind.DEVICE, device.name, {"change": "changed"}))
        elif seen_at is not None and is_seen_worth_telling(device.noted["last_seen_at"], seen_at):
            told = {"change": "seen", "last_seen_at": seen_at.isoformat()}
            writes.append(telling(self.now, EventKind.DEVICE, device.name, told))
        return writes

    # ---- CredentialLookup

    def lookup(self, _device_id: str, _user_name: str | None) -> DeviceCredentials | None:
        """Both credentials, or ``None`` for a device that nobody registered."""
        device = self.addressee
        if device is None:
            return None
        scheme = AuthScheme(device.auth_scheme)
        return DeviceCredentials(
            client=Credentials(scheme, device.client_name, self._vault.open(device.client_secret)),
            server=Credentials(scheme, device.server_name, self._vault.open(device.server_secret)),
        )

    # ---- NonceStore

    def get(self, _account: str, role: NonceRole) -> bytes | None:
        """The nonce in force."""
        if self.addressee is None:
            return None
        nonce: bytes = self._noted["client_nonce" if role is NonceRole.CLIENT else "server_nonce"]
        return nonce

    def put(self, _account: str, role: NonceRole, nonce: bytes) -> None:
        """Keep a nonce; it is durable with the transaction."""
        if self.addressee is None:
            raise RuntimeError("the protocol library took an unknown device for proved")
        self.note("client_nonce" if role is NonceRole.CLIENT else "server_nonce", nonce)

    # ---- LockOut: from one address only, or anyone who knows a DevId could shut a board out

    def is_locked(self, _device_id: str) -> bool:
        """Whether credentials of this device that come from this address are not looked at for now."""
        locked = self._lock_out.is_locked(self._place)
        if locked:
            logger.warning("authentication not tried: locked out after failures place=%r", self._place)
        return locked

    def failed(self, _device_id: str) -> None:
        """Wrong credentials: shown to operators until the device proves itself.

        Counted when the device answers a nonce of this session. With an older one nobody could guess, and a board that
        was locked out comes back with an old one.
        """
        if not self.is_first or self.addressee is None or self.addressee.auth_scheme == AuthScheme.BASIC:
            self._lock_out.failed(self._place)
        if self.addressee is None:
            logger.warning("authentication failed: unknown device dev_id=%r", self._untrusted_dev_id[:MAX_DEV_ID_CHARS])
            return
        self.note_failure(f"wrong {self.addressee.auth_scheme} credentials (secret, or a nonce out of step)")
        logger.warning("authentication failed: device=%s dev_id=%s", self.addressee.name, self.addressee.dev_id)

    def succeeded(self, _device_id: str) -> None:
        """It proved itself."""
        self._lock_out.succeeded(self._place)
        if self.addressee is not None:
            self.note("auth_failed_at", None)
            self.note("auth_failure", None)


class AccessServices(Protocol):
    """Those parts of the server that access to devices needs."""

    @property
    def vault(self) -> Vault: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def lock_out(self) -> LockOut: ...


def place(address: str, untrusted_dev_id: str) -> str:
    """What is locked out after failures: a DevId at one address; an IPv6 host may use any in its network of 64 bits."""
    return f"{_network(address)} {untrusted_dev_id[:MAX_DEV_ID_CHARS]}"


@lru_cache(REMEMBERED_ADDRESSES)
def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False) if parsed.version == 6 else parsed)
