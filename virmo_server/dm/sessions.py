"""DM sessions between two messages, in the database. Written at each message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, insert, select, update

from virmo_server.model import DmSession
from virmo_server.statements import Prepared, Write


@dataclass(slots=True)
class StoredSession:
    """A session as it goes on with the next message, in whatever process. ``serial`` is ours: devices reuse theirs."""

    serial: str
    device_id: int | None
    started_at: datetime
    begun: bool = False  #: the device has proved who it is, and earlier sessions are settled
    state: bytes = b""


_KEY = (DmSession.source == bindparam("key_source"), DmSession.session_id == bindparam("key_session_id"))
_WRITTEN = ("serial", "device_id", "started_at", "begun", "state", "updated_at")
_FIND = Prepared(
    select(DmSession.serial, DmSession.device_id, DmSession.started_at, DmSession.begun, DmSession.state).where(*_KEY)
)
_INSERT = Prepared(insert(DmSession).inline(), ("source", "session_id", *_WRITTEN))
_UPDATE = Prepared(update(DmSession).where(*_KEY), _WRITTEN)
_STRANGERS = Prepared(select(func.count()).select_from(DmSession).where(DmSession.device_id.is_(None)))


def find_sessions(connection: Connection, keys: Sequence[tuple[str, str]]) -> list[StoredSession | None]:
    """For each source and session id the session that goes on, if there is one."""
    asked = [{"key_source": source, "key_session_id": session_id} for source, session_id in keys]
    return [None if row is None else StoredSession(*row) for row in _FIND.first_of_each(connection, asked)]


def saving(key: tuple[str, str], stored: StoredSession, now: datetime, *, is_known: bool) -> Write:
    """What writes it, over what ``key`` (source and session id) had when ``is_known``."""
    source, session_id = key
    values = {
        "serial": stored.serial,
        "device_id": stored.device_id,
        "started_at": stored.started_at,
        "begun": stored.begun,
        "state": stored.state,
        "updated_at": now,
    }
    if is_known:
        return _UPDATE, [{"key_source": source, "key_session_id": session_id, **values}]
    return _INSERT, [{"source": source, "session_id": session_id, **values}]


def count_strangers(connection: Connection) -> int:
    """Sessions of senders that nobody registered."""
    (row,) = _STRANGERS.first_of_each(connection, [{}])
    return 0 if row is None else int(row[0])
