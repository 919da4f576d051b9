"""Peripherals are taken away and given back in dom0, on the simulator and on Xen (HLF-06)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.hypervisor.readback_resources import ReadBackResources
from dom0_agent.operation import OperationRefused
from dom0_agent.resources.peripheral_names import PeripheralName
from dom0_agent.resources.peripherals import Peripherals
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.model import Primitive, VmState
from tests.contract.support import MIB, Rig, eventually

MakeRig = Callable[..., Rig]
CAMERA = (PeripheralName("xvdb", "Camera"),)


def peripherals(rig: Rig) -> Peripherals:
    """Of the rig's agent; its data disk is called the camera."""
    return Peripherals(VmTable(rig.database), rig.hypervisor, "", CAMERA, rig.engine.holds)


def standing(rig: Rig, vmid: UUID) -> tuple[bool, bool]:
    """(enabled, attached) of the only one that can be taken away."""
    found, console = peripherals(rig).standing(vmid)
    assert (found.peripheral.name, console.peripheral.name) == ("Camera", "console")
    return found.enabled, found.attached


@pytest.fixture
def running(make_rig: MakeRig) -> tuple[Rig, UUID]:
    """A VM with a data disk, whose guest is up."""
    rig = make_rig(default_storage=4 * MIB)
    rig.engine.start()
    vmid = rig.running()
    rig.beats(vmid)
    return rig, vmid


def test_what_is_disabled_is_gone_and_comes_back(running: tuple[Rig, UUID]) -> None:
    rig, vmid = running
    assert standing(rig, vmid) == (True, True)
    peripherals(rig).switch(vmid, "Camera", enabled=False)
    assert standing(rig, vmid) == (False, False)
    peripherals(rig).switch(vmid, "Camera", enabled=False)
    peripherals(rig).switch(vmid, "Camera", enabled=True)
    assert standing(rig, vmid) == (True, True)
    assert rig.state(vmid) is VmState.RUNNING


def test_it_stays_away_over_power_off_suspend_and_a_new_agent(running: tuple[Rig, UUID], make_rig: MakeRig) -> None:
    """What a VM may have is the VM's: it is so before the first instruction of its next start."""
    rig, vmid = running
    peripherals(rig).switch(vmid, "Camera", enabled=False)
    assert rig.do(vmid, Primitive.POWER_OFF).ok
    assert rig.do(vmid, Primitive.POWER_ON).ok
    assert standing(rig, vmid) == (False, False)
    rig.beats(vmid)
    assert rig.do(vmid, Primitive.SUSPEND).ok
    assert rig.do(vmid, Primitive.RESUME).ok
    assert standing(rig, vmid) == (False, False)
    rig.stop()
    again = make_rig(default_storage=4 * MIB)
    again.engine.start()
    assert standing(again, vmid) == (False, False)
    assert again.do(vmid, Primitive.POWER_OFF).ok
    peripherals(again).switch(vmid, "Camera", enabled=True)
    assert standing(again, vmid) == (True, False)
    assert again.do(vmid, Primitive.POWER_ON).ok
    assert standing(again, vmid) == (True, True)


def test_what_somebody_attaches_by_hand_is_taken_away_again(running: tuple[Rig, UUID]) -> None:
    rig, vmid = running
    found, _ = peripherals(rig).standing(vmid)
    peripherals(rig).switch(vmid, "Camera", enabled=False)
    rig.hypervisor.resources.attach(vmid, found.peripheral.device)
    held = next(vm for vm in rig.engine.holds.running() if vm.vmid == vmid)
    assert "peripherals" in rig.sharing.enforcer.mend(held)
    assert standing(rig, vmid) == (False, False)


def test_a_guest_that_does_not_let_go_is_told_and_nothing_has_changed(
    running: tuple[Rig, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest failure: what is told is what is so."""
    rig, vmid = running

    def holds_on(resources: ReadBackResources, uuid: UUID, device: object) -> None:
        raise HypervisorError("it does not let go, not even by force")

    monkeypatch.setattr(ReadBackResources, "detach", holds_on)
    with pytest.raises(HypervisorError, match="let go"):
        peripherals(rig).switch(vmid, "Camera", enabled=False)
    assert standing(rig, vmid) == (True, True)
    with pytest.raises(OperationRefused) as refused:
        peripherals(rig).switch(vmid, "NFC", enabled=False)
    assert refused.value.status == 404


def test_an_operation_on_the_vm_goes_first(running: tuple[Rig, UUID]) -> None:
    """A-08: 417."""
    rig, vmid = running
    rig.engine.holds.take((vmid,))
    with pytest.raises(OperationRefused) as refused:
        peripherals(rig).switch(vmid, "Camera", enabled=False)
    assert refused.value.status == 417
    rig.engine.holds.release((vmid,), {})
    eventually(lambda: standing(rig, vmid) == (True, True), 1, "all is as it was")


def test_what_xen_gives_every_domain_cannot_be_taken_and_that_is_said(running: tuple[Rig, UUID]) -> None:
    """An honest failure beats a promise that nobody keeps."""
    rig, vmid = running
    with pytest.raises(OperationRefused, match="cannot be taken away") as refused:
        peripherals(rig).switch(vmid, "console", enabled=False)
    assert refused.value.status == 406
    console = peripherals(rig).standing(vmid)[1]
    assert (console.enabled, console.attached, console.at_next_start) == (True, True, False)
    assert peripherals(rig).switch(vmid, "console", enabled=True)
    assert rig.do(vmid, Primitive.POWER_OFF).ok
    assert not peripherals(rig).standing(vmid)[1].attached
