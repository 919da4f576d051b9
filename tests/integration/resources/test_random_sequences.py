"""Random sequences of Create, ApplyChanges, power, DCMO, Delete, ends of guests and crashes of the agent, on the
simulator with real tc.

Whatever happens: no sum is larger than the device, the machine has what the VMs' records say, and nothing is left of a
VM that does not run: no domain, no process, no tc object, no file (A-02, A-16, A-55, A-56, R-061). A crash is a SIGKILL
at some durable write of what the agent was doing.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from dom0_agent.hypervisor.interface import DomainState
from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.operation import OperationRefused
from dom0_agent.resources.apply import ApplyChanges, Wish
from dom0_agent.resources.config import NetworkConfig, ResourcesConfig
from dom0_agent.resources.cpu import cpu_share
from dom0_agent.resources.peripherals import Peripherals
from dom0_agent.resources.sharing import open_sharing
from dom0_agent.store.database import Database
from dom0_agent.store.journal import Journal
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.engine import open_engine
from dom0_agent.vm.model import Allocation, Primitive, VmState
from tests.contract.support import MIB, FakeImages, SimBackend, eventually
from tests.contract.test_kill_points import Killer, in_child
from tests.integration.resources.shaping_testing import Lab
from tests.integration.resources.sim_network import InNamespace, with_network

BANDWIDTH = 100_000_000
#: Few VMs, and a machine that two of the larger ones fill.
MOST_VMS = 3
HOST = HostSettings(total_memory=2048 * MIB, dom0_memory=1024 * MIB, beat_interval=1.0)

allocations = st.builds(
    lambda ram, storage, cpu, network: Allocation(ram * MIB, storage * MIB, cpu, network),
    st.sampled_from([128, 256, 400, 700, 1100]),
    st.integers(0, 3),
    st.integers(0, 70),
    st.integers(0, 70),
)
which = st.integers(0, MOST_VMS - 1)
some_changes = st.dictionaries(which, allocations, min_size=1)
others_than_create = st.sampled_from([p for p in Primitive if not p.value.startswith("Create")])
#: More than any operation here has durable writes: some of what is killed has ended before.
MOST_WRITES = 20
kills = st.tuples(st.integers(1, MOST_WRITES), st.sampled_from(["before", "after"]))


class Sequences(RuleBasedStateMachine):
    """One device. Rules may be refused; the invariants hold all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="virmo-sequences-"))
        self.lab = Lab()
        self.begin()

    def begin(self) -> None:
        """An agent, from what is durable."""
        self.backend = SimBackend(self.root, HOST)
        self.hypervisor = with_network(self.backend.hypervisor, self.lab)
        self.database = Database(self.root / "agent.db")
        config = VmConfig(shutdown_wait=0.1, storage_reserve=0, sweep_interval=3600.0)
        resources = ResourcesConfig(network=NetworkConfig(bandwidth=BANDWIDTH))
        run = InNamespace(self.lab)
        self.sharing = open_sharing(self.database, self.hypervisor, config, resources, self.root, run=run)
        images = FakeImages({self.backend.image.img_id: self.backend.image})
        self.engine = open_engine(self.database, self.hypervisor, images, config, self.root, sharing=self.sharing)
        self.applied: list[Any] = []
        self.apply = ApplyChanges(self.database, self.engine.holds, self.sharing, self.applied.append)
        self.apply.start()
        assert self.apply.stop(20)
        for applied in self.applied:
            self.apply.reported(applied)
        self.engine.start()
        assert self.engine.drain(20)

    def vmid(self, index: int) -> UUID | None:
        """The n-th VM."""
        vms = self.engine.list()
        return vms[index].vmid if index < len(vms) else None

    # -- what may happen --------------------------------------------------------------------------------------------

    @rule(wanted=allocations, running=st.booleans())
    def create(self, wanted: Allocation, running: bool) -> None:
        """With a reserved configuration, as a server does."""
        if len(self.engine.list()) >= MOST_VMS:
            return
        vmid = self.engine.add()
        self.change({vmid: wanted})
        primitive = Primitive.CREATE if running else Primitive.CREATE_AND_POWER_OFF
        self.do(vmid, primitive)
        record = self.engine.get(vmid)
        if record is not None and record.state is VmState.NOT_CREATED:
            self.engine.forget(vmid)

    @rule(wanted=some_changes, fault=st.sampled_from([None, "set_scheduling", "set_memory_target", "resize_disk"]))
    def change_some(self, wanted: dict[int, Allocation], fault: str | None) -> None:
        """ApplyChanges over some VMs; sometimes the machine refuses something half-way."""
        found = {vmid: a for index, a in wanted.items() if (vmid := self.vmid(index)) is not None}
        before = {record.vmid: record.allocation for record in self.engine.list()}
        if fault is not None:
            self.backend.faults.set(Fault(fault, "break", count=1))
        done = self.change(found)
        self.backend.faults.set()
        after = {record.vmid: record.allocation for record in self.engine.list()}
        created = {vmid for vmid in found if before[vmid] != Allocation()}
        assert after == ({**before, **{vmid: found[vmid] for vmid in created}} if done else before)

    @rule(index=which, primitive=others_than_create)
    def operate(self, index: int, primitive: Primitive) -> None:
        """Any primitive, allowed or not."""
        vmid = self.vmid(index)
        if vmid is not None:
            self.do(vmid, primitive)

    @rule(index=which, enabled=st.booleans())
    def switch(self, index: int, enabled: bool) -> None:
        """DCMO, of the data disk."""
        vmid = self.vmid(index)
        if vmid is not None:
            self.do_switch(vmid, enabled)

    @rule(index=which, how=st.sampled_from(["poweroff", "reboot", "crash"]))
    def end_of_a_guest(self, index: int, how: str) -> None:
        """A guest ends by itself, and the agent follows."""
        vmid = self.vmid(index)
        record = None if vmid is None else self.engine.get(vmid)
        if vmid is None or record is None or record.state is not VmState.RUNNING:
            return
        before = self.hypervisor.find(vmid)
        self.backend.guest_ends(vmid, how)

        def followed() -> bool:
            after, record = self.hypervisor.find(vmid), self.engine.get(vmid)
            assert before is not None
            assert record is not None
            if record.state is not VmState.RUNNING:
                return after is None
            return after is not None and after.domid != before.domid and after.state is DomainState.RUNNING

        eventually(followed, 20, f"the agent follows a {how}")
        assert self.engine.drain(20)

    @rule()
    def restart(self) -> None:
        """The agent ends in order; another one begins."""
        self.end()
        self.begin()

    @rule(wanted=some_changes, kill=kills)
    def crash_in_a_change(self, wanted: dict[int, Allocation], kill: tuple[int, str]) -> None:
        """SIGKILL in an ApplyChanges."""
        found = {vmid: a for index, a in wanted.items() if (vmid := self.vmid(index)) is not None}
        self.crash(lambda: self.change(found), kill)

    @rule(index=which, primitive=others_than_create, kill=kills)
    def crash_in_an_operation(self, index: int, primitive: Primitive, kill: tuple[int, str]) -> None:
        """SIGKILL in a primitive."""
        vmid = self.vmid(index)
        if vmid is not None:
            self.crash(lambda: self.do(vmid, primitive), kill)

    @rule(index=which, enabled=st.booleans(), kill=st.tuples(st.integers(1, 3), st.sampled_from(["before", "after"])))
    def crash_in_a_switch(self, index: int, enabled: bool, kill: tuple[int, str]) -> None:
        """SIGKILL in DCMO: what may be there is durable before the machine follows."""
        vmid = self.vmid(index)
        if vmid is not None:
            self.crash(lambda: self.do_switch(vmid, enabled), kill)

    @rule(wanted=allocations, kill=kills)
    def crash_in_a_create(self, wanted: Allocation, kill: tuple[int, str]) -> None:
        """SIGKILL in the making of a VM."""
        if len(self.engine.list()) >= MOST_VMS:
            return
        vmid = self.engine.add()
        self.change({vmid: wanted})
        self.crash(lambda: self.do(vmid, Primitive.CREATE), kill)
        record = self.engine.get(vmid)
        if record is not None and record.state is VmState.NOT_CREATED:
            self.engine.forget(vmid)

    # -- what holds -------------------------------------------------------------------------------------------------

    @invariant()
    def no_domain_has_more_than_there_is(self) -> None:
        """Σ of what runs ≤ the device, and Σ of shares ≤ 100."""
        records = self.engine.list()
        assert sum(record.allocation.cpu for record in records) <= 100
        assert sum(record.allocation.network for record in records) <= 100
        running = [record for record in records if record.state is VmState.RUNNING]
        assert sum(record.allocation.ram for record in running) <= HOST.total_memory - HOST.dom0_memory

    @invariant()
    def the_machine_has_what_the_records_say(self) -> None:
        """The ledger is Xen's truth."""
        host, resources = self.hypervisor.host(), self.hypervisor.resources
        rows = {row.vmid: row for row in VmTable(self.database).list()}
        for record in self.engine.list():
            allocation = record.allocation
            assert rows[record.vmid].record.allocation == allocation
            data = [disk for disk in rows[record.vmid].disks if disk.role == "data"]
            assert sum(Path(disk.path).stat().st_size for disk in data) == allocation.storage
            if record.state is not VmState.RUNNING:
                continue
            share = cpu_share(
                allocation.cpu, {}, image_vcpus=1, cpus=host.cpus, work_conserving=False, scheduler=host.scheduler
            )
            assert resources.scheduling(record.vmid) == share.scheduling
            assert resources.memory(record.vmid).target in (allocation.ram, self.saved_ram(record.vmid))
            attached, disabled = resources.attached(record.vmid), Vm.load(rows[record.vmid]).disabled
            for disk in data:
                assert (disk.device in attached) is (disk.device not in disabled)
                if disk.device in attached:
                    assert resources.disk_size(record.vmid, disk.device) == allocation.storage
            interfaces = resources.interfaces(record.vmid)
            assert self.sharing.shaper.holds(record.vmid, interfaces, self.sharing.enforcer.rate(allocation))
        assert Journal(self.database).unfinished() == ()

    @invariant()
    def nothing_is_left_of_who_does_not_run(self) -> None:
        """No domain, no process, no ifb device, no qdisc, no file."""
        records = self.engine.list()
        running = {record.vmid for record in records if record.state is VmState.RUNNING}
        assert {domain.uuid for domain in self.hypervisor.domains()} == running
        eventually(lambda: self.backend.leaks(running) == [], 5, "no process is left of a domain that is gone")
        self.hypervisor.resources.follow()  # type: ignore[attr-defined] # Xen's interfaces go with their domains
        limited = {r.vmid for r in records if r.vmid in running and r.allocation.network}
        assert self.sharing.shaper.owned() == limited
        links, qdiscs = self.lab.objects()
        assert len(links) == 2 * len(limited)
        limiting = {q["dev"] for q in qdiscs if q["kind"] in ("htb", "clsact", "bfifo")}
        assert len(limiting) == 3 * len(limited), "two ifb devices and one interface each"
        created = {str(record.vmid) for record in records if record.state is not VmState.NOT_CREATED}
        assert {path.name for path in (self.root / "vms").iterdir()} == created
        assert not list((self.root / "trash").iterdir())

    def saved_ram(self, vmid: UUID) -> int | None:
        """A VM that was resumed has what it was saved with until the next look at it, which is now."""
        held = next(vm for vm in self.engine.holds.running() if vm.vmid == vmid)
        self.sharing.enforcer.mend(held)
        return held.record.allocation.ram

    # -- hands ------------------------------------------------------------------------------------------------------

    def crash(self, work: Callable[[], object], kill: tuple[int, str]) -> None:
        """An agent like this one does ``work`` and is killed at a durable write; then another one begins."""
        self.end()

        def child() -> int:
            self.begin()
            Killer(*kill).arm()
            work()
            self.end()
            return 0

        assert in_child(child) in (0, -signal.SIGKILL)
        self.begin()

    def change(self, wanted: dict[UUID, Allocation]) -> bool:
        """Whether it was done."""
        told = len(self.applied)
        try:
            result = self.apply.submit(Wish(wanted, {}), None).wait(60)
        except OperationRefused:
            return False
        assert result is not None
        if wanted:
            eventually(lambda: len(self.applied) > told, 5, "the end is told")
            self.apply.reported(self.applied[-1])
        return result.ok

    def do_switch(self, vmid: UUID, enabled: bool) -> None:
        """It may be refused: the VM may have no data disk."""
        peripherals = Peripherals(VmTable(self.database), self.hypervisor, "", (), self.engine.holds)
        try:
            peripherals.switch(vmid, "xvdb", enabled=enabled)
        except OperationRefused:
            return

    def do(self, vmid: UUID, primitive: Primitive) -> None:
        """It may be refused, or fail."""
        img_id = self.backend.image.img_id if primitive.value.startswith("Create") else None
        try:
            self.engine.submit(vmid, primitive, img_id=img_id).wait(60)
        except OperationRefused:
            return
        assert self.engine.drain(20)

    def end(self) -> None:
        """The agent goes; domains go on."""
        self.engine.stop(5)
        self.database.close()
        self.backend.hypervisor.close()

    def teardown(self) -> None:
        """Everything of this device goes."""
        self.engine.stop(5)
        self.database.close()
        self.backend.close()
        self.lab.close()
        shutil.rmtree(self.root, ignore_errors=True)


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


LONG = pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(3600)])


@pytest.mark.parametrize("sequences", [4, *[LONG] * 10])
def test_random_sequences_keep_the_device_consistent(sequences: int) -> None:
    """See the module."""
    run_state_machine_as_test(
        Sequences,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=10,
            deadline=None,
            suppress_health_check=QUIET,
            database=None,
            phases=(Phase.generate,),  # to shrink a failure takes longer than to read it
        ),
    )
