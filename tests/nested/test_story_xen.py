"""The whole story on real Xen, as `image/demo` tells it, and what goes wrong there that only real Xen can refuse."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from image.guest import build_guest
from image.story.nested_board import NestedBoard
from image.story.server import Server
from image.story.steps import DEV_ID, DEVICE, Story, agent_yaml

pytestmark = pytest.mark.nested

MEDIA_TYPE = "application/vnd.virmo.bundle+tar"


@pytest.fixture
def board() -> Iterator[NestedBoard]:
    made = NestedBoard(build_guest("x86_64"), "x86_64", "credit2", lambda _line: None)
    yield made
    made.close()


@pytest.fixture
def server(board: NestedBoard, tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server", board.server_host)
    made.start()
    yield made
    made.close()


def test_every_step_agrees(board: NestedBoard, server: Server) -> None:
    """R-100 to R-125, VirMO-C-001 to C-012, VirMO-S-001 on real Xen: DM status, State and `xl` agree at every step."""
    rows = list(Story(server, board, lambda _step: None).tell())
    assert [(row.step, row.problems) for row in rows if row.problems] == []
    assert [row.status for row in rows] == ["-"] + ["200"] * 8


def test_a_guest_that_xl_cannot_build_leaves_nothing(board: NestedBoard, server: Server, tmp_path: Path) -> None:
    """R-011, R-012: `xl create` fails on a kernel that is none; 500, no domain, no disk, and the agent works on."""
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
