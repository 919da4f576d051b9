"""``virmoctl guest …`` against a hub, and the alert when a guest is cut off."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent import virmoctl
from dom0_agent.control import ControlServer
from dom0_agent.control_client import ControlError
from dom0_agent.guest.config import GuestConfig
from dom0_agent.guest.control import guest_calls, report_expulsions
from dom0_agent.guest.interface import GuestEvent
from dom0_agent.reporting import GUEST_EXPELLED, Reporter
from dom0_agent.store.database import Database
from dom0_agent.store.outbox import Outbox
from guest_shim.dispatch import Dispatcher, ServedObject
from tests.unit.guest.test_hub import VMID, Rig, hello, until


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, GuestConfig())
    yield made
    made.close()


def find(name: str) -> uuid.UUID:
    if name != "guest":
        raise ControlError(f"there is no VM {name!r}")
    return VMID


def test_info_ping_and_trace(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = ControlServer(tmp_path / "control.sock", guest_calls(rig.hub, find))

    def run(*words: str) -> tuple[int, str]:
        code = virmoctl.main(["--socket", str(server.path), "guest", *words])
        output = capsys.readouterr()
        return code, output.out + output.err

    try:
        assert "no shim is connected" in run("info", "guest")[1]
        assert run("ping", "guest")[0] == 1
        assert "nothing has happened" in run("trace", "guest")[1]
        served = ServedObject("urn:oma:mo:oma-lawmo:1.0", ("State",), ("Operations/FullyLock",))
        shim = rig.shim(VMID, Dispatcher([served], {"ui"}))
        code, text = run("info", "guest")
        assert code == 0
        assert "over unix" in text
        assert "Operations/FullyLock" in text
        assert json.loads(run("info", "guest", "--json")[1])["capabilities"] == ["ui"]
        code, text = run("ping", "guest", "--count", "2", "--size", "100000")
        assert code == 0
        assert text.count("100000 bytes each way") == 2
        assert "ping" in run("trace", "guest")[1]
        assert "from 0 to" in run("ping", "guest", "--count", "1000")[1]
        assert "there is no VM" in run("ping", "nobody")[1]
        shim.close()
        until(lambda: rig.hub.hello(VMID) is None)
        assert "the last channel closed" in run("info", "guest")[1]
    finally:
        server.close()


def test_a_guest_that_is_cut_off_is_told_to_the_servers(rig: Rig, tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.sqlite")
    outbox, woken = Outbox(database), list[GuestEvent]()
    nodes = {VMID: "./VirMO/web"}
    report_expulsions(rig.hub, Reporter(outbox, lambda: ["srv"]), nodes.get, woken.append)
    guest = rig.raw(VMID)
    guest.sendall(hello(capabilities=["NOT ONE"]))
    until(lambda: bool(woken))
    (alert,) = outbox.list("srv")
    assert (alert.alert_type, alert.source_uri) == (GUEST_EXPELLED, "./VirMO/web/DMTree")
    assert "capability" in (alert.data or "")
    guest.close()
    database.close()
