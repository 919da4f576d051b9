"""DM sessions between two messages, in the database. Written at each message, so by statements that are made once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from virmo_server.model import DmSession


@dataclass(slots=True)
class StoredSession:
    """A session as it goes on with the next message, in whatever process. ``serial`` is ours: devices reuse theirs."""

    serial: str
    device_id: int | None
    started_at: datetime
    begun: bool = False  #: the device has proved who it is, and earlier sessions are settled
    state: bytes = b""


_KEY = (DmSession.source == bindparam("key_source"), DmSession.session_id == bindparam("key_session_id"))
_FIND = select(
    DmSession.serial, DmSession.device_id, DmSession.started_at, DmSession.begun, DmSession.state
).where(*_KEY)  # fmt: skip
_INSERT = insert(DmSession)
_UPDATE = update(DmSession).where(*_KEY)
_STRANGERS = select(func.count()).select_from(DmSession).where(DmSession.device_id.is_(None))


def find_session(session: Session, source: str, session_id: str) -> StoredSession | None:
    """The session of this client with this id."""
    key = {"key_source": source, "key_session_id": session_id}
    row = session.connection().execute(_FIND, key).first()
    return None if row is None else StoredSession(*row)


def save_session(
    session: Session, key: tuple[str, str], stored: StoredSession, now: datetime, *, is_known: bool
) -> None:
    """Write it, over what ``key`` (source and session id) had when ``is_known``."""
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
        session.connection().execute(_UPDATE, {"key_source": source, "key_session_id": session_id, **values})
    else:
        session.connection().execute(_INSERT, {"source": source, "session_id": session_id, **values})


def count_strangers(session: Session) -> int:
    """Sessions of senders that nobody registered."""
    return session.connection().execute(_STRANGERS).scalar_one()
