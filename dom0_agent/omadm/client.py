"""The client's session: opens it, proves and asks who is there, executes commands, answers (OMA-TS-DM Protocol 8).

Sans-IO: :meth:`ClientSession.start` gives the first message, :meth:`ClientSession.receive` takes each message of the
server and gives the answer, ``None`` when the session is over. The states are in ``client_states``; the tree, the clock
of nonces (randomness) and their keeping are passed in. Knows no HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.auth import Account, NonceStore, RandomBytes
from dom0_agent.omadm.client_auth import AboutUs, ClientAuthentication
from dom0_agent.omadm.client_states import CLIENT_TABLE, ClientEvent, ClientState
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.execute import Executor, not_written, refusal
from dom0_agent.omadm.interaction import UserInterface
from dom0_agent.omadm.largeobject import Assembler, no_end_of_data
from dom0_agent.omadm.outbox import Outbox
from dom0_agent.omadm.session import (
    DEFAULT_LIMITS,
    MAX_MESSAGES,
    SUPPORTED_PROTOCOLS,
    VER_PROTO,
    EndReason,
    SessionLimits,
    SessionOutcome,
)
from dom0_agent.omadm.status import DMError, ProtocolError, Status
from dom0_agent.omadm.tree_access import TreeAccess

logger = logging.getLogger(__name__)

#: Messages in a row in which the server only asks for more (1222) although we have nothing: it will never end.
MAX_IDLE_MESSAGES = 8


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """An alert that must reach the server; ``id`` is the owner's, and comes back when the server has it."""

    id: str
    alert: c.Alert


class ClientSession:
    """One DM session with one server, over when :meth:`receive` returns ``None``."""

    def __init__(
        self,
        *,
        account: Account,
        device_id: str,
        tree: TreeAccess,
        nonces: NonceStore,
        random_bytes: RandomBytes,
        codec: Codec,
        session_id: str,
        device_info: Callable[[], Mapping[str, str]],
        alerts: Sequence[PendingAlert] = (),
        opening: AlertCode = AlertCode.CLIENT_INITIATED,
        ui: UserInterface | None = None,
        limits: SessionLimits = DEFAULT_LIMITS,
        ver_proto: str = VER_PROTO,
        batch: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``batch`` makes the writes of one message durable together (the tree's; one fsync instead of many)."""
        self.state = ClientState.NEW
        self.outcome: SessionOutcome | None = None
        #: where the next message goes: the account's address, later the server's RespURI
        self.target_uri = account.address
        #: value of ``x-syncml-hmac`` for the message last returned; ``None``: send no such header
        self.outgoing_hmac: str | None = None
        #: ids of alerts that the server answered with 200 or 202; their owner may forget them
        self.acknowledged: list[str] = []
        #: every status that the server gave to an alert, by id
        self.alert_statuses: dict[str, int] = {}
        self._account = account
        self._device_id = device_id
        self._codec = codec
        self._session_id = session_id
        self._device_info = device_info
        self._opening = opening
        self._limits = limits
        self._ver_proto = ver_proto
        self._batch = batch
        self._auth = ClientAuthentication(account, nonces, random_bytes)
        self._executor = Executor(tree, account.server_id, codec.carry, ui, max_received=limits.max_obj_size)
        self._assembler = Assembler(limits.max_obj_size)
        self._outbox = Outbox(codec)
        self._alerts = list(alerts)
        self._unsent_alerts: list[PendingAlert] = []
        self._alert_refs: dict[tuple[int, str], PendingAlert] = {}
        self._open_chunk: tuple[int, str] | None = None  #: message and CmdID of our last chunk, if more will follow
        self._held: list[c.Status] = []
        self._why = ""
        self._msg_id = 0
        self._last_server_msg_id = 0
        self._last_received: bytes | None = None
        self._last_sent = b""
        self._peer_limit: int | None = None
        self._idle_messages = 0

    # ---- what the owner calls

    def start(self) -> bytes:
        """The first message of package 1."""
        body = self._step(ClientEvent.START, None)
        assert body is not None  # the table's only row for START sends
        return body

    def receive(self, untrusted_body: bytes, hmac: str | None = None) -> bytes | None:
        """The answer to a message of the server; ``None``: send nothing, the session is over, see :attr:`outcome`.

        ``hmac`` is the value of the ``x-syncml-hmac`` header that came with it, if any.
        """
        if self.state is ClientState.OVER:
            return None
        if self._last_received is not None and self._last_received == untrusted_body:
            return self._last_sent  # the transport repeated an exchange: same question, same answer
        try:
            message = self._codec.decode(untrusted_body)
            self._check(message)
        except ProtocolError as error:
            self._why = str(error)
            return self._step(ClientEvent.UNUSABLE, None)
        self._last_received = untrusted_body
        self._last_server_msg_id = message.header.msg_id
        self._note_header(message.header)
        event = self._classify(message, untrusted_body, hmac)
        if event is ClientEvent.WORK and (self._msg_id >= MAX_MESSAGES or self._idle_messages > MAX_IDLE_MESSAGES):
            event = ClientEvent.GIVE_UP
        return self._step(event, message)

    def abort(self) -> bytes | None:
        """End the session from our side: the message with Alert 1223, to be sent without waiting for an answer."""
        if self.state in (ClientState.NEW, ClientState.OVER):
            return None
        return self._step(ClientEvent.GIVE_UP, None)

    def add_alert(self, pending: PendingAlert) -> None:
        """Report something that happened during the session; it goes with the next message, if there is one."""
        self._alerts.append(pending)
        self._unsent_alerts.append(pending)

    # ---- from a message to an event

    def _check(self, message: c.Message) -> None:
        header = message.header
        if header.session_id.upper() != self._session_id.upper():
            raise ProtocolError(f"SessionID is {header.session_id[:20]!r}, ours is {self._session_id!r}")
        if header.ver_proto not in SUPPORTED_PROTOCOLS:
            raise ProtocolError(f"VerProto is {header.ver_proto[:20]!r}, known are {', '.join(SUPPORTED_PROTOCOLS)}")
        if header.msg_id <= self._last_server_msg_id:
            raise ProtocolError(f"MsgID is {header.msg_id} after {self._last_server_msg_id}")

    def _note_header(self, header: c.SyncHdr) -> None:
        if header.resp_uri is not None:
            self.target_uri = header.resp_uri
        if header.meta is not None:
            self._peer_limit = header.meta.max_msg_size or self._peer_limit
            self._executor.max_object = header.meta.max_obj_size or self._executor.max_object

    def _classify(self, message: c.Message, untrusted_body: bytes, hmac: str | None) -> ClientEvent:
        body = message.body
        if any(isinstance(command, c.Alert) and command.code == AlertCode.SESSION_ABORT for command in body):
            return ClientEvent.ABORTED
        verdict = self._auth.judge(message, self._msg_id, untrusted_body, hmac)
        self._why = f"status {verdict.code}"
        self._held += [command for command in body if isinstance(command, c.Status)]
        if verdict.trusted:  # what a stranger said about our alerts counts once it has proved who it is
            self._take_statuses()
        if verdict.about_us is not AboutUs.ACCEPTED:
            return _ABOUT_US[verdict.about_us, verdict.trusted]
        wants = not message.final or any(not isinstance(command, c.Status) for command in body)
        if not verdict.trusted:  # who wants nothing must not be challenged, unless it says something about our alerts
            said = any(pending.id not in self.alert_statuses for pending in self._alerts)
            return ClientEvent.STRANGER if wants or said else ClientEvent.SILENT_STRANGER
        return ClientEvent.WORK if wants or len(self._outbox) or self._unsent_alerts else ClientEvent.NOTHING

    def _take_statuses(self) -> None:
        """What the server says about alerts and Results that we sent."""
        statuses, self._held = self._held, []
        for status in statuses:
            pending = self._alert_refs.get((status.msg_ref, status.cmd_ref))
            if pending is not None and status.code not in (Status.UNAUTHORIZED, Status.AUTHENTICATION_REQUIRED):
                self.alert_statuses[pending.id] = status.code
                if status.code in (Status.OK, Status.ACCEPTED):
                    self.acknowledged.append(pending.id)
            elif status.cmd == "Results" and status.code >= 300:
                logger.warning(
                    "results refused session=%s code=%d ref=%s", self._session_id, status.code, status.cmd_ref
                )
                if (status.msg_ref, status.cmd_ref) == self._open_chunk:
                    self._outbox.drop_chunked()

    # ---- actions, named in the table

    def _step(self, event: ClientEvent, message: c.Message | None) -> bytes | None:
        row = CLIENT_TABLE[self.state, event]
        logger.debug("dm client session=%s state=%s event=%s", self._session_id, self.state, event)
        self.state = row.target
        return _ACTIONS[row.action](self, message)

    def _send_package_1(self, _message: c.Message | None) -> bytes:
        self._queue_package_1()
        return self._send(())

    def _queue_package_1(self) -> None:
        self._outbox.clear()
        self._outbox.add([c.Alert(code=self._opening)])
        for pending in self._alerts:
            if pending.id not in self.alert_statuses:
                self._outbox.add_with_ref(pending.alert, pending.id)
        items = tuple(c.Item(source=uri, data=value) for uri, value in self._device_info().items())
        self._outbox.add([c.Replace(items=items)])

    def _resend_package_1(self, message: c.Message) -> bytes:
        self._queue_package_1()
        return self._send([self._auth.status_for(message, challenge=False)])

    def _resend_package_1_and_challenge(self, message: c.Message) -> bytes:
        self._queue_package_1()
        return self._send([self._auth.status_for(message, challenge=True)])

    def _challenge(self, message: c.Message) -> bytes:
        status = self._auth.status_for(message, challenge=True)
        return self._send([status, *refusal(message.body, message.header.msg_id, status.code)])

    def _work(self, message: c.Message) -> bytes:
        """Execute what the server sent and answer; keep the conversation open as long as either side has more.

        A message without Final begins or continues a package of the server, which we ask to go on with (1222), unless
        it asks *us* to go on: then it waits for the end of our package (digest 2.3).
        """
        msg_id = message.header.msg_id
        first: list[c.BodyElement] = [self._auth.status_for(message, challenge=False)]
        commands: list[c.BodyElement] = []
        asked_for_more = False
        for command in message.body:
            if isinstance(command, c.Alert) and command.code in (AlertCode.NEXT_MESSAGE, AlertCode.NO_END_OF_DATA):
                if command.code == AlertCode.NO_END_OF_DATA:
                    self._outbox.restart_chunked()
                else:
                    asked_for_more = True
                first.append(c.Status(msg_ref=msg_id, cmd_ref=command.cmd_id, cmd="Alert", code=Status.OK))
            elif not isinstance(command, c.Status):
                commands.append(command)
        answers = self._execute_all(commands, msg_id)
        idle = not answers and not len(self._outbox) and not self._unsent_alerts
        self._idle_messages = self._idle_messages + 1 if idle else 0
        self._outbox.add(answers)
        for pending in self._unsent_alerts:
            self._outbox.add_with_ref(pending.alert, pending.id)
        self._unsent_alerts.clear()
        complete = message.final or (asked_for_more and not commands)
        last = () if complete else (c.Alert(code=AlertCode.NEXT_MESSAGE),)
        return self._send(first, last, final=complete)

    def _execute_all(self, commands: Sequence[c.BodyElement], msg_id: int) -> list[c.BodyElement]:
        answers: list[c.BodyElement] = []
        self._executor.begin_message()
        try:
            with self._batch():
                for command in commands:
                    answers += self._execute(command, msg_id)
        except DMError as error:  # the writes could not be made durable and have been taken back
            logger.error("writes lost session=%s status=%d reason=%r", self._session_id, error.status, str(error))
            return [not_written(answer, error.status) for answer in answers]
        return answers

    def _execute(self, command: c.BodyElement, msg_id: int) -> list[c.BodyElement]:
        if not self._assembler.concerns(command):
            return self._executor.execute(command, msg_id)
        taken = self._assembler.take(command)
        answers: list[c.BodyElement] = [] if taken.broken is None else [no_end_of_data(taken.broken)]
        if taken.command is not None:
            return answers + self._executor.execute(taken.command, msg_id)
        assert taken.status is not None  # a command is executed or answered
        targets = tuple(item.target for item in getattr(command, "items", ()) if item.target is not None)
        answers.append(c.Status("", msg_id, command.cmd_id, command.NAME, taken.status, targets))
        return answers

    def _send_abort(self, message: c.Message | None) -> bytes:
        self._outbox.clear()
        self._end(EndReason.ABORTED, "we ended the session before the server did")
        first = [] if message is None else [self._auth.status_for(message, challenge=False)]
        return self._send([*first, c.Alert(code=AlertCode.SESSION_ABORT)])

    def _send(self, first: Iterable[c.BodyElement], last: Iterable[c.BodyElement] = (), *, final: bool = True) -> bytes:
        self._msg_id += 1
        limits = self._limits
        header = c.SyncHdr(
            session_id=self._session_id,
            msg_id=self._msg_id,
            target=self._account.address,
            source=self._device_id,
            source_name=self._auth.source_name,
            cred=self._auth.cred(),
            meta=c.Meta(max_msg_size=limits.max_msg_size, max_obj_size=limits.max_obj_size),
            ver_proto=self._ver_proto,
        )
        packed = self._outbox.pack(header, first, last, limit=self._peer_limit, final=final)
        self._open_chunk = None if packed.open_chunk is None else (self._msg_id, packed.open_chunk)
        by_id = {pending.id: pending for pending in self._alerts}
        for numbered in packed.numbered:
            self._alert_refs[self._msg_id, numbered.cmd_id] = by_id[numbered.ref]
        self._last_sent = packed.body
        self.outgoing_hmac = self._auth.hmac_for(packed.body)
        return packed.body

    # ---- endings

    def _end(self, reason: EndReason, sentence: str) -> None:
        self.outcome = SessionOutcome(reason, sentence)
        logger.info(
            "dm session over session=%s server=%s reason=%s", self._session_id, self._account.server_id, reason.value
        )

    def _end_well(self, _message: c.Message | None) -> None:
        self._end(EndReason.DONE, "the session ended well")

    def _fail_authentication(self, _message: c.Message | None) -> None:
        name = self._account.client.name
        self._end(EndReason.AUTHENTICATION, f"the server does not accept our credentials for {name!r} ({self._why})")

    def _give_up_on_server(self, _message: c.Message | None) -> None:
        server = self._account.server_id
        self._end(
            EndReason.PEER_UNKNOWN, f"server {server!r} did not prove who it is; check the account's server secret"
        )

    def _end_unproved(self, _message: c.Message | None) -> None:
        server = self._account.server_id
        if self._auth.server_gave_credentials:
            self._end(
                EndReason.PEER_UNKNOWN, f"server {server!r} gave wrong credentials; check the account's server secret"
            )
        else:  # legal, and nothing has been done for it
            self._end(EndReason.DONE, f"server {server!r} wanted nothing, and did not prove who it is")

    def _end_refused(self, _message: c.Message | None) -> None:
        self._end(EndReason.REFUSED, f"the server refused our message header ({self._why})")

    def _end_aborted(self, _message: c.Message | None) -> None:
        self._end(EndReason.ABORTED_BY_PEER, "the server aborted the session (alert 1223)")

    def _end_unusable(self, _message: c.Message | None) -> None:
        self._end(EndReason.PROTOCOL, f"the server's message cannot be used: {self._why}")


_ABOUT_US = {
    (AboutUs.CHALLENGED, True): ClientEvent.CHALLENGED,
    (AboutUs.CHALLENGED, False): ClientEvent.CHALLENGED_BY_STRANGER,
    (AboutUs.NOT_BELIEVED, True): ClientEvent.NOT_BELIEVED,
    (AboutUs.NOT_BELIEVED, False): ClientEvent.NOT_BELIEVED,
    (AboutUs.REFUSED, True): ClientEvent.REFUSED,
    (AboutUs.REFUSED, False): ClientEvent.REFUSED,
}

_ACTIONS: dict[str, Callable[..., bytes | None]] = {
    "send_package_1": ClientSession._send_package_1,
    "resend_package_1": ClientSession._resend_package_1,
    "resend_package_1_and_challenge": ClientSession._resend_package_1_and_challenge,
    "challenge": ClientSession._challenge,
    "work": ClientSession._work,
    "send_abort": ClientSession._send_abort,
    "end_well": ClientSession._end_well,
    "fail_authentication": ClientSession._fail_authentication,
    "give_up_on_server": ClientSession._give_up_on_server,
    "end_unproved": ClientSession._end_unproved,
    "end_refused": ClientSession._end_refused,
    "end_aborted": ClientSession._end_aborted,
    "end_unusable": ClientSession._end_unusable,
}
