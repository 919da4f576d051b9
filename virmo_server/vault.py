"""Keeps device secrets encrypted in the database: DM's digests need them, so they cannot be stored as hashes alone.

The key is a file beside the database, made at first use and readable by its owner only. A copy of the database without
the key tells no secret.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

KEY_NAME = "device-secrets.key"


class VaultError(Exception):
    """Key and database do not belong together; the message says what to do."""


class Vault:
    """Seals and opens secrets with the key in ``key_file``."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        try:
            self._fernet = Fernet(_key(key_file))
        except ValueError as error:
            raise VaultError(f"{key_file} is not a key file: restore it from your backup") from error

    def seal(self, secret: str) -> str:
        """The encrypted text."""
        return self.seal_bytes(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """The secret again; :class:`VaultError` when it was sealed with another key."""
        return self.open_bytes(sealed.encode()).decode()

    def seal_bytes(self, secret: bytes) -> bytes:
        """The encrypted octets, as ASCII."""
        return self._fernet.encrypt(secret)

    def open_bytes(self, sealed: bytes) -> bytes:
        """The octets again; raises as :meth:`open`."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as error:
            raise VaultError(
                f"{self._key_file} is not the key with which the database's secrets were sealed: restore the right"
                " one from your backup, or renew the devices' credentials"
            ) from error


def _key(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except FileNotFoundError:
        pass
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    key = Fernet.generate_key()
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # atomic, and never over a key that another process made meanwhile
    except FileExistsError:
        key = path.read_bytes().strip()
    finally:
        temporary.unlink()
    return key
