"""What a CPU share means to a scheduler: weight, cap and vCPUs. Arithmetic only.

A share of S % on P physical CPUs is a weight in proportion and (unless work-conserving) a cap of S·P percent of one
CPU. It needs more than S·P/100 vCPUs where there are as many CPUs: with fewer the guest cannot use it, and weights
count for nothing; and a vCPU that its share fills cannot make up for what it waited for dom0. Measured on Xen 4.17 with
two CPUs and guests that burn on all of theirs:

========= ======== ======================== ======================== ==================
scheduler shares   ⌈S·P/100⌉ vCPUs          ⌊S·P/100⌋ + 1            ⌊S·P/100⌋ + 2
========= ======== ======================== ======================== ==================
credit2   50/30/20 46.9/31.9/21.3 (1/1/1)   50.0/29.4/20.6 (2/1/1)   47.4/31.4/21.2
credit2   70/30    69.7/30.3 (2/1)          the same                 68.0/32.0
credit    50/30/20 49.6/30.2/20.2 (1/1/1)   53.4/28.0/18.7 (2/1/1)   49.8/30.3/20.0
credit    70/30    72.2/27.8 (2/1)          the same                 69.8/30.2
========= ======== ======================== ======================== ==================

No vCPU is pinned, or weights would not hold either. credit divides a domain's weight among its vCPUs; credit2 gives all
of it to each of them, so that it is divided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dom0_agent.hypervisor.resources import Scheduling

#: Weight of one percent, and of a VM without a share: little beside one that has it, enough to boot beside a busy dom0.
WEIGHT_OF_PERCENT = 10
WEIGHT_OF_NONE = 20
#: Schedulers for which a domain's weight is that of each of its vCPUs.
WEIGH_EACH_VCPU = frozenset({"credit2"})
#: vCPUs beyond ⌊S·P/100⌋: see the table above. credit takes more from guests with fewer vCPUs than others have.
SPARE_VCPUS = {"credit": 2, "credit2": 1}


@dataclass(frozen=True, slots=True)
class CpuShare:
    """What is to be set for a domain."""

    scheduling: Scheduling
    vcpus: int  #: online
    max_vcpus: int  #: built with


def cpu_share(
    percent: int, vendor: Mapping[str, str], *, image_vcpus: int, cpus: int, work_conserving: bool, scheduler: str
) -> CpuShare:
    """A share of ``percent`` on ``cpus`` physical CPUs; ``vendor`` may hold VCPUs and CPUCap (R-052).

    A share of 0 sets nothing aside: the VM has as many vCPUs as its image asks for, and takes what others leave.
    """
    needed = min(percent * cpus // 100 + SPARE_VCPUS.get(scheduler, 1), cpus) if percent else image_vcpus
    most = max(cpus, image_vcpus)
    vcpus = max(1, min(int(vendor.get("VCPUs", needed)), most))
    cap = 0 if work_conserving else percent * cpus
    own = min(int(vendor.get("CPUCap", 0)), 100 * most)  # credit2 refuses more than all of a domain's vCPUs could use
    if own:
        cap = min(cap, own) if cap else own
    weight = percent * WEIGHT_OF_PERCENT if percent else WEIGHT_OF_NONE
    if scheduler in WEIGH_EACH_VCPU:
        weight = max(1, round(weight / vcpus))
    return CpuShare(Scheduling(weight, cap), vcpus, most)
