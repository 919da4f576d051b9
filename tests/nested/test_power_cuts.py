"""The power goes in the middle of an operation, on real Xen, and comes back: each VM is in the State before or the one
after, Xen agrees, what ran runs again, what was suspended can be resumed, nothing leaks (R-010, R-012, R-023, A-56).

dom0's disk has a write cache that a cut empties: what was not flushed is lost. One board; each test takes its power
away once. What the agent was doing then is seen in dom0 before the cut. Every write of the journal on the simulator:
``tests/contract/test_power_cut_points.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from image.story.steps import DEVICE
from tests.nested.agent_board import MEDIA_TYPE, SLOW_LINE, AgentBoard, board_with_vm

pytestmark = [pytest.mark.nested, pytest.mark.long]

#: of a VM that is not there (any more)
GONE = "gone"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentBoard]:
    with board_with_vm("running", tmp_path_factory.mktemp("cuts"), SLOW_LINE, volatile_cache=True) as made:
        yield made


def vm_order(verb: str, name: str) -> tuple[str, ...]:
    """The operator's words."""
    return ("vm", verb, DEVICE, name)


def agrees(board: AgentBoard, name: str, ended: Mapping[str, Any], *, done: str, failed: str) -> str:
    """The VM's State, which is what its order's end says: the State after it, or the one before. Xen agrees."""
    rows = board.vms()
    state = str(rows[name]["state"]) if name in rows else GONE
    print(f"{name} is {state}, the order {ended['state']}: {ended['message']}")
    assert (ended["state"], state) in (("done", done), ("failed", failed)), ended
    board.settled()
    return state


def goes_on(board: AgentBoard, name: str, state: str, boot_id: str, ended: Mapping[str, Any]) -> None:
    """After the cut: a suspended guest goes on where it was, a running one was started again. Where the server had to
    give its order a second time, either may have been before that."""
    again = sum(event["text"].startswith("Exec ") for event in ended["events"]) > 1
    if state == "SUSPENDED":
        board.vm("resume", name)
        assert board.await_guest(name) == boot_id or again, "it goes on where it was, in another boot of dom0"
    else:
        board.await_guest(name, not_boot=None if again else boot_id)


def test_what_was_not_flushed_is_lost(board: AgentBoard) -> None:
    """The cut is an honest one. What ran runs again without being asked, and the server is not told of a change."""
    boot_id = board.await_guest("running")
    told = board.alerts(1)
    board.dom0.run(["dd", "of=/root/flushed", "conv=fsync", "status=none"], data=b"flushed\n")
    board.dom0.run(["dd", "of=/root/written", "status=none"], data=b"written\n")
    board.dom0.power_cut()
    board.boot()
    assert board.dom0.read("/root/flushed") == "flushed\n"
    assert board.dom0.run(["cat", "/root/written"], check=False).stdout != "written\n"
    board.await_state("running", "RUNNING")
    board.await_guest("running", not_boot=boot_id)
    assert board.alerts(1) == told
    board.settled()


@pytest.mark.parametrize("step", ["copying the image", "building the domain", "starting the guest"])
def test_power_goes_during_create(board: AgentBoard, step: str) -> None:
    """R-011, R-024, R-056: it is there and runs, or there is nothing of it."""
    name = f"new-{step.split(maxsplit=1)[0]}"
    ended = board.cut_power_during("vm", step, "vm", "create", DEVICE, name, "--image", "sample")
    state = agrees(board, name, ended, done="RUNNING", failed=GONE)
    board.await_state("running", "RUNNING")
    if state == "RUNNING":
        board.await_guest(name)
        board.vm("delete", name)


@pytest.mark.parametrize("delay", [0.0, 1.5])
def test_power_goes_during_suspend(board: AgentBoard, delay: float) -> None:
    """R-016 to R-018, VirMO-C-005."""
    boot_id = board.await_guest("running")
    ended = board.cut_power_during("vm", "saving the guest", *vm_order("suspend", "running"), delay=delay)
    state = agrees(board, "running", ended, done="SUSPENDED", failed="RUNNING")
    goes_on(board, "running", state, boot_id, ended)


@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_power_goes_during_resume(board: AgentBoard, delay: float) -> None:
    """R-018, R-019, VirMO-C-006. Before its guest went on it is Suspended as before; after that it has been Running."""
    boot_id = board.await_guest("running")
    board.vm("suspend", "running")
    ended = board.cut_power_during("vm", "restoring the saved state", *vm_order("resume", "running"), delay=delay)
    state = agrees(board, "running", ended, done="RUNNING", failed="SUSPENDED")
    goes_on(board, "running", state, boot_id, ended)


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_power_goes_during_delete(board: AgentBoard, delay: float) -> None:
    """R-021, R-124, R-125: it is there and runs, or it is gone with all that was its."""
    name = f"doomed-{delay:g}"
    board.create(name, "sample")
    ended = board.cut_power_during("vm", "ending the domain", *vm_order("delete", name), delay=delay)
    if agrees(board, name, ended, done=GONE, failed="RUNNING") != GONE:
        board.vm("delete", name)
        assert name not in board.vms()
        board.settled()


def test_power_goes_during_download(board: AgentBoard) -> None:
    """R-088, R-092 to R-094: it goes on where it was; the same image again is stored once."""
    bundle = str(board.bundle)
    order = ("image", "deliver", DEVICE, "--name", "second", "--file", bundle, "--media-type", MEDIA_TYPE)
    begun = time.monotonic()
    ended = board.cut_power_during("image", "20", *order)
    assert ended["state"] == "done", ended
    print(f"the download ended {time.monotonic() - begun:.0f} s after the order; {board.agent_log()}")
    images = board.images()
    assert images["second"]["location"] == images["sample"]["location"], "identical content is stored once"
    board.settled()
    board.order("image", "delete", DEVICE, "second")
    assert "second" not in board.images()
    board.settled()
