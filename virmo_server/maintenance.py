"""What has to happen even when nobody asks: orders expire; lost DM sessions, old events, and files that no image owns
are dropped. One process at a time does it for all.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError, OperationalError

from virmo_server import audit
from virmo_server.events.feed import prune
from virmo_server.model import DmSession
from virmo_server.services import Services

logger = logging.getLogger(__name__)


def maintain(services: Services) -> bool:
    """One round, if this process leads; whether it does. A database that does not answer is tried again next time."""
    try:
        if not services.leadership.take():
            return False
        sweep(services)
    except (IntegrityError, OperationalError) as error:  # another took the lease first, or the database is away
        logger.warning("maintenance is put off: %s", type(error.orig).__name__)
        return False
    return True


def sweep(services: Services) -> None:
    """One round; idempotent, safe in several processes at once."""
    oldest = services.clock() - timedelta(seconds=services.config.dm.session_seconds)
    with services.database.write() as session:
        services.engine.expire(session)
        session.execute(delete(DmSession).where(DmSession.updated_at < oldest))
        prune(session, services.clock())
    audit.prune(services)
    removed = services.library.sweep()
    if removed:
        logger.warning("image library: removed %d files that no image owns", len(removed))
    services.notifier.remind()
