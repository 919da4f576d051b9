"""DCMO on the real tree: a node for each device, switched by dom0 whatever the guest says (HLF-06, R-144 to R-147)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import Disk, Fixture, HypervisorError, Vif
from dom0_agent.mo.dcmo import dcmo
from dom0_agent.mo.dcmo_nodes import ALERT, AT_NEXT_START, DCMO
from dom0_agent.operation import OperationRefused
from dom0_agent.resources.peripherals import Peripheral, Standing
from dom0_agent.vm.model import VmState
from guest_shim.services import make_dispatcher
from tests.unit.mo.dmtree.guests_testing import GuestDevice, handler, status_of

WIFI = Peripheral("vif0", "Wi-Fi", "Connectivity", "network interface", Vif("00:16:3e:00:00:01", "br0"))
DISPLAY = Peripheral("display", "Display", "Input/Output", "virtual framebuffer", Fixture("display"))
DISK = Peripheral("xvdb", "xvdb", "Hardware", "data disk", Disk(Path("/d"), "xvdb"))


class Devices:
    """Two peripherals; ``error`` is what a switch ends with."""

    def __init__(self) -> None:
        self.found: tuple[Standing, ...] = (
            Standing(WIFI, enabled=True, attached=True),
            Standing(DISK, enabled=True, attached=True),
        )
        self.error: Exception | None = None
        self.switched: list[tuple[UUID, str, bool]] = []

    def standing(self, vmid: UUID) -> tuple[Standing, ...]:
        return self.found

    def switch(self, vmid: UUID, name: str, *, enabled: bool) -> bool:
        if self.error is not None:
            raise self.error
        self.switched.append((vmid, name, enabled))
        waits = name == "Display"
        self.found = tuple(
            replace(one, enabled=enabled, attached=one.attached if waits else enabled, at_next_start=waits)
            if one.peripheral.name == name
            else one
            for one in self.found
        )
        return not waits


@pytest.fixture
def devices() -> Devices:
    return Devices()


@pytest.fixture
def device(tmp_path: Path, devices: Devices) -> Iterator[GuestDevice]:
    made = GuestDevice(tmp_path, kinds={DCMO: dcmo(devices)})
    yield made
    made.close()


def test_each_device_of_the_vm_has_its_node(device: GuestDevice) -> None:
    """HLF-06: named as the board calls it; no shim is needed."""
    uri = device.add_object("DCMO", DCMO)
    assert set(device.get(uri).split("/")) == {"Wi-Fi", "xvdb"}
    leaves = {leaf: device.get(f"{uri}/Wi-Fi/{leaf}") for leaf in ("Property", "Group", "Attached", "Enabled")}
    assert leaves == {"Property": "vif0", "Group": "Connectivity", "Attached": "true", "Enabled": "true"}
    assert device.get(f"{uri}/xvdb/DCMOConfig/DenyUserEnable") == "true"
    assert device.get(f"{uri}/Wi-Fi/Ext/AttachedDevice") == "00:16:3e:00:00:01"
    assert device.get(f"{uri}/Wi-Fi/Ext/AtNextStart") == "false"


def test_disable_and_enable_are_done_and_seen(device: GuestDevice, devices: Devices) -> None:
    uri = device.add_object("DCMO", DCMO)
    assert device.execute(f"{uri}/Wi-Fi/Operations/Disable") == 1200
    assert device.get(f"{uri}/Wi-Fi/Enabled") == "false"
    assert device.get(f"{uri}/Wi-Fi/Attached") == "false"
    assert device.get(f"{uri}/Wi-Fi/Ext/AttachedDevice") == ""
    assert device.get(f"{uri}/xvdb/Attached") == "true"
    assert device.execute(f"{uri}/Wi-Fi/Operations/Enable") == 1200
    assert devices.switched == [(device.vmid, "Wi-Fi", False), (device.vmid, "Wi-Fi", True)]


@pytest.mark.parametrize("state", [VmState.POWERED_OFF, VmState.SUSPENDED])
def test_a_vm_that_does_not_run_is_switched_too(state: VmState, device: GuestDevice, devices: Devices) -> None:
    """It is applied at its next start."""
    uri = device.add_object("DCMO", DCMO)
    device.set_state(device.vmid, state)
    assert device.execute(f"{uri}/xvdb/Operations/Disable") == 1200
    assert devices.switched == [(device.vmid, "xvdb", False)]


@pytest.mark.parametrize(("operation", "code"), [("Enable", 1402), ("Disable", 1403)])
@pytest.mark.parametrize("error", [HypervisorError("it holds on"), OperationRefused(417, "busy")])
def test_a_failure_has_its_result_code(
    operation: str, code: int, error: Exception, device: GuestDevice, devices: Devices
) -> None:
    uri = device.add_object("DCMO", DCMO)
    devices.error = error
    assert status_of(device.execute, f"{uri}/xvdb/Operations/{operation}") == code
    assert device.get(f"{uri}/xvdb/Enabled") == "true"


def test_past_the_answer_limit_the_end_is_an_alert(tmp_path: Path, devices: Devices) -> None:
    """A-43, R-147."""
    device = GuestDevice(tmp_path, kinds={DCMO: dcmo(devices)}, answer_limit=0.0)
    uri = device.add_object("DCMO", DCMO)
    status = device.execute(f"{uri}/xvdb/Operations/Disable")
    device.settle()
    alerts = device.alerts()
    assert status in (202, 1200)
    assert [(a.alert_type, a.source_uri, a.data) for a in alerts] == (
        [(ALERT, f"{uri}/xvdb/Operations/Disable", "1200")] if status == 202 else []
    )
    device.close()


def test_what_comes_and_goes_with_the_domain_only_is_told_so(device: GuestDevice, devices: Devices) -> None:
    """A result code of ours, and it says honestly what is there still."""
    devices.found = (Standing(DISPLAY, enabled=True, attached=True),)
    uri = device.add_object("DCMO", DCMO)
    assert device.execute(f"{uri}/Display/Operations/Disable") == AT_NEXT_START
    told = {leaf: device.get(f"{uri}/Display/{leaf}") for leaf in ("Enabled", "Attached", "Ext/AtNextStart")}
    assert told == {"Enabled": "false", "Attached": "true", "Ext/AtNextStart": "true"}


def test_the_guests_shim_is_told_what_it_has(device: GuestDevice, devices: Devices) -> None:
    """Also what changed while it was not connected; its handler hears each change once, and whether to tell people."""
    places = device.places()
    said = device.root / "said"
    handler(places, "dcmo", "changed", f'echo "$*" >> {said}')
    uri = device.add_object("DCMO", DCMO)
    device.connect()
    assert not said.exists(), "it has everything, as it expects"
    assert device.execute(f"{uri}/Wi-Fi/Operations/Disable") == 1200
    device.settle()
    assert said.read_text() == "Wi-Fi disabled vif0 quiet\n"
    device.guests.lose(device.vmid)
    device.replace(f"{uri}/xvdb/DCMOConfig/NotifyUser", "true")
    assert device.execute(f"{uri}/Wi-Fi/Operations/Enable") == 1200
    assert device.execute(f"{uri}/xvdb/Operations/Disable") == 1200
    device.settle()
    device.connect(make_dispatcher(places))
    assert said.read_text().splitlines()[1:] == ["Wi-Fi enabled vif0 quiet", "xvdb disabled xvdb"]
    device.connect(make_dispatcher(places))
    assert len(said.read_text().splitlines()) == 3


def test_the_shims_own_handler_tells_the_console(device: GuestDevice, devices: Devices) -> None:
    places = device.places()
    console = places.root / "dev/console"
    console.touch()
    uri = device.add_object("DCMO", DCMO)
    device.connect(make_dispatcher(places))
    device.replace(f"{uri}/Wi-Fi/DCMOConfig/NotifyUser", "true")
    device.settle()
    assert device.execute(f"{uri}/Wi-Fi/Operations/Disable") == 1200
    device.settle()
    assert console.read_text() == "\nvirmo: Wi-Fi (vif0) was taken away by its owner\n"
