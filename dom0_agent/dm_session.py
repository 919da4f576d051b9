"""One DM session with one server, from the first message to the last: the sans-IO session meets transport and outbox.

Runs in the thread that owns the tree. Knows neither VMs nor images; what happens to them meanwhile reaches the tree
through ``between``, which is called before each message of the server is executed.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dom0_agent.config import DmConfig
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.auth import Account, NonceRole, NonceStore
from dom0_agent.omadm.client import ClientSession, PendingAlert
from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE, XML_MEDIA_TYPE, codec_for, normal_media_type
from dom0_agent.omadm.commands import Alert, Item, Meta
from dom0_agent.omadm.interaction import UserInterface
from dom0_agent.omadm.session import SessionLimits, session_id_text
from dom0_agent.omadm.tree_access import TreeAccess
from dom0_agent.store.database import StoreError
from dom0_agent.store.outbox import Outbox
from dom0_agent.store.outbox import PendingAlert as StoredAlert
from dom0_agent.transport.http import HttpTransport, TransportError
from dom0_agent.transport.tls import TlsConfig

log = logging.getLogger(__name__)

MEDIA_TYPES = {"xml": XML_MEDIA_TYPE, "wbxml": WBXML_MEDIA_TYPE}
HMAC_HEADER = "x-syncml-hmac"

Trace = Callable[[str, bytes], None]  #: direction ("sent" or "received") and the raw message


@dataclass(frozen=True, slots=True)
class SessionReport:
    """How a session ended, for log, terminal and ``virmoctl``. ``retry``: trying again unchanged can help."""

    server_id: str
    ok: bool
    sentence: str
    retry: bool = True


class SeededNonces:
    """Nonces of former sessions; before the first one, those that the account was provisioned with."""

    def __init__(self, table: NonceStore, seed: Callable[[str, NonceRole], bytes | None]) -> None:
        self._table = table
        self._seed = seed

    def get(self, account: str, role: NonceRole) -> bytes | None:
        """The nonce to use, or ``None``."""
        stored = self._table.get(account, role)
        return stored if stored is not None else self._seed(account, role)

    def put(self, account: str, role: NonceRole, nonce: bytes) -> None:
        """Keep a nonce durably."""
        self._table.put(account, role, nonce)


class BatchingTree(TreeAccess, Protocol):
    """The tree, which can make the writes of a whole message durable at once."""

    def batch(self) -> AbstractContextManager[None]:
        """Open such a message."""


class SessionRunner:
    """Runs sessions. ``device_info`` gives the DevInfo leaves, ``between`` settles what happened meanwhile."""

    def __init__(
        self,
        *,
        config: DmConfig,
        device_id: str,
        tree: BatchingTree,
        nonces: NonceStore,
        outbox: Outbox,
        device_info: Callable[[], Mapping[str, str]],
        between: Callable[[], None],
        ui: UserInterface | None = None,
    ) -> None:
        """``ui`` asks the device's user; without it alerts to the user are answered 406."""
        self._config = config
        self._device_id = device_id
        self._tree = tree
        self.nonces = nonces
        self._outbox = outbox
        self._device_info = device_info
        self._between = between
        self._ui = ui

    def run(
        self,
        account: Account,
        tls: TlsConfig,
        *,
        opening: AlertCode = AlertCode.CLIENT_INITIATED,
        session_id: int | None = None,
        nonces: NonceStore | None = None,
        trace: Trace | None = None,
    ) -> SessionReport:
        """Open a session and see it through. Never raises for what the server or the network does.

        ``opening``, ``session_id`` and ``nonces`` are a notification's, when one is why the session is opened.
        """
        alerts = self._waiting(account, set())
        number = session_id or 1 + secrets.randbelow(0xFFFF)
        session = self._session(account, opening, number, nonces or self.nonces, alerts)
        carried = {int(alert.id) for alert in alerts}
        try:
            transport = HttpTransport(
                tls, connect_timeout=self._config.connect_timeout, answer_timeout=self._config.answer_timeout
            )
        except TransportError as error:
            return SessionReport(account.server_id, False, str(error), retry=False)
        try:
            self._converse(session, account, transport, carried, trace or (lambda _direction, _body: None))
        except (TransportError, StoreError) as error:
            log.warning("event=session_failed server=%s reason=%r", account.server_id, str(error))
            final = isinstance(error, TransportError) and error.final
            return SessionReport(account.server_id, False, str(error), retry=not final)
        finally:
            transport.close()
        assert session.outcome is not None  # the conversation ends with the session
        outcome = session.outcome
        log.info("event=session_ended server=%s ok=%s reason=%r", account.server_id, outcome.ok, outcome.sentence)
        return SessionReport(account.server_id, outcome.ok, outcome.sentence)

    def _session(
        self,
        account: Account,
        opening: AlertCode,
        session_id: int,
        nonces: NonceStore,
        alerts: Sequence[PendingAlert],
    ) -> ClientSession:
        config = self._config
        return ClientSession(
            account=account,
            device_id=self._device_id,
            tree=self._tree,
            nonces=nonces,
            random_bytes=os.urandom,
            codec=codec_for(MEDIA_TYPES[config.encoding]),
            session_id=session_id_text(session_id),
            device_info=self._device_info,
            alerts=alerts,
            opening=opening,
            ui=self._ui,
            batch=self._tree.batch,  # the writes of a message become durable together
            limits=SessionLimits(config.max_message_size, config.max_object_size),
        )

    def _converse(
        self, session: ClientSession, account: Account, transport: HttpTransport, carried: set[int], trace: Trace
    ) -> None:
        media_type = MEDIA_TYPES[self._config.encoding]
        settled = 0
        body: bytes | None = session.start()
        while body is not None:
            trace("sent", body)
            headers = {} if session.outgoing_hmac is None else {HMAC_HEADER: session.outgoing_hmac}
            answer = transport.post(session.target_uri, body, media_type, headers)
            if normal_media_type(answer.media_type) != media_type:
                raise TransportError(
                    f"{session.target_uri} answered {answer.media_type or 'no media type'}, not {media_type}: "
                    "is this address the server's DM endpoint?",
                    final=True,
                )
            trace("received", answer.body)
            self._between()
            for alert in self._waiting(account, carried):
                session.add_alert(alert)
                carried.add(int(alert.id))
            body = session.receive(answer.body, answer.headers.get(HMAC_HEADER))
            self._outbox.remove(int(alert_id) for alert_id in session.acknowledged[settled:])
            settled = len(session.acknowledged)

    def _waiting(self, account: Account, carried: set[int]) -> list[PendingAlert]:
        """The alerts that wait for this server and are not in the session yet."""
        new = [alert for alert in self._outbox.list(account.server_id) if alert.id not in carried]
        if new:
            self._outbox.sent(alert.id for alert in new)
        return [PendingAlert(str(alert.id), generic_alert(alert)) for alert in new]


def generic_alert(stored: StoredAlert) -> Alert:
    """A row of the outbox as Alert 1226; Data is there even when it is empty (A-29)."""
    meta = Meta(format=stored.format, type=stored.alert_type, mark=stored.mark)
    item = Item(source=stored.source_uri, meta=meta, data=stored.data)
    return Alert(code=AlertCode.GENERIC_ALERT, items=(item,), correlator=stored.correlator)
