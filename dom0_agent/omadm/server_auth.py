"""Who is who in a server session: the device's credentials, ours, the two nonces (OMA-TS-DM-Security 5; digest 5).

The mirror of ``client_auth``. State is a frozen value (:class:`ServerAuthState`) because a server session moves between
worker processes. The session decides what happens next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from dom0_agent.omadm import auth
from dom0_agent.omadm.auth import AuthScheme, Credentials, NonceRole, NonceStore, RandomBytes
from dom0_agent.omadm.client_auth import header_status
from dom0_agent.omadm.commands import Cred, Message, Status
from dom0_agent.omadm.status import Status as Code

#: Tries a device has in one session: with its stored nonce, with a fresh one, and one more for those that repeat a 401.
MAX_TRIES = 3


@dataclass(frozen=True, slots=True)
class DeviceCredentials:
    """What the server knows of a device: how the device proves itself, and how we prove ourselves to it."""

    client: Credentials = field(default_factory=Credentials)
    server: Credentials = field(default_factory=Credentials)


#: device id (Source LocURI) and user name (LocName) to credentials; ``None``: no such device
CredentialLookup = Callable[[str, str | None], DeviceCredentials | None]


class LockOut(Protocol):
    """Remembers failures between sessions; ``retry.BackoffLockOut`` is one."""

    def is_locked(self, device_id: str) -> bool:
        """Whether credentials of this device are not even looked at for now."""

    def failed(self, device_id: str) -> None:
        """Wrong credentials were given."""

    def succeeded(self, device_id: str) -> None:
        """The device proved itself."""


class ClientVerdict(Enum):
    """Whether we believe who the device is."""

    PROVED = "proved"
    MISSING = "missing"
    WRONG = "wrong"
    LOCKED = "locked"


class AboutServer(Enum):
    """What the device's Status for our SyncHdr says."""

    ACCEPTED = "accepted"
    DOUBTED = "doubted"  #: 401/407 with a challenge that we can meet, for the first time
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ServerAuthState:
    """All that authentication must remember between two messages."""

    client_proved: bool = False  #: for the session (212)
    client_nonce: bytes | None = None  #: issued in this session, for the device's next credentials
    renewed_client_nonce: bool = False
    tries: int = 0
    known_to_client: bool = False  #: for the session (212)
    server_nonce: bytes | None = None
    doubts: int = 0  #: challenges of the device that we have met


class ServerAuthentication:
    """Both directions of authentication in one server session."""

    def __init__(
        self,
        *,
        device_id: str,
        credentials: DeviceCredentials | None,
        nonces: NonceStore,
        random_bytes: RandomBytes,
        lock_out: LockOut | None,
        state: ServerAuthState | None = None,
    ) -> None:
        self._device_id = device_id
        # for a device that nobody knows: the same conversation as with a wrong password, and no way to succeed
        self._known = credentials is not None
        self._credentials = credentials or DeviceCredentials(Credentials(AuthScheme.MD5))
        self._nonces = nonces
        self._random = random_bytes
        self._lock_out = lock_out
        self.state = state or ServerAuthState(
            client_nonce=nonces.get(device_id, NonceRole.CLIENT), server_nonce=nonces.get(device_id, NonceRole.SERVER)
        )

    @property
    def exhausted(self) -> bool:
        """Whether the device has had all its tries."""
        return self.state.tries >= MAX_TRIES

    # ---- about the device

    def judge_client(self, message: Message, untrusted_body: bytes, hmac: str | None) -> ClientVerdict:
        """Whether this message's sender is the device that it names."""
        client = self._credentials.client
        if self._known and client.scheme is AuthScheme.NONE:
            return ClientVerdict.PROVED
        cred = message.header.cred
        if self.state.client_proved and cred is None:
            return ClientVerdict.PROVED
        given = hmac is not None if client.scheme is AuthScheme.HMAC else cred is not None
        if not given:
            self.state = replace(self.state, tries=self.state.tries + 1)
            return ClientVerdict.MISSING
        if self._lock_out is not None and self._lock_out.is_locked(self._device_id):
            return ClientVerdict.LOCKED
        if self._known and self._proves(message, untrusted_body, hmac):
            if self._lock_out is not None:
                self._lock_out.succeeded(self._device_id)
            self.state = replace(self.state, client_proved=client.scheme is not AuthScheme.HMAC, tries=0)
            return ClientVerdict.PROVED
        self.state = replace(self.state, client_proved=False, tries=self.state.tries + 1)
        if self._lock_out is not None:
            self._lock_out.failed(self._device_id)
        return ClientVerdict.WRONG

    def _proves(self, message: Message, untrusted_body: bytes, hmac: str | None) -> bool:
        client = self._credentials.client
        if client.scheme is AuthScheme.HMAC:
            return auth.check_hmac(client, hmac, self.state.client_nonce, untrusted_body)
        cred = message.header.cred
        return cred is not None and auth.check_cred(client, cred, self.state.client_nonce)

    def status_for(self, message: Message, verdict: ClientVerdict) -> Status:
        """Our Status for the device's SyncHdr, with a challenge or the next nonce where one is due."""
        header = message.header
        scheme = self._credentials.client.scheme
        code, nonce, chal = Code.OK, None, False
        if verdict is not ClientVerdict.PROVED:
            code = Code.AUTHENTICATION_REQUIRED if verdict is ClientVerdict.MISSING else Code.UNAUTHORIZED
            chal = True
            nonce = self._next_client_nonce(durable=False) if scheme is not AuthScheme.BASIC else None
        elif scheme is AuthScheme.HMAC:
            chal, nonce = True, self._next_client_nonce(durable=True)
        elif scheme is not AuthScheme.NONE:
            code = Code.AUTHENTICATED
            if scheme is AuthScheme.MD5 and not self.state.renewed_client_nonce:
                chal, nonce = True, self._next_client_nonce(durable=True)
                self.state = replace(self.state, renewed_client_nonce=True)
        return Status(
            msg_ref=header.msg_id,
            code=code,
            target_refs=(header.target,),
            source_refs=(header.source,),
            chal=auth.make_chal(scheme, nonce) if chal else None,
        )

    def _next_client_nonce(self, *, durable: bool) -> bytes:
        nonce = auth.new_nonce(self._random)
        self.state = replace(self.state, client_nonce=nonce)
        if durable:
            self._nonces.put(self._device_id, NonceRole.CLIENT, nonce)
        return nonce

    # ---- about us

    def judge_server(self, message: Message, our_msg_id: int) -> AboutServer:
        """What a proved device says about us; takes the nonce that it brings."""
        status = header_status(message, our_msg_id)
        if status is None:
            return AboutServer.ACCEPTED
        nonce = auth.nonce_of(status.chal)
        if status.code in (Code.UNAUTHORIZED, Code.AUTHENTICATION_REQUIRED):
            scheme = auth.scheme_of(status.chal.meta) if status.chal is not None else None
            unmeetable = scheme is not self._credentials.server.scheme or (
                nonce is None and scheme is not AuthScheme.BASIC
            )
            if unmeetable or self.state.doubts:
                return AboutServer.REFUSED
            self.state = replace(self.state, server_nonce=nonce, known_to_client=False, doubts=1)
            if nonce is not None:  # a proved device's; it keeps it, too, once it has believed us
                self._nonces.put(self._device_id, NonceRole.SERVER, nonce)
            return AboutServer.DOUBTED
        if status.code >= 300:
            return AboutServer.REFUSED
        if nonce is not None:
            self._nonces.put(self._device_id, NonceRole.SERVER, nonce)
            self.state = replace(self.state, server_nonce=nonce)
        if status.code == Code.AUTHENTICATED:
            self.state = replace(self.state, known_to_client=True)
        return AboutServer.ACCEPTED

    @property
    def source_name(self) -> str | None:
        """LocName of our Source."""
        return self._credentials.server.name or None

    def cred(self) -> Cred | None:
        """Cred for our next SyncHdr to a proved device."""
        server = self._credentials.server
        if self.state.known_to_client or (server.scheme is AuthScheme.MD5 and self.state.server_nonce is None):
            return None
        return auth.make_cred(server, self.state.server_nonce or b"")

    def hmac_for(self, body: bytes) -> str | None:
        """``x-syncml-hmac`` for a message that is sent now; ``None`` where HMAC is not in use."""
        server = self._credentials.server
        if server.scheme is not AuthScheme.HMAC or self.state.server_nonce is None:
            return None
        return auth.make_hmac_header(server, self.state.server_nonce, body)
