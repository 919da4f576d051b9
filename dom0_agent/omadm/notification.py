"""Package 0: the notification by which a server asks a device to open a session (OMA-TS-DM-Notification; digest 10).

Build, parse, verify, and guard against replays and floods. How the octets travel is a transport's business; the clock
is passed in. Deliberate differences from libdmclient: the session id is big endian everywhere, versions 1.1 to 1.3 are
read, and the zero nonce is retried for the right credential.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from enum import Enum, IntEnum

from dom0_agent.omadm.auth import NonceRole, NonceStore, body_digest
from dom0_agent.omadm.frozen import frozen
from dom0_agent.omadm.status import ProtocolError

DIGEST_BYTES = 16
_HEADER_BYTES = 8
#: version field written: 1.1, which DM 1.2 uses, too
VERSION = 11
#: version fields read; the value of DM 1.3 is not confirmed
_VERSIONS = range(11, 14)
#: A trigger travels in one or two short messages; nothing real is longer (octets).
MAX_NOTIFICATION_BYTES = 1024

#: Notifications of one server that are known again when they come once more.
DIGESTS_REMEMBERED = 1024

#: the nonce for a server that has lost its own, in both representations that are in use; the first one is written
ZERO_NONCES = (bytes(4), b"0x00000000")


class UiMode(IntEnum):
    """How far the user is to be involved."""

    NOT_SPECIFIED = 0
    BACKGROUND = 1
    INFORMATIVE = 2
    USER_INTERACTION = 3  #: ask before the session is opened


class Initiator(IntEnum):
    """Who is behind the request."""

    CLIENT = 0
    SERVER = 1


@frozen
class Notification:
    """A parsed package 0. ``trigger`` is all that the digest covers."""

    server_id: str
    session_id: int
    ui_mode: UiMode
    initiator: Initiator
    version: int
    vendor: bytes
    digest: bytes
    trigger: bytes


class Verification(Enum):
    """Which nonce the digest was made with."""

    STORED = "stored nonce"
    ZERO = "zero nonce"  #: the whole session uses it until it is renewed: :class:`ZeroNonces`
    FAILED = "no known nonce"


def build_notification(
    server_id: str,
    secret: str,
    nonce: bytes,
    session_id: int,
    *,
    ui_mode: UiMode = UiMode.BACKGROUND,
    initiator: Initiator = Initiator.SERVER,
    vendor: bytes = b"",
    version: int = VERSION,
) -> bytes:
    """The octets of a package 0; ``secret`` and ``nonce`` are the server's own credentials (SRVCRED)."""
    identifier = server_id.encode()
    if not 0 < session_id <= 0xFFFF or not 0 < len(identifier) <= 0xFF:
        raise ValueError("a notification needs a session id of 1 to 65535 and a server id of 1 to 255 octets")
    header = version << 54 | ui_mode << 52 | initiator << 51 | session_id << 8 | len(identifier)
    trigger = header.to_bytes(_HEADER_BYTES, "big") + identifier + vendor
    return body_digest(server_id, secret, nonce, trigger) + trigger


def parse_notification(untrusted_octets: bytes) -> Notification:
    """Read a package 0 without believing it; raises :class:`ProtocolError`."""
    if len(untrusted_octets) > MAX_NOTIFICATION_BYTES:
        raise ProtocolError(
            f"notification of {len(untrusted_octets)} octets, at most {MAX_NOTIFICATION_BYTES} are read"
        )
    digest, trigger = untrusted_octets[:DIGEST_BYTES], untrusted_octets[DIGEST_BYTES:]
    if len(trigger) < _HEADER_BYTES:
        raise ProtocolError("the notification is shorter than its header")
    header = int.from_bytes(trigger[:_HEADER_BYTES], "big")
    version = header >> 54
    session_id = header >> 8 & 0xFFFF
    length = header & 0xFF
    if version not in _VERSIONS:
        raise ProtocolError(f"notification version {version / 10:.1f} is not known")
    if session_id == 0 or length == 0 or len(trigger) < _HEADER_BYTES + length:
        raise ProtocolError("the notification lacks its session id or its server id")
    try:
        server_id = trigger[_HEADER_BYTES : _HEADER_BYTES + length].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("the server id of the notification is not UTF-8") from error
    return Notification(
        server_id=server_id,
        session_id=session_id,
        ui_mode=UiMode(header >> 52 & 3),
        initiator=Initiator(header >> 51 & 1),
        version=version,
        vendor=trigger[_HEADER_BYTES + length :],
        digest=digest,
        trigger=trigger,
    )


def verify_notification(notification: Notification, secret: str, nonce: bytes | None) -> Verification:
    """Check the digest with the server's secret, with its stored nonce first; compares in constant time."""

    def made_with(candidate: bytes) -> bool:
        expected = body_digest(notification.server_id, secret, candidate, notification.trigger)
        return hmac.compare_digest(expected, notification.digest)

    if nonce is not None and made_with(nonce):
        return Verification.STORED
    if any(made_with(zero) for zero in ZERO_NONCES):
        return Verification.ZERO
    return Verification.FAILED


class ZeroNonces:
    """A nonce store for the session after a zero-nonce notification: the zero nonce, until a new one is agreed on."""

    def __init__(self, store: NonceStore) -> None:
        self._store = store
        self._renewed: set[tuple[str, NonceRole]] = set()

    def get(self, account: str, role: NonceRole) -> bytes | None:
        """The zero nonce, or what has been put since."""
        return self._store.get(account, role) if (account, role) in self._renewed else ZERO_NONCES[0]

    def put(self, account: str, role: NonceRole, nonce: bytes) -> None:
        """Keep a renewed nonce."""
        self._renewed.add((account, role))
        self._store.put(account, role, nonce)


class NotificationGuard:
    """Lets each verified notification through once, and not too many of them.

    The same session id of the same server within ``window`` seconds means the same session (digest 10); the same
    octets are a repetition however much later they come, because one with the zero nonce stays valid for ever.
    ``clock`` in seconds; at most ``most`` notifications per server in a window, so that a captured or mad server
    cannot keep the device busy.
    """

    def __init__(self, clock: Callable[[], float], *, most: int = 10, window: float = 60.0) -> None:
        self._clock = clock
        self._most = most
        self._window = window
        self._recent: dict[str, deque[tuple[float, int]]] = {}
        self._digests: dict[str, deque[bytes]] = {}

    def admit(self, notification: Notification) -> bool:
        """Whether to open a session for it; only for notifications whose digest is right."""
        now, server = self._clock(), notification.server_id
        recent = self._recent.setdefault(server, deque())
        digests = self._digests.setdefault(server, deque(maxlen=DIGESTS_REMEMBERED))
        while recent and recent[0][0] <= now - self._window:
            recent.popleft()
        known = any(session_id == notification.session_id for _, session_id in recent)
        if known or notification.digest in digests or len(recent) >= self._most:
            return False
        recent.append((now, notification.session_id))
        digests.append(notification.digest)
        return True
