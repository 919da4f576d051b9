"""Hashes the passwords that people choose: scrypt (RFC 7914), salted, with its costs written beside the hash."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

#: 32 MiB and about a tenth of a second: what one guess costs.
LOG_N, BLOCK, PARALLEL = 15, 8, 1
_SALT_OCTETS = 16
_HASH_OCTETS = 32
_SCHEME = "scrypt"


def hash_password(password: str) -> str:
    """``scrypt$<log2 N>$<r>$<p>$<salt>$<hash>``, the last two in base64."""
    salt = secrets.token_bytes(_SALT_OCTETS)
    return _written(salt, _derive(password, salt, LOG_N))


def is_password(untrusted_password: str, hashed: str) -> bool:
    """Whether it is the password that was hashed; takes as long for a wrong one."""
    _scheme, log_n, _block, _parallel, salt, wanted = hashed.split("$")
    found = _derive(untrusted_password, base64.b64decode(salt), int(log_n))
    return hmac.compare_digest(found, base64.b64decode(wanted))


def _derive(password: str, salt: bytes, log_n: int) -> bytes:
    memory = 128 * BLOCK * (1 << log_n)
    return hashlib.scrypt(
        password.encode(), salt=salt, n=1 << log_n, r=BLOCK, p=PARALLEL, maxmem=2 * memory, dklen=_HASH_OCTETS
    )


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _written(salt: bytes, derived: bytes) -> str:
    return "$".join([_SCHEME, str(LOG_N), str(BLOCK), str(PARALLEL), _text(salt), _text(derived)])


#: Compared with when there is no such operator, so that the answer's time does not tell names; nobody has its password.
NOBODY = _written(bytes(_SALT_OCTETS), bytes(_HASH_OCTETS))
