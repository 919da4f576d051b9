"""Everything that request handlers need, made once per process. The only place that wires the server's parts."""

from __future__ import annotations

from dataclasses import dataclass

from virmo_server.clock import Clock, utc_now
from virmo_server.config import ServerConfig
from virmo_server.database import Database
from virmo_server.images.library import ImageLibrary
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

    def close(self) -> None:
        """Release what is held."""
        self.database.close()


def open_services(config: ServerConfig, clock: Clock = utc_now) -> Services:
    """Open the database and the library as ``config`` says; tables that are missing are made."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    vault = Vault(config.state_dir / KEY_NAME)
    database = Database(config.database)
    database.create_tables()
    return Services(
        config=config,
        clock=clock,
        database=database,
        vault=vault,
        library=ImageLibrary(config.image_dir, database, clock, max_bytes=config.limits.image_bytes),
        engine=OrderEngine(clock, config.dm),
        orders=OrderService(clock, config),
        notifier=Notifier(database, vault, clock, config.server_id),
    )
