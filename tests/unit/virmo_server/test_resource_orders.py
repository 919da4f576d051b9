"""Orders over a device's resources and a VM's peripherals: all or nothing, at once or by alert, whatever is lost."""

from __future__ import annotations

import argparse

import pytest

from tests.unit.virmo_server.fleet import Fleet
from virmo_server.cli.commands_resources import parse_share
from virmo_server.model import OrderState
from virmo_server.services import Services

SHARE = {"RAM": 1 << 29, "CPU": 40}


@pytest.fixture
def fleet(services: Services) -> Fleet:
    """Two VMs, each with 10 % of CPU and network."""
    fleet = Fleet(services)
    fleet.deliver()
    fleet.create("www")
    fleet.create("db")
    fleet.session()
    fleet.board.log.clear()
    return fleet


def configs(fleet: Fleet) -> dict[str, str]:
    return {vm["name"]: vm["current_config"] for vm in fleet.vms()}


@pytest.mark.parametrize("slow", [False, True])
def test_several_vms_change_by_one_exec(fleet: Fleet, slow: bool) -> None:
    """R-060, R-062: NewConfig of each VM, one ApplyChanges, and no NewConfig is left."""
    if slow:
        fleet.board.slow.add("ApplyChanges")
    number = fleet.apply(www=SHARE, db={"Network": 60})
    fleet.session()
    if slow:
        assert fleet.order(number).state is OrderState.ACCEPTED
        fleet.board.finish_operations()
        fleet.session()
    order = fleet.order(number)
    assert (order.state, order.dm_status) == (OrderState.DONE, 200)
    assert [line for line in fleet.board.log if line.startswith("Exec")] == ["Exec ./VirMO/Operations/ApplyChanges"]
    assert configs(fleet) == {
        "www": "RAM=536870912&Storage=0&CPU=40&Network=10",
        "db": "RAM=134217728&Storage=0&CPU=10&Network=60",
    }
    assert not [uri for uri in fleet.board.nodes if uri.endswith("NewConfig")]


def test_what_does_not_fit_changes_nothing_and_leaves_nothing(fleet: Fleet) -> None:
    """R-063: the device checks the sum; a NewConfig that stayed would be applied with the next order."""
    before = configs(fleet)
    number = fleet.apply(www={"CPU": 60}, db={"CPU": 60})
    fleet.session()
    order = fleet.order(number)
    assert (order.state, order.dm_status) == (OrderState.FAILED, 412)
    assert "ApplyChanges failed: 412" in order.message
    assert configs(fleet) == before
    assert not [uri for uri in fleet.board.nodes if uri.endswith("NewConfig")]


def test_a_leftover_of_somebody_else_is_replaced(fleet: Fleet) -> None:
    uri = next(uri for uri in fleet.board.vm_uris() if "www" in uri)
    fleet.board.nodes[f"{uri}/Resources/NewConfig"] = "RAM=1"
    number = fleet.apply(www=SHARE)
    fleet.session()
    assert fleet.order(number).state is OrderState.DONE


def test_orders_on_the_same_vms_keep_their_order(fleet: Fleet) -> None:
    """A VM that is still being made, or deleted next, is neither asked too early nor too late."""
    fleet.create("late")
    applied = fleet.apply(www=SHARE, late={"CPU": 5})
    deleted = fleet.operate("delete-vm", "late")
    fleet.session()
    assert [fleet.order(number).state for number in (applied, deleted)] == [OrderState.DONE] * 2
    executed = [line.rpartition("/")[2] for line in fleet.board.log if line.startswith("Exec")]
    assert executed == ["Create", "ApplyChanges", "Delete"]


@pytest.mark.parametrize("lost", ["CurrentConfig", "Add", "ApplyChanges"])
def test_lost_answers_do_no_harm(fleet: Fleet, lost: str) -> None:
    number = fleet.apply(www=SHARE)
    fleet.session(lose_answers_of=lost)
    fleet.session()
    fleet.session()
    assert fleet.order(number).state is OrderState.DONE
    assert fleet.board.done.count("ApplyChanges") == 1
    assert configs(fleet)["www"].startswith("RAM=536870912")


@pytest.mark.parametrize("slow", [False, True])
def test_peripherals_are_listed_and_switched(fleet: Fleet, slow: bool) -> None:
    if slow:
        fleet.board.slow |= {"Enable", "Disable"}
    number = fleet.peripheral("disable-peripheral", "camera")
    fleet.session()
    fleet.board.finish_operations()
    fleet.session()
    assert fleet.order(number).message == "Enabled is false"
    number = fleet.peripheral("list-peripherals")
    fleet.session()
    assert fleet.order(number).message == "camera: Camera, disabled"
    number = fleet.peripheral("enable-peripheral", "camera")
    fleet.session(lose_answers_of="Enable")
    fleet.board.finish_operations()
    fleet.session()
    fleet.board.finish_operations()
    fleet.session()
    assert fleet.order(number).state is OrderState.DONE
    assert fleet.board.nodes[f"{fleet.board.vm_uris()[0]}/DMTree/DCMO/camera/Enabled"] == "true"


def test_a_peripheral_that_cannot_be_switched_fails_with_its_code(fleet: Fleet) -> None:
    fleet.board.slow.add("Disable")
    fleet.board.broken["Switch"] = 1403
    number = fleet.peripheral("disable-peripheral", "camera")
    fleet.session()
    fleet.board.finish_operations()
    fleet.session()
    order = fleet.order(number)
    assert (order.state, order.message) == (
        OrderState.FAILED,
        "the device reports 1403 failed (partial lock, or disabling)",
    )
    number = fleet.peripheral("enable-peripheral", "printer")
    fleet.session()
    assert fleet.order(number).dm_status == 404


def test_shares_of_the_command_line() -> None:
    assert parse_share("www=ram:512M,cpu:40,network:30%,storage:2G") == {
        "name": "www",
        "ram": 1 << 29,
        "cpu": 40,
        "network": 30,
        "storage": 2 << 30,
    }
    for wrong in ("www", "www=", "=cpu:1", "www=cpu", "www=cpu:4K", "www=ram:1,ram:2", "www=disk:1", "www=ram:-1"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_share(wrong)


def test_the_object_is_added_where_it_is_missing_and_found_under_any_name(fleet: Fleet) -> None:
    """R-143, A-42: a device has no DCMO of a VM before a server asks for it; by its MOID it is found again."""
    uri = fleet.board.vm_uris()[0]
    number = fleet.peripheral("list-peripherals")
    fleet.session()
    assert fleet.order(number).message == "camera: Camera, enabled"
    assert [line for line in fleet.board.log if "DMTree" in line] == [f"Add {uri}/DMTree/DCMO"]
    moved = {node.replace("/DCMO", "/Capabilities"): value for node, value in fleet.board.nodes.items()}
    fleet.board.nodes = moved
    fleet.board.types = {node.replace("/DCMO", "/Capabilities"): moid for node, moid in fleet.board.types.items()}
    number = fleet.peripheral("disable-peripheral", "camera")
    fleet.session()
    assert fleet.order(number).message == "Enabled is false"
    assert fleet.board.nodes[f"{uri}/DMTree/Capabilities/camera/Enabled"] == "false"


def test_what_goes_at_the_next_start_is_told(fleet: Fleet) -> None:
    fleet.peripheral("list-peripherals")
    fleet.session()
    uri = fleet.board.vm_uris()[0]
    fleet.board.nodes |= {f"{uri}/DMTree/DCMO/camera/Ext/AtNextStart": "true"}
    number = fleet.peripheral("disable-peripheral", "camera")
    fleet.session()
    assert fleet.order(number).message == "Enabled is false, from the VM's next start on"


def test_a_vm_is_given_devices_of_its_board(fleet: Fleet) -> None:
    """R-043: by our own key of CreateParams."""
    fleet.create("seeing", devices=["Camera", "NFC"])
    fleet.session()
    uris = fleet.board.vm_uris()
    params = [fleet.board.nodes[f"{uri}/CreateParams"] for uri in uris]
    assert [(text or "").partition("&Devices=")[2] for text in params] == ["", "", "Camera%2CNFC"]
