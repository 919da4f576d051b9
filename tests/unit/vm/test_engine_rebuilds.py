"""FactoryReset and ReplaceSystem: the new system with or without the data, the old one when the new one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.operation import OperationRefused, OperationResult
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import Primitive, Rebuild, VmState
from dom0_agent.vm.steps import start
from tests.contract.support import MIB, Rig, SimBackend, eventually

MakeEngine = Callable[..., Rig]


def rebuild(rig: Rig, vmid: UUID, kind: Rebuild, img_id: str = "img-1", health: float = 10.0) -> OperationResult:
    result = rig.engine.rebuild(vmid, kind, img_id, health_timeout=health).wait(60)
    assert result is not None
    return result


def disks(rig: Rig, vmid: UUID) -> dict[str, Path]:
    """Device → file, as the engine has them on disk."""
    (row,) = [row for row in rig.engine._vms.list() if row.record.vmid == vmid]
    return {disk.device: Path(disk.path) for disk in Vm.load(row).disks}


def new_image(rig: Rig, cmdline: str = "console=hvc0") -> str:
    """An image with another root disk, in the store."""
    assert isinstance(rig.backend, SimBackend)
    root = rig.backend.root / "guest" / "new-disk"
    root.write_bytes(b"new system" * 100)
    old = rig.backend.image
    rig.images.images["img-2"] = replace(
        old, img_id="img-2", cmdline=cmdline, disks=(replace(old.disks[0], path=root),)
    )
    return "img-2"


def domain_id(rig: Rig, vmid: UUID) -> int | None:
    domain = rig.backend.hypervisor.find(vmid)
    return None if domain is None else domain.domid


def with_data(rig: Rig) -> tuple[UUID, str]:
    """A running VM whose data disk holds something, and its boot id."""
    vmid = rig.running()
    disks(rig, vmid)["xvdb"].write_bytes(b"precious")
    disks(rig, vmid)["xvda"].write_bytes(b"changed by the guest")
    return vmid, rig.beats(vmid)[0]


def test_a_factory_reset_makes_all_disks_anew(make_engine: MakeEngine) -> None:
    """HLF-12, LAWMO FactoryReset."""
    rig = make_engine(default_storage=MIB)
    vmid, boot_id = with_data(rig)
    assert rebuild(rig, vmid, Rebuild.FACTORY_RESET).status == 200
    assert rig.state(vmid) is VmState.RUNNING
    assert rig.beats(vmid)[0] != boot_id
    assert disks(rig, vmid)["xvda"].read_bytes() == b"disk" * 1000
    data = disks(rig, vmid)["xvdb"]
    assert (data.stat().st_size, data.read_bytes()[:8]) == (MIB, bytes(8))
    rig.assert_nothing_open()


def test_a_powered_off_vm_is_reset_and_stays_off(make_engine: MakeEngine) -> None:
    rig = make_engine(default_storage=MIB)
    vmid, _ = with_data(rig)
    assert rig.do(vmid, Primitive.POWER_OFF).ok
    assert rebuild(rig, vmid, Rebuild.FACTORY_RESET).status == 200
    assert rig.state(vmid) is VmState.POWERED_OFF
    assert disks(rig, vmid)["xvda"].read_bytes() == b"disk" * 1000
    assert rig.do(vmid, Primitive.POWER_ON).ok


def test_a_new_system_keeps_the_data(make_engine: MakeEngine) -> None:
    """HLF-14."""
    rig = make_engine(default_storage=MIB)
    vmid, boot_id = with_data(rig)
    old = disks(rig, vmid)
    assert rebuild(rig, vmid, Rebuild.REPLACE_SYSTEM, new_image(rig)).status == 200
    assert rig.beats(vmid)[0] != boot_id
    assert disks(rig, vmid)["xvda"].read_bytes() == b"new system" * 100
    assert disks(rig, vmid)["xvdb"] == old["xvdb"]
    assert old["xvdb"].read_bytes() == b"precious"
    assert old["xvda"].exists(), "the old system is kept until the next update"
    assert rebuild(rig, vmid, Rebuild.REPLACE_SYSTEM, new_image(rig)).status == 200
    assert not old["xvda"].exists()
    assert old["xvdb"].read_bytes() == b"precious"
    assert rig.do(vmid, Primitive.DELETE).ok
    rig.assert_no_trace(vmid)


@pytest.mark.parametrize("broken", ["sim.guest=panic", "sim.guest=mute"])
def test_a_system_that_does_not_come_up_is_taken_back(make_engine: MakeEngine, broken: str) -> None:
    """R-011, R-012: the kernel panics, or the shim never comes; the old system runs, the data is there."""
    rig = make_engine(default_storage=MIB)
    vmid, boot_id = with_data(rig)
    before = disks(rig, vmid)
    result = rebuild(rig, vmid, Rebuild.REPLACE_SYSTEM, new_image(rig, broken), health=2.0)
    assert result.status == 500
    assert "new system" in result.message
    assert rig.state(vmid) is VmState.RUNNING
    assert disks(rig, vmid) == before
    assert before["xvda"].read_bytes() == b"changed by the guest"
    assert before["xvdb"].read_bytes() == b"precious"
    eventually(lambda: rig.beats(vmid)[0] != boot_id, 5, "the old system was started again")
    assert not list(before["xvda"].parent.glob("system-*"))
    rig.assert_nothing_open()


def test_the_old_system_is_started_again_by_a_toolstack_that_fails_once(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-012: a machine too busy for one start must not leave the VM without any system."""
    monkeypatch.setattr(start, "START_PAUSE", 0.1)
    rig = make_engine(default_storage=MIB)
    vmid, boot_id = with_data(rig)
    assert isinstance(rig.backend, SimBackend)
    before, old = disks(rig, vmid), domain_id(rig, vmid)
    operation = rig.engine.rebuild(vmid, Rebuild.REPLACE_SYSTEM, new_image(rig, "sim.guest=mute"), health_timeout=2.0)
    eventually(lambda: domain_id(rig, vmid) not in {None, old}, 10, "the new system was started")
    rig.backend.faults.set(Fault("create", "fail", count=1))
    result = operation.wait(60)
    assert result is not None
    assert result.status == 500
    assert rig.state(vmid) is VmState.RUNNING
    assert disks(rig, vmid) == before
    eventually(lambda: rig.beats(vmid)[0] != boot_id, 5, "the old system was started again")


def test_what_cannot_be_rebuilt_is_refused(make_engine: MakeEngine) -> None:
    rig = make_engine()
    vmid = rig.engine.add()
    for kind, img_id, status in (
        (Rebuild.FACTORY_RESET, "img-1", 405),
        (Rebuild.REPLACE_SYSTEM, "img-1", 405),
    ):
        with pytest.raises(OperationRefused) as refused:
            rig.engine.rebuild(vmid, kind, img_id)
        assert refused.value.status == status
    running = rig.running()
    with pytest.raises(OperationRefused) as refused:
        rig.engine.rebuild(running, Rebuild.FACTORY_RESET, "unknown")
    assert refused.value.status == 404
    assert rig.do(running, Primitive.POWER_OFF).ok
    with pytest.raises(OperationRefused) as refused:
        rig.engine.rebuild(running, Rebuild.REPLACE_SYSTEM, "img-1")
    assert refused.value.status == 405


def test_power_off_pre_empts_an_update_that_waits(make_engine: MakeEngine) -> None:
    """A-08: the operator is not locked out while a new system does not come up."""
    rig = make_engine(default_storage=MIB, shutdown_wait=2.0)
    vmid, _ = with_data(rig)
    waiting = rig.engine.rebuild(vmid, Rebuild.REPLACE_SYSTEM, new_image(rig, "sim.guest=mute"), health_timeout=60)
    eventually(lambda: "shim" in (rig.record(vmid).running_step or ""), 20, "it waits for the shim")
    done = threading.Thread(target=lambda: rig.do(vmid, Primitive.POWER_OFF))
    done.start()
    result = waiting.wait(30)
    assert result is not None
    assert result.status == 500
    done.join(30)
    assert rig.state(vmid) is VmState.POWERED_OFF
