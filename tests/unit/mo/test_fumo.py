"""./FUMO of the device on the real tree: what a server may set and execute, and what it hears (FUMO 1.0)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dom0_agent.firmware.record import Stage, UpdateRecord
from dom0_agent.firmware.service import FirmwareService
from dom0_agent.mo.fumo import DeviceFumo, alert_of
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.operation import OperationResult
from tests.unit.firmware.support import FakePackages, FakeSlots

SERVER = "srv"


class Device:
    """A tree with ./FUMO on a board in memory."""

    def __init__(self, folder: Path) -> None:
        self.slots = FakeSlots()
        self.restarts: list[float] = []
        self.service = FirmwareService(
            FakePackages(folder),
            self.slots,
            folder / "update.json",
            tries=3,
            boot_id="boot-1",
            restart=lambda: self.restarts.append(time.monotonic()),
        )
        self.tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.tree.mount(DeviceFumo(self.service, self.tree.stored_value))
        self.tree.device_set_acl(("FUMO",), "Add=*&Get=*&Delete=*&Exec=*&Replace=*")

    def get(self, uri: str) -> str:
        (result,) = self.tree.get(SERVER, uri)
        assert isinstance(result.value.data, str)
        return result.value.data


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_it_is_there_idle_with_its_moid(device: Device) -> None:
    assert device.get("./FUMO?prop=Type") == "urn:oma:mo:oma-fumo:1.0"
    assert device.get("./FUMO/State") == "10"
    assert device.get("./FUMO/Ext/RunningSlot") == "a"


def test_download_and_update_is_answered_202_and_ends_in_a_restart(device: Device) -> None:
    device.tree.replace(SERVER, "./FUMO/DownloadAndUpdate/PkgURL", ItemValue("https://example.com/system.tar"))
    assert device.tree.execute(SERVER, "./FUMO/DownloadAndUpdate", "", "c-1") == 202
    end = time.monotonic() + 10.0
    while not device.restarts and time.monotonic() < end:
        time.sleep(0.01)
    assert len(device.restarts) == 1
    assert device.get("./FUMO/State") == "60"
    assert device.service.record.origin is not None
    assert device.service.record.origin.correlator == "c-1"


def test_nothing_can_be_set_or_executed_while_it_runs(device: Device) -> None:
    test_download_and_update_is_answered_202_and_ends_in_a_restart(device)
    with pytest.raises(DMError) as refused:
        device.tree.replace(SERVER, "./FUMO/DownloadAndUpdate/PkgURL", ItemValue("https://example.com/other.tar"))
    assert refused.value.status == 403
    with pytest.raises(DMError) as refused:
        device.tree.execute(SERVER, "./FUMO/Update")
    assert refused.value.status == 417


@pytest.mark.parametrize("node", ["Download", "DownloadAndUpdate", "Update"])
def test_without_a_url_or_a_package_405_and_nothing_changes(device: Device, node: str) -> None:
    with pytest.raises(DMError) as refused:
        device.tree.execute(SERVER, f"./FUMO/{node}")
    assert refused.value.status == 405
    assert device.get("./FUMO/State") == "10"
    assert device.slots.calls == []


@pytest.mark.parametrize("uri", ["./FUMO/State", "./FUMO/Ext/RunningSlot", "./FUMO"])
def test_what_the_device_says_cannot_be_set(device: Device, uri: str) -> None:
    with pytest.raises(DMError):
        device.tree.replace(SERVER, uri, ItemValue("50"))


@pytest.mark.parametrize(
    ("stage", "status", "code"),
    [
        (Stage.UPDATED, 200, 200),
        (Stage.READY, 200, 200),
        (Stage.DOWNLOAD_FAILED, 403, 404),
        (Stage.DOWNLOAD_FAILED, 424, 402),
        (Stage.DOWNLOAD_FAILED, 510, 402),
        (Stage.DOWNLOAD_FAILED, 415, 403),
        (Stage.DOWNLOAD_FAILED, 420, 501),
        (Stage.DOWNLOAD_FAILED, 500, 503),
        (Stage.FAILED, 500, 410),
    ],
)
def test_result_codes_and_alert_types(stage: Stage, status: int, code: int) -> None:
    """The table of FUMO 1.0's result codes."""
    record = UpdateRecord(stage, "DownloadAndUpdate")
    alert = alert_of(record, OperationResult(status))
    assert alert == ("org.openmobilealliance.dm.firmwareupdate.downloadandupdate", code)
