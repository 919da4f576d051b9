"""Checks that State, domains, files, journal and processes tell the same story: "nothing leaks" as an assertion."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainState, HypervisorError
from dom0_agent.store.journal import Journal
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import SuspendKind, VmState
from tests.contract.support import Rig, eventually

#: Seconds in which leftovers of a failure must be cleared away; more where everything takes longer.
SETTLES = 10.0


def assert_truth(rig: Rig) -> None:
    """All VMs agree with their domains, and there is nothing that belongs to no VM."""
    eventually(
        lambda: not complaints(rig), max(SETTLES, rig.backend.patience), "all agrees: " + "; ".join(complaints(rig))
    )


def complaints(rig: Rig) -> list[str]:
    """What does not agree, in words."""
    try:
        domains = {domain.uuid: domain for domain in rig.hypervisor.domains()}
    except HypervisorError as error:  # told to fail
        return [str(error)]
    records = {record.vmid: record for record in rig.engine.list()}
    found = [f"domain {uuid} belongs to no VM" for uuid in domains.keys() - records.keys()]
    for vmid, record in records.items():
        domain = domains.get(vmid)
        expected = DomainState.RUNNING if record.state is VmState.RUNNING else None
        paused = record.suspend_kind is SuspendKind.PAUSE
        if paused:
            expected = DomainState.PAUSED
        actual = None if domain is None else domain.state
        if actual is not expected:
            found.append(f"VM {vmid} is {record.state.name}, its domain {actual}")
        found += _files(rig.state_dir / "vms" / str(vmid), record.state, paused, _systems(rig, vmid))
        if record.running_step is not None:
            found.append(f"VM {vmid} is still {record.running_step}")
    found += [f"{path} belongs to no VM" for path in _directories(rig.state_dir) if _uuid(path) not in records]
    found += [f"operation {entry.primitive} is open" for entry in Journal(rig.database).unfinished()]
    running = {
        vmid
        for vmid, record in records.items()
        if record.state is VmState.RUNNING or record.suspend_kind is SuspendKind.PAUSE
    }
    found += rig.backend.leaks(running)
    return found


def _systems(rig: Rig, vmid: UUID) -> set[str]:
    """Names of the directories that hold the VM's system, if it was rebuilt."""
    found: set[str] = set()
    for row in VmTable(rig.database).list():
        vm = Vm.load(row)
        if vm.vmid == vmid and vm.definition is not None and vm.definition.kernel is not None:
            found |= {vm.definition.kernel.parent.name} if vm.definition.kernel.parent.name != str(vmid) else set()
    return found


def _files(directory: Path, state: VmState, paused: bool, systems: set[str]) -> list[str]:
    """A VM's files: none in NotCreated; a saved state in Suspended, and only there, unless it is only paused."""
    names = {path.name for path in directory.glob("*")}
    expected = {"kernel", "ramdisk", "saved"} & names
    if state is not VmState.SUSPENDED or paused:
        expected -= {"saved"}
    expected |= {name for name in names if name.startswith("xvd")} | systems
    if state is VmState.NOT_CREATED:
        expected = set()
    missing = {"kernel"} - names if state is not VmState.NOT_CREATED else set()
    if state is VmState.SUSPENDED and not paused:
        missing |= {"saved"} - names
    return [f"{directory}/{name} should not be there" for name in sorted(names - expected)] + [
        f"{directory}/{name} is missing" for name in sorted(missing)
    ]


def _directories(state_dir: Path) -> list[Path]:
    return [*(state_dir / "vms").iterdir(), *(state_dir / "trash").iterdir()]


def _uuid(path: Path) -> UUID | None:
    return UUID(path.name) if path.parent.name == "vms" else None
