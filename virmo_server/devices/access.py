"""A device's credentials and nonces as the protocol library asks for them, and the record of failed authentications.

Device and account are one here: the account's name towards the library is the DevId.
"""

from __future__ import annotations

import logging

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from dom0_agent.omadm.auth import AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.server_auth import DeviceCredentials
from virmo_server.clock import Clock
from virmo_server.events.recorder import is_seen_worth_telling, tell
from virmo_server.model import Device
from virmo_server.model_running import EventKind
from virmo_server.vault import Vault

logger = logging.getLogger(__name__)

#: Columns that messages change.
_NOTED = (
    "client_nonce", "server_nonce", "last_seen_at", "man", "mod", "dm_version", "auth_failed_at", "auth_failure",
)  # fmt: skip
_SAVE = update(Device).where(Device.id == bindparam("key")).values({name: bindparam(name) for name in _NOTED})
_BY_DEV_ID = select(Device).where(Device.dev_id == bindparam("dev_id")).with_for_update(key_share=True)


def find_by_dev_id(session: Session, untrusted_dev_id: str) -> Device | None:
    """The registered device with this DevId, locked: messages of one device are worked on one after another."""
    return session.scalars(_BY_DEV_ID, {"dev_id": untrusted_dev_id}).first()


class DeviceAccess:
    """For one message: credential lookup, nonce store and failure record of the device that (so it says) sent it.

    What changes is noted, and written once by :meth:`save`: a message changes the same few columns several times.

    Devices are never locked out: their secrets are random and long, so guessing is hopeless, and a lock would let
    anyone who knows a DevId shut a board out.
    """

    def __init__(
        self, session: Session, vault: Vault, clock: Clock, device: Device | None, untrusted_dev_id: str
    ) -> None:
        self._session = session
        self._vault = vault
        self._clock = clock
        self.device = device
        self._untrusted_dev_id = untrusted_dev_id
        self._before = {} if device is None else {column: getattr(device, column) for column in _NOTED}

    def note(self, column: str, value: object) -> None:
        """A new value for one of :data:`_NOTED`. It is not the ORM's to write."""
        set_committed_value(self.device, column, value)

    def seen(self) -> None:
        """The device has proved who it is, now."""
        self.note("last_seen_at", self._clock())

    def save(self) -> None:
        """Write what was noted, and tell what operators look at."""
        device = self.device
        if device is None:
            return
        values = {column: getattr(device, column) for column in _NOTED}
        if values == self._before:
            return
        self._session.connection().execute(_SAVE, {"key": device.id, **values})
        failed_at, seen_at = values["auth_failed_at"], values["last_seen_at"]
        if failed_at != self._before["auth_failed_at"]:
            tell(self._session, EventKind.DEVICE, device.name, {"change": "changed"})
        elif seen_at is not None and is_seen_worth_telling(self._before["last_seen_at"], seen_at):
            told = {"change": "seen", "last_seen_at": seen_at.isoformat()}
            tell(self._session, EventKind.DEVICE, device.name, told)

    # ---- CredentialLookup

    def lookup(self, _device_id: str, _user_name: str | None) -> DeviceCredentials | None:
        """Both credentials, or ``None`` for a device that nobody registered."""
        device = self.device
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
        if self.device is None:
            return None
        return self.device.client_nonce if role is NonceRole.CLIENT else self.device.server_nonce

    def put(self, _account: str, role: NonceRole, nonce: bytes) -> None:
        """Keep a nonce; it is durable with the transaction."""
        if self.device is None:
            raise RuntimeError("the protocol library took an unknown device for proved")
        if role is NonceRole.CLIENT:
            self.note("client_nonce", nonce)
        else:
            self.note("server_nonce", nonce)

    # ---- LockOut

    def is_locked(self, _device_id: str) -> bool:
        """Never."""
        return False

    def failed(self, _device_id: str) -> None:
        """Wrong credentials: shown to operators until the device proves itself."""
        if self.device is None:
            logger.warning("authentication failed: unknown device dev_id=%r", self._untrusted_dev_id[:255])
            return
        self.note("auth_failed_at", self._clock())
        failure = f"wrong {self.device.auth_scheme} credentials (secret, or a nonce out of step)"
        self.note("auth_failure", failure)
        logger.warning("authentication failed: device=%s dev_id=%s", self.device.name, self.device.dev_id)

    def succeeded(self, _device_id: str) -> None:
        """It proved itself."""
        if self.device is not None:
            self.note("auth_failed_at", None)
            self.note("auth_failure", None)
