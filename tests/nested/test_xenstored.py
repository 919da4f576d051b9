"""xenstored is replaced, and dies, under a running VM, on real Xen: State stays the truth, or the failure is told.

What Xen itself supports: oxenstored and xenstored can replace themselves while they run (``xenstore-control
live-update``), with their contents and connections. A xenstored that *dies* takes its contents with it: Xen has no way
to bring those back, and what starts in its place knows no domain. Guests run on, their State can be seen through the
hypervisor, but nothing can be done with them until dom0 is restarted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from image.story.steps import DEVICE
from tests.nested.agent_board import AgentBoard, board_with_vm

pytestmark = [pytest.mark.nested, pytest.mark.long]

DAEMON = "oxenstored"  #: what Debian's dom0 runs


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentBoard]:
    with board_with_vm("guest-1", tmp_path_factory.mktemp("xenstored"), {}) as made:
        yield made


def test_a_xenstored_that_replaces_itself_is_not_noticed(board: AgentBoard) -> None:
    """R-010, R-034, R-035: all operations work with the new one, and events arrive."""
    boot_id = board.await_guest("guest-1")
    told = board.alerts(1)
    before = board.dom0.run(["pidof", DAEMON]).stdout
    program = board.dom0.run(["readlink", "-f", f"/proc/{before.strip()}/exe"]).stdout.strip()
    board.dom0.run(["xenstore-control", "live-update", "-t", "30", program], timeout=60)
    assert board.dom0.run(["pidof", DAEMON]).stdout == before, "the same process, another program"
    assert board.vms()["guest-1"]["state"] == "RUNNING"
    board.vm("suspend", "guest-1")
    board.vm("resume", "guest-1")
    assert board.await_guest("guest-1") == boot_id
    assert board.alerts(1) == told
    probed = board.probe("guest-1", "POWERED_OFF", "xl", "shutdown", board.domain_name("guest-1"))
    assert probed.delay is not None
    print(f"the guest powered off: State was right after {probed.delay:.2f} s")
    board.vm("poweron", "guest-1")
    board.settled()


def test_a_xenstored_that_dies_ends_no_vm_and_a_restart_of_dom0_mends_it(board: AgentBoard) -> None:
    """R-011, R-012, R-034, R-035: the State stays, an order fails with a status and changes nothing."""
    boot_id = board.await_guest("guest-1")
    told = board.alerts(1)
    board.dom0.run(["pkill", "-KILL", "-x", DAEMON])
    time.sleep(15)
    assert board.vms()["guest-1"]["state"] == "RUNNING"
    ended = board.ended(board.place("vm", "suspend", DEVICE, "guest-1"))
    print(f"suspend without xenstored: {ended}")
    assert ended["state"] == "failed", ended
    shown = board.show("guest-1")
    print(f"last error: {shown['last_error']}")
    assert shown["state"] == "RUNNING"
    assert "Suspend failed" in shown["last_error"]
    doctor = board.agent("doctor")
    print(doctor.stdout)
    assert doctor.rc != 0
    assert "xenstored" in doctor.stdout
    assert board.alerts(1) == told
    board.dom0.power_cut()
    board.boot()
    board.await_state("guest-1", "RUNNING")
    assert board.await_guest("guest-1", not_boot=boot_id) != boot_id
    board.settled()
