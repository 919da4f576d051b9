"""What the server counts, for Prometheus. Processes count in files that they share: any of them answers for all.

What the database knows (boards, orders) is asked when somebody looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from virmo_server.model import Device, DmSession, Image, Order, OrderState
from virmo_server.services import Services

#: prometheus_client reads it when it is imported; ``main`` sets it.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: A board that was seen in this time is alive: boards poll at least so often.
ALIVE = timedelta(hours=1)

_own = CollectorRegistry()
DM_MESSAGES = Counter(
    "virmo_dm_messages", "DM messages of devices, by HTTP status of the answer", ["status"], registry=_own
)
DM_SECONDS = Histogram("virmo_dm_message_seconds", "Time from a DM message to its answer", registry=_own)
API_REQUESTS = Counter(
    "virmo_api_requests",
    "Requests of the HTTP API, by operation and HTTP status",
    ["operation", "status"],
    registry=_own,
)


def exposition(services: Services) -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    if FOLDER_VARIABLE in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_Own())
    registry.register(_Fleet(services))
    return generate_latest(registry)


class _Own(Collector):
    def collect(self) -> Iterator[Metric]:
        yield from _own.collect()


class _Fleet(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Gauges over the database's rows."""
        alive_since = self._services.clock() - ALIVE
        with self._services.database.read() as session:
            counts = {
                ("virmo_devices", "Registered boards"): select(func.count()).select_from(Device),
                ("virmo_devices_alive", "Boards that were seen in the last hour"): select(func.count())
                .select_from(Device)
                .where(Device.last_seen_at >= alive_since),
                ("virmo_devices_refused", "Boards whose last authentication failed"): select(func.count())
                .select_from(Device)
                .where(Device.auth_failed_at.is_not(None)),
                ("virmo_dm_sessions", "DM sessions that have not timed out"): select(func.count()).select_from(
                    DmSession
                ),
                ("virmo_image_bytes", "Size of the image library"): select(func.coalesce(func.sum(Image.size), 0)),
            }
            for (name, text), query in counts.items():
                yield GaugeMetricFamily(name, text, value=float(session.scalar(query) or 0))
            states = dict.fromkeys(OrderState, 0)
            found = session.execute(select(Order.state, func.count()).group_by(Order.state))
            states |= {row[0]: row[1] for row in found}
        orders = GaugeMetricFamily("virmo_orders", "Orders by state", labels=["state"])
        for state, count in states.items():
            orders.add_metric([state.value], count)
        yield orders
