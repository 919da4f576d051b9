"""Writes an event for each change that operators want to see, in the transaction that makes the change.

Listens to the flushes of database sessions, so that no code that changes something can forget to tell. What a bulk
statement changes is told by :func:`tell`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import event, insert, inspect, select
from sqlalchemy.orm import Session, UOWTransaction, sessionmaker

from virmo_server.model import DeliveredImage, Device, KnownNode, Order, ReceivedAlert, Vm
from virmo_server.model_running import Event, EventKind
from virmo_server.procedures.refresh import DEFAULT_VMIMG_ROOT
from virmo_server.procedures.states import image_state_words, parse_state, vm_state_words
from virmo_server.statements import Prepared, Write

#: Key of a database session's ``info``: the clock.
CLOCK = "clock"
#: A board that talks all the time is told of once in this span.
SEEN_EVERY = timedelta(seconds=60)
#: Leaves of a VM or image whose values lists show.
_WATCHED_LEAVES = ("State", "CurrentConfig")
_WATCHED_COLUMNS = (
    "name", "base_url", "notify_url", "notify_error", "certificate_subject", "virmo_root", "vmimg_root", "labels",
)  # fmt: skip
_ORDER_COLUMNS = ("state", "step", "message")

_TELL = Prepared(insert(Event).inline(), ("at", "kind", "device", "data"))

#: An event to write: kind, name of the device, data.
Told = tuple[EventKind, str | None, dict[str, Any]]


def record_changes(sessions: sessionmaker[Session]) -> None:
    """From now on each flush of these sessions writes its events."""
    event.listen(sessions, "after_flush", _after_flush)


def telling(at: datetime, kind: EventKind, device: str | None, data: Mapping[str, Any]) -> Write:
    """What writes one event at ``at``."""
    return _TELL, [{"at": at, "kind": kind, "device": device, "data": dict(data)}]


def tell(session: Session, kind: EventKind, device: str | None, data: Mapping[str, Any]) -> None:
    """Write one event."""
    _write(session, [(kind, device, dict(data))])


def _after_flush(session: Session, _context: UOWTransaction) -> None:
    told: list[Told] = []
    for change, rows in (("new", session.new), ("changed", session.dirty), ("removed", session.deleted)):
        for row in rows:
            describe = _DESCRIBE.get(type(row))
            if describe is not None:
                told += describe(session, row, change)
    if told:
        _write(session, told)


def _write(session: Session, told: list[Told]) -> None:
    now = session.info[CLOCK]()
    rows = [{"at": now, "kind": kind, "device": device, "data": data} for kind, device, data in told]
    session.connection().execute(insert(Event), rows)


def _device(session: Session, device: Device, change: str) -> list[Told]:
    if change != "changed":
        return [(EventKind.DEVICE, device.name, {"change": change})]
    if any(_is_changed(device, column) for column in _WATCHED_COLUMNS):
        return [(EventKind.DEVICE, device.name, {"change": "changed"})]
    return []


def is_seen_worth_telling(before: datetime | None, now: datetime) -> bool:
    """Whether followers want to hear that a device was seen at ``now``, after ``before``: the first time in a span."""
    span = SEEN_EVERY.total_seconds()
    return before is None or before.timestamp() // span != now.timestamp() // span


def _order(_session: Session, order: Order, change: str) -> list[Told]:
    if change == "changed" and not any(_is_changed(order, column) for column in _ORDER_COLUMNS):
        return []
    data = {
        "change": change,
        "id": order.id,
        "kind": order.kind,
        "name": order.params.get("name"),
        "target": order.target,
        "group": order.group_id,
        "state": str(order.state),
        "step": order.step,
        "message": order.message,
    }
    return [(EventKind.ORDER, order.device.name, data)]


def _alert(session: Session, alert: ReceivedAlert, change: str) -> list[Told]:
    if change != "new":
        return []
    data = {"id": alert.id, "type": alert.type, "source": alert.source, "data": alert.data, "order": alert.order_id}
    return [(EventKind.ALERT, _name_of(session, alert.device_id), data)]


def _node(session: Session, node: KnownNode, change: str) -> list[Told]:
    entry, _, leaf = node.uri.rpartition("/")
    if leaf not in _WATCHED_LEAVES or (change == "changed" and not _is_changed(node, "value")):
        return []
    device = session.get(Device, node.device_id)
    if device is None:
        return []
    entry = entry.removesuffix("/Resources")
    parent, _, name = entry.rpartition("/")
    data: dict[str, Any] = {"change": change, "node": name, "uri": entry, "leaf": leaf, "value": node.value}
    kind = EventKind.IMAGE if parent == (device.vmimg_root or DEFAULT_VMIMG_ROOT) else EventKind.VM
    table = DeliveredImage if kind is EventKind.IMAGE else Vm
    names = select(table.name).where(table.device_id == node.device_id, table.node == name)
    data["name"] = session.connection().execute(names).scalar()
    if leaf == "State":
        words = image_state_words if kind is EventKind.IMAGE else vm_state_words
        data["state_text"] = words(parse_state(node.value))
    return [(kind, device.name, data)]


def _entry(session: Session, entry: Vm | DeliveredImage, change: str) -> list[Told]:
    kind = EventKind.VM if isinstance(entry, Vm) else EventKind.IMAGE
    data = {"change": change, "node": entry.node, "name": entry.name}
    return [(kind, _name_of(session, entry.device_id), data)]


def _name_of(session: Session, device_id: int) -> str | None:
    device = session.get(Device, device_id)
    return None if device is None else device.name


def _is_changed(row: object, column: str) -> bool:
    return bool(inspect(row).attrs[column].history.has_changes())


_DESCRIBE: Mapping[type, Callable[[Session, Any, str], list[Told]]] = {
    Device: _device,
    Order: _order,
    ReceivedAlert: _alert,
    KnownNode: _node,
    Vm: _entry,
    DeliveredImage: _entry,
}
