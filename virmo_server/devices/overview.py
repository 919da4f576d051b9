"""The VMs of many devices at a glance: how many are in which State. One query, whatever the fleet's size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from virmo_server.model import Device, KnownNode, Vm
from virmo_server.procedures.refresh import DEFAULT_VIRMO_ROOT
from virmo_server.procedures.states import parse_state, vm_state_words


@dataclass(frozen=True, slots=True)
class StateCount:
    """So many VMs of a device are in this State; ``None``: not read yet, or no number."""

    state: int | None
    words: str
    count: int


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
