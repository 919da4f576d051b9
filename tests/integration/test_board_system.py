"""The update of a board's system without the board: real packages, signatures, HTTP, slots (as files), alerts.

What is missing against a board is the restart itself and the boot loader (`tests/nested/test_board_update.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0_agent.config import AgentConfig, DeviceConfig
from dom0_agent.firmware import grubenv
from dom0_agent.firmware.config import FirmwareConfig
from dom0_agent.firmware.record import Stage
from dom0_agent.firmware.service import MAGIC
from dom0_agent.firmware.slots import GrubSlots, Trial
from dom0_agent.firmware.wiring import Firmware
from dom0_agent.operation import Origin
from dom0_agent.store.database import Database
from dom0_agent.store.outbox import Outbox
from image.arch import ARCHES
from image.system_bundle import Signer, make_signer, write_system_bundle
from tests.unit.images.images_testing import file_script, serving

ORIGIN = Origin("server", "./FUMO/DownloadAndUpdate", "c-1")
SYSTEM = (MAGIC + bytes(range(256)) * 8000)[: 4096 * 400]  # mksquashfs makes whole pages


class Board:
    """Two slots as files, and the agent's firmware part as the daemon starts it."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.folder = folder
        for name in ("a", "b"):
            (folder / f"virmo-root-{name}").write_bytes(b"\0" * (3 << 20))
        (folder / "cmdline").write_text("console=hvc0 virmo.slot=a quiet\n")
        (folder / "grubenv").write_bytes(grubenv.render({"slot": "a", "try": "", "tries": "0"}))
        self.slots = GrubSlots(folder / "grubenv", folder, folder / "cmdline")
        self._database = Database(folder / "agent.sqlite")
        self.outbox = Outbox(self._database)
        self.restarts = 0
        settings = FirmwareConfig(environment=folder / "grubenv", signature_ca_file=signer.certificate, tries=1)
        config = AgentConfig(device=DeviceConfig(id="urn:uuid:x"), state_dir=folder / "state", firmware=settings)
        (folder / "state").mkdir()
        self.firmware = Firmware(config, self.slots, self.outbox, lambda: None, self._restart)
        self.firmware.start()

    def _restart(self) -> None:
        self.restarts += 1

    def told(self) -> list[tuple[str, str]]:
        """Types and result codes of the alerts that wait for the server."""
        return [(alert.alert_type.rpartition(".")[2], alert.data) for alert in self.outbox.list("server")]

    def close(self) -> None:
        self.firmware.close()
        self._database.close()


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture
def board(tmp_path: Path, signer: Signer) -> Iterator[Board]:
    (tmp_path / "board").mkdir()
    made = Board(tmp_path / "board", signer)
    yield made
    made.close()


def package(folder: Path, signer: Signer, system: bytes = SYSTEM) -> bytes:
    """A signed system, as `image/build system` makes it."""
    (folder / "slot").write_bytes(system)
    (folder / "xen").write_bytes(b"\x7fELF" + b"\0" * 100)
    write_system_bundle(folder / "system.tar", ARCHES["x86_64"], folder / "slot", folder / "xen", signer)
    return (folder / "system.tar").read_bytes()


def eventually(truth: Callable[[], bool], what: str, board: Board) -> None:
    end = time.monotonic() + 20.0
    while not truth():
        assert time.monotonic() < end, f"{what}: {board.firmware.service.record}"
        time.sleep(0.02)


def test_a_signed_system_ends_up_in_the_other_slot_on_trial(board: Board, signer: Signer, tmp_path: Path) -> None:
    with serving(file_script(package(tmp_path, signer))) as server:
        board.firmware.service.download(server.url + "/system.tar", ORIGIN, then_update=True)
        eventually(lambda: board.restarts == 1, "dom0 is restarted", board)
    assert (board.folder / "virmo-root-b").read_bytes()[: len(SYSTEM)] == SYSTEM
    assert (board.slots.good(), board.slots.trial()) == ("a", Trial("b", 1))
    assert board.told() == []


def test_a_system_that_nobody_trusts_is_told_404_and_nothing_is_written(board: Board, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with serving(file_script(package(tmp_path, make_signer(tmp_path / "other")))) as server:
        board.firmware.service.download(server.url + "/system.tar", ORIGIN, then_update=True)
        eventually(lambda: board.told() != [], "it is told", board)
    assert board.told() == [("downloadandupdate", "404")]
    assert board.firmware.service.record.stage is Stage.DOWNLOAD_FAILED
    assert set((board.folder / "virmo-root-b").read_bytes()) == {0}
    assert (board.slots.trial(), board.restarts) == (None, 0)
