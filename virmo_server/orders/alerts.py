"""Generic Alerts of devices: what they mean for orders, and their record (12.1, reading A-27; DM-Protocol 8.7)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from dom0_agent.omadm.alerts import normal_alert_type
from dom0_agent.omadm.status import Status
from virmo_server.model import Device, Order, OrderState, ReceivedAlert
from virmo_server.procedures.guest_codes import end_code
from virmo_server.procedures.states import parse_state

IMAGE_READY = "urn:oma:at:oma-virmo:imageready:1.0"
#: Vendor type for the end of operations that were answered 202; VirMO defines none (reading A-27).
OPERATION_COMPLETE = "org.virmo/operationcomplete"
#: Vendor type for a State that changed though no server asked for it; Source is the State node, Data its new value.
STATE_CHANGED = "org.virmo/statechanged"
#: Alert data is a code or a short text; more is not kept.
MAX_DATA_CHARS = 4096


@dataclass(frozen=True, slots=True)
class DeviceAlert:
    """One Item of a Generic Alert, as the device wrote it."""

    type: str
    source: str
    correlator: str | None = None
    format: str = "chr"
    mark: str | None = None
    data: str = ""

    @property
    def kind(self) -> str:
        """The type as types are compared."""
        return normal_alert_type(self.type)

    def end_status(self) -> int | None:
        """The DM status with which an operation ended, if that is what the alert says."""
        if self.kind == IMAGE_READY:
            return int(Status.OK)
        untrusted_code = self.data.strip()
        if self.kind == OPERATION_COMPLETE and untrusted_code.isascii() and untrusted_code.isdigit():
            return int(untrusted_code[:4])
        return end_code(self.kind, self.data)

    def new_state(self) -> int | None:
        """The State that a VM has now, if that is what the alert says."""
        return parse_state(self.data) if self.kind == STATE_CHANGED else None


def find_order(session: Session, device: Device, alert: DeviceAlert) -> Order | None:
    """The order whose Exec the alert answers: by correlator, else the only accepted one that executed its source."""
    if alert.correlator:
        query = select(Order).where(Order.device_id == device.id, Order.correlator == alert.correlator.strip())
        return session.scalars(query).first()
    waiting = select(Order).where(Order.device_id == device.id, Order.state == OrderState.ACCEPTED)
    source = alert.source.strip()
    fitting = [order for order in session.scalars(waiting) if f"/{order.params.get('node')}/" in source]
    return fitting[0] if len(fitting) == 1 else None


def record_alert(session: Session, device: Device, alert: DeviceAlert, order: Order | None, now: datetime) -> None:
    """Keep it for operators."""
    session.add(
        ReceivedAlert(
            device_id=device.id,
            order_id=None if order is None else order.id,
            at=now,
            type=alert.type.strip()[:255],
            format=alert.format[:16],
            mark=None if alert.mark is None else alert.mark[:32],
            source=alert.source.strip()[:1024],
            correlator=None if alert.correlator is None else alert.correlator[:255],
            data=alert.data[:MAX_DATA_CHARS],
        )
    )
