"""Which of several processes does the work that one must do: a lease in the database, renewed by its holder."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import insert, or_, select, update

from virmo_server.clock import Clock
from virmo_server.credentials import new_serial
from virmo_server.database import Database
from virmo_server.model_running import Lease

#: After its holder's death others wait so long.
LEASE = timedelta(seconds=90)


class Leadership:
    """This process's part in the lease ``name``; each has a name of its own."""

    def __init__(self, database: Database, clock: Clock, name: str = "maintenance") -> None:
        self._database = database
        self._clock = clock
        self._name = name
        self.holder = new_serial()

    def take(self) -> bool:
        """Take or renew the lease; whether this process leads for :data:`LEASE` from now."""
        now = self._clock()
        with self._database.write() as session:
            row = session.scalars(select(Lease).where(Lease.name == self._name)).first()
            if row is not None and row.holder != self.holder and row.expires_at > now:
                return False
            values = {"holder": self.holder, "expires_at": now + LEASE}
            if row is None:
                session.execute(insert(Lease), [{"name": self._name, **values}])
                return True
            # Another process may have taken it since it was read: PostgreSQL looks again once it has the row.
            free = or_(Lease.holder == self.holder, Lease.expires_at <= now)
            taken = session.execute(
                update(Lease).where(Lease.name == self._name, free).values(values).returning(Lease.name)
            )
            return taken.first() is not None

    def give_up(self) -> None:
        """Let others lead at once."""
        with self._database.write() as session:
            mine = (Lease.name == self._name, Lease.holder == self.holder)
            session.execute(update(Lease).where(*mine).values(expires_at=self._clock()))
