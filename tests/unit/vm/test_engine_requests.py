"""What the engine accepts, refuses, pre-empts, and whom it tells."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.operation import OperationRefused, Origin
from dom0_agent.vm.model import Primitive, VmState
from dom0_agent.vm.steps import MakeFiles, Save, Work
from tests.contract.support import MIB, Rig, SimBackend, eventually
from tests.contract.truth import assert_truth

MakeEngine = Callable[..., Rig]
ORIGIN = Origin("server-1", "./VirMO/x/Operations/Create", "correlator")


def sim(rig: Rig) -> SimBackend:
    """The simulator under an engine."""
    assert isinstance(rig.backend, SimBackend)
    return rig.backend


def refusal(call: Callable[[], object]) -> int:
    """The status of a refusal."""
    with pytest.raises(OperationRefused) as refused:
        call()
    assert str(refused.value)
    return refused.value.status


def test_entries_are_added_listed_and_forgotten(make_engine: MakeEngine) -> None:
    """R-032, R-033, R-115, A-07."""
    rig = make_engine()
    first, second = rig.engine.add(), rig.engine.add()
    assert first != second
    assert [(record.vmid, record.state) for record in rig.engine.list()] == [
        (first, VmState.NOT_CREATED),
        (second, VmState.NOT_CREATED),
    ]
    rig.engine.forget(first)
    rig.engine.forget(first)
    assert rig.engine.get(first) is None
    assert rig.do(second, Primitive.CREATE_AND_POWER_OFF).ok
    assert refusal(lambda: rig.engine.forget(second)) == 405
    assert [record.vmid for record in make_engine().engine.list()] == [second]


def test_wrong_states_unknown_vms_and_images_are_refused_at_once(make_engine: MakeEngine) -> None:
    """A-08, A-20, A-21."""
    rig = make_engine()
    vmid = rig.engine.add()
    for primitive in (Primitive.SUSPEND, Primitive.RESUME, Primitive.POWER_ON, Primitive.POWER_OFF, Primitive.DELETE):
        assert refusal(lambda primitive=primitive: rig.engine.submit(vmid, primitive)) == 405  # type: ignore[misc]
    assert refusal(lambda: rig.engine.submit(uuid4(), Primitive.POWER_ON)) == 404
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.CREATE)) == 412
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.CREATE, img_id="unknown")) == 404
    rig.images.downloading.add("img-1")
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.CREATE, img_id="img-1")) == 405
    assert rig.state(vmid) is VmState.NOT_CREATED
    assert rig.events == []


def test_an_awaited_end_is_no_report_and_an_unawaited_one_is(make_engine: MakeEngine) -> None:
    """A-27: exactly one of status and alert."""
    rig = make_engine()
    vmid = rig.engine.add()
    handle = rig.engine.submit(vmid, Primitive.CREATE, img_id="img-1", origin=ORIGIN)
    result = handle.wait(20)
    assert result is not None
    assert result.ok
    eventually(lambda: len(rig.events) == 1, 5, "it is told")
    assert (rig.events[0].result, rig.events[0].origin) == (None, None)
    sim(rig).faults.set(Fault("save", "slow", seconds=0.3))
    handle = rig.engine.submit(vmid, Primitive.SUSPEND, origin=ORIGIN)
    assert handle.wait(0.05) is None
    eventually(lambda: len(rig.events) == 2, 5, "it is told")
    event = rig.events[1]
    assert event.result is not None
    assert (event.result.status, event.origin, event.primitive) == (200, ORIGIN, Primitive.SUSPEND)
    assert event.record is not None
    assert event.record.state is VmState.SUSPENDED


def test_the_running_step_is_told_and_state_stays_as_before(make_engine: MakeEngine) -> None:
    """R-012: State never shows what is not reached."""
    rig = make_engine()
    vmid = rig.engine.add()
    sim(rig).faults.set(Fault("create", "slow", seconds=0.5))
    handle = rig.engine.submit(vmid, Primitive.CREATE, img_id="img-1")
    eventually(lambda: rig.record(vmid).running_step == "building the domain", 5, "the step is told")
    assert rig.record(vmid).progress == 25, "the first of four steps is done"
    assert rig.state(vmid) is VmState.NOT_CREATED
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.CREATE, img_id="img-1")) == 417
    assert refusal(lambda: rig.engine.forget(vmid)) == 405
    assert refusal(lambda: rig.engine.require_idle(vmid)) == 417
    assert handle.wait(20) is not None
    assert (rig.record(vmid).running_step, rig.record(vmid).progress) == (None, None)
    assert rig.state(vmid) is VmState.RUNNING
    rig.engine.require_idle(vmid)


def test_progress_within_a_step_is_what_is_written(make_engine: MakeEngine) -> None:
    """Of a copy the bytes of the image, of a save the guest's memory; never over 100."""
    rig = make_engine()
    vmid = rig.running()
    operation_work = Work(rig.engine._services, rig.engine._slots[vmid].vm, {})
    assert (MakeFiles().fraction(operation_work), Save().fraction(operation_work)) == (0.0, 0.0)
    operation_work.expected = 2 * rig.engine._services.files.size(vmid)
    assert MakeFiles().fraction(operation_work) == 0.5
    saved = rig.engine._services.files.saved_state(vmid)
    with saved.with_name("saved.partial").open("wb") as file:
        file.truncate(rig.record(vmid).allocation.ram // 4)
    assert Save().fraction(operation_work) == 0.25


def test_delete_preempts_a_create_and_removes_the_entry(make_engine: MakeEngine) -> None:
    rig = make_engine()
    vmid = rig.engine.add()
    sim(rig).faults.set(Fault("create", "slow", seconds=0.5))
    create = rig.engine.submit(vmid, Primitive.CREATE, img_id="img-1")
    eventually(lambda: rig.record(vmid).running_step == "building the domain", 5, "it is being created")
    delete = rig.engine.submit(vmid, Primitive.DELETE)
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.DELETE)) == 417
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.POWER_OFF)) == 417
    created, deleted = create.wait(20), delete.wait(20)
    assert created is not None
    assert created.status == 500
    assert "pre-empted" in created.message
    assert deleted is not None
    assert deleted.status == 200
    rig.assert_no_trace(vmid)
    assert_truth(rig)


def test_power_off_preempts_a_power_on(make_engine: MakeEngine) -> None:
    rig = make_engine()
    vmid = rig.engine.add()
    assert rig.do(vmid, Primitive.CREATE_AND_POWER_OFF).ok
    sim(rig).faults.set(Fault("create", "slow", seconds=0.5))
    power_on = rig.engine.submit(vmid, Primitive.POWER_ON)
    eventually(lambda: rig.record(vmid).running_step is not None, 5, "it is being built")
    power_off = rig.engine.submit(vmid, Primitive.POWER_OFF).wait(20)
    assert power_off is not None
    assert power_off.status == 200
    started = power_on.wait(1)
    assert started is not None
    assert started.status == 500
    assert rig.state(vmid) is VmState.POWERED_OFF
    assert_truth(rig)


def test_delete_and_power_off_are_accepted_while_resources_are_shared_out_anew(make_engine: MakeEngine) -> None:
    """Issue: always accepted. They wait for the end of ApplyChanges, which is all or nothing over its VMs."""
    rig = make_engine()
    vmid, idle = rig.running(), rig.engine.add()
    rig.engine.holds.take((vmid, idle))
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.SUSPEND)) == 417
    power_off = rig.engine.submit(vmid, Primitive.POWER_OFF)
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.POWER_OFF)) == 417
    delete = rig.engine.submit(vmid, Primitive.DELETE)
    assert refusal(lambda: rig.engine.submit(vmid, Primitive.POWER_OFF)) == 417
    assert refusal(lambda: rig.engine.submit(idle, Primitive.DELETE)) == 405
    assert delete.wait(0.3) is None
    rig.engine.holds.release((vmid, idle), {})
    first, second = power_off.wait(10), delete.wait(10)
    assert first is not None
    assert first.status == 500, "pre-empted"
    assert second is not None
    assert second.ok, second.message
    rig.assert_no_trace(vmid)
    assert rig.state(idle) is VmState.NOT_CREATED
    assert_truth(rig)


def test_what_is_past_its_point_of_no_return_is_not_cancelled(make_engine: MakeEngine) -> None:
    rig = make_engine()
    vmid = rig.running()
    assert rig.do(vmid, Primitive.SUSPEND).ok
    sim(rig).faults.set(Fault("unpause", "slow", seconds=0.5))
    resume = rig.engine.submit(vmid, Primitive.RESUME)
    eventually(lambda: rig.record(vmid).running_step == "letting the guest go on", 5, "it goes on")
    power_off = rig.engine.submit(vmid, Primitive.POWER_OFF).wait(20)
    resumed = resume.wait(1)
    assert resumed is not None
    assert resumed.status == 200
    assert power_off is not None
    assert power_off.status == 200
    assert rig.state(vmid) is VmState.POWERED_OFF
    assert_truth(rig)


def test_different_vms_work_in_parallel(make_engine: MakeEngine) -> None:
    rig = make_engine()
    slow, quick = rig.engine.add(), rig.engine.add()
    sim(rig).faults.set(Fault("create", "slow", seconds=2.0, uuid=str(slow)))
    first = rig.engine.submit(slow, Primitive.CREATE, img_id="img-1")
    eventually(lambda: rig.record(slow).running_step == "building the domain", 5, "the slow one is being built")
    assert rig.do(quick, Primitive.CREATE).ok
    assert rig.state(slow) is VmState.NOT_CREATED, "the other one did not wait for it"
    assert first.wait(20) is not None


def test_many_vms_at_once_come_and_go(make_engine: MakeEngine) -> None:
    rig = make_engine()
    vmids = [rig.engine.add() for _ in range(8)]
    for primitive in (Primitive.CREATE, Primitive.SUSPEND, Primitive.RESUME, Primitive.DELETE):
        handles = [
            rig.engine.submit(vmid, primitive, img_id="img-1" if primitive is Primitive.CREATE else None)
            for vmid in vmids
        ]
        results = [handle.wait(60) for handle in handles]
        assert all(result is not None and result.ok for result in results), results
        assert_truth(rig)
    assert rig.engine.list() == ()
    assert not [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("vm-") and "-" in thread.name[3:] and thread.name != "vm-reconciler"
    ]


def test_the_initial_allocation_is_the_images_ram_and_the_policys_rest(make_engine: MakeEngine) -> None:
    """A-12; Storage is the size of the data disk."""
    rig = make_engine(default_storage=5 * MIB, default_ram=64 * MIB, default_cpu=10, default_network=20)
    image = rig.backend.image
    rig.images.images["small"] = dataclasses.replace(image, img_id="small", memory=0)
    first, second = rig.engine.add(), rig.engine.add()
    assert rig.do(first, Primitive.CREATE).ok
    result = rig.engine.submit(second, Primitive.CREATE, img_id="small").wait(20)
    assert result is not None
    assert result.ok
    allocation = rig.record(first).allocation
    assert (allocation.ram, allocation.storage, allocation.cpu, allocation.network) == (image.memory, 5 * MIB, 10, 20)
    assert rig.record(second).allocation.ram == 64 * MIB
    disk = rig.state_dir / "vms" / str(first) / "xvdb.raw"
    assert (disk.stat().st_size, disk.stat().st_blocks * 512) == (5 * MIB, 5 * MIB)


def test_the_data_disk_takes_the_first_device_that_the_image_leaves(make_engine: MakeEngine) -> None:
    rig = make_engine(default_storage=5 * MIB)
    image = rig.backend.image
    second = dataclasses.replace(image.disks[0], device="xvdb")
    rig.images.images["two"] = dataclasses.replace(image, img_id="two", disks=(*image.disks, second))
    vmid = rig.engine.add()
    result = rig.engine.submit(vmid, Primitive.CREATE, img_id="two").wait(20)
    assert result is not None
    assert result.ok, result.message
    names = sorted(path.name for path in (rig.state_dir / "vms" / str(vmid)).glob("*.raw"))
    assert names == ["xvda.raw", "xvdb.raw", "xvdc.raw"]
    assert (rig.state_dir / "vms" / str(vmid) / "xvdc.raw").stat().st_size == 5 * MIB


def test_a_qcow2_disk_becomes_raw(make_engine: MakeEngine, tmp_path: Path) -> None:
    """No program of dom0 has to serve it; also from compressed clusters."""
    rig = make_engine()
    content = tmp_path / "content.raw"
    content.write_bytes(os.urandom(MIB) + bytes(30 * MIB) + b"end of the disk".ljust(MIB, b"."))
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", str(content), str(disk)], check=True, timeout=60)
    image = rig.backend.image
    packed = dataclasses.replace(image.disks[0], path=disk, format="qcow2", virtual_size=32 * MIB)
    rig.images.images["q"] = dataclasses.replace(image, img_id="q", disks=(packed,))
    vmid = rig.engine.add()
    result = rig.engine.submit(vmid, Primitive.CREATE, img_id="q").wait(20)
    assert result is not None
    assert result.ok, result.message
    made = rig.state_dir / "vms" / str(vmid) / "xvda.raw"
    assert made.read_bytes() == content.read_bytes()
    assert made.stat().st_blocks * 512 < 4 * MIB, "what was empty takes no space"
    assert made.stat().st_mode & 0o777 == 0o600


def test_unknown_create_params_and_the_image_id_are_kept(make_engine: MakeEngine) -> None:
    """A-19, A-22: also when the image is gone."""
    rig = make_engine()
    vmid = rig.engine.add()
    rig.engine.submit(vmid, Primitive.CREATE, img_id="img-1", vendor={"Colour": "blue"}).wait(20)
    rig.images.delete("img-1")
    record = rig.record(vmid)
    assert (record.img_id, record.vendor) == ("img-1", {"Colour": "blue"})
    assert rig.do(vmid, Primitive.POWER_OFF).ok
    assert rig.do(vmid, Primitive.POWER_ON).ok, "a VM does not need its image any more"
    record = make_engine().record(vmid)
    assert (record.img_id, record.vendor) == ("img-1", {"Colour": "blue"})


def test_a_full_disk_is_420_and_leaves_nothing(make_engine: MakeEngine) -> None:
    """Issue: disk too small."""
    rig = make_engine(storage_reserve=1 << 60)
    vmid = rig.engine.add()
    result = rig.do(vmid, Primitive.CREATE)
    assert result.status == 420
    assert "free" in result.message
    assert_truth(rig)


def test_no_room_for_the_saved_state_is_420_and_the_guest_goes_on(make_engine: MakeEngine) -> None:
    first = make_engine()
    vmid = first.running()
    boot_id, _ = first.beats(vmid)
    rig = make_engine(storage_reserve=1 << 60)
    assert rig.do(vmid, Primitive.SUSPEND).status == 420
    assert rig.state(vmid) is VmState.RUNNING
    assert rig.beats(vmid)[0] == boot_id
    assert_truth(rig)
