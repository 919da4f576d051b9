"""Authentication of OMA DM, both ways: basic, MD5 and HMAC values, challenges, nonces (OMA-TS-DM-Security 5; digest 5).

Pure functions and frozen credentials. Where nonces are kept is the :class:`NonceStore`'s business; when they change is
the sessions'. No secret appears in a ``repr``.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Protocol

from dom0_agent.omadm.commands import Chal, Cred, Meta
from dom0_agent.omadm.status import ProtocolError

#: Octets of a nonce made here: the 16 that the specification recommends, 128 bits of randomness.
NONCE_BYTES = 16
#: Longest nonce accepted from a peer (octets); real ones have 4 to 32.
MAX_NONCE_BYTES = 256

RandomBytes = Callable[[int], bytes]


class AuthScheme(StrEnum):
    """How one side proves itself. ``NONE``: the transport does it (TLS), no credentials are sent or asked for."""

    NONE = "none"
    BASIC = "basic"
    MD5 = "md5"
    HMAC = "hmac"


#: values of Meta/Type in Cred and Chal
WIRE_TYPES = {
    AuthScheme.BASIC: "syncml:auth-basic",
    AuthScheme.MD5: "syncml:auth-md5",
    AuthScheme.HMAC: "syncml:auth-MAC",
}
_SCHEMES = {wire.lower(): scheme for scheme, wire in WIRE_TYPES.items()}


class NonceRole(Enum):
    """Whose credentials a nonce is for; the two nonces of an account are independent (digest 5.3)."""

    CLIENT = "client"  #: issued by the server, used by the client (CLCRED)
    SERVER = "server"  #: issued by the client, used by the server and in package 0 (SRVCRED)


class NonceStore(Protocol):
    """Nonces that outlive a session, per account (client: ServerID; server: device id) and role."""

    def get(self, account: str, role: NonceRole) -> bytes | None:
        """The nonce to use, or ``None`` when none was ever exchanged."""

    def put(self, account: str, role: NonceRole, nonce: bytes) -> None:
        """Keep a nonce durably; replaces the one before."""


class MemoryNonceStore:
    """A :class:`NonceStore` without persistence, for tests and tools."""

    def __init__(self) -> None:
        self._nonces: dict[tuple[str, NonceRole], bytes] = {}

    def get(self, account: str, role: NonceRole) -> bytes | None:
        """The nonce to use, or ``None``."""
        return self._nonces.get((account, role))

    def put(self, account: str, role: NonceRole, nonce: bytes) -> None:
        """Keep a nonce."""
        self._nonces[account, role] = nonce


@dataclass(frozen=True, slots=True)
class Credentials:
    """Name and secret of one side, and the scheme that it uses."""

    scheme: AuthScheme = AuthScheme.NONE
    name: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """A client's knowledge of one server: DMAcc in short. ``server_id`` is the identity in ACLs.

    A ``server`` with scheme ``NONE`` is one that TLS has authenticated.
    """

    server_id: str
    address: str
    client: Credentials = field(default_factory=Credentials)  #: how the server knows us
    server: Credentials = field(default_factory=Credentials)  #: how we know the server


def new_nonce(random_bytes: RandomBytes) -> bytes:
    """A fresh nonce without zero octets at its end, which some peers cut off (C strings)."""
    return bytes(octet or 0x5A for octet in random_bytes(NONCE_BYTES))


def encode_nonce(nonce: bytes) -> str:
    """NextNonce as it is written."""
    return b64encode(nonce).decode()


def decode_nonce(untrusted_text: str) -> bytes | None:
    """Octets of a received NextNonce, ``None`` when it is empty, too long or not base64."""
    try:
        nonce = b64decode("".join(untrusted_text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return nonce if 0 < len(nonce) <= MAX_NONCE_BYTES else None


# ---- digests -----------------------------------------------------------------------------------------------------


def _md5(octets: bytes) -> bytes:
    return hashlib.md5(octets, usedforsecurity=False).digest()  # the algorithm is the specification's


def user_digest(name: str, secret: str) -> bytes:
    """``B64(MD5(name:secret))``, all that an authenticator needs to keep."""
    return b64encode(_md5(f"{name}:{secret}".encode()))


def md5_digest(name: str, secret: str, nonce: bytes) -> bytes:
    """The 16 octets of ``MD5(B64(MD5(name:secret)):nonce)`` (digest 5.1)."""
    return _md5(user_digest(name, secret) + b":" + nonce)


def body_digest(name: str, secret: str, nonce: bytes, body: bytes) -> bytes:
    """The 16 octets of the HMAC (digest 5.4); ``body`` is the exact HTTP entity. Also package 0's."""
    return _md5(user_digest(name, secret) + b":" + nonce + b":" + b64encode(_md5(body)))


# ---- Cred and Chal -----------------------------------------------------------------------------------------------


def make_cred(credentials: Credentials, nonce: bytes) -> Cred | None:
    """Credentials for a SyncHdr; ``None`` where none are sent there (NONE, and HMAC, which is in the HTTP header)."""
    if credentials.scheme is AuthScheme.BASIC:
        data = b64encode(f"{credentials.name}:{credentials.secret}".encode())
    elif credentials.scheme is AuthScheme.MD5:
        data = b64encode(md5_digest(credentials.name, credentials.secret, nonce))
    else:
        return None
    return Cred(Meta("b64", WIRE_TYPES[credentials.scheme]), data.decode())


def check_cred(credentials: Credentials, untrusted_cred: Cred, nonce: bytes | None) -> bool:
    """Whether a received Cred proves these credentials; compares in constant time. A missing nonce proves nothing."""
    if scheme_of(untrusted_cred.meta) is not credentials.scheme:
        return False
    expected = make_cred(credentials, nonce or b"")
    if expected is None or (credentials.scheme is AuthScheme.MD5 and nonce is None):
        return False
    received = "".join(untrusted_cred.data.split())
    return hmac.compare_digest(received.encode(), expected.data.encode())


def scheme_of(meta: Meta) -> AuthScheme | None:
    """The scheme that Meta/Type of a Cred or Chal names, ``None`` for an unknown one."""
    return _SCHEMES.get((meta.type or "").lower())


def make_chal(scheme: AuthScheme, nonce: bytes | None) -> Chal:
    """A challenge for ``scheme``; basic has no nonce."""
    return Chal(Meta("b64", WIRE_TYPES[scheme], next_nonce=encode_nonce(nonce) if nonce is not None else None))


def nonce_of(untrusted_chal: Chal | None) -> bytes | None:
    """The nonce in a challenge, ``None`` when there is none that can be used."""
    if untrusted_chal is None or untrusted_chal.meta.next_nonce is None:
        return None
    return decode_nonce(untrusted_chal.meta.next_nonce)


# ---- the x-syncml-hmac header ------------------------------------------------------------------------------------

HMAC_HEADER = "x-syncml-hmac"

_HMAC_PART = re.compile(r'\s*([A-Za-z-]{1,20})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))\s*(?:,|\Z)')
_MAX_HEADER = 1024  #: characters; a name and 24 of base64


@dataclass(frozen=True, slots=True)
class HmacHeader:
    """A parsed ``x-syncml-hmac`` header; ``mac`` is the base64 text."""

    username: str
    mac: str
    algorithm: str = "MD5"


def make_hmac_header(credentials: Credentials, nonce: bytes, body: bytes) -> str:
    """The header's value for a message that is sent."""
    mac = b64encode(body_digest(credentials.name, credentials.secret, nonce, body)).decode()
    name = credentials.name.replace("\\", "\\\\").replace('"', '\\"')
    as_octets = name.encode().decode("latin-1")  # HTTP fields are octets, which programs show as Latin-1
    return f'algorithm=MD5, username="{as_octets}", mac={mac}'


def parse_hmac_header(untrusted_value: str) -> HmacHeader:
    """Read the header: a comma-separated list in any order (digest 5.4); raises :class:`ProtocolError`."""
    if len(untrusted_value) > _MAX_HEADER:
        raise ProtocolError(f"{HMAC_HEADER} header is longer than {_MAX_HEADER} characters")
    found: dict[str, str] = {}
    position = 0
    while position < len(untrusted_value):
        part = _HMAC_PART.match(untrusted_value, position)
        if part is None:
            raise ProtocolError(f"{HMAC_HEADER} header is malformed at character {position}")
        quoted = part.group(2)
        found[part.group(1).lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else part.group(3)
        position = part.end()
    if "username" not in found or "mac" not in found:
        raise ProtocolError(f"{HMAC_HEADER} header lacks username or mac")
    return HmacHeader(found["username"], found["mac"], found.get("algorithm", "MD5"))


def check_hmac(
    credentials: Credentials, untrusted_value: str | None, nonce: bytes | None, untrusted_body: bytes
) -> bool:
    """Whether the header proves that the owner of ``credentials`` sent exactly this body; constant time."""
    if untrusted_value is None or nonce is None:
        return False
    try:
        header = parse_hmac_header(untrusted_value)
    except ProtocolError:
        return False
    name = credentials.name.encode()
    as_octets, as_text = header.username.encode("latin-1", "replace"), header.username.encode("utf-8", "replace")
    named = hmac.compare_digest(as_octets, name) | hmac.compare_digest(as_text, name)
    if header.algorithm.upper() != "MD5" or not named:
        return False
    digest = body_digest(credentials.name, credentials.secret, nonce, untrusted_body)
    try:
        received = b64decode(header.mac, validate=True)
    except (binascii.Error, ValueError):
        return False
    # the specification's own example carries the hex digits of the digest inside the base64; tolerated, never sent
    as_hex = digest.hex().encode()
    return hmac.compare_digest(received, digest) | hmac.compare_digest(received.lower(), as_hex)
