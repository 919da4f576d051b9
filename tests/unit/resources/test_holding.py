"""Shares hold, whatever happens to Xen: another scheduler or cpupool, a guest that cannot balloon (R-049, R-012)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import NotCapable
from dom0_agent.hypervisor.resources import DOM0, Scheduling
from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.hypervisor.sim.ledger import HostSettings, Ledger, read_json, write_json
from dom0_agent.resources.apply import Wish
from dom0_agent.resources.sweep import Sweep
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.hints import Hints
from dom0_agent.vm.model import Primitive
from tests.contract.support import MIB, Rig, SimBackend, eventually

CPUS = 4
#: A share of 40 %: two vCPUs, for each of which credit2 counts the weight.
SHARE = {"credit": Scheduling(400, 40 * CPUS), "credit2": Scheduling(200, 40 * CPUS)}
DOM0_SHARE = Scheduling(4000, 0)


class Machine(Rig):
    """A simulated machine with four processors, whose guests may lack balloon drivers."""

    def __init__(self, root: Path, *, balloons: bool = True) -> None:
        backend = SimBackend(root, HostSettings(beat_interval=0.05, cpus=CPUS, balloons=balloons))
        config = VmConfig(storage_reserve=0, default_cpu=40, shutdown_wait=5.0)
        self.faults = backend.faults
        super().__init__(backend, backend.hypervisor, Database(root / "agent.db"), config, root)
        self.sim = root / "sim"
        self.hints = Hints()
        self.sweep = Sweep(self.sharing.enforcer, self.engine.holds, self.hints, 3600.0)
        self.engine.start()

    def change_scheduler(self, name: str) -> None:
        """What a reboot of Xen with other options does, or a move to another cpupool: Xen's defaults, for everybody."""
        file = self.sim / "host.json"
        write_json(file, read_json(file) | {"scheduler": name})
        (self.sim / "dom0.json").unlink(missing_ok=True)
        ledger = Ledger(self.sim)
        for entry in ledger.entries():
            ledger.put(replace(entry, weight=256, cap=0))

    def look(self) -> None:
        """One look at everything, to its end."""
        self.sweep.look()
        assert self.engine.drain(10)

    def close(self) -> None:
        self.stop()
        self.backend.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    opened = Machine(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("scheduler", ["credit", "credit2"])
def test_shares_are_set_again_after_a_change_of_scheduler(scheduler: str, machine: Machine) -> None:
    """Chosen at run time, and looked at again and again: dom0's floor too."""
    vmid, resources = machine.running(), machine.hypervisor.resources
    assert resources.scheduling(vmid) == SHARE["credit2"]
    machine.look()
    machine.change_scheduler(scheduler)
    assert (resources.scheduling(vmid), resources.scheduling(DOM0)) == (Scheduling(256, 0), Scheduling(256, 0))
    machine.look()
    assert (resources.scheduling(vmid), resources.scheduling(DOM0)) == (SHARE[scheduler], DOM0_SHARE)


def test_a_scheduler_without_weights_keeps_no_vm_from_anything_else(machine: Machine) -> None:
    """What cannot be held is said, and everything else is."""
    vmid, resources = machine.running(), machine.hypervisor.resources
    machine.change_scheduler("null")
    with pytest.raises(NotCapable, match="null"):
        resources.scheduling(vmid)
    resources.set_memory(vmid, machine.record(vmid).allocation.ram - 64 * MIB, 5.0, lambda *_: None)
    machine.look()
    assert resources.memory(vmid).target == machine.record(vmid).allocation.ram
    machine.change_scheduler("credit2")
    machine.look()
    assert resources.scheduling(vmid) == SHARE["credit2"]


def test_the_thread_looks_at_the_start_and_when_it_is_told_to(machine: Machine) -> None:
    vmid, resources = machine.running(), machine.hypervisor.resources

    def drift() -> None:
        resources.set_scheduling(vmid, Scheduling(1, 1))

    def held() -> bool:
        return resources.scheduling(vmid) == SHARE["credit2"]

    drift()
    machine.sweep.start()
    eventually(held, 5, "the look at the start sets it")
    drift()
    machine.hints.hint()
    eventually(held, 5, "a hint does, too")
    machine.sweep.stop(5)


def test_a_vm_has_the_vcpus_online_that_its_share_needs_whatever_its_image_says(machine: Machine) -> None:
    """Built with all there are, so that a share grows while the guest runs."""
    vmid, resources = machine.running(), machine.hypervisor.resources
    assert machine.backend.image.vcpus == 1
    assert resources.vcpus(vmid) == (2, CPUS)
    for percent, vcpus in ((100, 4), (51, 3), (25, 2), (24, 1)):
        wanted = {vmid: replace(machine.record(vmid).allocation, cpu=percent)}
        result = machine.apply.submit(Wish(wanted, {}), None).wait(10)
        assert result is not None
        assert result.ok, result.message
        assert resources.vcpus(vmid) == (vcpus, CPUS)
    resources.set_vcpus(vmid, 4)
    machine.look()
    assert resources.vcpus(vmid) == (1, CPUS)


def apply_ram(machine: Machine, vmid: UUID, ram: int) -> tuple[int, str]:
    """Status and message of a change of memory, with one of processor time before it."""
    wanted = {vmid: replace(machine.record(vmid).allocation, ram=ram, cpu=10)}
    result = machine.apply.submit(Wish(wanted, {}), None).wait(30)
    assert result is not None
    return result.status, result.message


def test_a_guest_that_cannot_balloon_keeps_its_memory(tmp_path: Path) -> None:
    """It would die below: the step fails in time, everything is as before, and the VM runs on."""
    machine = Machine(tmp_path, balloons=False)
    vmid, resources = machine.running(), machine.hypervisor.resources
    machine.beats(vmid)
    ram = machine.record(vmid).allocation.ram
    before = (resources.memory(vmid), resources.scheduling(vmid), machine.hypervisor.find(vmid))
    status, message = apply_ram(machine, vmid, ram // 2)
    assert (status, "balloon driver?" in message) == (500, True)
    after = machine.hypervisor.find(vmid)
    assert after is not None
    assert before[2] is not None
    assert (resources.memory(vmid), resources.scheduling(vmid), after.memory) == (*before[:2], before[2].memory)
    assert machine.record(vmid).allocation.ram == ram
    assert machine.do(vmid, Primitive.POWER_OFF).ok
    assert apply_ram(machine, vmid, ram // 2)[0] == 200
    assert machine.do(vmid, Primitive.POWER_ON).ok
    assert resources.memory(vmid).target == ram // 2
    machine.close()


def test_growth_beyond_what_it_was_built_for_is_refused_and_done_at_the_next_start(machine: Machine) -> None:
    """R-012: 403, nothing changed, and the way out is named; growing back within it is live."""
    vmid, resources = machine.running(), machine.hypervisor.resources
    ram = machine.record(vmid).allocation.ram
    before = (resources.memory(vmid), resources.scheduling(vmid))
    status, message = apply_ram(machine, vmid, ram + 64 * MIB)
    assert (status, "power the VM off" in message) == (403, True)
    assert (resources.memory(vmid), resources.scheduling(vmid)) == before
    assert apply_ram(machine, vmid, ram - 64 * MIB)[0] == 200
    assert apply_ram(machine, vmid, ram)[0] == 200
    domain = machine.hypervisor.find(vmid)
    assert domain is not None
    assert domain.memory == ram
    assert machine.do(vmid, Primitive.POWER_OFF).ok
    assert apply_ram(machine, vmid, ram + 64 * MIB)[0] == 200
    assert machine.do(vmid, Primitive.POWER_ON).ok
    assert resources.memory(vmid).target == ram + 64 * MIB


@pytest.mark.parametrize("behaviour", ["fail", "break", "lie", "hang", "late"])
@pytest.mark.parametrize("call", ["set_scheduling", "set_vcpus", "set_memory_target"])
def test_whatever_a_tool_does_the_change_is_whole_or_none(call: str, behaviour: str, machine: Machine) -> None:
    """Also a tool that says it did and did not, or does it after we gave it up: the next look sets that right."""
    vmid, resources = machine.running(), machine.hypervisor.resources
    ram = machine.record(vmid).allocation.ram

    def seen() -> tuple[object, ...]:
        return (resources.scheduling(vmid), resources.vcpus(vmid), resources.memory(vmid).target)

    before = seen()
    machine.faults.set(Fault(call, behaviour, count=1, seconds=0.1))
    status, _ = apply_ram(machine, vmid, ram - 32 * MIB)
    machine.faults.set()
    assert status == 500
    if behaviour == "late":

        def set_right() -> bool:
            machine.look()
            return seen() == before

        time.sleep(0.2)
        eventually(set_right, 5, "the late effect is set right")
    assert seen() == before
    assert machine.record(vmid).allocation.ram == ram
