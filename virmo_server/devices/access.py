"""A device's credentials and nonces as the protocol library asks for them, and the record of failed authentications.

Device and account are one here: the account's name towards the library is the DevId.
"""

from __future__ import annotations

import logging

from sqlalchemy import select
from sqlalchemy.orm import Session

from dom0_agent.omadm.auth import AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.server_auth import DeviceCredentials
from virmo_server.clock import Clock
from virmo_server.model import Device
from virmo_server.vault import Vault

logger = logging.getLogger(__name__)


def find_by_dev_id(session: Session, untrusted_dev_id: str) -> Device | None:
    """The registered device with this DevId, locked: messages of one device are worked on one after another."""
    query = select(Device).where(Device.dev_id == untrusted_dev_id).with_for_update(key_share=True)
    return session.scalars(query).first()


class DeviceAccess:
    """For one message: credential lookup, nonce store and failure record of the device that (so it says) sent it.

    Devices are never locked out: their secrets are random and long, so guessing is hopeless, and a lock would let
    anyone who knows a DevId shut a board out.
    """

    def __init__(
        self, session: Session, vault: Vault, clock: Clock, device: Device | None, untrusted_dev_id: str
    ) -> None:
        self._session = session
        self._vault = vault
        self._clock = clock
        self._device = device
        self._untrusted_dev_id = untrusted_dev_id

    # ---- CredentialLookup

    def lookup(self, _device_id: str, _user_name: str | None) -> DeviceCredentials | None:
        """Both credentials, or ``None`` for a device that nobody registered."""
        device = self._device
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
        if self._device is None:
            return None
        return self._device.client_nonce if role is NonceRole.CLIENT else self._device.server_nonce

    def put(self, _account: str, role: NonceRole, nonce: bytes) -> None:
        """Keep a nonce; it is durable with the transaction."""
        if self._device is None:
            raise RuntimeError("the protocol library took an unknown device for proved")
        if role is NonceRole.CLIENT:
            self._device.client_nonce = nonce
        else:
            self._device.server_nonce = nonce

    # ---- LockOut

    def is_locked(self, _device_id: str) -> bool:
        """Never."""
        return False

    def failed(self, _device_id: str) -> None:
        """Wrong credentials: shown to operators until the device proves itself."""
        if self._device is None:
            logger.warning("authentication failed: unknown device dev_id=%r", self._untrusted_dev_id[:255])
            return
        self._device.auth_failed_at = self._clock()
        self._device.auth_failure = f"wrong {self._device.auth_scheme} credentials (secret, or a nonce out of step)"
        logger.warning("authentication failed: device=%s dev_id=%s", self._device.name, self._device.dev_id)

    def succeeded(self, _device_id: str) -> None:
        """It proved itself."""
        if self._device is not None:
            self._device.auth_failed_at = None
            self._device.auth_failure = None
