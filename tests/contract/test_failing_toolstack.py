"""Each toolstack call of each primitive fails, hangs, lies or succeeds late: State is the one before or, when the call
did take effect, the one after; the status tells which; nothing leaks (R-010 to R-012, A-08).

On the simulator alone: real tools do not fail on demand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0_agent.hypervisor.readback import ReadBackHypervisor, Toolstack
from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Primitive, VmState
from dom0_agent.vm.states import TRANSITIONS
from tests.contract.support import Rig, SimBackend
from tests.contract.test_kill_points import PREPARATION
from tests.contract.truth import assert_truth

#: The toolstack calls that each primitive makes.
CALLS: dict[Primitive, tuple[str, ...]] = {
    Primitive.CREATE: ("create", "unpause"),
    Primitive.CREATE_AND_POWER_OFF: (),
    Primitive.POWER_ON: ("create", "unpause"),
    Primitive.POWER_OFF: ("request_shutdown", "destroy"),
    Primitive.SUSPEND: ("save",),
    Primitive.RESUME: ("restore", "unpause"),
    Primitive.DELETE: ("destroy",),
}
#: The same where nothing can be saved (Arm): Suspend pauses. The others are as above.
CALLS_WHERE_SUSPEND_PAUSES: dict[Primitive, tuple[str, ...]] = {
    Primitive.SUSPEND: ("pause",),
    Primitive.RESUME: ("unpause",),
    Primitive.DELETE: ("destroy",),
}
#: Whether the machine can save → what is called there.
MACHINES: dict[bool, dict[Primitive, tuple[str, ...]]] = {True: CALLS, False: CALLS_WHERE_SUSPEND_PAUSES}
CASES = [
    pytest.param(
        can_save, primitive, call, behaviour, id=f"{'' if can_save else 'pauses-'}{primitive.value}-{call}-{behaviour}"
    )
    for can_save, table in MACHINES.items()
    for primitive, calls in table.items()
    for call in calls
    for behaviour in ("fail", "break", "hang", "late", "lie", "slow")
]
#: Calls that only look. When they fail nobody knows what is: State may be the one before until a later look.
LOOKS = [
    (primitive, look, behaviour, count)
    for primitive in Primitive
    for look, behaviours in (("domains", ("fail", "hang", "lie")), ("host", ("fail", "hang")))
    for behaviour in behaviours
    for count in ((1,) if behaviour == "lie" else (1, 3))  # a list that lies for long is another Xen
]
#: A guest that is not asked, or does not hear, is ended all the same: that is PowerOff's promise.
HARMLESS = {(Primitive.POWER_OFF, "request_shutdown")}


@pytest.fixture
def can_save() -> bool:
    """Whether the machine can save; the tests' parameter of this name says otherwise."""
    return True


@pytest.fixture
def sim(tmp_path: Path, can_save: bool) -> Iterator[SimBackend]:
    """A simulated machine."""
    backend = SimBackend(tmp_path, HostSettings(beat_interval=0.05, can_save=can_save))
    yield backend
    backend.close()


@pytest.fixture
def faulty_rig(sim: SimBackend, tmp_path: Path) -> Iterator[Rig]:
    """A started engine over it, quick to sweep."""
    config = VmConfig(shutdown_wait=0.5, storage_reserve=0, sweep_interval=0.3)
    rig = Rig(sim, sim.hypervisor, Database(tmp_path / "agent.db"), config, tmp_path)
    rig.engine.start()
    yield rig
    rig.stop()


@pytest.mark.parametrize(("can_save", "primitive", "call", "behaviour"), CASES)
def test_a_call_misbehaves(
    can_save: bool, primitive: Primitive, call: str, behaviour: str, sim: SimBackend, faulty_rig: Rig
) -> None:
    rig = faulty_rig
    vmid = rig.engine.add()
    for preparing in preparation(primitive, can_save):
        assert rig.do(vmid, preparing).ok
    before = rig.state(vmid)
    boot_id = rig.beats(vmid)[0] if before is VmState.RUNNING else None
    sim.faults.set(Fault(call, behaviour, count=1, seconds=0.3))
    result = rig.do(vmid, primitive)
    after = rig.engine.get(vmid)
    state = VmState.DELETED if after is None else after.state
    assert state is (TRANSITIONS[primitive].target if result.ok else before), result.message
    if behaviour == "slow" or (primitive, call) in HARMLESS:
        assert result.ok, result.message
    elif behaviour in ("fail", "hang"):
        assert result.status == 500
    if not result.ok:
        assert str(vmid) in result.message
        assert (rig.record(vmid).last_error or "") == result.message
    if behaviour == "late":
        time.sleep(0.6)  # now it has happened, after everybody gave it up
    assert_truth(rig)
    if boot_id is not None and rig.engine.get(vmid) is not None and rig.state(vmid) is VmState.RUNNING:
        assert rig.beats(vmid)[0] == boot_id, "the guest was not touched"


def preparation(primitive: Primitive, can_save: bool) -> tuple[Primitive, ...]:
    """What brings a new VM to where a primitive begins; a Delete where nothing is saved begins with a paused domain."""
    paused = (Primitive.SUSPEND,) if primitive is Primitive.DELETE and not can_save else ()
    return (*PREPARATION[primitive], *paused)


class Spy:
    """Notes which calls a toolstack gets."""

    def __init__(self, inner: Toolstack) -> None:
        self._inner = inner
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    ("can_save", "primitive"),
    [(can_save, primitive) for can_save, table in MACHINES.items() for primitive in table],
    ids=lambda value: getattr(value, "value", "saves" if value else "pauses"),
)
def test_the_table_of_calls_is_complete(can_save: bool, primitive: Primitive, sim: SimBackend, faulty_rig: Rig) -> None:
    """What a primitive really calls is what the cases above are generated from."""
    vmid = faulty_rig.engine.add()
    for preparing in preparation(primitive, can_save):
        assert faulty_rig.do(vmid, preparing).ok
    assert isinstance(sim.hypervisor, ReadBackHypervisor)
    spy = Spy(sim.hypervisor._toolstack)
    sim.hypervisor._toolstack = spy
    if primitive is Primitive.POWER_OFF:
        faulty_rig.beats(vmid)  # a guest that is up, and obeys
    assert faulty_rig.do(vmid, primitive).ok
    changing = {"create", "restore", "save", "pause", "unpause", "request_shutdown", "destroy"}
    assert set(spy.calls) & changing == set(MACHINES[can_save][primitive])


@pytest.mark.parametrize(
    ("primitive", "look", "behaviour", "count"), LOOKS, ids=lambda value: str(getattr(value, "value", value))
)
def test_a_look_misbehaves(
    primitive: Primitive, look: str, behaviour: str, count: int, sim: SimBackend, faulty_rig: Rig
) -> None:
    """The agent cannot see, or sees what is not so, for a moment in an operation."""
    rig = faulty_rig
    vmid = rig.engine.add()
    for preparing in PREPARATION[primitive]:
        assert rig.do(vmid, preparing).ok
    before, target = rig.state(vmid), TRANSITIONS[primitive].target
    sim.faults.set(Fault(look, behaviour, count=count, seconds=0.1))
    result = rig.do(vmid, primitive)
    shown = rig.engine.get(vmid)
    assert result.status in (200, 500), result.message
    assert (VmState.DELETED if shown is None else shown.state) in (before, target)
    sim.faults.set()
    assert_truth(rig)
    after = rig.engine.get(vmid)
    state = VmState.DELETED if after is None else after.state
    if result.ok:
        assert state is target, result.message
    else:
        # What the primitive did all the same is found by the next look: a domain that is gone is a VM that is off.
        assert state in (before, target, VmState.POWERED_OFF), result.message
        assert str(vmid) in result.message


@pytest.mark.parametrize(("primitive", "call"), [(Primitive.CREATE, "create"), (Primitive.RESUME, "restore")])
def test_out_of_memory_is_420(primitive: Primitive, call: str, sim: SimBackend, faulty_rig: Rig) -> None:
    vmid = faulty_rig.engine.add()
    for preparing in PREPARATION[primitive]:
        assert faulty_rig.do(vmid, preparing).ok
    before = faulty_rig.state(vmid)
    sim.faults.set(Fault(call, "fail", count=1, error="OutOfMemory"))
    assert faulty_rig.do(vmid, primitive).status == 420
    assert faulty_rig.state(vmid) is before
    assert_truth(faulty_rig)


def test_a_list_that_lies_for_a_moment_powers_nothing_off(sim: SimBackend, faulty_rig: Rig) -> None:
    """Absence must persist before it means "gone"."""
    vmid = faulty_rig.running()
    sim.faults.set(Fault("domains", "lie", count=1))
    faulty_rig.engine._services.hints.hint()
    assert not faulty_rig.spontaneous()
    assert_truth(faulty_rig)
    assert faulty_rig.state(vmid) is VmState.RUNNING
    assert not faulty_rig.spontaneous()


def test_a_list_that_fails_changes_nothing(sim: SimBackend, faulty_rig: Rig) -> None:
    """Cannot see is not gone."""
    vmid = faulty_rig.running()
    sim.faults.set(Fault("domains", "fail", count=5))
    for _ in range(5):
        faulty_rig.engine._services.hints.hint()
    assert_truth(faulty_rig)
    assert faulty_rig.state(vmid) is VmState.RUNNING
    assert not faulty_rig.spontaneous()
