"""The fleet at a glance: how many devices, VMs and open orders, and how many VMs are in which State. Counted by SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from virmo_server.devices.registry import DeviceFilter
from virmo_server.model import OPEN_STATES, Device, DeviceLabel, KnownNode, Order, Vm
from virmo_server.procedures.refresh import DEFAULT_VIRMO_ROOT
from virmo_server.procedures.states import parse_state, vm_state_words


@dataclass(frozen=True, slots=True)
class StateCount:
    """So many VMs of a device are in this State; ``None``: not read yet, or no number."""

    state: int | None
    words: str
    count: int


@dataclass(frozen=True, slots=True)
class Figures:
    """``devices`` and what they have are those of a filter; ``total`` is the whole fleet."""

    total: int
    devices: int
    vms: int
    open_orders: int
    troubles: int  #: devices that failed to prove who they are


def figures(session: Session, which: DeviceFilter) -> Figures:
    """Count."""

    def count(query: Select[int]) -> int:
        return session.scalar(query) or 0

    conditions = which.conditions()
    devices = select(func.count()).select_from(Device)
    vms = select(func.count()).select_from(Vm).join(Device, Device.id == Vm.device_id)
    orders = select(func.count()).select_from(Order).join(Device, Device.id == Order.device_id)
    return Figures(
        total=count(devices),
        devices=count(devices.where(*conditions)),
        vms=count(vms.where(*conditions)),
        open_orders=count(orders.where(*conditions, Order.state.in_(OPEN_STATES))),
        troubles=count(devices.where(*conditions, Device.auth_failed_at.is_not(None))),
    )


def labels(session: Session) -> list[str]:
    """All labels that devices have."""
    return list(session.scalars(select(DeviceLabel.label).distinct().order_by(DeviceLabel.label)))


def vm_states(session: Session, names: Collection[str]) -> dict[str, list[StateCount]]:
    """For each device with VMs: its States by number, the unknown last."""
    root = func.coalesce(Device.virmo_root, DEFAULT_VIRMO_ROOT)
    state_of = and_(KnownNode.device_id == Vm.device_id, KnownNode.uri == root + "/" + Vm.node + "/State")
    query = select(Device.name, KnownNode.value).join(Vm, Vm.device_id == Device.id).outerjoin(KnownNode, state_of)
    found = Counter(
        (name, parse_state(untrusted_value))
        for name, untrusted_value in session.execute(query.where(Device.name.in_(names)))
    )
    counts: dict[str, list[StateCount]] = {}
    for (name, state), count in sorted(found.items(), key=lambda item: (item[0][1] is None, item[0][1] or 0)):
        counts.setdefault(name, []).append(StateCount(state, vm_state_words(state), count))
    return counts
