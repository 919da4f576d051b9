"""Peripherals through the whole system: ``virmo``, a DM session, the agent, and what the simulated machine then has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from image.story.steps import DEVICE
from tests.integration.story.test_guests_on_sim import VM, World

PERIPHERALS = [
    {"device": "usb:3-1.4", "name": "Camera"},
    {"device": "pci:0000:03:00.0", "name": "Wi-Fi", "group": "Connectivity"},
    {"device": "display", "name": "Display", "group": "Input/Output"},
    {"device": "xvdb", "name": "Disk"},
]
GIVEN = ("--give", "Camera", "--give", "Wi-Fi", "--give", "Display")


class Board(World):
    """VM ``web`` has a camera, a Wi-Fi card and a display of the board."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            more={"resources": {"peripherals": PERIPHERALS}},
            create=GIVEN,
            machine={"usb": ["3-1.4"], "pci": ["0000:03:00.0"]},
        )

    def lines(self) -> dict[str, str]:
        told = self._wait("vm", "peripheral", "list", DEVICE, VM)
        assert told["state"] == "done", told
        return dict(line.split(": ", 1) for line in told["message"].splitlines())

    def switch(self, verb: str, name: str) -> tuple[str, str]:
        ended = self._wait("vm", "peripheral", verb, DEVICE, VM, name)
        return ended["state"], ended["message"]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    made = Board(Path(tmp_path_factory.mktemp("peripherals")))
    yield made
    made.close()


def test_an_operator_sees_and_switches_what_a_vm_has(board: Board) -> None:
    """HLF-06, R-143: nobody has to add DCMO by hand, and each line says what is so."""
    assert board.lines() == {
        "Disk": "xvdb, enabled",
        "Camera": "usb:3-1.4, enabled",
        "Wi-Fi": "pci:0000:03:00.0, enabled",
        "Display": "display, enabled",
        "console": "console, enabled",
    }
    for name in ("Disk", "Wi-Fi"):
        assert board.switch("disable", name) == ("done", "Enabled is false")
    assert board.switch("disable", "Display") == ("done", "Enabled is false, from the VM's next start on")
    state, message = board.switch("disable", "console")
    assert (state, "1403" in message) == ("failed", True)
    assert board.lines() == {
        "Disk": "xvdb, disabled, not attached",
        "Camera": "usb:3-1.4, enabled",
        "Wi-Fi": "pci:0000:03:00.0, disabled, not attached",
        "Display": "display, disabled",
        "console": "console, enabled",
    }
    assert board.vm("poweroff")["state"] == "done"
    assert board.vm("poweron")["state"] == "done"
    shown = board.lines()
    assert shown["Display"] == "display, disabled, not attached"
    assert shown["Wi-Fi"] == "pci:0000:03:00.0, disabled, not attached"
    assert board.switch("enable", "Wi-Fi") == ("done", "Enabled is true")
    assert board.lines()["Wi-Fi"] == "pci:0000:03:00.0, enabled"


def test_a_device_that_another_vm_has_is_refused(board: Board) -> None:
    """420 from the device, and the order tells it."""
    ended = board._wait("vm", "create", DEVICE, "thief", "--image", "sample", "--give", "Camera")
    assert (ended["state"], ended["dm_status"]) == ("failed", 420)
    ended = board._wait("vm", "create", DEVICE, "dreamer", "--image", "sample", "--give", "Toaster")
    assert (ended["state"], ended["dm_status"]) == ("failed", 404)
