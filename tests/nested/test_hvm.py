"""A guest of type hvm through its whole life, under the agent, on real Xen: from a bare disk, as an operator has it.

QEMU's emulated processor has AMD's virtualisation with nested paging, so that Xen can run such guests here; slowly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from image.story.steps import DEVICE
from tests.nested.agent_board import AgentBoard
from tests.nested.conftest import eventually
from tests.nested.hvm_disk import SECTOR, Counters, write_disk

pytestmark = [pytest.mark.nested, pytest.mark.long]

#: It obeys no request to power off: it is asked, given this long, and ended.
CONFIG: dict[str, dict[str, Any]] = {
    "vm": {"shutdown_wait": 3.0},
    "images": {"disk_memory": 64 << 20},
}
RAW_DISK = "application/x-raw-disk-image"
DEVICE_MODEL = "xen-qemu-system"  #: as the kernel shortens its name


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentBoard]:
    folder = tmp_path_factory.mktemp("hvm")
    disk = folder / "disk.img"
    write_disk(disk)
    made = AgentBoard(disk, folder, CONFIG)
    try:
        yield made
    finally:
        made.close()


def counters(board: AgentBoard) -> Counters:
    """What the guest has written to its disk by now."""
    disk = f"/var/lib/virmo-agent/vms/{board.vmid('guest-1')}/xvda.raw"
    read = ["dd", f"if={disk}", f"bs={SECTOR}", "skip=1", "count=1", "status=none"]
    dump = board.dom0.run(["sh", "-c", 'exec "$@" | od -An -v -tx1', "sh", *read]).stdout
    return Counters.parse(bytes.fromhex("".join(dump.split())))


def device_models(board: AgentBoard) -> int:
    """How many machines are emulated in dom0."""
    return len(board.dom0.run(["pgrep", "-x", DEVICE_MODEL], check=False).stdout.split())


def test_the_whole_life_of_an_hvm_guest(board: AgentBoard) -> None:
    """R-013 to R-025, R-056 to R-058, R-119 to R-125; VirMO-C-002 to C-008: the same as of a PV or PVH guest."""
    assert device_models(board) == 0, "dom0 itself needs none"
    file = str(board.bundle)
    board.order("image", "deliver", DEVICE, "--name", "disk", "--file", file, "--media-type", RAW_DISK)
    board.order("vm", "create", DEVICE, "guest-1", "--image", "disk")
    shown = board.show("guest-1")
    assert shown["state"] == "RUNNING"
    (domain,) = json.loads(board.dom0.run(["xl", "list", "-l", board.domain_name("guest-1")], timeout=120).stdout)
    assert "hvm" in json.dumps(domain["config"]["c_info"]["type"])
    assert device_models(board) == 1
    eventually(lambda: counters(board).beats > 3, "it was booted, and goes on")
    assert counters(board).boots == 1

    board.vm("suspend", "guest-1")
    shown = board.show("guest-1")
    assert (shown["state"], shown["suspend_kind"], shown["domain"]) == ("SUSPENDED", "save", None)
    assert device_models(board) == 0
    still = counters(board)
    board.vm("resume", "guest-1")
    assert board.show("guest-1")["state"] == "RUNNING"
    eventually(lambda: counters(board).beats > still.beats, "its counter goes on")
    assert counters(board).boots == 1, "it was not booted again"

    board.vm("poweroff", "guest-1")
    assert board.show("guest-1")["state"] == "POWERED_OFF"
    assert device_models(board) == 0
    board.vm("poweron", "guest-1")
    eventually(lambda: counters(board).boots == 2, "R-020: back to Running by a normal boot")

    board.vm("delete", "guest-1")
    assert board.ctl("vm", "list") == []
    assert device_models(board) == 0
    eventually(lambda: board.leaks() == [], "nothing is left of it", 60)
