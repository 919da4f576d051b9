"""The story of the demo over real HTTPS: operator's command line, a server process, boards with client sessions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.server.conftest import POSTGRESQL, SQLITE, Virmo
from tests.integration.server.server_process import ServerProcess

BACKENDS = (SQLITE, POSTGRESQL)


@pytest.mark.parametrize("mode", ["at-once", "later"])
def test_the_life_of_a_vm(server: ServerProcess, virmo: Virmo, image_file: Path, mode: str) -> None:
    """Chapter 10 whole: deliver, create, off, on, suspend, resume, delete; synchronous, and as 202 and alert (A-27)."""
    device = f"story-{mode}"
    board = server.add_board(device)
    if mode == "later":
        board.board.slow |= {"Download", "Create", "PowerOff", "PowerOn", "Suspend", "Resume", "Delete"}
    wait = ("--wait", "--timeout", "60")
    with board.polling():
        delivery = virmo(
            "image", "deliver", device, "--name", "web", "--file", image_file, "--media-type", "application/gzip", *wait
        )
        assert delivery.status == 0, delivery
        assert "State 2 Downloaded" in delivery.out
        assert board.downloaded == image_file.read_bytes()
        creation = virmo("vm", "create", device, "www", "--image", "web", *wait)
        assert creation.status == 0, creation
        for operation, state in (("poweroff", 1), ("poweron", 2), ("suspend", 3), ("resume", 2)):
            done = virmo("vm", operation, device, "www", *wait)
            assert done.status == 0, done
            vms = json.loads(virmo("vm", "list", device, "--json").out)
            assert [(vm["name"], vm["state"]) for vm in vms] == [("www", state)]
            assert board.board.state(vms[0]["uri"]) == str(state)
        assert virmo("vm", "delete", device, "www", *wait).status == 0
        assert json.loads(virmo("vm", "list", device, "--json").out) == []
        assert board.board.vm_uris() == []
        assert virmo("image", "delete", device, "web", *wait).status == 0
    assert "no images" in virmo("image", "list", device).out
    shown = json.loads(virmo("device", "show", device, "--json").out)
    assert (shown["manufacturer"], shown["model"], shown["open_orders"]) == ("Example", "Board", 0)
    assert "orders" not in virmo("order", "list", device, "--state", "failed").err


def test_failing_operation_is_told_with_reason_and_exit_status(
    server: ServerProcess, virmo: Virmo, image_file: Path
) -> None:
    board = server.add_board("unlucky")
    board.board.broken["Create"] = 420
    wait = ("--wait", "--timeout", "60")
    with board.polling():
        assert virmo("image", "deliver", "unlucky", "--name", "web", "--file", image_file, *wait).status == 0
        failed = virmo("vm", "create", "unlucky", "www", "--image", "web", *wait)
    assert failed.status == 1
    assert "failed: create-vm www on unlucky" in failed.out
    assert "420 the device has not enough resources" in failed.out


def test_wait_ends_after_its_timeout_and_the_order_goes_on(server: ServerProcess, virmo: Virmo) -> None:
    server.add_board("asleep")
    result = virmo("device", "refresh", "asleep", "--wait", "--timeout", "0.3")
    assert result.status == 4
    assert "has not ended within 0.3 s, it is queued" in result.err


def test_order_of_a_device_in_session_is_taken_up_at_once(server: ServerProcess) -> None:
    """An operator who orders while the device is in session does not wait for the next one."""
    board = server.add_board("in-session")
    placed = []

    def order(number: int) -> None:
        if number == 3:
            placed.append(server.client.post("/devices/in-session/orders", {"kind": "refresh"})["id"])

    board.session()
    server.client.post("/devices/in-session/orders", {"kind": "refresh"})
    assert board.session(order).ok
    assert server.client.get(f"/orders/{placed[0]}")["state"] == "done"


def test_group_of_devices_by_label(server: ServerProcess) -> None:
    boards = [server.add_board(f"lab-{number}", labels=["lab"]) for number in range(3)]
    for board in boards:
        board.session()
    body = {"label": "lab", "rate": 1, "order": {"kind": "refresh"}}
    group = server.client.post("/groups", body)
    assert group["states"] == {"queued": 3}
    for board in boards:
        assert board.session().ok
    assert server.client.get("/groups")[0]["states"] == {"done": 3}


def test_label_instead_of_a_device(server: ServerProcess, virmo: Virmo) -> None:
    """``@LABEL`` orders of all devices with it; those it does not fit are named."""
    boards = [server.add_board(f"rack-{number}", labels=["rack"]) for number in range(2)]
    refused = virmo("vm", "poweroff", "@rack", "www")
    assert refused.status == 1
    assert "refused: rack-0: there is no VM on device 'rack-0' named 'www'" in refused.out
    with boards[0].polling(), boards[1].polling():
        done = virmo("device", "refresh", "@rack", "--rate", "1", "--wait", "--timeout", "60")
    assert done.status == 0, done
    assert "2 done" in done.out
    assert "2 done" in virmo("group", "list").out


def test_raw_node_access(server: ServerProcess, virmo: Virmo) -> None:
    board = server.add_board("raw")
    wait = ("--wait", "--timeout", "60")
    with board.polling():
        got = virmo("node", "get", "raw", "./VirMO/DeviceResources", *wait)
        assert (got.status, "RAM=1073741824&Storage=8589934592" in got.out) == (0, True)
        assert virmo("node", "add", "raw", "./VirMO/mine", *wait).status == 0
        assert virmo("node", "replace", "raw", "./VirMO/mine/Description", "ours & <theirs>", *wait).status == 0
        missing = virmo("node", "delete", "raw", "./Nothing", *wait)
    assert board.board.nodes["./VirMO/mine/Description"] == "ours & <theirs>"
    assert missing.status == 1
    assert "404 not found on the device" in missing.out
    assert "ours & <theirs>" in virmo("device", "tree", "raw", "./VirMO").out


def test_server_and_tokens(server: ServerProcess, virmo: Virmo) -> None:
    assert "admin (admin)" in virmo("server", "show").out
    assert virmo("server", "ca").out == server.installation.ca_file.read_text()
    made = virmo("token", "add", "night-shift", "--role", "viewer")
    assert made.out.startswith("virmo_")
    assert "night-shift" in virmo("token", "list").out
    assert virmo("token", "revoke", "night-shift").status == 0
