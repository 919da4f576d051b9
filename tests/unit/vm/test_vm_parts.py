"""The engine's parts by themselves: worker, hints, judgement, definition."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import DomainInfo, DomainState, DomainType
from dom0_agent.store.database import Database
from dom0_agent.store.vms import StoredDisk, VmTable
from dom0_agent.vm.definition import Definition, Vm
from dom0_agent.vm.hints import Hints
from dom0_agent.vm.model import Allocation, Primitive, SuspendKind, VmRecord, VmState
from dom0_agent.vm.plans import plan_for
from dom0_agent.vm.reconcile import Finding, judge
from dom0_agent.vm.runner import must_last
from dom0_agent.vm.worker import Worker

VMID = UUID("11111111-2222-4333-8444-555555555555")


def test_a_worker_does_its_tasks_in_order_and_leaves_no_thread() -> None:
    worker, done = Worker("w"), list[int]()
    for number in range(50):
        worker.put(lambda number=number: done.append(number))  # type: ignore[misc]
    assert worker.join(5)
    assert done == list(range(50))
    assert not [thread for thread in threading.enumerate() if thread.name == "w"]


def test_a_task_that_raises_is_reported_and_does_not_stop_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, done = Worker("w"), list[str]()
    go_on, reported = threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: reported.set())

    def bad() -> None:
        go_on.wait(5)
        raise RuntimeError("a bug")

    worker.put(bad)
    worker.put(lambda: done.append("after"))
    go_on.set()
    assert reported.wait(5)
    assert worker.join(5)
    assert done == ["after"]


def test_join_tells_when_there_is_more_to_do() -> None:
    worker, go_on = Worker("w"), threading.Event()
    worker.put(lambda: assert_true(go_on.wait(5)))
    assert not worker.join(0.05)
    go_on.set()
    assert worker.join(5)


def assert_true(value: bool) -> None:
    """For lambdas."""
    assert value


def test_a_hint_before_the_wait_is_not_lost() -> None:
    hints = Hints()
    seen = hints.count
    hints.hint()
    began = time.monotonic()
    assert hints.wait(seen, 5) == seen + 1
    assert time.monotonic() - began < 1
    assert hints.wait(seen + 1, 0.01) == seen + 1


def domain(state: DomainState, reason: str | None = None) -> DomainInfo:
    """The VM's domain in some state."""
    return DomainInfo(VMID, 7, "x", state, 1, 1, 0.0, reason)


def vm(state: VmState, kind: SuspendKind | None = None, boot: str = "this") -> Vm:
    """A VM in some state."""
    return Vm(VmRecord(VMID, state, suspend_kind=kind), host_boot_id=boot)


RUNNING, PAUSED = domain(DomainState.RUNNING), domain(DomainState.PAUSED)
OFF, REBOOT = domain(DomainState.SHUTDOWN, "poweroff"), domain(DomainState.SHUTDOWN, "reboot")
CRASHED, HUNG = domain(DomainState.CRASHED, "crash"), domain(DomainState.SHUTDOWN, "suspend")
SAVED, HELD = (VmState.SUSPENDED, SuspendKind.SAVE), (VmState.SUSPENDED, SuspendKind.PAUSE)


@pytest.mark.parametrize(
    ("state", "truth", "finding"),
    [
        ((VmState.RUNNING,), RUNNING, Finding.FINE),
        ((VmState.RUNNING,), PAUSED, Finding.PAUSED),  # somebody debugs it: left alone, and told
        ((VmState.RUNNING,), None, Finding.GONE),
        ((VmState.RUNNING, None, "before"), None, Finding.HOST_REBOOTED),
        ((VmState.RUNNING, None, "before"), RUNNING, Finding.FINE),
        ((VmState.RUNNING,), OFF, Finding.ENDED),
        ((VmState.RUNNING,), REBOOT, Finding.REBOOT),
        ((VmState.RUNNING,), CRASHED, Finding.CRASHED),
        ((VmState.RUNNING,), HUNG, Finding.ENDED),
        (SAVED, None, Finding.FINE),
        ((*SAVED, "before"), None, Finding.FINE),  # a saved VM survives a reboot of dom0
        (SAVED, RUNNING, Finding.RUNS),
        (SAVED, PAUSED, Finding.LEFTOVER),
        (SAVED, OFF, Finding.LEFTOVER),
        (HELD, PAUSED, Finding.FINE),
        (HELD, RUNNING, Finding.RUNS),
        (HELD, None, Finding.GONE),
        ((*HELD, "before"), None, Finding.HOST_REBOOTED),
        (HELD, CRASHED, Finding.CRASHED),
        ((VmState.POWERED_OFF,), None, Finding.FINE),
        ((VmState.POWERED_OFF,), RUNNING, Finding.RUNS),
        ((VmState.POWERED_OFF,), PAUSED, Finding.LEFTOVER),
        ((VmState.POWERED_OFF,), OFF, Finding.LEFTOVER),
        ((VmState.NOT_CREATED,), None, Finding.FINE),
        ((VmState.NOT_CREATED,), RUNNING, Finding.LEFTOVER),
        ((VmState.NOT_CREATED,), PAUSED, Finding.LEFTOVER),
    ],
)
def test_what_a_difference_means(state: tuple[VmState], truth: DomainInfo | None, finding: Finding) -> None:
    assert judge(vm(*state), truth, "this") is finding


def test_a_vm_survives_the_store(tmp_path: Path) -> None:
    """A-56: all that is needed to drive it again."""
    before = Vm(
        record=VmRecord(
            VMID,
            VmState.SUSPENDED,
            img_id="img",
            allocation=Allocation(1, 2, 3, 4),
            last_error="an error",
            vendor={"a": "b"},
            suspend_kind=SuspendKind.SAVE,
        ),
        definition=Definition(DomainType.PVH, 2, 'a "b"', Path("/k"), None),
        disks=(StoredDisk("/d", "xvda"),),
        macs=("00:16:3e:00:00:01",),
        reserved=Allocation(5, 6, 7, 8),
        host_boot_id="boot",
        restarts=(1.5, 2.5),
    )
    database = Database(tmp_path / "db")
    VmTable(database).put(replace(before, record=replace(before.record, running_step="x")).dump())
    (row,) = VmTable(database).list()
    assert Vm.load(row) == before
    fresh = Vm(VmRecord(VMID, VmState.NOT_CREATED))
    VmTable(database).put(fresh.dump())
    assert Vm.load(VmTable(database).list()[0]) == fresh
    database.close()


def test_a_domain_is_named_after_the_vmid_and_nothing_of_the_server() -> None:
    made = Vm(
        VmRecord(VMID, VmState.POWERED_OFF, allocation=Allocation(ram=64 << 20)),
        Definition(DomainType.PV, 1),
        macs=("00:16:3e:00:00:01",),
    )
    config = made.domain_config("xenbr0")
    assert (config.uuid, config.name, config.memory) == (VMID, f"virmo-{VMID}", 64 << 20)
    assert config.vifs[0].bridge == "xenbr0"
    assert made.domain_config("").vifs == ()
    with pytest.raises(ValueError, match="has not been created"):
        replace(made, definition=None).domain_config("")


@pytest.mark.parametrize(
    ("primitive", "waits"),
    [
        (Primitive.CREATE, []),
        (Primitive.POWER_ON, ["letting the guest go on"]),
        (Primitive.POWER_OFF, ["ending the domain", "giving up the guest's shares"]),
        (Primitive.SUSPEND, ["giving up the guest's shares"]),
        (Primitive.RESUME, ["letting the guest go on", "removing the saved state"]),
        (Primitive.DELETE, ["giving up the guest's shares"]),
    ],
    ids=lambda value: value.value if isinstance(value, Primitive) else "",
)
def test_which_steps_begin_only_when_that_is_on_disk(primitive: Primitive, waits: list[str]) -> None:
    """R-010, R-023: what a guest may have written, a complete saved state and a domain that was ended are never taken
    for what they were before; what goes with dom0's boot needs no flush."""
    steps = plan_for(primitive.value, Vm(VmRecord(VMID, VmState.RUNNING)), can_save=True).steps
    assert [steps[position].name for position in range(1, len(steps)) if must_last(steps, position)] == waits
