"""One message of a device: finds its session, lets the protocol library judge it, lets the order engine act on it.

Blocking; the endpoint calls it in a thread. Everything a message changes is one transaction, its answer included: when
the transaction fails the device repeats the message and finds things as they were.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.server import ServerSession
from dom0_agent.omadm.server_outcomes import CommandOutcome, CommandRequest
from dom0_agent.omadm.session import SessionLimits
from dom0_agent.omadm.status import ProtocolError, Status
from virmo_server.credentials import new_serial
from virmo_server.devices.access import DeviceAccess, find_by_dev_id
from virmo_server.dm.conversion import read_alert, read_nodes, to_syncml
from virmo_server.dm.sessions import StoredSession, count_strangers, find_session, save_session
from virmo_server.dm.trace import Exchange
from virmo_server.model import Device
from virmo_server.orders.engine import Answer as OrderAnswer
from virmo_server.services import Services

logger = logging.getLogger(__name__)

#: Sessions of senders that nobody registered, at one time: they cost a row each until they are swept.
MAX_STRANGERS = 1000
#: Columns of ``dm_session``; longer names are no device of ours.
MAX_SOURCE_CHARS = 255
MAX_SESSION_ID_CHARS = 32
#: Values kept of DevInfo.
MAX_INFO_CHARS = 255


class Busy(Exception):  # noqa: N818 - it is the state of the server, not an error in the request
    """Too many strangers at once; the endpoint answers 503."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: the message and, where HMAC is in use, its header."""

    body: bytes
    hmac: str | None


def converse(services: Services, codec: Codec, untrusted_body: bytes, untrusted_hmac: str | None) -> Answer:
    """The answer to one message; raises ``ProtocolError`` (HTTP 400) or :class:`Busy`."""
    message = codec.decode(untrusted_body)
    header = message.header
    source, session_id = header.source[:MAX_SOURCE_CHARS], header.session_id[:MAX_SESSION_ID_CHARS]
    with services.database.write() as session:
        device = find_by_dev_id(session, header.source)
        stored = find_session(session, source, session_id)
        access = DeviceAccess(session, services.vault, services.clock, device, header.source)
        own_url = services.config.public_url if device is None or device.base_url is None else device.base_url
        reception = _Reception(services, codec, message, access, own_url)
        dm_session = reception.open(stored)
        is_known = stored is not None
        if stored is not None and header.msg_id == 1 and not (dm_session and dm_session.repeats(untrusted_body)):
            # The device began anew with an old session id: it restarted, or it always uses the same.
            stored = None
            dm_session = reception.open(None)
        if dm_session is None:
            raise ProtocolError(f"session {session_id!r} began in another media type than {codec.media_type}")
        if stored is None:
            stored = _begin(services, session, device)
        application = _Application(services, session, access, stored)
        body = dm_session.receive(untrusted_body, application, untrusted_hmac, message)
        stored.state = json.dumps(dm_session.to_dict(), separators=(",", ":")).encode()
        now = services.clock()
        access.save()
        save_session(session, (source, session_id), stored, now, is_known=is_known)
        if device is not None:
            exchange = Exchange(untrusted_body, body, now)
            services.trace.keep(session, device, stored.serial, codec.media_type, exchange)
        return Answer(body, dm_session.outgoing_hmac)


@dataclass(frozen=True, slots=True)
class _Reception:
    """What a message needs to be taken up by its session, or by a new one."""

    services: Services
    codec: Codec
    message: c.Message
    access: DeviceAccess
    base_url: str

    def open(self, stored: StoredSession | None) -> ServerSession | None:
        """The session as ``stored``, ``None`` when that is in the other syntax; a new one without."""
        saved = None if stored is None else json.loads(stored.state)
        if saved is not None and not ServerSession.may_restore(saved, self.codec):
            return None
        own_uri = f"{self.base_url}/dm"
        limits = self.services.config.limits
        header = self.message.header
        return ServerSession(
            session_id=header.session_id,
            device_id=header.source,
            user_name=header.source_name,
            uri=own_uri,
            codec=self.codec,
            lookup=self.access.lookup,
            nonces=self.access,
            random_bytes=os.urandom,
            lock_out=self.access,
            limits=SessionLimits(max_msg_size=limits.message_bytes, max_obj_size=limits.object_bytes),
            resp_uri=own_uri if self.services.config.dm.resp_uri else None,
            saved=saved,
        )


def _begin(services: Services, session: Session, device: Device | None) -> StoredSession:
    if device is None:
        if count_strangers(session) >= MAX_STRANGERS:
            raise Busy("too many sessions of unknown devices")
    else:
        services.trace.begin(session, device)
    return StoredSession(new_serial(), None if device is None else device.id, services.clock())


class _Application:
    """What the protocol library asks and tells during one message; only for a device that has proved who it is."""

    def __init__(self, services: Services, session: Session, access: DeviceAccess, stored: StoredSession) -> None:
        self._services = services
        self._session = session
        self._access = access
        self._stored = stored

    def device_info(self, values: Mapping[str, str]) -> None:
        """DevInfo of package 1."""
        self._begun()
        untrusted = {uri.strip().removeprefix("./"): value.strip()[:MAX_INFO_CHARS] for uri, value in values.items()}
        for column, uri in (("man", "DevInfo/Man"), ("mod", "DevInfo/Mod"), ("dm_version", "DevInfo/DmV")):
            if uri in untrusted:
                self._access.note(column, untrusted[uri])

    def alert(self, alert: c.Alert) -> int:
        """An alert; the status that answers it."""
        device = self._begun()
        if alert.code in {AlertCode.SERVER_INITIATED, AlertCode.CLIENT_INITIATED}:
            return Status.OK
        if alert.code not in {AlertCode.GENERIC_ALERT, AlertCode.CLIENT_EVENT}:
            return Status.NOT_SUPPORTED
        read = [read_alert(alert, item) for item in alert.items]
        if not read or any(not item.type.strip() for item in read):
            return Status.INCOMPLETE
        for item in read:
            self._services.engine.alert(self._session, device, self._stored.serial, item)
        return Status.OK

    def outcome(self, outcome: CommandOutcome) -> None:
        """What became of a command."""
        answer = OrderAnswer(outcome.ref, outcome.status, read_nodes(outcome.results))
        self._services.engine.settle(self._session, self._begun(), answer, self._stored.serial)

    def commands(self) -> Sequence[CommandRequest]:
        """What to send now."""
        due = self._services.engine.due(self._session, self._begun(), self._stored.serial)
        return [CommandRequest(item.ref, to_syncml(item.command)) for item in due]

    def _begun(self) -> Device:
        """The device; at the first call of a session, what an earlier session left open is settled."""
        device = self._access.device
        if device is None:
            raise RuntimeError("the protocol library took an unknown device for proved")
        if not self._stored.begun:
            self._stored.begun = True
            self._services.engine.begin_session(self._session, device, self._stored.serial)
        self._access.seen()
        return device
