"""The whole story on real Xen, as `image/demo` tells it, and what goes wrong there that only real Xen can refuse."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from image.guest import build_guest
from image.story.server import Server
from image.story.steps import DEV_ID, DEVICE, IMAGE, Story, agent_yaml
from tests.nested.agent_board import MEDIA_TYPE, AgentBoard

pytestmark = pytest.mark.nested


@pytest.fixture
def board(tmp_path: Path) -> Iterator[AgentBoard]:
    made = AgentBoard(build_guest("x86_64"), tmp_path, None, volatile_cache=True)
    yield made
    made.close()


def test_every_step_agrees_and_a_power_cut_leaves_no_half(board: AgentBoard) -> None:
    """R-100 to R-125, VirMO-C-001 to C-012, VirMO-S-001 on real Xen: DM status, State and `xl` agree at every step.

    An image is delivered (R-085, R-086, R-088, R-091 to R-093, R-160), a VM is created from it as CreateParams
    say (R-035, R-041, R-043, R-055, R-056), its NewConfig applied and found in CurrentConfig and in Xen's
    scheduler (R-046 to R-049, R-053, R-060), and each primitive done with it (R-057, R-058).

    At the end the power goes while a VM is being created (R-010 to R-012, R-023, A-56); all of that, during every kind
    of operation, is ``test_power_cuts.py``.
    """
    rows = list(Story(board.server, board, lambda _step: None).tell())
    assert [(row.step, row.problems) for row in rows if row.problems] == []
    assert [row.status for row in rows] == ["-"] + ["200"] * 8
    board.expect_cuts()
    began = time.monotonic()
    board.cut_power_during("vm", "building the domain", "vm", "create", DEVICE, "cut", "--image", IMAGE)
    assert {row["state"] for row in board.vms().values()} <= {"NOT_CREATED", "RUNNING"}
    assert board.images()[IMAGE]["state"] == "DOWNLOADED"
    board.settled()
    print(f"the power cut and what was looked at took {time.monotonic() - began:.0f} s")


def test_a_guest_that_xl_cannot_build_leaves_nothing(board: AgentBoard, tmp_path: Path) -> None:
    """R-011, R-012: `xl create` fails on a kernel that is none; 500, no domain, no disk, and the agent works on."""
    server = board.server
    bundle = tmp_path / "broken.tar"
    _bundle_without_kernel(bundle)
    url = board.notification_url
    snippet = server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
    board.start_agent(agent_yaml(snippet), server.ca_file)
    doctor = board.agent("doctor")
    assert doctor.rc == 0, doctor.stdout
    deliver = ("image", "deliver", DEVICE, "--name", "broken", "--file", str(bundle), "--media-type", MEDIA_TYPE)
    assert _order(server, *deliver)["state"] == "done"
    order = _order(server, "vm", "create", DEVICE, "guest-1", "--image", "broken")
    assert (order["state"], order["dm_status"]) == ("failed", 500)
    assert board.leftovers() == []
    assert server.virmo_json("vm", "list", DEVICE) == []


def _order(server: Server, *words: str) -> dict[str, Any]:
    placed = server.virmo_json(*words)
    order: dict[str, Any] = server.virmo_json("order", "show", str(placed["id"]), "--wait", "--timeout", "300")
    return order


def _bundle_without_kernel(file: Path) -> None:
    kernel = b"not an ELF image\n" * 1000
    manifest = (
        "format: 1\nname: broken\narch: x86_64\ntype: pv\nvcpus: 1\nmemory: 67108864\n"
        f'cmdline: ""\nkernel: {{file: vmlinux, sha256: {hashlib.sha256(kernel).hexdigest()}, size: {len(kernel)}}}\n'
        "disks: []\n"
    )
    with tarfile.open(file, "w") as bundle:
        for name, data in (("vm.yaml", manifest.encode()), ("vmlinux", kernel)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            bundle.addfile(member, io.BytesIO(data))
