"""Each toolstack call of each primitive fails, hangs, lies or succeeds late: State is the one before or, when the call
did take effect, the one after; the status tells which; nothing leaks (R-010 to R-012, A-08).

On the simulator alone: real tools do not fail on demand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Primitive, VmState
from dom0_agent.vm.states import TRANSITIONS
from tests.contract.support import Rig, SimBackend
from tests.contract.test_kill_points import PREPARATION
from tests.contract.truth import assert_truth

#: The toolstack calls that each primitive makes.
CALLS = {
    Primitive.CREATE: ("create", "unpause"),
    Primitive.CREATE_AND_POWER_OFF: (),
    Primitive.POWER_ON: ("create", "unpause"),
    Primitive.POWER_OFF: ("request_shutdown", "destroy"),
    Primitive.SUSPEND: ("save",),
    Primitive.RESUME: ("restore", "unpause"),
    Primitive.DELETE: ("destroy",),
}
CASES = [
    (primitive, call, behaviour)
    for primitive, calls in CALLS.items()
    for call in calls
    for behaviour in ("fail", "break", "hang", "late", "lie", "slow")
]
#: A guest that is not asked, or does not hear, is ended all the same: that is PowerOff's promise.
HARMLESS = {(Primitive.POWER_OFF, "request_shutdown")}


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimBackend]:
    """A simulated machine."""
    backend = SimBackend(tmp_path)
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


@pytest.mark.parametrize(("primitive", "call", "behaviour"), CASES, ids=lambda case: getattr(case, "value", case))
def test_a_call_misbehaves(primitive: Primitive, call: str, behaviour: str, sim: SimBackend, faulty_rig: Rig) -> None:
    rig = faulty_rig
    vmid = rig.engine.add()
    for preparing in PREPARATION[primitive]:
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
