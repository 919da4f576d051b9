"""The server's session: asks devices who they are, sends commands, collects what became of them (OMA-TS-DM Protocol 8).

Sans-IO: :meth:`ServerSession.receive` takes each message of a device and gives the answer. Between two messages the
session can be stored (:meth:`ServerSession.to_dict`) and taken up by another process. The application says what to send
and hears what happened through :class:`ServerApplication`. States are in ``server_states``. Knows no HTTP, no database.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.auth import NonceStore, RandomBytes
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.execute import refusal
from dom0_agent.omadm.largeobject import Assembler
from dom0_agent.omadm.outbox import Outbox, carried_size
from dom0_agent.omadm.server_auth import AboutServer, ClientVerdict, CredentialLookup, LockOut, ServerAuthentication
from dom0_agent.omadm.server_hearing import Hearing, ServerApplication
from dom0_agent.omadm.server_outcomes import Outcomes, pack_elements, unpack_elements
from dom0_agent.omadm.server_persist import auth_from_dict, auth_to_dict
from dom0_agent.omadm.server_states import SERVER_TABLE, ServerEvent, ServerState
from dom0_agent.omadm.session import (
    DEFAULT_LIMITS,
    MAX_MESSAGES,
    SUPPORTED_PROTOCOLS,
    VER_DTD,
    EndReason,
    SessionLimits,
    SessionOutcome,
)
from dom0_agent.omadm.status import ProtocolError, Status

__all__ = ["ServerApplication", "ServerSession"]

logger = logging.getLogger(__name__)

#: Times in a row that an application is asked for commands when all of them are too large for the device.
MAX_ROUNDS = 100


class ServerSession:
    """One DM session with one device. ``uri`` is our own address (Source of our messages)."""

    def __init__(
        self,
        *,
        session_id: str,
        device_id: str,
        user_name: str | None,
        uri: str,
        codec: Codec,
        lookup: CredentialLookup,
        nonces: NonceStore,
        random_bytes: RandomBytes,
        lock_out: LockOut | None = None,
        limits: SessionLimits = DEFAULT_LIMITS,
        resp_uri: str | None = None,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.device_id = device_id
        #: how the session ended; ``None`` while it goes on
        self.ended: SessionOutcome | None = None
        #: value of ``x-syncml-hmac`` for the message last returned; ``None``: send no such header
        self.outgoing_hmac: str | None = None
        self.state = ServerState.NEW
        self._user_name = user_name
        self._uri = uri
        self._codec = codec
        self._limits = limits
        self._resp_uri = resp_uri
        self._msg_id = 0
        self._client_msg_id = 0
        self._ver_proto = SUPPORTED_PROTOCOLS[0]
        self._peer_limit: int | None = None
        self._peer_max_object: int | None = None
        self._last_exchange: tuple[str, bytes, str | None] | None = None  # the message as its digest
        self._assembler = Assembler(limits.max_obj_size)
        self._outbox = Outbox(codec)
        self._outcomes = Outcomes()
        self._hearing = Hearing(self._outcomes, self._assembler, self._outbox)
        auth_state = None
        if saved is not None:
            self._restore(saved)
            auth_state = auth_from_dict(saved["auth"])
        credentials = lookup(device_id, user_name)
        self._auth = ServerAuthentication(
            device_id=device_id,
            credentials=credentials,
            nonces=nonces,
            random_bytes=random_bytes,
            lock_out=lock_out,
            state=auth_state,
        )

    # ---- what the owner calls

    @property
    def is_over(self) -> bool:
        """Whether the session may be forgotten."""
        return self.state is ServerState.OVER

    @property
    def is_new(self) -> bool:
        """Whether nothing was received yet."""
        return self._client_msg_id == 0

    @property
    def is_proved(self) -> bool:
        """Whether the device has proved who it is, for the session."""
        return self._auth.state.client_proved

    def repeats(self, untrusted_body: bytes) -> bool:
        """Whether this is the message that was answered last: the transport repeated it (same answer, nothing done)."""
        return self._last_exchange is not None and self._last_exchange[0] == _digest(untrusted_body)

    def receive(
        self,
        untrusted_body: bytes,
        application: ServerApplication,
        hmac: str | None = None,
        message: c.Message | None = None,
    ) -> bytes:
        """The answer to a device's message, given as octets and (when already decoded for routing) as ``message``.

        Raises :class:`ProtocolError` for what is no message of this session (HTTP 400).
        """
        digest = _digest(untrusted_body)
        if self._last_exchange is not None and self._last_exchange[0] == digest:
            _, answer, self.outgoing_hmac = self._last_exchange
            return answer
        if message is None:
            message = self._codec.decode(untrusted_body)
        self._check(message)
        self._client_msg_id = message.header.msg_id
        self._note_header(message.header)
        verdict, event = self._classify(message, untrusted_body, hmac)
        row = SERVER_TABLE[self.state, event]
        logger.debug(
            "dm server session=%s device=%s state=%s event=%s", self.session_id, self.device_id, self.state, event
        )
        self.state = row.target
        body = _ACTIONS[row.action](self, message, verdict, application)
        if self.is_over:
            for outcome in self._outcomes.abandon():
                application.outcome(outcome)
        self.outgoing_hmac = self._auth.hmac_for(body) if verdict is ClientVerdict.PROVED else None
        self._last_exchange = (digest, body, self.outgoing_hmac)
        return body

    # ---- from a message to an event

    def _check(self, message: c.Message) -> None:
        header = message.header
        if self.is_over:
            raise ProtocolError("the session is over")
        if header.session_id != self.session_id or header.source != self.device_id:
            raise ProtocolError("the message belongs to another session")
        if header.msg_id <= self._client_msg_id:
            raise ProtocolError(f"MsgID is {header.msg_id} after {self._client_msg_id}")

    def _note_header(self, header: c.SyncHdr) -> None:
        if header.ver_proto in SUPPORTED_PROTOCOLS:
            self._ver_proto = header.ver_proto  # answer in the version that we were spoken to
        if header.meta is not None:
            self._peer_limit = header.meta.max_msg_size or self._peer_limit
            self._peer_max_object = header.meta.max_obj_size or self._peer_max_object

    def _classify(  # noqa: PLR0911 - a decision list reads best as one
        self, message: c.Message, untrusted_body: bytes, hmac: str | None
    ) -> tuple[ClientVerdict, ServerEvent]:
        header = message.header
        if header.ver_dtd != VER_DTD or header.ver_proto not in SUPPORTED_PROTOCOLS:
            return ClientVerdict.MISSING, ServerEvent.VERSION
        verdict = self._auth.judge_client(message, untrusted_body, hmac)
        if any(isinstance(command, c.Alert) and command.code == AlertCode.SESSION_ABORT for command in message.body):
            return verdict, ServerEvent.ABORTED
        if verdict is not ClientVerdict.PROVED:
            gone = verdict is ClientVerdict.LOCKED or self._auth.exhausted
            return verdict, ServerEvent.STRANGER_AGAIN if gone else ServerEvent.STRANGER
        about_us = self._auth.judge_server(message, self._msg_id)
        if about_us is AboutServer.REFUSED or self._msg_id >= MAX_MESSAGES:
            return verdict, ServerEvent.REFUSED
        if about_us is AboutServer.DOUBTED:
            return verdict, ServerEvent.DOUBTED
        if message.final:
            return verdict, ServerEvent.PACKAGE
        return verdict, ServerEvent.WAITING if self.state is ServerState.SENDING else ServerEvent.UNFINISHED

    # ---- actions, named in the table

    def _challenge(self, message: c.Message, verdict: ClientVerdict, _application: ServerApplication) -> bytes:
        status = self._auth.status_for(message, verdict)
        return self._send([status, *refusal(message.body, message.header.msg_id, status.code)])

    def _turn_away(self, message: c.Message, verdict: ClientVerdict, application: ServerApplication) -> bytes:
        body = self._challenge(message, verdict, application)
        self._end(EndReason.PEER_UNKNOWN, f"device {self.device_id!r} did not prove who it is ({verdict.value})")
        return body

    def _give_up(self, message: c.Message, verdict: ClientVerdict, _application: ServerApplication) -> bytes:
        self._end(EndReason.AUTHENTICATION, f"device {self.device_id!r} does not accept our message header")
        return self._send([self._auth.status_for(message, verdict)])

    def _refuse_version(self, message: c.Message, _verdict: ClientVerdict, _application: ServerApplication) -> bytes:
        header = message.header
        dtd = header.ver_dtd != VER_DTD
        known = (VER_DTD,) if dtd else SUPPORTED_PROTOCOLS
        status = c.Status(
            msg_ref=header.msg_id,
            code=Status.DTD_NOT_SUPPORTED if dtd else Status.PROTOCOL_NOT_SUPPORTED,
            items=tuple(c.Item(data=version) for version in known),
        )
        self._end(
            EndReason.PROTOCOL, f"device {self.device_id!r} speaks {header.ver_proto!r} with DTD {header.ver_dtd!r}"
        )
        return self._send([status])

    def _answer_abort(self, message: c.Message, verdict: ClientVerdict, _application: ServerApplication) -> bytes:
        status = self._auth.status_for(message, verdict)
        self._end(EndReason.ABORTED_BY_PEER, f"device {self.device_id!r} aborted the session (alert 1223)")
        code = Status.OK if verdict is ClientVerdict.PROVED else status.code
        return self._send([status, *refusal(message.body, message.header.msg_id, code)])

    def _ask_for_more(self, message: c.Message, verdict: ClientVerdict, application: ServerApplication) -> bytes:
        """The device's package goes on: no commands, no Final (digest 2.3)."""
        status = self._auth.status_for(message, verdict)
        answers = self._hearing.process(message, self._msg_id, application)
        return self._send([status, *answers], [c.Alert(code=AlertCode.NEXT_MESSAGE)], final=False)

    def _converse(self, message: c.Message, verdict: ClientVerdict, application: ServerApplication) -> bytes:
        """The device's package is complete: report what it says, and send what is to be done next."""
        status = self._auth.status_for(message, verdict)
        answers = self._hearing.process(message, self._msg_id, application)
        if not len(self._outbox):  # else: a device that says Final although our package goes on (libdmclient)
            self._take_commands(application)
        return self._decide([status, *answers])

    def _send_rest(self, message: c.Message, verdict: ClientVerdict, application: ServerApplication) -> bytes:
        status = self._auth.status_for(message, verdict)
        return self._decide([status, *self._hearing.process(message, self._msg_id, application)])

    def _prove_again(self, message: c.Message, verdict: ClientVerdict, application: ServerApplication) -> bytes:
        """Package 2 again, now with the credentials that the device asked for."""
        status = self._auth.status_for(message, verdict)
        previous = self._hearing.answered
        answers = self._hearing.process(message, self._msg_id, application) or previous
        self._outbox.clear()
        for ref, command in self._outcomes.unanswered():
            self._outbox.add_with_ref(command, ref)
        if not len(self._outbox) and message.final:
            self._take_commands(application)
        return self._decide([status, *answers])

    def _decide(self, first: list[c.BodyElement]) -> bytes:
        body = self._send(first)
        if len(self._outbox):
            event = ServerEvent.SENT_PART
        elif self._outcomes.any_open:
            event = ServerEvent.SENT_ALL
        else:
            event = ServerEvent.SENT_NOTHING
            self._end(EndReason.DONE, "the session ended well")
        self.state = SERVER_TABLE[self.state, event].target
        return body

    def _take_commands(self, application: ServerApplication) -> None:
        """Report what is done and ask for more, again when nothing of what was asked for may be sent."""
        for _ in range(MAX_ROUNDS):
            for outcome in self._outcomes.complete():
                application.outcome(outcome)
            requests = application.commands()
            for request in requests:
                self._outcomes.open(request)
                if self._is_too_large(request.command):
                    self._outcomes.refuse(request.ref, Status.TOO_LARGE)
                else:
                    self._outbox.add_with_ref(request.command, request.ref)
            if not requests or len(self._outbox):
                return

    def _is_too_large(self, command: c.BodyElement) -> bool:
        most = self._peer_max_object
        if most is None:
            return False
        items = (item for part in c.walk((command,)) for item in getattr(part, "items", ()))
        return any(item.data is not None and carried_size(self._codec.carry(item).data or "") > most for item in items)

    # ---- sending

    def _send(self, first: Iterable[c.BodyElement], last: Iterable[c.BodyElement] = (), *, final: bool = True) -> bytes:
        self._msg_id += 1
        header = c.SyncHdr(
            session_id=self.session_id,
            msg_id=self._msg_id,
            target=self.device_id,
            source=self._uri,
            source_name=self._auth.source_name,
            resp_uri=self._resp_uri,
            cred=self._auth.cred() if self.state is not ServerState.CHALLENGING else None,
            meta=c.Meta(max_msg_size=self._limits.max_msg_size, max_obj_size=self._limits.max_obj_size),
            ver_proto=self._ver_proto,
        )
        if not final or self.state in (ServerState.CHALLENGING, ServerState.OVER):
            packed = Outbox(self._codec).pack(header, first, last, final=final)  # what waits in ours has to wait
        else:
            packed = self._outbox.pack(header, first, last, limit=self._peer_limit, final=final)
        for numbered in packed.numbered:
            self._outcomes.sent(self._msg_id, numbered)
        return packed.body

    def _end(self, reason: EndReason, sentence: str) -> None:
        self.ended = SessionOutcome(reason, sentence)
        self._hearing.answered = []  # nothing will have to be said again
        logger.info("dm session over session=%s device=%s reason=%s", self.session_id, self.device_id, reason.value)

    # ---- persistence

    @staticmethod
    def may_restore(saved: Mapping[str, Any], codec: Codec) -> bool:
        """Whether a session that was stored can go on in the syntax of ``codec``: what waits in it is encoded."""
        return bool(saved.get("media_type") == codec.media_type)

    def to_dict(self) -> dict[str, Any]:
        """The session as a JSON value, without any secret of the account but with nonces."""
        last = self._last_exchange
        return {
            "state": self.state.value,
            "media_type": self._codec.media_type,
            "msg_id": self._msg_id,
            "client_msg_id": self._client_msg_id,
            "ver_proto": self._ver_proto,
            "peer_limit": self._peer_limit,
            "peer_max_object": self._peer_max_object,
            "last_exchange": None if last is None else [last[0], last[1].decode("latin-1"), last[2]],
            "answered": pack_elements(self._codec, self._hearing.answered),
            "assembler": pack_elements(self._codec, self._assembler.parts),
            "waiting": [[ref, pack_elements(self._codec, [element])] for element, ref in self._outbox.waiting],
            "sent_of_chunked": self._outbox.sent_of_chunked,
            "outcomes": self._outcomes.to_dict(self._codec),
            "auth": auth_to_dict(self._auth.state),
            "ended": None if self.ended is None else [self.ended.reason.value, self.ended.sentence],
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        codec = self._codec
        self.state = ServerState(saved["state"])
        self._msg_id = saved["msg_id"]
        self._client_msg_id = saved["client_msg_id"]
        self._ver_proto = saved["ver_proto"]
        self._peer_limit = saved["peer_limit"]
        self._peer_max_object = saved["peer_max_object"]
        if saved["last_exchange"] is not None:
            question, answer, hmac = saved["last_exchange"]
            self._last_exchange = (question, answer.encode("latin-1"), hmac)
        for command in unpack_elements(codec, saved["assembler"]):
            self._assembler.take(command)
        waiting = [(unpack_elements(codec, packed)[0], ref) for ref, packed in saved["waiting"]]
        self._outbox = Outbox(codec, waiting, saved["sent_of_chunked"])
        self._outcomes = Outcomes.from_dict(codec, saved["outcomes"])
        self._hearing = Hearing(self._outcomes, self._assembler, self._outbox)
        self._hearing.answered = list(unpack_elements(codec, saved["answered"]))
        if saved["ended"] is not None:
            reason, sentence = saved["ended"]
            self.ended = SessionOutcome(EndReason(reason), sentence)


def _digest(untrusted_body: bytes) -> str:
    return hashlib.sha256(untrusted_body).hexdigest()


_ACTIONS: dict[str, Callable[[ServerSession, c.Message, ClientVerdict, ServerApplication], bytes]] = {
    "challenge": ServerSession._challenge,
    "turn_away": ServerSession._turn_away,
    "give_up": ServerSession._give_up,
    "refuse_version": ServerSession._refuse_version,
    "answer_abort": ServerSession._answer_abort,
    "ask_for_more": ServerSession._ask_for_more,
    "converse": ServerSession._converse,
    "send_rest": ServerSession._send_rest,
    "prove_again": ServerSession._prove_again,
}
