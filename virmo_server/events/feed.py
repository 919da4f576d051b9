"""Reads events in their order, for followers that remember the number of the last one they got. No HTTP.

Numbers are given before transactions are committed, so with several writers a smaller number can become visible after a
larger one. A follower is therefore never led past a gap that may still fill: that is what keeps its number a safe place
to go on from, in whatever process.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from virmo_server.model_running import Event

#: Transactions last milliseconds; a gap that is older was left by one that was rolled back.
PATIENCE = timedelta(seconds=5)
#: Events read at a time.
BATCH = 500
#: Who was away for longer looks at everything again.
KEEP = timedelta(hours=24)
#: Bound of the table, whatever happens in a day.
KEEP_ROWS = 200_000


def read_after(session: Session, cursor: int, now: datetime, limit: int = BATCH) -> list[Event]:
    """The events after number ``cursor``, up to the first gap that may still fill."""
    events: list[Event] = []
    expected = cursor + 1
    for event in session.scalars(select(Event).where(Event.id > cursor).order_by(Event.id).limit(limit)):
        if event.id != expected and now - event.at < PATIENCE:
            break
        events.append(event)
        expected = event.id + 1
    return events


def newest(session: Session) -> int:
    """The number of the newest event, 0 when there is none."""
    return session.scalar(select(func.max(Event.id))) or 0


def is_lost(session: Session, cursor: int) -> bool:
    """Whether events after ``cursor`` have been pruned, or it is a number of another database."""
    oldest = session.scalar(select(func.min(Event.id)))
    return cursor > newest(session) or (oldest is not None and cursor + 1 < oldest)


def prune(session: Session, now: datetime) -> None:
    """Drop what is older than :data:`KEEP` or above :data:`KEEP_ROWS`; the newest stays, it holds the number."""
    last = newest(session)
    session.execute(delete(Event).where(Event.at < now - KEEP, Event.id < last))
    session.execute(delete(Event).where(Event.id <= last - KEEP_ROWS))
