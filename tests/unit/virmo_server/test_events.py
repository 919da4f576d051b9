"""Every change that operators look at becomes an event, in the transaction that makes it, and none is skipped."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.unit.virmo_server.conftest import MovableClock
from tests.unit.virmo_server.fleet import NAME, Fleet
from virmo_server.devices.access import DeviceAccess, find_by_dev_ids
from virmo_server.events.feed import KEEP, PATIENCE, is_lost, newest, prune, read_after
from virmo_server.model_running import Event, EventKind
from virmo_server.services import Services
from virmo_server.statements import write_all


def told(services: Services, cursor: int = 0) -> list[Event]:
    with services.database.read() as session:
        return read_after(session, cursor, services.clock())


def of(events: list[Event], kind: EventKind) -> list[dict[str, Any]]:
    assert {event.device for event in events} == {NAME}
    return [event.data for event in events if event.kind is kind]


def add(services: Services, *numbers: int) -> None:
    with services.database.write() as session:
        for number in numbers:
            session.add(Event(id=number, at=services.clock(), kind=EventKind.DEVICE, device="d", data={}))


def ids(services: Services, cursor: int = 0) -> list[int]:
    return [event.id for event in told(services, cursor)]


def test_the_way_of_a_vm(services: Services) -> None:
    fleet = Fleet(services)
    fleet.deliver()
    fleet.create()
    fleet.session()
    fleet.operate("suspend")
    fleet.session()
    fleet.operate("delete-vm")
    fleet.session()
    events = told(services)
    assert of(events, EventKind.DEVICE)[0] == {"change": "new"}
    orders = [(data["kind"], data["state"]) for data in of(events, EventKind.ORDER)]
    for kind in ("deliver-image", "create-vm", "suspend", "delete-vm"):
        states = [state for of_kind, state in orders if of_kind == kind]
        assert (states[0], states[-1]) == ("queued", "done")
        assert "sent" in states
    states = [data["state_text"] for data in of(events, EventKind.VM) if data.get("leaf") == "State"]
    assert states == ["2 Running", "3 Suspended"]
    assert {data["name"] for data in of(events, EventKind.VM)} == {"www"}
    assert of(events, EventKind.VM)[-1]["change"] == "removed"
    assert [data["state_text"] for data in of(events, EventKind.IMAGE) if data.get("leaf") == "State"] == [
        "2 Downloaded"
    ]
    assert any("imageready" in data["type"] for data in of(events, EventKind.ALERT))


def test_what_is_rolled_back_is_not_told(services: Services) -> None:
    fleet = Fleet(services)
    before = len(told(services))
    with services.database.engine.connect():
        try:
            with services.database.write() as session:
                fleet.device(session).name = "other"
                session.flush()
                raise RuntimeError
        except RuntimeError:
            pass
    assert len(told(services)) == before


def test_a_board_that_talks_all_the_time_is_told_of_once_a_minute(services: Services, clock: MovableClock) -> None:
    fleet = Fleet(services)
    for _ in range(10):
        with services.database.write() as session:
            connection = session.connection()
            device = find_by_dev_ids(connection, ["urn:uuid:1"])["urn:uuid:1"]
            access = DeviceAccess(services, device, device.dev_id, "192.0.2.1")
            access.seen()
            write_all(connection, access.saving())
        clock.forward(seconds=20)
    seen = [data for data in of(told(services), EventKind.DEVICE) if data["change"] == "seen"]
    assert len(seen) == 4
    with services.database.read() as session:
        assert fleet.device(session).last_seen_at == clock.now - timedelta(seconds=20)


def test_a_gap_is_waited_for_and_then_given_up(services: Services, clock: MovableClock) -> None:
    """With several writers number 2 may be committed after number 3; nobody may be led past it."""
    add(services, 1, 3, 4)
    assert ids(services) == [1]
    add(services, 2)
    assert ids(services, 1) == [2, 3, 4]
    add(services, 7)
    assert ids(services, 4) == []
    clock.forward(seconds=PATIENCE.total_seconds())
    assert ids(services, 4) == [7]


def test_old_events_go_and_who_needed_them_is_told(services: Services, clock: MovableClock) -> None:
    add(services, 1, 2, 3)
    clock.now += KEEP + timedelta(seconds=1)
    add(services, 4)
    with services.database.write() as session:
        prune(session, clock())
    clock.now += PATIENCE
    assert ids(services) == [4]
    with services.database.read() as session:
        assert newest(session) == 4
        assert [is_lost(session, cursor) for cursor in (1, 2, 3, 4, 5)] == [True, True, False, False, True]
