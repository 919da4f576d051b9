"""The plan of an ApplyChanges: which VM's which resource is changed, in which order. A value, printed by virmoctl.

Shrink before grow, so that the sum never exceeds the device at any moment; storage last, because taking a disk's
growth back is what a guest may notice. Pure: the same arguments give the same plan, also after a crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from dom0_agent.resources.picture import Resource, Target
from dom0_agent.store.vms import dump_allocation, load_allocation
from dom0_agent.vm.model import Allocation, VmState

#: In which order growing resources grow; they shrink in the order given here, too.
ORDER = (Resource.NETWORK, Resource.CPU, Resource.RAM, Resource.STORAGE)
#: Vendor parameters (R-052) that belong to a resource: a change of one is a change of that.
VENDOR = {"VCPUs": Resource.CPU, "CPUCap": Resource.CPU, "NetworkBps": Resource.NETWORK}


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One change. ``live``: there is a domain that must follow now; else it does at its next start."""

    vmid: UUID
    resource: Resource
    before: Allocation
    after: Allocation
    live: bool

    @property
    def name(self) -> str:
        """For the journal and for people."""
        return f"{self.resource.value} of VM {self.vmid}: {_amount(self.resource, self.before)} → " + _amount(
            self.resource, self.after
        )

    def dump(self) -> dict[str, object]:
        """JSON values for the journal."""
        return {
            "vmid": str(self.vmid),
            "resource": self.resource.value,
            "before": dump_allocation(self.before),
            "after": dump_allocation(self.after),
            "live": self.live,
        }


def load_step(detail: dict[str, object]) -> PlanStep:
    """What :meth:`PlanStep.dump` gave."""
    before, after = detail["before"], detail["after"]
    assert isinstance(before, list)
    assert isinstance(after, list)
    return PlanStep(
        UUID(str(detail["vmid"])),
        Resource(detail["resource"]),
        load_allocation(before),
        load_allocation(after),
        bool(detail["live"]),
    )


def make_plan(targets: Sequence[Target]) -> tuple[PlanStep, ...]:
    """The steps from each VM's ``before`` to its ``after``. VMs in NotCreated need none (A-13)."""
    steps = [step for target in targets for step in _steps(target)]
    shrinking = [step for step in steps if amount(step.resource, step.after) < amount(step.resource, step.before)]
    growing = [step for step in steps if step not in shrinking]
    return tuple(
        [step for resource in ORDER for step in shrinking if step.resource is resource]
        + [step for resource in ORDER for step in growing if step.resource is resource]
    )


def describe(targets: Sequence[Target], steps: Sequence[PlanStep]) -> list[str]:
    """The plan for people, a line a step."""
    lines = [step.name + ("" if step.live else "  (at its next start)") for step in steps]
    reserved = [target for target in targets if target.before is None]
    return lines + [f"VM {target.vmid}: kept for its Create" for target in reserved]


def amount(resource: Resource, allocation: Allocation) -> int:
    """How much of a resource an allocation holds."""
    amounts = {
        Resource.RAM: allocation.ram,
        Resource.CPU: allocation.cpu,
        Resource.NETWORK: allocation.network,
        Resource.STORAGE: allocation.storage,
    }
    return amounts[resource]


def vendor_of(resource: Resource, allocation: Allocation) -> dict[str, str]:
    """The vendor parameters that belong to a resource."""
    return {key: value for key, value in allocation.vendor if VENDOR.get(key) is resource}


def _steps(target: Target) -> Iterator[PlanStep]:
    before, after = target.before, target.after
    if before is None:
        return
    for resource in ORDER:
        same = amount(resource, before) == amount(resource, after)
        if not same or vendor_of(resource, before) != vendor_of(resource, after):
            yield PlanStep(target.vmid, resource, before, after, live=target.state is VmState.RUNNING)


def _amount(resource: Resource, allocation: Allocation) -> str:
    unit = "%" if resource in (Resource.CPU, Resource.NETWORK) else "bytes"
    extra = "".join(f" {key}={value}" for key, value in sorted(vendor_of(resource, allocation).items()))
    return f"{amount(resource, allocation)} {unit}{extra}"
