"""arm64 on this machine: Xen on an emulated Arm board, where nothing can be saved and Suspend pauses.

The same story and contract as on x86-64. The normal run goes on from the saved state of a booted dom0, and has
one VM's life and the hypervisor's contract; all of it is in the long form.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.arch import ARCHES
from image.guest import build_guest
from image.qemu import Dom0, open_dom0
from image.story.nested_board import NestedBoard
from image.story.server import Server
from image.story.steps import Story
from tests.nested.test_contract_xen import DEADLINE, prepare, run_in

pytestmark = pytest.mark.nested

ARM64 = ARCHES["arm64"]
#: Seconds from power on until all services run, on an idle machine; a busy one may take three times as long.
BOOT_SECONDS = 90.0


@pytest.fixture(scope="module")
def dom0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dom0]:
    """A dom0 with the tests and the guest in it; no agent runs."""
    with open_dom0(ARM64, say=print) as opened:
        prepare(opened, tmp_path_factory.mktemp("contract"))
        yield opened


def test_it_is_arm_and_the_agents_programs_run(dom0: Dom0) -> None:
    assert dom0.run(["uname", "-m"]).stdout.strip() == "aarch64"
    assert "hvm hap" in dom0.run(["xl", "info"]).stdout
    assert dom0.run(["systemctl", "is-system-running"]).stdout.strip() == "running"
    assert dom0.run(["virmo-agent", "--help"], timeout=120).stdout.startswith("usage:")


def test_the_life_of_a_vm(dom0: Dom0) -> None:
    """R-013 to R-025, R-119, R-120 on Arm: Suspend pauses and says so; PowerOff, PowerOn, Delete as everywhere."""
    run_in(dom0, "test_vm_story.py", ARM64.guest_types[0], "-k", "whole_life")


@pytest.mark.timeout(DEADLINE + 300)
@pytest.mark.parametrize(
    "file",
    [
        "test_hypervisor_contract.py",
        *(
            pytest.param(file, marks=pytest.mark.long)
            for file in ("test_resources_contract.py", "test_vm_story.py", "test_kill_points.py")
        ),
    ],
)
def test_contract_on_real_xen(file: str, dom0: Dom0) -> None:
    """R-011, R-012, R-016 to R-019, R-049, R-119 to R-125, A-55, A-56 on Arm, as on x86-64."""
    run_in(dom0, file, ARM64.guest_types[0])


@pytest.mark.long
def test_every_step_of_the_story_agrees(tmp_path: Path) -> None:
    """The story of `image/demo --arch arm64`."""
    board = NestedBoard(build_guest(ARM64), ARM64.name, "credit2", lambda _line: None)
    try:
        server = Server(tmp_path / "server", board.server_host)
        server.start()
        try:
            rows = list(Story(server, board, lambda _step: None).tell())
        finally:
            server.close()
    finally:
        board.close()
    assert [(row.step, row.problems) for row in rows if row.problems] == []
    assert [row.status for row in rows] == ["-"] + ["200"] * 8


@pytest.mark.long
def test_a_cold_boot_is_quick_enough() -> None:
    started = time.monotonic()
    with open_dom0(ARM64, snapshot=False, say=print) as opened:
        assert opened.run(["xl", "list"]).stdout.count("Domain-0") == 1
    assert time.monotonic() - started < 3 * BOOT_SECONDS
