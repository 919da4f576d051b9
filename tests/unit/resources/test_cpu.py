"""What a CPU share is to a scheduler (R-049, HLF-05)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.hypervisor.resources import Scheduling
from dom0_agent.resources.cpu import CpuShare, cpu_share

SCHEDULERS = ("credit", "credit2")


def share_of(
    percent: int,
    vendor: dict[str, str],
    *,
    image_vcpus: int,
    cpus: int,
    work_conserving: bool = False,
    scheduler: str = "credit",
) -> CpuShare:
    """On credit, where nothing else is said."""
    return cpu_share(
        percent, vendor, image_vcpus=image_vcpus, cpus=cpus, work_conserving=work_conserving, scheduler=scheduler
    )


@pytest.mark.parametrize(
    ("percent", "cpus", "on_credit", "on_credit2", "weight", "cap"),
    [
        (70, 2, 2, 2, 700, 140),
        (50, 2, 2, 2, 500, 100),
        (49, 2, 2, 1, 490, 98),
        (30, 2, 2, 1, 300, 60),
        (30, 1, 1, 1, 300, 30),
        (100, 8, 8, 8, 1000, 800),
        (25, 8, 4, 3, 250, 200),
        (1, 8, 2, 1, 10, 8),
        (0, 2, 3, 3, 20, 0),  # nothing set aside: as many as its image wants, no cap
    ],
)
def test_a_share_has_the_vcpus_that_it_needs(
    percent: int, cpus: int, on_credit: int, on_credit2: int, weight: int, cap: int
) -> None:
    """R-049: whatever vCPU count the image asks for, a weight means nothing without them (the module has figures)."""
    share = share_of(percent, {}, image_vcpus=3, cpus=cpus)
    assert (share.vcpus, share.scheduling) == (on_credit, Scheduling(weight, cap))
    assert share.max_vcpus == max(3, cpus)
    assert share_of(percent, {}, image_vcpus=3, cpus=cpus, scheduler="credit2").vcpus == on_credit2


def test_a_work_conserving_share_has_no_cap() -> None:
    assert share_of(70, {}, image_vcpus=1, cpus=2, work_conserving=True).scheduling == Scheduling(700, 0)


def test_vendor_parameters_go_before_what_is_derived() -> None:
    """R-052: VCPUs and CPUCap; a cap only ever makes it less."""
    share = share_of(70, {"VCPUs": "1", "CPUCap": "50"}, image_vcpus=1, cpus=2, scheduler="credit")
    assert (share.vcpus, share.scheduling) == (1, Scheduling(700, 50))
    more = share_of(10, {"CPUCap": "50"}, image_vcpus=1, cpus=2)
    assert more.scheduling.cap == 20
    assert share_of(0, {"CPUCap": "50"}, image_vcpus=1, cpus=2).scheduling.cap == 50


@pytest.mark.parametrize(("image_vcpus", "cap"), [(1, 200), (4, 400)])
def test_a_cap_is_never_beyond_what_the_vcpus_could_use(image_vcpus: int, cap: int) -> None:
    """credit2 refuses a cap of more than 100 % for each vCPU of a domain, seen on Xen 4.17; nothing is lost by less."""
    share = share_of(0, {"CPUCap": "6400"}, image_vcpus=image_vcpus, cpus=2)
    assert share.scheduling.cap == cap == 100 * share.max_vcpus


@pytest.mark.parametrize(
    ("percent", "vendor", "vcpus", "weight"),
    [
        (70, {}, 2, 350),
        (50, {}, 2, 250),
        (30, {}, 1, 300),
        (70, {"VCPUs": "1"}, 1, 700),
        (0, {}, 4, 5),
        (1, {"VCPUs": "64"}, 4, 2),
    ],
)
def test_credit2_weighs_each_vcpu(percent: int, vendor: dict[str, str], vcpus: int, weight: int) -> None:
    """R-049: with the whole weight for each of two vCPUs a share of 70 % got 75 % beside one of 30 %, as soon as dom0
    had work to do and the caps alone did not divide (measured on Xen 4.17)."""
    share = share_of(percent, vendor, image_vcpus=4, cpus=2, scheduler="credit2")
    assert (share.vcpus, share.scheduling.weight) == (vcpus, weight)


@given(st.integers(0, 100), st.integers(1, 64), st.integers(1, 64), st.booleans(), st.sampled_from(SCHEDULERS))
def test_what_is_set_is_what_a_scheduler_takes(
    percent: int, cpus: int, image: int, work_conserving: bool, scheduler: str
) -> None:
    share = share_of(percent, {}, image_vcpus=image, cpus=cpus, work_conserving=work_conserving, scheduler=scheduler)
    assert 1 <= share.vcpus <= share.max_vcpus
    assert 1 <= share.scheduling.weight <= 65535
    assert share.scheduling.cap in (0, percent * cpus)
    assert not percent or share.vcpus * 100 > percent * cpus or share.vcpus == cpus
