"""What has to happen even when nobody asks: orders expire, lost DM sessions and old events are dropped."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete

from virmo_server import audit
from virmo_server.events.feed import prune
from virmo_server.model import DmSession
from virmo_server.services import Services


def sweep(services: Services) -> None:
    """One round; idempotent, safe in several processes at once."""
    oldest = services.clock() - timedelta(seconds=services.config.dm.session_seconds)
    with services.database.write() as session:
        services.engine.expire(session)
        session.execute(delete(DmSession).where(DmSession.updated_at < oldest))
        prune(session, services.clock())
    audit.prune(services)
    services.notifier.remind()
