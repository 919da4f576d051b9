"""Devices of the board that a VM gets for itself: USB ports, PCI devices and displays, by name (HLF-06)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import DomainState, Fixture, HypervisorError
from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.hypervisor.sim.ledger import HostSettings, read_json, write_json
from dom0_agent.operation import OperationRefused, OperationResult
from dom0_agent.resources.config import ResourcesConfig
from dom0_agent.resources.peripheral_names import PeripheralName
from dom0_agent.resources.peripherals import Peripherals, Standing
from dom0_agent.store.database import Database
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Primitive, VmState
from tests.contract.support import Rig, SimBackend, eventually

NAMES = (
    PeripheralName("usb:3-1.4", "Camera", "Hardware"),
    PeripheralName("usb:3-2", "NFC", "Connectivity"),
    PeripheralName("pci:0000:03:00.0", "Wi-Fi", "Connectivity"),
    PeripheralName("pci:0000:04:00.0", "Bluetooth", "Connectivity"),
    PeripheralName("display", "Display", "Input/Output"),
)
EVERYTHING = "Camera,NFC,Wi-Fi,Bluetooth,Display"
#: Nothing is plugged into the port of the NFC reader.
MACHINE = HostSettings(beat_interval=0.05, usb=["3-1.4"], pci=["0000:03:00.0", "0000:04:00.0"])


class Board:
    """An agent on a simulated board; ``again`` makes the next agent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.backend = SimBackend(root, MACHINE)
        self.open()

    def open(self) -> None:
        backend, config = self.backend, VmConfig(storage_reserve=0, shutdown_wait=5.0)
        resources = ResourcesConfig(peripherals=NAMES)
        database = Database(self.root / "agent.db")
        self.rig = Rig(backend, backend.hypervisor, database, config, self.root, resources)
        self.rig.engine.start()
        self.peripherals = Peripherals(VmTable(database), backend.hypervisor, "", NAMES, self.rig.engine.holds)

    def again(self) -> None:
        self.rig.stop()
        self.backend.reopen()
        self.open()

    def close(self) -> None:
        self.rig.stop()
        self.backend.close()

    def create(self, devices: str, primitive: Primitive = Primitive.CREATE) -> tuple[UUID, OperationResult]:
        vmid = self.rig.engine.add()
        handle = self.rig.engine.submit(vmid, primitive, img_id="img-1", vendor={"Devices": devices})
        result = handle.wait(30)
        assert result is not None
        return vmid, result

    def running(self, devices: str) -> UUID:
        vmid, result = self.create(devices)
        assert result.ok, result.message
        return vmid

    def standing(self, vmid: UUID) -> dict[str, tuple[bool, bool, bool]]:
        """(enabled, attached, at the next start) by name, without the console."""
        found: tuple[Standing, ...] = self.peripherals.standing(vmid)
        return {
            o.peripheral.name: (o.enabled, o.attached, o.at_next_start) for o in found if o.peripheral.key != "console"
        }

    def has(self, vmid: UUID) -> frozenset[str]:
        return self.rig.hypervisor.resources.attached(vmid) - {"xvda"}

    def machine(self, **what: list[str]) -> None:
        """Plug something in or out."""
        file = self.root / "sim" / "host.json"
        write_json(file, read_json(file) | what)

    def mend(self, vmid: UUID) -> list[str]:
        held = next(vm for vm in self.rig.engine.holds.running() if vm.vmid == vmid)
        return self.rig.sharing.enforcer.mend(held)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    opened = Board(tmp_path)
    yield opened
    opened.close()


THERE = {
    "Camera": (True, True, False),
    "NFC": (True, False, False),
    "Wi-Fi": (True, True, False),
    "Bluetooth": (True, True, False),
    "Display": (True, True, False),
}


def test_a_vm_gets_what_its_create_params_name(board: Board) -> None:
    """R-043: what is not plugged in keeps no VM from starting, and is there as soon as it is plugged in."""
    vmid = board.running(EVERYTHING)
    assert board.standing(vmid) == THERE
    assert board.has(vmid) == {"usb:3-1.4", "pci:0000:03:00.0", "pci:0000:04:00.0", "display"}
    assert board.mend(vmid) == []
    board.machine(usb=["3-1.4", "3-2"])
    assert board.mend(vmid) == ["peripherals"]
    assert board.standing(vmid)["NFC"] == (True, True, False)
    assert board.has(board.running("")) == frozenset()


def test_each_is_taken_away_and_given_back_while_the_vm_runs(board: Board) -> None:
    vmid = board.running(EVERYTHING)
    for name, key in (("Camera", "usb:3-1.4"), ("Wi-Fi", "pci:0000:03:00.0")):
        assert board.peripherals.switch(vmid, name, enabled=False)
        assert board.standing(vmid) == THERE | {name: (False, False, False)}
        assert key not in board.has(vmid)
        assert board.peripherals.switch(vmid, name, enabled=True)
        assert board.standing(vmid) == THERE
        assert key in board.has(vmid)


def test_what_may_be_there_but_is_not_plugged_in_is_allowed_all_the_same(board: Board) -> None:
    """Enabled is the server's word, Attached is what is so."""
    vmid = board.running(EVERYTHING)
    assert board.peripherals.switch(vmid, "NFC", enabled=False)
    board.machine(usb=["3-1.4", "3-2"])
    assert board.mend(vmid) == []
    assert board.standing(vmid)["NFC"] == (False, False, False)
    assert board.peripherals.switch(vmid, "NFC", enabled=True)
    assert board.standing(vmid)["NFC"] == (True, True, False)


@pytest.mark.parametrize("how", ["PowerOff", "reboot", "Suspend"])
def test_it_stays_away_at_the_next_start(how: str, board: Board) -> None:
    """Before the first instruction: the domain is built without it. Also by another agent."""
    vmid = board.running(EVERYTHING)
    board.rig.beats(vmid)
    for name in ("Camera", "Wi-Fi"):
        assert board.peripherals.switch(vmid, name, enabled=False)
    board.again()
    boot_id, _ = board.rig.beats(vmid)
    if how == "reboot":
        board.backend.guest_ends(vmid, "reboot")

        def up_again() -> bool:
            domain = board.rig.hypervisor.find(vmid)
            up = domain is not None and domain.state is DomainState.RUNNING
            return up and board.rig.hypervisor.guest_facts(vmid).boot_id not in (None, boot_id)

        eventually(up_again, 10, "it boots again")
    else:
        back = Primitive.RESUME if how == "Suspend" else Primitive.POWER_ON
        assert board.rig.do(vmid, Primitive(how)).ok
        assert board.rig.do(vmid, back).ok
    away = (False, False, False)
    assert board.standing(vmid) == THERE | {"Camera": away, "Wi-Fi": away}
    board.rig.assert_nothing_open()


def test_a_display_goes_at_the_next_start_and_that_is_told(board: Board) -> None:
    """No tool takes it from a running domain; a suspended guest keeps what it was saved with."""
    vmid = board.running("Display")
    board.rig.beats(vmid)
    assert not board.peripherals.switch(vmid, "Display", enabled=False)
    assert board.standing(vmid) == {"Display": (False, True, True)}
    assert board.mend(vmid) == [], "nobody tries what cannot be"
    assert board.rig.do(vmid, Primitive.SUSPEND).ok
    assert board.standing(vmid) == {"Display": (False, False, True)}
    assert board.rig.do(vmid, Primitive.RESUME).ok
    assert board.standing(vmid) == {"Display": (False, True, True)}
    assert board.rig.do(vmid, Primitive.POWER_OFF).ok
    assert board.standing(vmid) == {"Display": (False, False, False)}
    assert board.rig.do(vmid, Primitive.POWER_ON).ok
    assert board.standing(vmid) == {"Display": (False, False, False)}
    assert not board.peripherals.switch(vmid, "Display", enabled=True)
    assert board.standing(vmid) == {"Display": (True, False, True)}
    assert board.peripherals.switch(vmid, "Display", enabled=False), "it is so already"


def test_a_device_is_one_vms_alone(board: Board) -> None:
    """420, and nothing is left of the VM that came second; a display is no such thing."""
    first = board.running("Camera,Display")
    second, result = board.create("Display,Camera", Primitive.CREATE_AND_POWER_OFF)
    assert (result.status, f"VM {first} has it" in result.message) == (420, True)
    assert board.rig.state(second) is VmState.NOT_CREATED
    assert board.has(board.running("Display")) == {"display"}
    assert board.peripherals.switch(first, "Camera", enabled=False), "it stays the VM's own"
    assert board.create("Camera")[1].status == 420
    assert board.rig.do(first, Primitive.DELETE).ok
    assert board.has(board.running("Camera")) == {"usb:3-1.4"}


def test_two_that_are_made_at_once_do_not_both_get_it(board: Board) -> None:
    """Whichever comes first: it is claimed before the image is copied."""
    vmids = [board.rig.engine.add() for _ in range(4)]
    vendor = {"Devices": "Wi-Fi"}
    handles = [board.rig.engine.submit(v, Primitive.CREATE, img_id="img-1", vendor=vendor) for v in vmids]
    results = [handle.wait(30) for handle in handles]
    assert sorted(result.status for result in results if result is not None) == [200, 420, 420, 420]


def test_a_name_that_is_none_of_this_boards_is_refused(board: Board) -> None:
    """404, with what there is; what a VM has anyway is not given by name."""
    for devices in ("Toaster", "Camera,Toaster", "usb:3-1.4", "xvdb"):
        vmid, result = board.create(devices)
        assert (result.status, "Bluetooth, Camera, Display, NFC, Wi-Fi" in result.message) == (404, True)
        assert board.rig.state(vmid) is VmState.NOT_CREATED
    assert board.has(board.running(" Camera , ,Camera")) == {"usb:3-1.4"}


@pytest.mark.parametrize("name", ["Camera", "Wi-Fi"])
def test_a_guest_that_does_not_let_go_loses_it_by_force(name: str, board: Board) -> None:
    """The tool reports success, but the guest holds on: once more, by force."""
    vmid = board.running(EVERYTHING)
    board.backend.faults.set(Fault("detach", "lie", count=1))
    assert board.peripherals.switch(vmid, name, enabled=False)
    assert board.standing(vmid)[name] == (False, False, False)


@pytest.mark.parametrize("behaviour", ["lie", "fail", "hang"])
@pytest.mark.parametrize("enabled", [False, True])
def test_a_machine_that_does_not_follow_is_told_and_all_is_as_before(
    behaviour: str, enabled: bool, board: Board
) -> None:
    """An honest failure: neither the record nor the machine has changed."""
    vmid = board.running(EVERYTHING)
    if enabled:
        assert board.peripherals.switch(vmid, "Camera", enabled=False)
    before = board.standing(vmid)
    board.backend.faults.set(Fault("attach" if enabled else "detach", behaviour))
    with pytest.raises(HypervisorError):
        board.peripherals.switch(vmid, "Camera", enabled=enabled)
    board.backend.faults.set()
    assert board.standing(vmid) == before
    assert board.mend(vmid) == []
    board.again()
    assert board.standing(vmid) == before


def test_what_a_person_attached_by_hand_is_taken_away_again(board: Board) -> None:
    vmid = board.running(EVERYTHING)
    found = {one.peripheral.name: one.peripheral.device for one in board.peripherals.standing(vmid)}
    assert found["Display"] == Fixture("display")
    board.peripherals.switch(vmid, "Bluetooth", enabled=False)
    board.rig.hypervisor.resources.attach(vmid, found["Bluetooth"])
    assert board.mend(vmid) == ["peripherals"]
    assert board.standing(vmid)["Bluetooth"] == (False, False, False)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: PeripheralName("usb:1", "x"),
        lambda: PeripheralName("pci:03:00.0", "x"),
        lambda: PeripheralName("toaster", "x"),
        lambda: PeripheralName("vif0", "a/b"),
        lambda: PeripheralName("vif0", "a,b"),
        lambda: PeripheralName("vif0", "xvdb"),
        lambda: ResourcesConfig(peripherals=(PeripheralName("vif0", "x"), PeripheralName("vif0", "y"))),
        lambda: ResourcesConfig(peripherals=(PeripheralName("vif0", "x"), PeripheralName("vif1", "x"))),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"device|name"):
        wrong()


def test_a_vm_without_devices_refuses_names_it_has_not(board: Board) -> None:
    vmid = board.running("")
    with pytest.raises(OperationRefused) as refused:
        board.peripherals.switch(vmid, "Camera", enabled=False)
    assert refused.value.status == 404
