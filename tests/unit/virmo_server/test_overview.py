"""How many VMs of each device are in which State."""

from __future__ import annotations

from virmo_server.devices.overview import StateCount, vm_states
from virmo_server.devices.registry import NewDevice, register
from virmo_server.model import KnownNode, Vm
from virmo_server.services import Services


def test_states_are_counted_by_device(services: Services) -> None:
    with services.database.write() as session:
        for name, root in (("a", None), ("b", "./Vendor/VirMO"), ("c", None)):
            new = NewDevice(name=name, dev_id=f"urn:x:{name}")
            device, _ = register(session, new, server_id="srv", vault=services.vault, clock=services.clock)
            device.virmo_root = root
            session.flush()
            vms = (("one", "2"), ("two", "2"), ("three", "1"), ("four", "x")) if name != "c" else ()
            for node, state in vms:
                session.add(Vm(device_id=device.id, name=node, node=node))
                uri, now = f"{root or './VirMO'}/{node}/State", services.clock()
                session.add(KnownNode(device_id=device.id, uri=uri, value=state, format="int", known_at=now))
            if name == "b":
                session.add(Vm(device_id=device.id, name="unseen", node="unseen"))
    with services.database.read() as session:
        states = vm_states(session, ["a", "b", "c"])
        assert vm_states(session, []) == {}
    seen = [StateCount(1, "1 PoweredOff", 1), StateCount(2, "2 Running", 2)]
    assert states == {"a": [*seen, StateCount(None, "unknown", 1)], "b": [*seen, StateCount(None, "unknown", 2)]}
