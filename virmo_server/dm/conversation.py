"""Messages of devices: finds their sessions, lets the protocol library judge them, lets the order engine act on them.

Blocking; called in threads of ``message_queue``. What a message changes and its answer are one transaction, which
messages of several devices may share: when it fails a device repeats its message and finds things as they were.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.server import ServerSession
from dom0_agent.omadm.server_outcomes import CommandOutcome, CommandRequest
from dom0_agent.omadm.session import SessionLimits
from dom0_agent.omadm.status import ProtocolError, Status
from virmo_server.credentials import new_serial
from virmo_server.devices.access import Addressee, DeviceAccess, find_by_dev_ids
from virmo_server.dm.conversion import read_alert, read_nodes, to_syncml
from virmo_server.dm.sessions import StoredSession, count_strangers, find_sessions, saving
from virmo_server.dm.trace import Exchange
from virmo_server.model import Device
from virmo_server.orders.engine import Answer as OrderAnswer
from virmo_server.orders.engine import with_open_orders
from virmo_server.services import Services
from virmo_server.statements import Write, write_all

logger = logging.getLogger(__name__)

#: Sessions of senders that nobody registered, at one time: they cost a row each until they are swept.
MAX_STRANGERS = 1000
#: Columns of ``dm_session``; longer names are no device of ours.
MAX_SOURCE_CHARS = 255
MAX_SESSION_ID_CHARS = 32
#: Values kept of DevInfo.
MAX_INFO_CHARS = 255
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Busy(Exception):  # noqa: N818 - it is the state of the server, not an error in the request
    """Too many strangers at once; the endpoint answers 503."""


class WrongCertificate(Exception):  # noqa: N818 - it is what happened
    """The device must show another client certificate; the endpoint answers 403."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: the message and, where HMAC is in use, its header."""

    body: bytes
    hmac: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """A device's message as it came, from this client address."""

    codec: Codec
    untrusted_body: bytes
    untrusted_hmac: str | None
    address: str
    message: c.Message
    subject: str | None = None  #: of the client certificate that was shown

    @property
    def source(self) -> str:
        """Who sends it, as the message says."""
        return self.message.header.source


class Alone(Exception):  # noqa: N818 - it is what is to be done
    """This message needs a transaction of its own: somebody else works on its device, or nobody knows it."""


Refusal = ProtocolError | Busy | WrongCertificate | Alone


def converse(services: Services, questions: Sequence[Question], *, ahead: bool = False) -> list[Answer | Refusal]:
    """Answers to messages of different devices, all in one transaction, in the order of ``questions``.

    A message that is refused changes nothing, but that a wrong certificate is shown to operators.
    Whatever else is raised has undone all. ``ahead`` has as much of the work done before the transaction as can be: for
    a database whose writers wait for each other.
    """
    prepared = _answered_ahead(services, questions) if ahead else {}
    with services.database.write() as session:
        connection = session.connection()
        found = _find(connection, questions)
        answers: list[Answer | Refusal] = []
        writes: list[Write] = []
        for question in questions:
            if question.source not in found:
                answers.append(Alone())
                continue
            done = prepared.get(question.source)
            if done is not None and done.found == found[question.source]:
                answers.append(done.answer)
                writes += done.writes
                continue
            exchange = _Exchange(services, session, question, found[question.source])
            try:
                answers.append(exchange.answer())
            except (ProtocolError, Busy) as error:
                if exchange.is_begun:
                    raise
                answers.append(error)
            except WrongCertificate as error:
                writes += exchange.writes
                answers.append(error)
            else:
                writes += exchange.writes
        write_all(connection, writes)
    return answers


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database has for a message."""

    device: Addressee | None
    stored: StoredSession | None
    has_orders: bool


@dataclass(frozen=True, slots=True)
class _Done:
    """An answer that holds if the database still has what was ``found``, and what it changes."""

    found: _Found
    answer: Answer
    writes: Sequence[Write]


class _NeedsTransaction(Exception):  # noqa: N818 - it is what has to be
    """A message is about orders or alerts: those are changed while it is worked on."""


def _answered_ahead(services: Services, questions: Sequence[Question]) -> dict[str, _Done]:
    """By Source, of registered devices that have no more to say than that they are there: as most messages are."""
    with services.database.read() as session:
        found = _find(session.connection(), questions)
    done = {}
    for question in questions:
        seen = found.get(question.source)
        if seen is None or seen.device is None or seen.has_orders:
            continue
        exchange = _Exchange(services, None, question, seen)
        with contextlib.suppress(_NeedsTransaction, ProtocolError, WrongCertificate):
            done[question.source] = _Done(seen, exchange.answer(), exchange.writes)
    return done


def _find(connection: Connection, questions: Sequence[Question]) -> dict[str, _Found]:
    """By Source. Of several messages those are left out whose devices cannot be locked at once.

    Who holds one device and waits for another would sooner or later wait for somebody who does it the other way round.
    """
    is_alone = len(questions) == 1
    sources = [question.source for question in questions]
    devices = find_by_dev_ids(connection, sources, wait=is_alone)
    if not is_alone:
        questions = [question for question in questions if question.source in devices]
    ids = [device.id for device in devices.values()]
    keys = [_key(question.message.header) for question in questions]
    busy = with_open_orders(connection, ids)
    sessions = find_sessions(connection, keys)
    found = {}
    for question, stored in zip(questions, sessions, strict=True):
        device = devices.get(question.source)
        found[question.source] = _Found(device, stored, device is not None and device.id in busy)
    return found


def _key(header: c.SyncHdr) -> tuple[str, str]:
    return header.source[:MAX_SOURCE_CHARS], header.session_id[:MAX_SESSION_ID_CHARS]


class _Exchange:
    """One message and its answer, within a transaction or ahead of it; ``writes`` are what it changes beside orders."""

    def __init__(self, services: Services, session: Session | None, question: Question, found: _Found) -> None:
        self._services = services
        self._session = session
        self._question = question
        self._found = found
        self._access = DeviceAccess(services, found.device, question.source, question.address)
        self.is_begun = False  #: whether the application may have changed something
        self.writes: list[Write] = []

    def answer(self) -> Answer:
        """Work on the message."""
        question, found, services = self._question, self._found, self._services
        stored = None if found.stored is None else replace(found.stored)  # it will be changed; what was found stays
        header, device = question.message.header, found.device
        if device is not None and device.certificate_subject not in {None, question.subject}:
            self._access.note_failure(f"wrong client certificate ({question.subject or 'none'})")
            self.writes += self._access.saving()
            raise WrongCertificate(f"this device has to show the certificate of {device.certificate_subject}")
        dm_session = self._open(stored)
        repeats = dm_session is not None and dm_session.repeats(question.untrusted_body)
        if stored is not None and header.msg_id == 1 and not repeats:
            # The device began anew with an old session id: it restarted, or it always uses the same.
            stored = None
            dm_session = self._open(None)
        if dm_session is None:
            media_type = question.codec.media_type
            raise ProtocolError(f"session {header.session_id!r} began in another media type than {media_type}")
        if stored is None:
            stored = StoredSession(new_serial(), None if device is None else device.id, self._access.now)
            if device is not None:
                self.writes += services.trace.pruning(device.id, stored.serial)
            elif self._session is None:
                raise _NeedsTransaction
            elif count_strangers(self._session.connection()) >= MAX_STRANGERS:
                raise Busy("too many sessions of unknown devices")
        self._access.is_first = dm_session.is_new
        application = _Application(services, self._session, self._access, stored, has_orders=self._found.has_orders)
        try:
            body = dm_session.receive(question.untrusted_body, application, question.untrusted_hmac, question.message)
        finally:
            self.is_begun = application.is_begun
        stored.state = _ENCODER.encode(dm_session.to_dict()).encode()
        now = self._access.now
        self.writes += self._access.saving()
        self.writes.append(saving(_key(header), stored, now, is_known=found.stored is not None))
        if device is not None:
            exchange = Exchange(question.untrusted_body, body, now)
            self.writes += services.trace.keeping(device.id, stored.serial, question.codec.media_type, exchange)
        return Answer(body, dm_session.outgoing_hmac)

    def _open(self, stored: StoredSession | None) -> ServerSession | None:
        """The session as ``stored``, ``None`` when that is in the other syntax; a new one without."""
        codec, config = self._question.codec, self._services.config
        saved = None if stored is None else json.loads(stored.state)
        if saved is not None and not ServerSession.may_restore(saved, codec):
            return None
        device = self._found.device
        own_uri = f"{config.public_url if device is None or device.base_url is None else device.base_url}/dm"
        header = self._question.message.header
        return ServerSession(
            session_id=header.session_id,
            device_id=header.source,
            user_name=header.source_name,
            uri=own_uri,
            codec=codec,
            lookup=self._access.lookup,
            nonces=self._access,
            random_bytes=os.urandom,
            lock_out=self._access,
            limits=SessionLimits(max_msg_size=config.limits.message_bytes, max_obj_size=config.limits.object_bytes),
            resp_uri=own_uri if config.dm.resp_uri else None,
            saved=saved,
        )


class _Application:
    """What the protocol library asks and tells during one message; only for a device that has proved who it is."""

    def __init__(
        self,
        services: Services,
        session: Session | None,
        access: DeviceAccess,
        stored: StoredSession,
        *,
        has_orders: bool,
    ) -> None:
        self._services = services
        self._in_transaction = session
        self._access = access
        self._stored = stored
        self._has_orders = has_orders
        self.is_begun = False  #: whether anything was asked or told

    def device_info(self, values: Mapping[str, str]) -> None:
        """DevInfo of package 1."""
        self._begun()
        untrusted = {uri.strip().removeprefix("./"): value.strip()[:MAX_INFO_CHARS] for uri, value in values.items()}
        for column, uri in (("man", "DevInfo/Man"), ("mod", "DevInfo/Mod"), ("dm_version", "DevInfo/DmV")):
            if uri in untrusted:
                self._access.note(column, untrusted[uri])

    def alert(self, alert: c.Alert) -> int:
        """An alert; the status that answers it."""
        self._begun()
        if alert.code in {AlertCode.SERVER_INITIATED, AlertCode.CLIENT_INITIATED}:
            return Status.OK
        if alert.code not in {AlertCode.GENERIC_ALERT, AlertCode.CLIENT_EVENT}:
            return Status.NOT_SUPPORTED
        read = [read_alert(alert, item) for item in alert.items]
        if not read or any(not item.type.strip() for item in read):
            return Status.INCOMPLETE
        for item in read:
            self._services.engine.alert(self._session, self._device, self._stored.serial, item)
        return Status.OK

    def outcome(self, outcome: CommandOutcome) -> None:
        """What became of a command."""
        self._begun()
        answer = OrderAnswer(outcome.ref, outcome.status, read_nodes(outcome.results))
        self._services.engine.settle(self._session, self._device, answer, self._stored.serial)

    def commands(self) -> Sequence[CommandRequest]:
        """What to send now."""
        self._begun()
        if not self._has_orders:
            return []
        due = self._services.engine.due(self._session, self._device, self._stored.serial)
        return [CommandRequest(item.ref, to_syncml(item.command)) for item in due]

    def _begun(self) -> None:
        """The device is proved; at the first call of a session, what an earlier session left open is settled."""
        self.is_begun = True
        self._access.seen()
        if not self._stored.begun:
            self._stored.begun = True
            if self._has_orders:
                self._services.engine.begin_session(self._session, self._device, self._stored.serial)

    @property
    def _session(self) -> Session:
        if self._in_transaction is None:
            raise _NeedsTransaction
        return self._in_transaction

    @cached_property
    def _device(self) -> Device:
        if self._access.addressee is None:
            raise RuntimeError("the protocol library took an unknown device for proved")
        return self._session.get_one(Device, self._access.addressee.id)
