"""The fleet counted and filtered, and how many VMs of each device are in which State."""

from __future__ import annotations

import pytest

from virmo_server.devices.overview import Figures, StateCount, figures, labels, vm_states
from virmo_server.devices.registry import DeviceFilter, NewDevice, list_devices, register
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


@pytest.fixture
def fleet(services: Services) -> Services:
    """Seven boards of two halls, one of which failed to log in."""
    with services.database.write() as session:
        for number in range(7):
            named = {"name": f"mill-{number}", "dev_id": f"urn:x:{number}"}
            new = NewDevice(**named, labels=["hall-1" if number < 3 else "hall-2", "100%"])
            device, _ = register(session, new, server_id="srv", vault=services.vault, clock=services.clock)
            device.mod = "Press 9000" if number == 6 else None
            device.auth_failed_at = services.clock() if number == 0 else None
            session.flush()
            session.add(Vm(device_id=device.id, name="one", node="one"))
    return services


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (DeviceFilter(), 7),
        (DeviceFilter(label="hall-1"), 3),
        (DeviceFilter(word="HALL-2"), 4),
        (DeviceFilter(word="press"), 1),
        (DeviceFilter(word="urn:x:3"), 1),
        (DeviceFilter(label="hall-1", word="mill-6"), 0),
        (DeviceFilter(word="100%"), 7),
        (DeviceFilter(word="%"), 7),
        (DeviceFilter(word="_"), 0),
    ],
)
def test_devices_are_found(fleet: Services, which: DeviceFilter, found: int) -> None:
    with fleet.database.read() as session:
        assert len(list_devices(session, which)) == found
        counted = figures(session, which)
    assert (counted.total, counted.devices, counted.vms, counted.open_orders) == (7, found, found, 0)


def test_pages_and_figures(fleet: Services) -> None:
    with fleet.database.read() as session:
        names = [device.name for device in list_devices(session, offset=5, limit=10)]
        assert figures(session, DeviceFilter()) == Figures(7, 7, 7, 0, 1)
        assert labels(session) == ["100%", "hall-1", "hall-2"]
    assert names == ["mill-5", "mill-6"]
