"""The power goes in the middle of an operation, on real Xen, and comes back: each VM is in the State before or the one
after, Xen agrees, what ran runs again, what was suspended can be resumed, nothing leaks (R-010, R-012, R-023, A-56).

One board; each test takes its power away once. What the agent was doing then is seen in dom0 before the cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from image.guest import build_guest
from image.story.steps import DEVICE
from tests.nested.agent_board import MEDIA_TYPE, AgentBoard
from tests.nested.conftest import eventually

pytestmark = pytest.mark.nested

#: So slow that a download can be caught.
CONFIG: dict[str, dict[str, Any]] = {"images": {"bandwidth_limit": 6 << 20}}
LEAKS_GO = 90.0


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentBoard]:
    made = AgentBoard(build_guest("x86_64"), tmp_path_factory.mktemp("cuts"), CONFIG)
    try:
        made.deliver("sample")
        made.create("running", "sample")
        yield made
    finally:
        made.close()


def settled(board: AgentBoard) -> None:
    """Xen agrees with every State, and nothing is left of anything else."""
    eventually(lambda: board.leaks() == [], f"nothing leaks: {board.leaks()}", LEAKS_GO)


def test_power_goes_during_create(board: AgentBoard) -> None:
    """R-016, R-018, VirMO-C-002: beside it one VM runs, which runs again, and one is suspended, which stays so."""
    kept = board.await_guest("running")
    board.create("suspended", "sample")
    boot_id = board.await_guest("suspended")
    board.vm("suspend", "suspended")
    board.cut_power_during("vm", "building the domain", "vm", "create", DEVICE, "new", "--image", "sample")
    board.await_state("running", "RUNNING")
    assert board.await_guest("running", not_boot=kept) != kept, "it was started again"
    rows = board.vms()
    assert rows["suspended"]["state"] == "SUSPENDED"
    assert "new" not in rows or rows["new"]["state"] in ("NOT_CREATED", "RUNNING")
    settled(board)
    board.vm("resume", "suspended")
    assert board.await_guest("suspended") == boot_id, "it goes on where it was, in another boot of dom0"
    board.vm("delete", "suspended")
    assert "suspended" not in board.vms()
    settled(board)


@pytest.mark.long
def test_power_goes_during_suspend(board: AgentBoard) -> None:
    boot_id = board.await_guest("running")
    board.cut_power_during("vm", "saving the guest", "vm", "suspend", DEVICE, "running")
    state = board.vms()["running"]["state"]
    assert state in ("RUNNING", "SUSPENDED")
    settled(board)
    if state == "SUSPENDED":
        board.vm("resume", "running")
        assert board.await_guest("running") == boot_id
    else:
        board.await_guest("running", not_boot=boot_id)


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_power_goes_during_resume(board: AgentBoard, delay: float) -> None:
    """Before its guest went on it is Suspended as before; after that it has been Running, and is started again."""
    boot_id = board.await_guest("running")
    board.vm("suspend", "running")
    board.cut_power_during("vm", "restoring the saved state", "vm", "resume", DEVICE, "running", delay=delay)
    board.await_agent()
    state = board.vms()["running"]["state"]
    assert state in ("RUNNING", "SUSPENDED")
    settled(board)
    if state == "SUSPENDED":
        board.vm("resume", "running")
        assert board.await_guest("running") == boot_id
    else:
        board.await_guest("running", not_boot=boot_id)


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_power_goes_during_delete(board: AgentBoard, delay: float) -> None:
    """R-021, R-124, R-125: it is there and runs, or it is gone with all that was its."""
    name = f"doomed-{delay:g}"
    board.create(name, "sample")
    board.cut_power_during("vm", "ending the domain", "vm", "delete", DEVICE, name, delay=delay)
    rows = board.vms()
    assert name not in rows or rows[name]["state"] == "RUNNING"
    settled(board)
    if name in rows:
        board.vm("delete", name)
        assert name not in board.vms()
        settled(board)


@pytest.mark.long
def test_power_goes_during_download(board: AgentBoard) -> None:
    """R-088, R-094: State 3 with what was there of it, or 2; the same image again is delivered and stored once."""
    bundle = str(board.bundle)
    order = ("image", "deliver", DEVICE, "--name", "second", "--file", bundle, "--media-type", MEDIA_TYPE)
    board.cut_power_during("image", "30", *order)
    assert board.images()["second"]["state"] in ("DOWNLOAD_FAILED", "DOWNLOADED")
    settled(board)
    board.deliver("third")
    images = board.images()
    assert images["third"]["location"] == images["sample"]["location"], "identical content is stored once"
    board.order("image", "delete", DEVICE, "second")
    assert "second" not in board.images()
    settled(board)
