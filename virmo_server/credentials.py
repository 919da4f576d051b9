"""Makes and compares secrets: API tokens, DM credentials. The only module that sees them in clear, and only once."""

from __future__ import annotations

import base64
import hashlib
import secrets

#: OMA-TS-DM-Sec recommends at least 16 octets; also the length that every client we know computes rightly.
NONCE_OCTETS = 16
TOKEN_PREFIX = "virmo_"  # noqa: S105 - a prefix that secret scanners can look for, not a secret


def new_token() -> str:
    """A key for the HTTP API: 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """What is stored of a token. Plain SHA-256 is enough because tokens are random, not chosen by people."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_dm_secret() -> str:
    """A password for DM credentials: 160 random bits, letters and digits only, so that any file format carries it."""
    return base64.b32encode(secrets.token_bytes(20)).decode().lower()


def new_nonce() -> bytes:
    """A fresh nonce."""
    return secrets.token_bytes(NONCE_OCTETS)


def new_serial() -> str:
    """A random id: DM sessions, images, correlators. 128 bits, hexadecimal."""
    return secrets.token_hex(16)
