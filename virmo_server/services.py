"""Everything that request handlers need, made once per process. The only place that wires the server's parts."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from dom0_agent.omadm.retry import BackoffLockOut
from dom0_agent.omadm.server_auth import LockOut
from virmo_server.clock import Clock, utc_now
from virmo_server.config import ServerConfig
from virmo_server.database import Database
from virmo_server.dm.trace import Trace
from virmo_server.events.recorder import CLOCK, record_changes
from virmo_server.images.library import ImageLibrary
from virmo_server.leadership import Leadership
from virmo_server.migrate import migrate
from virmo_server.notify import Notifier
from virmo_server.orders.engine import OrderEngine
from virmo_server.orders.service import OrderService
from virmo_server.vault import KEY_NAME, Vault


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running server."""

    config: ServerConfig
    clock: Clock
    database: Database
    vault: Vault
    library: ImageLibrary
    engine: OrderEngine
    orders: OrderService
    notifier: Notifier
    trace: Trace
    leadership: Leadership
    lock_out: LockOut
    stopping: threading.Event = field(default_factory=threading.Event)  #: set when the process is told to end

    def close(self) -> None:
        """Release what is held."""
        self.database.close()


def open_database(config: ServerConfig, clock: Clock = utc_now) -> Database:
    """The database, its changes told as events; its tables are as they were found."""
    database = Database(config.database, {CLOCK: clock})
    record_changes(database.writers)
    return database


def open_services(config: ServerConfig, clock: Clock = utc_now) -> Services:
    """Open the database and the library as ``config`` says; its tables are brought up to date."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    vault = Vault(config.state_dir / KEY_NAME)
    database = open_database(config, clock)
    migrate(database)
    return Services(
        config=config,
        clock=clock,
        database=database,
        vault=vault,
        library=ImageLibrary(
            config.image_dir,
            database,
            clock,
            max_bytes=config.limits.image_bytes,
            signatures=config.signatures,
        ),
        engine=OrderEngine(clock, config.dm, vault),
        orders=OrderService(clock, config, vault),
        notifier=Notifier(database, vault, clock, config.server_id),
        trace=Trace(vault, config.dm.trace_sessions),
        leadership=Leadership(database, clock),
        lock_out=BackoffLockOut(lambda: clock().timestamp()),
    )
