"""State is the truth, whatever happens to a domain, on real Xen: ended by its guest, by hand, by a crash of dom0.

One board for all tests, in this order; each brings its VMs to where it begins. How soon State was right is measured in
dom0, from what Xen says to what the agent says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.nested.agent_board import PROGRAMS, AgentBoard
from tests.nested.conftest import eventually
from tests.nested.witness import PORT, build_witness

pytestmark = [pytest.mark.nested, pytest.mark.long]

#: Seconds within which State must be right where an event tells of the change.
PROMPT = 2.0
#: Of which an emulated machine that is busy with other work may take more; what was measured is printed.
EMULATED = 3.0
WATCHED = "/root/witness.log"
CONFIG: dict[str, dict[str, Any]] = {
    "vm": {"bridge": "xenbr0", "reboot_limit": 1, "reboot_window": 3600.0},
    "images": {"bandwidth_limit": 8 << 20},
}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentBoard]:
    folder = tmp_path_factory.mktemp("truth")
    made = AgentBoard(build_witness(folder), folder, CONFIG)
    try:
        watch = ["systemd-run", "--unit=watcher", "python3", f"{PROGRAMS}/watcher.py", str(PORT), WATCHED]
        made.dom0.run(watch)
        made.deliver("witness")
        made.create("guest-1", "witness")
        yield made
    finally:
        made.close()


def running(board: AgentBoard) -> str:
    """``guest-1`` runs, and its guest has spoken; its boot id."""
    if board.vms()["guest-1"]["state"] != "RUNNING":
        board.vm("poweron", "guest-1")
    return board.await_guest("guest-1")


def prompt(delay: float | None, what: str) -> None:
    """State followed in time."""
    print(f"{what}: State was right after {delay} s")
    assert delay is not None, what
    assert delay <= PROMPT * EMULATED, f"{what}: State was right after {delay:.2f} s"


def witnessed(board: AgentBoard) -> list[dict[str, Any]]:
    """What the watcher in dom0 wrote down."""
    return [json.loads(line) for line in board.dom0.read(WATCHED).splitlines()]


def test_suspend_and_resume_keep_memory_counter_and_connection(board: AgentBoard) -> None:
    """R-017, R-018, R-058; VirMO-C-005, VirMO-C-006: 64 MiB with their checksum, a counter, one TCP connection."""
    boot_id = running(board)

    def sums() -> list[str]:
        return [str(entry["sha256"]) for entry in witnessed(board) if entry["event"] == "sum"]

    eventually(lambda: len(sums()) > 0, "the witness has told the checksum of its memory")
    told = len(sums())
    board.vm("suspend", "guest-1")
    shown = board.show("guest-1")
    assert (shown["state"], shown["suspend_kind"], shown["domain"]) == ("SUSPENDED", "save", None)
    silent = [entry for entry in witnessed(board) if entry["event"] == "tick"][-1]["tick"]
    time.sleep(2)
    assert [entry for entry in witnessed(board) if entry["event"] == "tick"][-1]["tick"] == silent, "R-017: it is still"
    board.vm("resume", "guest-1")
    eventually(lambda: len(sums()) > told, "the witness has told it again")
    entries = witnessed(board)
    assert len(set(sums())) == 1, "the guest's memory is what it was"
    resumed = [entry for entry in entries if entry["event"] == "resumed"][-1]
    assert silent <= resumed["tick"] <= silent + 8, "its counter goes on"
    assert [entry["event"] for entry in entries].count("connected") == 1, "its connection was never lost"
    assert not [entry for entry in entries if entry["event"] in ("disconnected", "broken")]
    assert board.await_guest("guest-1") == boot_id


def test_a_guest_that_powers_off_by_itself(board: AgentBoard) -> None:
    """R-034, R-035, A-27; VirMO-C-002: State and a Generic Alert."""
    running(board)
    told = board.alerts(1)
    probed = board.probe("guest-1", "POWERED_OFF", "xl", "shutdown", board.domain_name("guest-1"))
    prompt(probed.delay, "the guest powered off")
    assert probed.states == ("RUNNING", "POWERED_OFF")
    eventually(lambda: board.alerts(1) == told + 1, "the server is told", 60)
    assert "powered off" in board.show("guest-1")["last_error"]
    eventually(lambda: board.leaks() == [], "nothing is left of the domain", 60)


def test_a_domain_destroyed_by_hand(board: AgentBoard) -> None:
    """VirMO-C-002."""
    running(board)
    told = board.alerts(1)
    probed = board.probe("guest-1", "POWERED_OFF", "xl", "destroy", board.domain_name("guest-1"))
    prompt(probed.delay, "its domain was destroyed by hand")
    eventually(lambda: board.alerts(1) == told + 1, "the server is told", 60)


def test_a_domain_paused_by_hand(board: AgentBoard) -> None:
    """R-017, VirMO-C-002: its guest does not execute, so it is Suspended; Resume lets it go on. No event."""
    boot_id = running(board)
    told = board.alerts(3)
    board.dom0.run(["xl", "pause", board.domain_name("guest-1")], timeout=120)
    board.await_state("guest-1", "SUSPENDED", 60)
    shown = board.show("guest-1")
    assert (shown["suspend_kind"], shown["domain_state"]) == ("pause", "paused")
    eventually(lambda: board.alerts(3) == told + 1, "the server is told", 60)
    board.vm("resume", "guest-1")
    assert board.show("guest-1")["state"] == "RUNNING"
    assert board.await_guest("guest-1") == boot_id


def test_a_guest_that_crashes(board: AgentBoard) -> None:
    """VirMO-C-002."""
    running(board)
    told = board.alerts(1)
    probed = board.probe("guest-1", "POWERED_OFF", "xl", "sysrq", board.domain_name("guest-1"), "c")
    prompt(probed.delay, "the guest crashed")
    eventually(lambda: board.alerts(1) == told + 1, "the server is told", 60)
    assert "crashed" in board.show("guest-1")["last_error"]
    eventually(lambda: board.leaks() == [], "nothing is left of the domain", 60)


def test_a_guest_that_reboots_runs_again_and_a_loop_is_stopped(board: AgentBoard) -> None:
    """R-035: one reboot is the guest's right and no change of State; more than ``reboot_limit`` are a loop."""
    boot_id = running(board)
    told = board.alerts(1)
    probed = board.probe("guest-1", "RUNNING", "xl", "reboot", board.domain_name("guest-1"))
    assert probed.states == ("RUNNING",), probed
    print(f"the guest rebooted: it ran again after {probed.delay} s")
    board.await_guest("guest-1", not_boot=boot_id)
    probed = board.probe("guest-1", "POWERED_OFF", "xl", "reboot", board.domain_name("guest-1"))
    prompt(probed.delay, "the guest rebooted too often")
    eventually(lambda: board.alerts(1) == told + 1, "the server is told", 60)
    assert "too often" in board.show("guest-1")["last_error"]


def test_a_foreign_domain_is_left_alone_and_the_agents_restart_changes_nothing(board: AgentBoard) -> None:
    """A-56. The agent is killed; what happens while it is away is found when it is back."""
    boot_id = running(board)
    content = board.images()["witness"]["location"]
    lines = ['name = "foreign"', 'type = "pv"', "memory = 96", f'kernel = "{content}/kernel"']
    board.dom0.write("/root/foreign.cfg", "\n".join(lines) + "\n")
    board.dom0.run(["xl", "create", "-e", "-p", "/root/foreign.cfg"], timeout=240)
    board.dom0.run(["systemctl", "kill", "--signal=KILL", "virmo-agent"])
    board.await_agent()
    assert board.vms()["guest-1"]["state"] == "RUNNING"
    assert board.await_guest("guest-1") == boot_id, "a restart of the agent does not touch a guest"
    told = board.alerts(1)
    stop = ["systemctl", "stop", "virmo-agent"]
    board.dom0.run(stop, timeout=120)
    board.dom0.run(["xl", "destroy", "--", _domain_of_vm(board)], timeout=120)
    board.dom0.run(["systemctl", "start", "virmo-agent"])
    board.await_agent()
    board.await_state("guest-1", "POWERED_OFF", 30)
    eventually(lambda: board.alerts(1) == told + 1, "the server is told", 60)
    assert "foreign" in board.dom0.run(["xl", "list"]).stdout
    board.dom0.run(["xl", "destroy", "foreign"], timeout=120)


def test_a_xenstored_that_hangs_is_no_end_of_any_vm(board: AgentBoard) -> None:
    """Cannot see is not gone: State stays, and is right again when xenstored answers."""
    boot_id = running(board)
    told = board.alerts(1)
    board.dom0.run(["pkill", "-STOP", "-x", "oxenstored"])
    time.sleep(15)
    assert board.vms()["guest-1"]["state"] == "RUNNING"
    board.dom0.run(["pkill", "-CONT", "-x", "oxenstored"])
    assert board.await_guest("guest-1") == boot_id
    assert board.alerts(1) == told
    probed = board.probe("guest-1", "POWERED_OFF", "xl", "destroy", board.domain_name("guest-1"))
    prompt(probed.delay, "destroyed by hand after xenstored hung")


def _domain_of_vm(board: AgentBoard) -> str:
    """The name of our only domain, without the agent."""
    listed = [line.split()[0] for line in board.dom0.run(["xl", "list"]).stdout.splitlines()]
    (name,) = [word for word in listed if word.startswith("virmo-")]
    return name
