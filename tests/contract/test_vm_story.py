"""The life of VMs through the engine, on the simulator and on real Xen alike. At each step State, domain and journal
must agree."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dom0_agent.hypervisor.interface import DomainState
from dom0_agent.operation import OperationRefused
from dom0_agent.vm.model import Primitive, SuspendKind, VmState
from tests.contract.support import MIB, Rig, eventually

#: Seconds in which State must follow what happened to a domain (issue: right within 2 s); emulated machines are slower.
FOLLOWS = {"sim": 2.0, "xl": 15.0}


def test_the_whole_life_of_a_vm(rig: Rig) -> None:
    """R-013, R-015, R-016, R-018 to R-025, R-056 to R-058, R-119, R-120, R-124; VirMO-C-002 to C-008."""
    vmid = rig.engine.add()
    assert rig.state(vmid) is VmState.NOT_CREATED

    result = rig.do(vmid, Primitive.CREATE)
    assert (result.status, rig.state(vmid)) == (200, VmState.RUNNING), result.message
    domain = rig.hypervisor.find(vmid)
    assert domain is not None
    assert domain.state is DomainState.RUNNING
    assert rig.record(vmid).allocation.ram == rig.backend.image.memory
    boot_id, beats = rig.beats(vmid)

    free = rig.hypervisor.host().free_memory
    result = rig.do(vmid, Primitive.SUSPEND)
    assert (result.status, rig.state(vmid)) == (200, VmState.SUSPENDED), result.message
    if rig.hypervisor.host().can_save:
        assert rig.record(vmid).suspend_kind is SuspendKind.SAVE
        assert rig.hypervisor.find(vmid) is None
        assert rig.hypervisor.host().free_memory >= free + rig.backend.image.memory - 8 * MIB
    else:
        assert rig.record(vmid).suspend_kind is SuspendKind.PAUSE
        domain = rig.hypervisor.find(vmid)
        assert domain is not None
        assert domain.state is DomainState.PAUSED

    result = rig.do(vmid, Primitive.RESUME)
    assert (result.status, rig.state(vmid)) == (200, VmState.RUNNING), result.message
    assert rig.record(vmid).suspend_kind is None
    eventually(lambda: rig.beats(vmid)[1] > beats, rig.backend.patience, "the guest's counter goes on")
    assert rig.beats(vmid)[0] == boot_id, "the guest goes on, it was not booted again"
    assert not list(rig.state_dir.glob(f"vms/{vmid}/saved*"))

    result = rig.do(vmid, Primitive.POWER_OFF)
    assert (result.status, rig.state(vmid)) == (200, VmState.POWERED_OFF), result.message
    assert rig.hypervisor.find(vmid) is None

    result = rig.do(vmid, Primitive.POWER_ON)
    assert (result.status, rig.state(vmid)) == (200, VmState.RUNNING), result.message
    assert rig.beats(vmid)[0] != boot_id, "R-020: back to Running only by a normal boot"

    result = rig.do(vmid, Primitive.DELETE)
    assert result.status == 200, result.message
    rig.assert_no_trace(vmid)
    rig.assert_nothing_open()
    assert rig.spontaneous() == []


def test_create_and_power_off_makes_disks_but_no_domain(rig: Rig) -> None:
    """R-042."""
    vmid = rig.engine.add()
    assert rig.do(vmid, Primitive.CREATE_AND_POWER_OFF).status == 200
    assert rig.state(vmid) is VmState.POWERED_OFF
    assert rig.hypervisor.find(vmid) is None
    assert (rig.state_dir / "vms" / str(vmid) / "kernel").is_file()
    assert rig.do(vmid, Primitive.POWER_ON).status == 200
    assert rig.state(vmid) is VmState.RUNNING


def test_a_suspended_vm_can_be_deleted(rig: Rig) -> None:
    """A-09."""
    vmid = rig.running()
    rig.beats(vmid)
    assert rig.do(vmid, Primitive.SUSPEND).status == 200
    assert rig.do(vmid, Primitive.DELETE).status == 200
    rig.assert_no_trace(vmid)


@pytest.mark.parametrize("how", ["poweroff", "crash"])
def test_a_guest_that_ends_by_itself_is_powered_off_and_told(rig: Rig, how: str) -> None:
    """VirMO-C-002: State follows every change. Where a crash is told as a reboot, it is one."""
    if how == "crash" and rig.backend.told_crash == "reboot":
        runs_again(rig, how)
        return
    vmid = rig.running()
    rig.beats(vmid)
    rig.backend.guest_ends(vmid, how)
    patience = rig.backend.patience if rig.backend.name == "xl" else FOLLOWS["sim"]
    eventually(lambda: rig.state(vmid) is VmState.POWERED_OFF, patience, "State follows")
    eventually(lambda: rig.spontaneous() == [VmState.POWERED_OFF], 2, "it is told")
    assert how in (rig.record(vmid).last_error or "").replace("powered off", "poweroff")
    eventually(lambda: rig.hypervisor.find(vmid) is None, rig.backend.patience, "what was left of it is removed")
    assert rig.do(vmid, Primitive.POWER_ON).status == 200


def test_a_guest_that_reboots_runs_again_in_another_domain(rig: Rig) -> None:
    runs_again(rig, "reboot")


def runs_again(rig: Rig, how: str) -> None:
    """A guest that ends so is started again, and nobody is told of a change."""
    vmid = rig.running()
    boot_id, _ = rig.beats(vmid)
    rig.backend.guest_ends(vmid, how)

    def is_another_boot() -> bool:
        domain = rig.hypervisor.find(vmid)
        if domain is None or domain.state is not DomainState.RUNNING:
            return False
        return rig.hypervisor.guest_facts(vmid).boot_id not in (None, boot_id)

    eventually(is_another_boot, rig.backend.patience, "it boots again")
    assert rig.state(vmid) is VmState.RUNNING
    assert rig.spontaneous() == []


def test_a_domain_destroyed_by_hand_is_powered_off(rig: Rig) -> None:
    vmid = rig.running()
    rig.backend.destroy_by_hand(vmid)
    eventually(lambda: rig.state(vmid) is VmState.POWERED_OFF, FOLLOWS[rig.backend.name], "State follows")
    eventually(lambda: rig.spontaneous() == [VmState.POWERED_OFF], 2, "it is told")


def test_a_restarted_agent_finds_its_vms_as_they_are(make_rig: Callable[..., Rig]) -> None:
    """A-56."""
    first = make_rig()
    first.engine.start()
    running, suspended, ended = first.running(), first.running(), first.running()
    boot_id, _ = first.beats(running)
    first.beats(suspended)
    assert first.do(suspended, Primitive.SUSPEND).status == 200
    first.stop()
    first.backend.destroy_by_hand(ended)
    second = make_rig()
    second.engine.start()
    assert second.state(running) is VmState.RUNNING
    assert second.state(suspended) is VmState.SUSPENDED
    eventually(
        lambda: second.state(ended) is VmState.POWERED_OFF, FOLLOWS[second.backend.name] * 2, "the change is found"
    )
    assert second.beats(running)[0] == boot_id, "a restart of the agent does not touch a guest"
    assert second.do(suspended, Primitive.RESUME).status == 200
    for vmid in (running, suspended, ended):
        assert second.do(vmid, Primitive.DELETE).status == 200
        second.assert_no_trace(vmid)


def test_delete_preempts_a_power_off_that_waits_for_its_guest(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(shutdown_wait=300.0)
    rig.engine.start()
    vmid = rig.running()
    rig.hypervisor.pause(vmid)  # it cannot obey
    power_off = rig.engine.submit(vmid, Primitive.POWER_OFF)
    assert power_off.wait(0.3) is None
    with pytest.raises(OperationRefused) as refused:
        rig.engine.submit(vmid, Primitive.SUSPEND)
    assert refused.value.status == 417
    began = time.monotonic()
    assert rig.do(vmid, Primitive.DELETE).status == 200
    assert time.monotonic() - began < rig.backend.patience
    result = power_off.wait(1)
    assert result is not None
    assert result.status == 500
    rig.assert_no_trace(vmid)


def test_a_guest_that_does_not_obey_is_ended(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(shutdown_wait=1.0)
    rig.engine.start()
    vmid = rig.running()
    rig.hypervisor.pause(vmid)
    assert rig.do(vmid, Primitive.POWER_OFF).status == 200
    assert rig.state(vmid) is VmState.POWERED_OFF
    assert rig.hypervisor.find(vmid) is None


def test_too_little_memory_is_420_and_leaves_nothing(rig: Rig) -> None:
    """A-08, A-20; R-010 to R-012."""
    import dataclasses

    image = dataclasses.replace(rig.backend.image, memory=rig.hypervisor.host().total_memory)
    rig.images.images[image.img_id] = image
    vmid = rig.engine.add()
    result = rig.do(vmid, Primitive.CREATE)
    assert result.status == 420
    assert "MiB" in result.message
    assert rig.state(vmid) is VmState.NOT_CREATED
    assert not list(rig.state_dir.glob(f"vms/{vmid}*"))
    assert rig.hypervisor.find(vmid) is None
    rig.assert_nothing_open()


def test_resume_without_memory_is_420_and_stays_suspended(rig: Rig) -> None:
    """A-55, R-012. A VM that was only paused has kept its memory, and nobody can take it."""
    vmid = rig.running()
    boot_id, _ = rig.beats(vmid)
    assert rig.do(vmid, Primitive.SUSPEND).status == 200
    keeps = rig.record(vmid).suspend_kind is SuspendKind.PAUSE
    image = rig.backend.image
    import dataclasses

    free = rig.hypervisor.host().free_memory
    rig.images.images["big"] = dataclasses.replace(image, img_id="big", memory=free - image.memory // 2)
    hog = rig.engine.add()
    hogged = rig.engine.submit(hog, Primitive.CREATE, img_id="big").wait(3 * rig.backend.patience)
    assert hogged is not None
    assert hogged.status == 200, hogged.message
    result = rig.do(vmid, Primitive.RESUME)
    assert result.status == (200 if keeps else 420), result.message
    assert rig.state(vmid) is (VmState.RUNNING if keeps else VmState.SUSPENDED)
    assert rig.do(hog, Primitive.DELETE).status == 200
    if not keeps:
        assert rig.do(vmid, Primitive.RESUME).status == 200
    assert rig.beats(vmid)[0] == boot_id
