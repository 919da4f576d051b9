"""What the server believes of a device's tree, and when it stops believing it."""

from __future__ import annotations

import pytest

from dom0_agent.omadm.node import Command
from tests.unit.virmo_server.conftest import MovableClock
from tests.unit.virmo_server.fleet import Fleet
from virmo_server.devices import knowledge
from virmo_server.model import KnownNode
from virmo_server.orders.alerts import DeviceAlert
from virmo_server.procedures.core import DmCommand, Outcome, ReadNode
from virmo_server.services import Services


@pytest.fixture
def fleet(services: Services) -> Fleet:
    run = Fleet(services)
    run.deliver()
    run.create()
    run.session()
    return run


def observe(fleet: Fleet, verb: Command, uri: str, status: int = 200, *nodes: ReadNode) -> None:
    with fleet.services.database.write() as session:
        outcome = Outcome(DmCommand(verb, uri), status, nodes)
        knowledge.observe(session, fleet.device(session), outcome, fleet.services.clock())


def known(fleet: Fleet, uri: str) -> str | None:
    with fleet.services.database.read() as session:
        node = session.get(KnownNode, (fleet.device(session).id, uri))
        return None if node is None else node.value


def test_value_with_time_of_knowledge(fleet: Fleet, clock: MovableClock) -> None:
    clock.forward(hours=1)
    uri = f"{fleet.vms()[0]['uri']}/State"
    observe(fleet, Command.GET, uri, 200, ReadNode(uri, "1", "int"))
    vm = fleet.vms()[0]
    assert (vm["state"], vm["state_text"], vm["known_at"]) == (1, "1 PoweredOff", clock.now)


def test_uri_spellings_are_one_node(fleet: Fleet) -> None:
    """Clients write ``A/B``, ``./A/B`` and ``./A/B/``."""
    observe(fleet, Command.GET, "DevInfo/Man", 200, ReadNode(" DevInfo/Man/ ", "Example"))
    assert known(fleet, "./DevInfo/Man") == "Example"


def test_missing_state_means_missing_vm(fleet: Fleet) -> None:
    """R-125: where State is gone, the sub-tree is."""
    observe(fleet, Command.GET, f"{fleet.vms()[0]['uri']}/State", 404)
    assert fleet.vms() == []


def test_other_missing_leaf_is_only_itself(fleet: Fleet) -> None:
    uri = fleet.images()[0]["uri"]
    observe(fleet, Command.GET, f"{uri}/DownloadedLocation", 404)
    image = fleet.images()[0]
    assert (image["location"], image["state"]) == (None, 2)


def test_what_could_not_be_read_stays_known(fleet: Fleet) -> None:
    """ "Cannot see" is not "gone" (complaint 5)."""
    observe(fleet, Command.GET, f"{fleet.vms()[0]['uri']}/State", 500)
    assert fleet.vms()[0]["state"] == 2


def test_state_that_changed_by_itself(fleet: Fleet) -> None:
    """A guest powered itself off: the device's alert says so."""
    uri = f"{fleet.vms()[0]['uri']}/State"
    alert = DeviceAlert("Reversed-Domain-Name: org.virmo/statechanged", uri, None, "int", "warning", "1")
    with fleet.services.database.write() as session:
        fleet.services.engine.alert(session, fleet.device(session), "serial", alert)
    assert fleet.vms()[0]["state"] == 1


def test_state_alert_about_something_else_changes_nothing(fleet: Fleet) -> None:
    observe(fleet, Command.GET, "./DevInfo/Man", 200, ReadNode("./DevInfo/Man", "Example"))
    alert = DeviceAlert("org.virmo/statechanged", "./DevInfo/Man", None, "int", None, "1")
    with fleet.services.database.write() as session:
        fleet.services.engine.alert(session, fleet.device(session), "serial", alert)
    assert known(fleet, "./DevInfo/Man") == "Example"


def test_nonsense_from_a_device_is_kept_within_bounds(fleet: Fleet) -> None:
    long = "x" * (knowledge.MAX_VALUE_CHARS + 1)
    observe(fleet, Command.GET, "./A", 200, ReadNode("./A", long, "c" * 50), ReadNode("./" + "b" * 5000, "1"))
    assert known(fleet, "./A") is None
    observe(fleet, Command.GET, f"{fleet.vms()[0]['uri']}/State", 200, ReadNode(f"{fleet.vms()[0]['uri']}/State", "-7"))
    assert fleet.vms()[0]["state"] is None
    listing = "/".join(["ok", "y" * 500, "\x01", "Operations"])
    observe(fleet, Command.GET, "./VirMO", 200, ReadNode("./VirMO", listing, "node"))
    assert [vm["name"] for vm in fleet.vms()] == ["ok"]
