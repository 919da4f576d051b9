"""Which events become which alerts (12.1, A-27 to A-33)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.dm_session import generic_alert
from dom0_agent.images.model import ImageEvent
from dom0_agent.operation import OperationResult, Origin
from dom0_agent.reporting import IMAGE_READY, OPERATION_COMPLETE, STATE_CHANGED, Reporter
from dom0_agent.store.database import Database
from dom0_agent.store.outbox import Outbox
from dom0_agent.vm.model import VmEvent, VmRecord, VmState

DOWNLOAD = Origin("srv", "./VMImgMO/a/Operations/Download", "c1")
VMID = UUID(int=1)
OK, FAILED = OperationResult(200), OperationResult(424, "corrupt")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    database = Database(tmp_path / "agent.sqlite")
    yield Outbox(database)
    database.close()


@pytest.fixture
def reporter(outbox: Outbox) -> Reporter:
    return Reporter(outbox, lambda: ["srv", "other"])


@pytest.mark.parametrize("awaited", [True, False])
def test_a_complete_image_is_always_announced(reporter: Reporter, outbox: Outbox, awaited: bool) -> None:
    """R-160 to R-164, A-28."""
    reporter.image(ImageEvent("i", None, DOWNLOAD, OK, awaited))
    (alert,) = outbox.list("srv")
    assert (alert.alert_type, alert.format, alert.mark) == (IMAGE_READY, "xml", "informational")
    assert (alert.source_uri, alert.correlator, alert.data) == (DOWNLOAD.uri, "c1", "")


def test_a_failed_download_is_told_once(reporter: Reporter, outbox: Outbox) -> None:
    """A-27: by the Exec's status or by an alert, not by both."""
    reporter.image(ImageEvent("i", None, DOWNLOAD, FAILED, awaited=True))
    assert outbox.list() == ()
    reporter.image(ImageEvent("i", None, DOWNLOAD, FAILED, awaited=False))
    (alert,) = outbox.list()
    assert (alert.alert_type, alert.format, alert.data) == (OPERATION_COMPLETE, "int", "424")


def test_progress_is_no_alert(reporter: Reporter, outbox: Outbox) -> None:
    reporter.image(ImageEvent("i", None))
    assert outbox.list() == ()


@pytest.mark.parametrize(("result", "mark"), [(OK, "informational"), (FAILED, "warning")])
def test_the_end_of_an_operation_goes_to_the_server_that_asked(
    reporter: Reporter, outbox: Outbox, result: OperationResult, mark: str
) -> None:
    origin = Origin("srv", "./VirMO/a/Operations/Suspend", "c2")
    reporter.operation(VmEvent(VMID, None, origin, result))
    (alert,) = outbox.list()
    assert (alert.server_id, alert.source_uri, alert.correlator) == ("srv", origin.uri, "c2")
    assert (alert.data, alert.mark) == (str(result.status), mark)


def test_an_awaited_operation_is_no_alert(reporter: Reporter, outbox: Outbox) -> None:
    reporter.operation(VmEvent(VMID, None))
    assert outbox.list() == ()


def test_a_change_that_nobody_asked_for_goes_to_all_servers(reporter: Reporter, outbox: Outbox) -> None:
    reporter.state_changed(VmEvent(VMID, VmRecord(VMID, VmState.POWERED_OFF), spontaneous=True), "./VirMO/a")
    alerts = outbox.list()
    assert {alert.server_id for alert in alerts} == {"srv", "other"}
    assert {(a.alert_type, a.source_uri, a.data) for a in alerts} == {(STATE_CHANGED, "./VirMO/a/State", "1")}


def test_an_alert_without_data_carries_an_empty_element(reporter: Reporter, outbox: Outbox) -> None:
    """A-29."""
    reporter.image(ImageEvent("i", None, DOWNLOAD, OK))
    alert = generic_alert(outbox.list()[0])
    assert (alert.code, alert.items[0].data, alert.items[0].source) == (1226, "", DOWNLOAD.uri)
