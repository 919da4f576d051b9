"""dom0 is restarted in order, on real Xen: what ran runs again, what was suspended stays so and goes on when asked to,
what was off stays off, Xen agrees, nothing leaks. dom0's disk loses what was not flushed when the machine ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from image.story.steps import DEVICE
from tests.nested.agent_board import SLOW_LINE, AgentBoard, board_with_vm

pytestmark = [pytest.mark.nested, pytest.mark.long]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentBoard]:
    with board_with_vm("running", tmp_path_factory.mktemp("cuts"), SLOW_LINE, volatile_cache=True) as made:
        yield made


def test_a_restart_of_dom0(board: AgentBoard) -> None:
    """R-015, R-016, R-018, R-020, VirMO-C-002: what ran runs again, what was suspended stays so and goes on when asked
    to, what was off (R-042: created so) stays off."""
    kept = board.await_guest("running")
    board.create("suspended", "sample")
    boot_id = board.await_guest("suspended")
    board.vm("suspend", "suspended")
    board.order("vm", "create", DEVICE, "off", "--image", "sample", "--powered-off")
    board.reboot()
    board.await_state("running", "RUNNING")
    board.await_guest("running", not_boot=kept)
    rows = board.vms()
    assert (rows["suspended"]["state"], rows["off"]["state"]) == ("SUSPENDED", "POWERED_OFF")
    board.settled()
    board.vm("resume", "suspended")
    assert board.await_guest("suspended") == boot_id
    board.vm("poweron", "off")
    board.await_guest("off")
    for name in ("suspended", "off"):
        board.vm("delete", name)
    board.settled()
