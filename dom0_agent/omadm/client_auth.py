"""Who is who in a client session: our credentials, the server's, and the two nonces (OMA-TS-DM-Security 5; digest 5).

Rules kept here: a nonce from a server that has not proved itself is used for the retry and stored only once it has; a
challenge never makes us use a weaker scheme than the account asks for (it could come from anyone); HMAC is checked in
every message. The session decides what happens next.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dom0_agent.omadm import auth
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, NonceRole, NonceStore, RandomBytes
from dom0_agent.omadm.commands import Cred, Message, Status
from dom0_agent.omadm.status import Status as Code

#: schemes from weak to strong
_STRENGTH = (AuthScheme.NONE, AuthScheme.BASIC, AuthScheme.MD5, AuthScheme.HMAC)


class AboutUs(Enum):
    """What the server's Status for our SyncHdr says."""

    ACCEPTED = "accepted"
    CHALLENGED = "challenged"  #: 401/407 with a challenge that we can meet
    NOT_BELIEVED = "not believed"  #: 401/407 without one
    REFUSED = "refused"  #: any other error


@dataclass(frozen=True, slots=True)
class Verdict:
    """One server message judged: what it says about us, whether we believe who it is, and the code it gave."""

    about_us: AboutUs
    trusted: bool
    code: int


class ClientAuthentication:
    """Both directions of authentication in one client session."""

    def __init__(self, account: Account, nonces: NonceStore, random_bytes: RandomBytes) -> None:
        self._account = account
        self._nonces = nonces
        self._random = random_bytes
        self._scheme = account.client.scheme
        self._client_nonce = nonces.get(account.server_id, NonceRole.CLIENT)
        self._client_nonce_stored = True
        self._known_for_session = False
        self._server_nonce = nonces.get(account.server_id, NonceRole.SERVER)
        self._server_proved = account.server.scheme is AuthScheme.NONE
        #: whether the last message tried to prove who the server is
        self.server_gave_credentials = False
        self._renewed_server_nonce = False

    @property
    def source_name(self) -> str | None:
        """LocName of our Source: the user name, which MD5 and HMAC cannot do without."""
        return self._account.client.name or None

    # ---- about the server

    def judge(self, message: Message, our_msg_id: int, untrusted_body: bytes, hmac: str | None) -> Verdict:
        """Judge a message of the server, and take the nonces that it brings."""
        trusted = self._check_server(message, untrusted_body, hmac)
        status = header_status(message, our_msg_id)
        code = status.code if status is not None else Code.OK
        about = self._about_us(status)
        if trusted and not self._client_nonce_stored and self._client_nonce is not None:
            self._nonces.put(self._account.server_id, NonceRole.CLIENT, self._client_nonce)
            self._client_nonce_stored = True
        return Verdict(about, trusted, code)

    def _check_server(self, message: Message, untrusted_body: bytes, hmac: str | None) -> bool:
        server = self._account.server
        cred = message.header.cred
        if server.scheme is AuthScheme.NONE:
            return True
        if server.scheme is AuthScheme.HMAC:
            self.server_gave_credentials = hmac is not None
            return auth.check_hmac(server, hmac, self._server_nonce, untrusted_body)
        self.server_gave_credentials = cred is not None
        if cred is not None:
            self._server_proved = auth.check_cred(server, cred, self._server_nonce)
            if self._server_proved and self._server_nonce is not None:
                # the session may end before we renew it: then both sides go on with this one
                self._nonces.put(self._account.server_id, NonceRole.SERVER, self._server_nonce)
        return self._server_proved

    def _about_us(self, status: Status | None) -> AboutUs:
        if status is None:
            return AboutUs.ACCEPTED
        nonce = auth.nonce_of(status.chal)
        if status.code in (Code.UNAUTHORIZED, Code.AUTHENTICATION_REQUIRED):
            return self._take_challenge(status, nonce)
        if status.code not in (Code.OK, Code.AUTHENTICATED):
            return AboutUs.REFUSED
        if self._scheme is AuthScheme.HMAC and (status.code != Code.OK or nonce is None):
            return AboutUs.REFUSED  # HMAC: always 200, always with the next nonce (digest 5.4)
        if status.code == Code.AUTHENTICATED:
            self._known_for_session = True
        if nonce is not None:
            self._client_nonce = nonce
            self._client_nonce_stored = False
        return AboutUs.ACCEPTED

    def _take_challenge(self, status: Status, nonce: bytes | None) -> AboutUs:
        scheme = auth.scheme_of(status.chal.meta) if status.chal is not None else None
        wanted = self._account.client.scheme
        if scheme is None or wanted is AuthScheme.NONE or _STRENGTH.index(scheme) < _STRENGTH.index(wanted):
            return AboutUs.NOT_BELIEVED
        if scheme is not AuthScheme.BASIC:
            if nonce is None:
                return AboutUs.NOT_BELIEVED
            self._client_nonce = nonce
            self._client_nonce_stored = False
        self._scheme = scheme
        self._known_for_session = False
        return AboutUs.CHALLENGED

    def status_for(self, message: Message, *, challenge: bool) -> Status:
        """Our Status for the server's SyncHdr; ``challenge`` asks it to prove who it is."""
        server = self._account.server
        header = message.header
        code, chal = Code.OK, None
        if challenge:
            code = Code.UNAUTHORIZED if self.server_gave_credentials else Code.AUTHENTICATION_REQUIRED
            if server.scheme is not AuthScheme.BASIC:
                self._server_nonce = auth.new_nonce(self._random)
            chal = auth.make_chal(server.scheme, None if server.scheme is AuthScheme.BASIC else self._server_nonce)
        elif server.scheme is AuthScheme.HMAC:
            chal = auth.make_chal(server.scheme, self._next_server_nonce())
        elif server.scheme is not AuthScheme.NONE:
            code = Code.AUTHENTICATED
            if server.scheme is AuthScheme.MD5 and not self._renewed_server_nonce:
                chal = auth.make_chal(server.scheme, self._next_server_nonce())
                self._renewed_server_nonce = True
        return Status(
            msg_ref=header.msg_id, code=code, target_refs=(header.target,), source_refs=(header.source,), chal=chal
        )

    def _next_server_nonce(self) -> bytes:
        self._server_nonce = auth.new_nonce(self._random)
        self._nonces.put(self._account.server_id, NonceRole.SERVER, self._server_nonce)
        return self._server_nonce

    # ---- about us

    def _credentials(self) -> Credentials:
        client = self._account.client
        return Credentials(self._scheme, client.name, client.secret)

    def cred(self) -> Cred | None:
        """Cred for our next SyncHdr: none when we are known for the session, or have no nonce yet to use unasked."""
        if self._known_for_session or (self._scheme is AuthScheme.MD5 and self._client_nonce is None):
            return None
        return auth.make_cred(self._credentials(), self._client_nonce or b"")

    def hmac_for(self, body: bytes) -> str | None:
        """``x-syncml-hmac`` for a message that is sent now; ``None`` where HMAC is not in use."""
        if self._scheme is not AuthScheme.HMAC or self._client_nonce is None:
            return None
        return auth.make_hmac_header(self._credentials(), self._client_nonce, body)


def header_status(message: Message, our_msg_id: int) -> Status | None:
    """The Status that answers our last message's SyncHdr, ``None`` when the peer left it out."""
    for command in message.body:
        if isinstance(command, Status) and command.cmd_ref == "0" and command.msg_ref == our_msg_id:
            return command
    return None
