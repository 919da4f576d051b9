"""VMs that start at the same moment never have more memory together than there is (R-012, A-55)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import OutOfMemory
from dom0_agent.hypervisor.readback import overhead
from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.operation import OperationResult
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Allocation, Primitive, VmState
from tests.contract.support import MIB, Rig, SimBackend, domain_config, eventually

GUESTS = 1024 * MIB  #: what the machine has beside dom0
HOST = HostSettings(total_memory=GUESTS + 1024 * MIB, dom0_memory=1024 * MIB, beat_interval=1.0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A machine with a gibibyte for guests."""
    backend = SimBackend(tmp_path, HOST)
    opened = Rig(backend, backend.hypervisor, Database(tmp_path / "agent.db"), VmConfig(storage_reserve=0), tmp_path)
    opened.engine.start()
    yield opened
    opened.stop()
    backend.close()


def powered_off(rig: Rig, count: int, ram: int) -> list[UUID]:
    """VMs whose memory is promised to nobody: each may start, not all together."""
    image = rig.backend.image
    rig.images.images[image.img_id] = replace(image, memory=ram)
    vmids = [rig.engine.add() for _ in range(count)]
    for vmid in vmids:
        assert rig.do(vmid, Primitive.CREATE_AND_POWER_OFF).ok
    return vmids


def check(rig: Rig, results: dict[UUID, OperationResult], fit: int) -> None:
    """As many run as fit, the others were refused for want of memory, and Xen agrees."""
    assert sorted(result.status for result in results.values()) == [200] * fit + [420] * (len(results) - fit)
    for vmid, result in results.items():
        assert rig.state(vmid) is (VmState.RUNNING if result.ok else VmState.POWERED_OFF), result.message
    domains = rig.hypervisor.domains()
    assert {domain.uuid for domain in domains} == {vmid for vmid, result in results.items() if result.ok}
    assert sum(domain.memory for domain in domains) <= GUESTS
    assert rig.hypervisor.host().free_memory == GUESTS - sum(domain.memory for domain in domains)
    rig.assert_nothing_open()


def test_one_that_begins_while_another_is_built_counts_that_one(rig: Rig) -> None:
    """The second begins for certain before the first has taken anything."""
    first, second = powered_off(rig, 2, 600 * MIB)
    rig.backend.faults.set(Fault("create", "slow", count=1, seconds=1.0, uuid=str(first)))  # type: ignore[attr-defined]
    handles = {first: rig.engine.submit(first, Primitive.POWER_ON)}
    broker = rig.hypervisor.broker  # type: ignore[attr-defined]
    eventually(lambda: broker._promised > 0, 5, "the first one's memory is promised")
    assert rig.hypervisor.domains() == (), "and Xen has given none of it yet"
    handles[second] = rig.engine.submit(second, Primitive.POWER_ON)
    results = {vmid: result for vmid, handle in handles.items() if (result := handle.wait(30)) is not None}
    assert results[first].ok
    check(rig, results, 1)


@pytest.mark.parametrize("attempt", range(3))
def test_many_at_once_get_what_fits(rig: Rig, attempt: int) -> None:
    """Each from a thread of its own, all let go together; whichever come first."""
    del attempt
    ram = 300 * MIB
    vmids = powered_off(rig, 7, ram)
    one = overhead(replace(domain_config(rig.backend, memory=ram), max_vcpus=HOST.cpus))
    gate, results = threading.Barrier(len(vmids)), dict[UUID, OperationResult]()

    def start(vmid: UUID) -> None:
        gate.wait(10)
        results[vmid] = rig.do(vmid, Primitive.POWER_ON)

    threads = [threading.Thread(target=start, args=(vmid,)) for vmid in vmids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == len(vmids)
    check(rig, results, GUESTS // (ram + one))


def test_a_start_and_a_guest_that_grows_do_not_get_the_same_memory(rig: Rig) -> None:
    """ApplyChanges grows one while another one is built: one broker for both."""
    growing, starting = powered_off(rig, 2, 500 * MIB)
    assert rig.do(growing, Primitive.POWER_ON).ok
    domain = rig.hypervisor.find(growing)
    assert domain is not None
    resources = rig.hypervisor.resources
    resources.set_memory(growing, 200 * MIB, 5.0, lambda *_: None)
    filler = powered_off(rig, 1, 300 * MIB)[0]
    assert rig.do(filler, Primitive.POWER_ON).ok  # now 524 MiB are free: for one of the two
    rig.backend.faults.set(Fault("create", "slow", count=1, seconds=1.0, uuid=str(starting)))  # type: ignore[attr-defined]
    handle = rig.engine.submit(starting, Primitive.POWER_ON)
    broker = rig.hypervisor.broker  # type: ignore[attr-defined]
    eventually(lambda: broker._promised > 0, 5, "the starting one's memory is promised")
    before = resources.memory(growing)
    with pytest.raises(OutOfMemory, match="MiB are free"):
        resources.set_memory(growing, 500 * MIB, 5.0, lambda *_: None)
    assert resources.memory(growing) == before
    result = handle.wait(30)
    assert result is not None
    assert result.ok, result.message
    assert sum(d.memory for d in rig.hypervisor.domains()) <= GUESTS


def test_the_allocations_of_vms_that_are_off_may_sum_to_more(rig: Rig) -> None:
    """Create gives what the image asks for (A-12); what there is, is decided at each start."""
    vmids = powered_off(rig, 4, 400 * MIB)
    assert [rig.record(vmid).allocation for vmid in vmids] == [Allocation(400 * MIB)] * 4
