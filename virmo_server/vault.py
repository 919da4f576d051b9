"""Keeps device secrets encrypted in the database: DM's digests need them, so they cannot be stored as hashes alone.

The key is a file beside the database, made at first use and readable by its owner only. A copy of the database without
the key tells no secret.

Sealed with AES-GCM: each process seals with a key of its own, derived from the key file's with a random salt, and
counts its nonces, so that none is used twice. What earlier versions sealed are Fernet tokens, ten times as slow.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_NAME = "device-secrets.key"
SALT_BYTES, NONCE_BYTES = 16, 12
#: Derived keys that a process remembers: its own, and those of processes whose messages it shows.
MAX_CIPHERS = 64
#: How each of Fernet's tokens begins. A salt that begins so is not made.
FERNET_VERSION = b"gAAAAA"
#: No Fernet token begins so.
TEXT_PREFIX = "2."


class VaultError(Exception):
    """Key and database do not belong together; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _Sealer:
    """What the process ``owner`` seals with; ``numbers`` makes nonces, in one step whatever the thread."""

    owner: int
    salt: bytes
    cipher: AESGCM
    numbers: Iterator[int] = field(default_factory=itertools.count)


class Vault:
    """Seals and opens secrets with the key in ``key_file``."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        try:
            key = _key(key_file)
            self._fernet = Fernet(key)
        except ValueError as error:
            raise VaultError(f"{key_file} is not a key file: restore it from your backup") from error
        self._key = base64.urlsafe_b64decode(key)
        self._ciphers: dict[bytes, AESGCM] = {}
        self._sealer = self._new_sealer()

    def seal(self, secret: str) -> str:
        """The encrypted text."""
        return TEXT_PREFIX + base64.b64encode(self.seal_bytes(secret.encode())).decode()

    def open(self, sealed: str) -> str:
        """The secret again; :class:`VaultError` when it was sealed with another key."""
        if sealed.startswith(TEXT_PREFIX):
            return self.open_bytes(base64.b64decode(sealed.removeprefix(TEXT_PREFIX))).decode()
        return self.open_bytes(sealed.encode()).decode()

    def seal_bytes(self, secret: bytes) -> bytes:
        """The encrypted octets: salt, nonce, ciphertext with its tag."""
        sealer = self._sealer
        if sealer.owner != os.getpid():  # a fork would use the same nonces
            sealer = self._sealer = self._new_sealer()
        nonce = next(sealer.numbers).to_bytes(NONCE_BYTES)
        return sealer.salt + nonce + sealer.cipher.encrypt(nonce, secret, None)

    def open_bytes(self, sealed: bytes) -> bytes:
        """The octets again; raises as :meth:`open`. Takes Fernet's tokens, too, which earlier versions made."""
        try:
            if sealed.startswith(FERNET_VERSION):
                return self._fernet.decrypt(sealed)
            salt, nonce = sealed[:SALT_BYTES], sealed[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
            return self._cipher(salt).decrypt(nonce, sealed[SALT_BYTES + NONCE_BYTES :], None)
        except (InvalidToken, InvalidTag, ValueError) as error:
            raise self._wrong_key() from error

    def _cipher(self, salt: bytes) -> AESGCM:
        cipher = self._ciphers.get(salt)
        if cipher is None:
            if len(self._ciphers) >= MAX_CIPHERS:
                self._ciphers.clear()
            derived = HKDF(SHA256(), 32, salt, b"virmo trace").derive(self._key)
            cipher = self._ciphers[salt] = AESGCM(derived)
        return cipher

    def _new_sealer(self) -> _Sealer:
        salt = _new_salt()
        return _Sealer(os.getpid(), salt, self._cipher(salt))

    def _wrong_key(self) -> VaultError:
        return VaultError(
            f"{self._key_file} is not the key with which the database's secrets were sealed: restore the right"
            " one from your backup, or renew the devices' credentials"
        )


def _new_salt() -> bytes:
    while (salt := os.urandom(SALT_BYTES)).startswith(FERNET_VERSION):
        pass
    return salt


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
