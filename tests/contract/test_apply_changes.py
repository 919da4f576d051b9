"""ApplyChanges over several VMs, on the simulator and on Xen: all or nothing, and told as it is (VirMO-C-010-O)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import DomainState, HypervisorError
from dom0_agent.hypervisor.resources import Scheduling
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult
from dom0_agent.resources.apply import Wish
from dom0_agent.resources.enforcer import Enforcer
from dom0_agent.resources.picture import Resource
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import Allocation, Primitive, VmState
from tests.contract.support import MIB, Rig, eventually

MakeRig = Callable[..., Rig]
LESS = 24 * MIB  #: what a guest of the tests can spare


def apply(rig: Rig, wanted: Mapping[UUID, Allocation]) -> OperationResult:
    """Have it done, and wait for its end."""
    told = len(rig.applied)
    result = rig.apply.submit(Wish(wanted, {}), None).wait(5 * rig.backend.patience)
    assert result is not None
    eventually(lambda: len(rig.applied) > told, 5, "the end is told")
    rig.apply.reported(rig.applied[-1])
    return result


def changed(rig: Rig, vmid: UUID, **what: int) -> Allocation:
    """What a VM has, with differences."""
    return replace(rig.record(vmid).allocation, **what)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Picture:
    """All that ApplyChanges could change of a VM: what is told of it, what Xen has, what its disk has."""

    allocation: Allocation
    reserved: Allocation | None
    state: VmState
    domain: tuple[object, ...]
    disks: tuple[tuple[str, int], ...]


def picture(rig: Rig) -> dict[UUID, Picture]:
    """The whole machine's."""
    resources = rig.hypervisor.resources
    rows = {row.vmid: row for row in VmTable(rig.database).list()}
    pictures = {}
    for record in rig.engine.list():
        row = rows[record.vmid]
        domain: tuple[object, ...] = ()
        assert row.record.allocation == record.allocation
        if record.state is VmState.RUNNING:
            vmid = record.vmid
            target = resources.memory(vmid).target // MIB
            attached = resources.attached(vmid)
            sizes = tuple((d.device, resources.disk_size(vmid, d.device)) for d in row.disks if d.device in attached)
            domain = (resources.scheduling(vmid), resources.vcpus(vmid), target, attached, sizes)
        files = tuple(sorted((disk.path, Path(disk.path).stat().st_size) for disk in row.disks))
        pictures[record.vmid] = Picture(record.allocation, row.reserved, record.state, domain, files)
    return pictures


def online(rig: Rig, percent: int) -> int:
    """vCPUs that a share needs: more than it fills, and on credit one more."""
    host = rig.hypervisor.host()
    return min(percent * host.cpus // 100 + (1 if host.scheduler == "credit2" else 2), host.cpus)


def scheduling(rig: Rig, percent: int) -> Scheduling:
    """What a share is to this machine's scheduler: credit2 counts a domain's weight for each of its vCPUs."""
    host = rig.hypervisor.host()
    vcpus = online(rig, percent) if host.scheduler == "credit2" else 1
    return Scheduling(round(10 * percent / vcpus), percent * host.cpus)


@pytest.fixture
def three(make_rig: MakeRig) -> tuple[Rig, list[UUID]]:
    """Two VMs that run and one that does not."""
    rig = make_rig(default_storage=4 * MIB, default_cpu=30, default_network=0)
    rig.apply.start()
    rig.engine.start()
    vmids = [rig.running(), rig.running(), rig.engine.add()]
    assert rig.do(vmids[2], Primitive.CREATE_AND_POWER_OFF).ok
    for vmid in vmids[:2]:
        rig.beats(vmid)
    return rig, vmids


def wish_for(rig: Rig, vmids: list[UUID]) -> dict[UUID, Allocation]:
    """A change of everything: one gives, one takes, one does not run."""
    first, second, third = vmids
    ram = rig.record(first).allocation.ram
    return {
        first: changed(rig, first, cpu=10, ram=ram - LESS, storage=6 * MIB),
        second: changed(rig, second, cpu=50, ram=ram - LESS // 2),
        third: changed(rig, third, cpu=40, ram=ram + MIB, storage=8 * MIB),
    }


def test_everything_becomes_what_was_asked_for(three: tuple[Rig, list[UUID]]) -> None:
    """R-053, R-060: each VM has what its NewConfig said; the one that does not run gets it at its next start."""
    rig, vmids = three
    wanted = wish_for(rig, vmids)
    result = apply(rig, wanted)
    assert result.status == 200, result.message
    assert {vmid: rig.record(vmid).allocation for vmid in vmids} == wanted
    resources = rig.hypervisor.resources
    assert resources.scheduling(vmids[0]) == scheduling(rig, 10)
    assert resources.scheduling(vmids[1]) == scheduling(rig, 50)
    assert resources.vcpus(vmids[1])[0] == online(rig, 50)
    domain = rig.hypervisor.find(vmids[0])
    assert domain is not None
    assert abs(domain.memory - wanted[vmids[0]].ram) <= 4 * MIB
    assert resources.disk_size(vmids[0], "xvdb") == 6 * MIB
    assert rig.do(vmids[2], Primitive.POWER_ON).ok
    assert resources.scheduling(vmids[2]) == scheduling(rig, 40)
    assert resources.disk_size(vmids[2], "xvdb") == 8 * MIB
    assert resources.memory(vmids[2]).target // MIB == wanted[vmids[2]].ram // MIB
    rig.assert_nothing_open()


class Fails:
    """Makes the n-th change fail, before it has an effect or after it. Undoing goes on as it is."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.count = 0
        self.apply = Enforcer.apply

    def __call__(self, enforcer: Enforcer, resource: Resource, vm: Vm, wanted: Allocation, **rest: object) -> None:
        """Stands for :meth:`Enforcer.apply`."""
        self.count += 1
        if self.count == self.at and not self.after:
            raise HypervisorError("told to fail")
        self.apply(enforcer, resource, vm, wanted, **rest)  # type: ignore[arg-type]
        if self.count == self.at:
            raise HypervisorError("told to fail, too late")


def test_a_failure_at_any_step_leaves_the_picture_as_it_was(
    three: tuple[Rig, list[UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-011, A-16: at each step of the plan, before and after its effect; on Xen after it alone. Then it works."""
    rig, vmids = three
    wanted = wish_for(rig, vmids)
    before = picture(rig)
    total = len(rig.apply.plan(Wish(wanted, {}))[1])
    points = [(at, after) for at in range(1, total + 1) for after in (False, True)]
    assert total == 8
    if rig.backend.name == "xl":
        points = [(at, after) for at, after in points if after]
    for at, after in points:
        fails = Fails(at, after=after)
        monkeypatch.setattr(Enforcer, "apply", lambda *args, fails=fails, **rest: fails(*args, **rest))
        result = apply(rig, wanted)
        monkeypatch.undo()
        assert (result.status, "told to fail" in result.message) == (500, True)
        assert fails.count >= at
        assert picture(rig) == before, f"step {at}, {'after' if after else 'before'} its effect"
        rig.assert_nothing_open()
    assert apply(rig, wanted).ok


def test_what_is_not_there_is_not_given(three: tuple[Rig, list[UUID]]) -> None:
    """A-02: 420, and nothing has changed."""
    rig, vmids = three
    before = picture(rig)
    device = rig.sharing.admission.device()
    for much in (
        changed(rig, vmids[0], cpu=41),
        changed(rig, vmids[0], ram=device.ram),
        changed(rig, vmids[0], storage=device.storage + 9 * MIB),
    ):
        with pytest.raises(OperationRefused) as refused:
            rig.apply.submit(Wish({vmids[0]: much}, {}), None)
        assert refused.value.status == 420
    assert picture(rig) == before


def test_a_guest_that_cannot_grow_is_refused(three: tuple[Rig, list[UUID]]) -> None:
    """R-012: beyond what it was built for a guest grows only with memory hot-plug; else 403, and all is as before."""
    rig, vmids = three
    before = picture(rig)
    more = rig.record(vmids[0]).allocation.ram + 64 * MIB
    result = apply(rig, {vmids[1]: changed(rig, vmids[1], cpu=5), vmids[0]: changed(rig, vmids[0], ram=more)})
    if result.ok:  # this guest has memory hot-plug
        domain = rig.hypervisor.find(vmids[0])
        assert domain is not None
        assert abs(domain.memory - more) <= 4 * MIB
        return
    assert result.status == 403, result.message
    assert "power the VM off" in result.message
    assert picture(rig) == before


def test_a_suspended_vm_gets_its_allocation_when_it_goes_on(three: tuple[Rig, list[UUID]]) -> None:
    """A-55, R-019: what changed meanwhile is set at Resume; its memory by the next look at it."""
    rig, vmids = three
    vmid = vmids[0]
    boot_id, _ = rig.beats(vmid)
    assert rig.do(vmid, Primitive.SUSPEND).ok
    ram = rig.record(vmid).allocation.ram
    assert apply(rig, {vmid: changed(rig, vmid, cpu=20, ram=ram - LESS)}).ok
    assert rig.do(vmid, Primitive.RESUME).ok
    assert rig.beats(vmid)[0] == boot_id
    assert rig.hypervisor.resources.scheduling(vmid) == scheduling(rig, 20)
    held = next(vm for vm in rig.engine.holds.running() if vm.vmid == vmid)
    rig.sharing.enforcer.mend(held)
    domain = rig.hypervisor.find(vmid)
    assert domain is not None
    assert abs(domain.memory - (ram - LESS)) <= 4 * MIB


def test_nobody_else_has_a_vm_meanwhile(three: tuple[Rig, list[UUID]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A-08: 417 for a primitive while ApplyChanges runs, and for ApplyChanges while a primitive runs; but PowerOff and
    Delete are always accepted, and wait for its end."""
    rig, vmids = three
    refusals: list[int] = []
    accepted: list[OperationHandle] = []
    works = Enforcer.apply

    def meanwhile(enforcer: Enforcer, *args: object, **rest: object) -> None:
        with pytest.raises(OperationRefused) as refused:
            rig.engine.submit(vmids[0], Primitive.SUSPEND)
        refusals.append(refused.value.status)
        with pytest.raises(OperationRefused) as refused:
            rig.apply.submit(Wish({vmids[0]: changed(rig, vmids[0], cpu=1)}, {}), None)
        refusals.append(refused.value.status)
        if not accepted:
            accepted.append(rig.engine.submit(vmids[0], Primitive.POWER_OFF))
            assert accepted[0].wait(0.2) is None
        works(enforcer, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Enforcer, "apply", meanwhile)
    assert apply(rig, {vmids[0]: changed(rig, vmids[0], cpu=20)}).ok
    assert set(refusals) == {417}
    ended = accepted[0].wait(2 * rig.backend.patience)
    assert ended is not None
    assert ended.ok, ended.message
    assert rig.state(vmids[0]) is VmState.POWERED_OFF
    assert rig.record(vmids[0]).allocation.cpu == 20


def test_a_vm_without_new_config_is_not_touched(three: tuple[Rig, list[UUID]], monkeypatch: pytest.MonkeyPatch) -> None:
    """R-061."""
    rig, vmids = three
    before = picture(rig)
    assert apply(rig, {vmids[1]: changed(rig, vmids[1], cpu=11)}).ok
    after = picture(rig)
    assert {vmid: after[vmid] for vmid in (vmids[0], vmids[2])} == {vmid: before[vmid] for vmid in (vmids[0], vmids[2])}


def test_a_configuration_for_a_vm_to_come_is_what_create_gives_it(three: tuple[Rig, list[UUID]]) -> None:
    """A-13."""
    rig, _ = three
    vmid = rig.engine.add()
    wanted = Allocation(rig.backend.image.memory, 5 * MIB, 7, 0, (("CPUCap", "5"),))
    assert apply(rig, {vmid: wanted}).ok
    assert rig.record(vmid).allocation == Allocation()
    assert rig.do(vmid, Primitive.CREATE).ok
    assert rig.record(vmid).allocation == wanted
    assert rig.hypervisor.resources.scheduling(vmid) == Scheduling(70, 5)


def test_shares_that_somebody_changed_are_set_again(three: tuple[Rig, list[UUID]]) -> None:
    """A scheduler's parameters, vCPUs and a balloon that a person at dom0's console moved; each look finds them."""
    rig, vmids = three
    resources, before = rig.hypervisor.resources, picture(rig)
    resources.set_scheduling(vmids[0], Scheduling(1, 1))
    resources.set_memory(vmids[0], rig.record(vmids[0]).allocation.ram - LESS, rig.backend.patience, lambda *_: None)
    assert picture(rig) != before
    held = next(vm for vm in rig.engine.holds.running() if vm.vmid == vmids[0])
    assert rig.sharing.enforcer.mend(held) == ["CPU", "RAM"]
    assert picture(rig) == before
    assert rig.sharing.enforcer.mend(held) == []


def test_a_guest_that_reboots_has_its_shares_before_it_runs(three: tuple[Rig, list[UUID]]) -> None:
    """Shares are the VM's, not the domain's."""
    rig, vmids = three
    vmid = vmids[0]
    assert apply(rig, {vmid: changed(rig, vmid, cpu=20)}).ok
    boot_id, _ = rig.beats(vmid)
    rig.backend.guest_ends(vmid, "reboot")

    def again() -> bool:
        domain = rig.hypervisor.find(vmid)
        up = domain is not None and domain.state is DomainState.RUNNING
        return up and rig.hypervisor.guest_facts(vmid).boot_id not in (None, boot_id)

    eventually(again, rig.backend.patience, "it boots again")
    assert rig.hypervisor.resources.scheduling(vmid) == scheduling(rig, 20)
    rig.assert_nothing_open()
