"""An update of dom0's system: its stages, what a power cut leaves at each of them, and who is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0_agent.firmware.record import Stage, UpdateRecord, load, save
from dom0_agent.firmware.service import FirmwareService, RestartFailed
from dom0_agent.firmware.slots import Trial
from dom0_agent.operation import OperationRefused, OperationResult, Origin
from tests.unit.firmware.support import FakePackages, FakeSlots

ORIGIN = Origin("server", "./FUMO/DownloadAndUpdate", "c-1")
URL = "https://example.com/system.tar"


class Board:
    """A board that can be started again: what is on its disk stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots = FakeSlots()
        self.packages = FakePackages(folder)
        self.restarts = 0
        self.stuck = ""
        self.told: list[tuple[UpdateRecord, OperationResult]] = []
        self.boots = 0
        self.service = self.boot(cold=False)

    def boot(self, *, cold: bool = True) -> FirmwareService:
        """A start of the agent; ``cold``: of the whole board."""
        self.boots += cold
        self.service = FirmwareService(
            self.packages,
            self.slots,
            self.folder / "update.json",
            tries=3,
            boot_id=f"boot-{self.boots}",
            restart=self._restart,
            verdict=4.0,
        )
        self.service.subscribe(lambda record, result: self.told.append((record, result)))
        self.service.start()
        return self.service

    def _restart(self) -> None:
        if self.stuck:
            raise RestartFailed(self.stuck)
        self.restarts += 1

    @property
    def stage(self) -> Stage:
        return load(self.folder / "update.json").stage


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def eventually(truth: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 10.0
    while not truth():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def updated(board: Board) -> None:
    """Up to the restart into the new system."""
    board.service.download(URL, ORIGIN, then_update=True)
    eventually(lambda: board.restarts == 1, "dom0 is restarted")


def test_a_healthy_system_is_told_after_the_restart(board: Board) -> None:
    updated(board)
    assert board.slots.calls == ["disarm", "write b", "arm b"]
    assert board.told == []
    board.slots.now = "b"
    board.boot()
    assert board.told == []
    board.slots.confirm()  # by the health check
    eventually(lambda: len(board.told) == 1, "it is told")
    record, result = board.told[0]
    assert (record.stage, result.status, record.origin) == (Stage.UPDATED, 200, ORIGIN)
    assert board.packages.there == set(), "the package is not kept"


def test_a_system_that_did_not_become_healthy_is_told_by_the_old_one(board: Board) -> None:
    updated(board)
    board.slots.tried = None  # the boot loader has given up
    board.boot()
    eventually(lambda: len(board.told) == 1, "it is told")
    record, result = board.told[0]
    assert record.stage is Stage.FAILED
    assert not result.ok
    assert "slot a is back" in result.message
    board.service.update(ORIGIN)
    eventually(lambda: board.restarts == 2, "the package is still there, and can be tried again")


def test_download_then_update_as_two_commands(board: Board) -> None:
    board.service.download(URL, ORIGIN, then_update=False)
    eventually(lambda: len(board.told) == 1, "the download is told")
    assert board.stage is Stage.READY
    assert board.restarts == 0
    board.service.update(Origin("server", "./FUMO/Update", "c-2"))
    eventually(lambda: board.restarts == 1, "dom0 is restarted")


@pytest.mark.parametrize(
    ("name", "content", "says"), [("web-shop", b"hsqs", "web-shop"), ("virmo-dom0", b"\x7fELF", "squashfs")]
)
def test_another_vms_image_is_never_written(board: Board, name: str, content: bytes, says: str) -> None:
    board.packages.name, board.packages.content = name, content
    board.service.download(URL, ORIGIN, then_update=True)
    eventually(lambda: len(board.told) == 1, "it is told")
    assert board.stage is Stage.DOWNLOAD_FAILED
    assert says in board.told[0][1].message
    assert board.slots.calls == []


def test_a_download_that_fails_is_told_and_can_be_tried_again(board: Board) -> None:
    board.packages.ends = OperationResult(403, "the signature is not good")
    board.service.download(URL, ORIGIN, then_update=True)
    eventually(lambda: len(board.told) == 1, "it is told")
    assert (board.stage, board.slots.calls) == (Stage.DOWNLOAD_FAILED, [])
    with pytest.raises(OperationRefused, match="no package"):
        board.service.update(ORIGIN)
    board.packages.ends = OperationResult(200)
    updated(board)


def test_a_disk_that_cannot_be_written_leaves_the_old_system(board: Board) -> None:
    board.slots.broken = "slot b does not give back what was written"
    board.service.download(URL, ORIGIN, then_update=True)
    eventually(lambda: len(board.told) == 1, "it is told")
    assert board.stage is Stage.FAILED
    assert board.slots.calls == ["disarm", "write b"], "an incomplete slot is never armed"
    assert board.restarts == 0


def test_a_restart_that_cannot_be_begun_is_told_and_the_old_system_stays(board: Board) -> None:
    """Otherwise the update would stay "updating" for ever, and a power cut months later would begin it."""
    board.stuck = "systemctl: Failed to connect to bus"
    board.service.download(URL, ORIGIN, then_update=True)
    eventually(lambda: len(board.told) == 1, "it is told")
    assert (board.stage, board.slots.trial()) == (Stage.FAILED, None)
    assert "Failed to connect" in board.told[0][1].message
    board.stuck = ""
    board.service.update(ORIGIN)
    eventually(lambda: board.restarts == 1, "the package is still there, and can be tried again")


def test_what_the_disk_refuses_is_told_whatever_it_is(board: Board) -> None:
    """An update must end: a thread that died would leave it "updating" for ever."""
    board.slots.fault = OSError(5, "Input/output error")
    board.service.download(URL, ORIGIN, then_update=True)
    eventually(lambda: len(board.told) == 1, "it is told")
    assert board.stage is Stage.FAILED
    assert "Input/output error" in board.told[0][1].message


def test_one_update_at_a_time(board: Board) -> None:
    updated(board)
    with pytest.raises(OperationRefused, match="armed"):
        board.service.download(URL, ORIGIN, then_update=True)


def test_no_url_is_refused(board: Board) -> None:
    with pytest.raises(OperationRefused, match="PkgURL"):
        board.service.download("", ORIGIN, then_update=False)


@pytest.mark.parametrize("stage", [Stage.DOWNLOADING, Stage.WRITING])
def test_a_power_cut_before_the_slot_is_complete_goes_on(board: Board, stage: Stage) -> None:
    img_id = board.packages.add()
    save(board.folder / "update.json", UpdateRecord(stage, "DownloadAndUpdate", URL, img_id, "b", origin=ORIGIN))
    board.boot()
    eventually(lambda: board.restarts == 1, "it goes on to the restart")
    assert board.slots.calls == ["disarm", "write b", "arm b"]


def test_a_power_cut_between_the_record_and_the_boot_loader(board: Board) -> None:
    """ARMED is on the disk, the boot loader was not told: the next start is another one, from the old slot."""
    img_id = board.packages.add()
    record = UpdateRecord(Stage.ARMED, "Update", URL, img_id, "b", boot_id="boot-0", origin=ORIGIN)
    save(board.folder / "update.json", record)
    board.boot()
    eventually(lambda: len(board.told) == 1, "it is told")
    assert board.stage is Stage.FAILED


def test_an_agent_that_is_restarted_before_dom0_is_arms_again(board: Board) -> None:
    img_id = board.packages.add()
    record = UpdateRecord(Stage.ARMED, "Update", URL, img_id, "b", boot_id="boot-0", origin=ORIGIN)
    save(board.folder / "update.json", record)
    board.boot(cold=False)
    eventually(lambda: board.restarts == 1, "dom0 is restarted")
    assert board.slots.tried == Trial("b", 3)
