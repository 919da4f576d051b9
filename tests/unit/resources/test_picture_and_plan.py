"""The target picture and its rules (A-02, A-13 to A-17, A-55), and the plan: values, without any Xen."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.operation import OperationRefused
from dom0_agent.resources.picture import MIB, Device, Holding, Resource, check, targets
from dom0_agent.resources.plan import ORDER, amount, describe, load_step, make_plan
from dom0_agent.vm.model import Allocation, VmState

A, B, C = (UUID(int=number) for number in (1, 2, 3))
DEVICE = Device(ram=1024 * MIB, storage=4096 * MIB)
OFF, RUNNING, SUSPENDED, NOT_CREATED = VmState.POWERED_OFF, VmState.RUNNING, VmState.SUSPENDED, VmState.NOT_CREATED


def have(ram: int = 256, storage: int = 0, cpu: int = 30, network: int = 10, **vendor: str) -> Allocation:
    """An allocation, in MiB and percent."""
    return Allocation(ram * MIB, storage * MIB, cpu, network, tuple(vendor.items()))


def refusal(holdings: list[Holding], wanted: dict[UUID, Allocation], cpu_sum: str = "within") -> int | None:
    """The status with which the picture is refused; ``None``: it is not."""
    try:
        check(holdings, wanted, DEVICE, cpu_sum)  # type: ignore[arg-type]
    except OperationRefused as refused:
        return refused.status
    return None


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        (have(768), None),
        (have(769), 420),
        (have(storage=4096), None),
        (have(storage=4097), 420),
        (have(cpu=70), None),
        (have(cpu=71), 420),
        (have(network=90), None),
        (have(network=91), 420),
        (have(ram=15), 403),
    ],
)
def test_no_sum_is_larger_than_the_device(wanted: Allocation, status: int | None) -> None:
    """A-02, R-063: Σ over the NewConfig where there is one, else the CurrentConfig, of VMs in states 1 to 3."""
    assert refusal([Holding(A, RUNNING, have()), Holding(B, OFF, have())], {B: wanted}) == status


@pytest.mark.parametrize("state", [OFF, RUNNING, SUSPENDED])
def test_a_vm_that_does_not_run_keeps_what_it_has(state: VmState) -> None:
    """A-55: a suspended VM's allocation counts."""
    assert refusal([Holding(A, state, have(cpu=60)), Holding(B, RUNNING, have())], {B: have(cpu=41)}) == 420


def test_a_vm_that_is_not_created_counts_with_what_is_reserved_for_it() -> None:
    """A-13."""
    nothing = Holding(A, NOT_CREATED, Allocation())
    assert refusal([nothing, Holding(B, RUNNING, have())], {B: have(cpu=100)}) is None
    reserved = Holding(A, NOT_CREATED, Allocation(), reserved=have(cpu=50))
    assert refusal([reserved, Holding(B, RUNNING, have())], {B: have(cpu=51)}) == 420
    assert refusal([nothing, Holding(B, RUNNING, have())], {A: have(cpu=71)}) == 420


def test_exact_demands_that_the_guests_shares_sum_to_100() -> None:
    """A-02: the specification's literal example, by configuration."""
    holdings = [Holding(A, RUNNING, have()), Holding(B, RUNNING, have())]
    assert refusal(holdings, {B: have(cpu=70)}, "exact") is None
    assert refusal(holdings, {B: have(cpu=69)}, "exact") == 403
    assert refusal(holdings, {}, "exact") is None  # there is nothing to do


def test_storage_never_shrinks() -> None:
    holdings = [Holding(A, OFF, have(storage=100))]
    assert refusal(holdings, {A: have(storage=99)}) == 403
    assert refusal(holdings, {A: have(storage=100)}) is None


def test_a_suspended_vm_goes_on_with_no_more_memory_than_it_was_saved_with() -> None:
    holdings = [Holding(A, SUSPENDED, have(256), saved_ram=256 * MIB)]
    assert refusal(holdings, {A: have(257)}) == 403
    assert refusal(holdings, {A: have(128)}) is None


def test_vms_without_new_config_are_not_touched() -> None:
    """R-061."""
    holdings = [Holding(A, RUNNING, have()), Holding(B, RUNNING, have()), Holding(C, OFF, have())]
    assert [target.vmid for target in targets(holdings, {B: have(cpu=40)})] == [B]


def test_the_plan_shrinks_before_it_grows_and_can_be_read() -> None:
    """R-060: a value that can be printed and tested without Xen."""
    holdings = [Holding(A, RUNNING, have(256, 10, 70, 50)), Holding(B, OFF, have(256, 10, 30, 50))]
    wanted = {A: have(512, 20, 30, 20), B: have(128, 10, 70, 80)}
    steps = make_plan(targets(holdings, wanted))
    assert [(step.vmid, step.resource.value, step.live) for step in steps] == [
        (A, "Network", True),
        (A, "CPU", True),
        (B, "RAM", False),
        (B, "Network", False),
        (B, "CPU", False),
        (A, "RAM", True),
        (A, "Storage", True),
    ]
    lines = describe(targets(holdings, wanted), steps)
    assert lines[1] == f"CPU of VM {A}: 70 % → 30 %"
    assert lines[2] == f"RAM of VM {B}: {256 * MIB} bytes → {128 * MIB} bytes  (at its next start)"


def test_a_vm_in_not_created_needs_no_step() -> None:
    """A-13."""
    found = targets([Holding(A, NOT_CREATED, Allocation())], {A: have()})
    assert make_plan(found) == ()
    assert describe(found, ()) == [f"VM {A}: kept for its Create"]


def test_a_vendor_parameter_alone_is_a_change_of_its_resource() -> None:
    """R-052."""
    steps = make_plan(targets([Holding(A, RUNNING, have())], {A: have(CPUCap="50", Colour="red")}))
    assert [step.resource for step in steps] == [Resource.CPU]
    assert "30 % → 30 % CPUCap=50" in steps[0].name


allocations = st.builds(have, st.integers(16, 900), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
pictures = st.lists(st.tuples(st.sampled_from([OFF, RUNNING]), allocations, allocations), min_size=1, max_size=5)


@given(pictures)
def test_at_no_moment_is_more_given_away_than_before_or_after(
    picture: list[tuple[VmState, Allocation, Allocation]],
) -> None:
    """Shrink before grow: each sum stays within the larger of what it was and what it will be."""
    holdings = [Holding(UUID(int=i), state, before) for i, (state, before, _) in enumerate(picture)]
    wanted = {UUID(int=i): after for i, (_, _, after) in enumerate(picture)}
    now = {h.vmid: {r: amount(r, h.current) for r in ORDER} for h in holdings}
    limits = {
        r: max(sum(amount(r, before) for _, before, _ in picture), sum(amount(r, after) for _, _, after in picture))
        for r in ORDER
    }
    steps = make_plan(targets(holdings, wanted))
    for step in steps:
        now[step.vmid][step.resource] = amount(step.resource, step.after)
        assert sum(held[step.resource] for held in now.values()) <= limits[step.resource]
        assert load_step(step.dump()) == step
    assert now == {vmid: {r: amount(r, after) for r in ORDER} for vmid, after in wanted.items()}
