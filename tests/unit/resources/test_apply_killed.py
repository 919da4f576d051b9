"""SIGKILL of the agent at every durable write of an ApplyChanges over three VMs: the next agent leaves all of them as
they were, or all as they were to be (A-16, A-56)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.operation import Origin
from dom0_agent.resources.apply import Wish
from dom0_agent.store.database import Database
from dom0_agent.store.journal import Journal
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Primitive
from tests.contract.support import MIB, Rig, SimBackend, eventually
from tests.contract.test_apply_changes import Picture, picture, wish_for
from tests.contract.test_kill_points import Killer, in_child

ORIGIN = Origin("server", "./VirMO/Operations/ApplyChanges", "correlator-1")
NODES = {"./VirMO/a/Resources/NewConfig": "the text"}


def open_rig(root: Path) -> Rig:
    """An agent's engine and resources."""
    backend = SimBackend(root, HostSettings(beat_interval=0.5))
    config = VmConfig(default_storage=4 * MIB, default_cpu=30, storage_reserve=0, sweep_interval=5.0)
    return Rig(backend, backend.hypervisor, Database(root / "agent.db"), config, root)


def prepare(root: Path) -> None:
    """Two VMs that run, and one that does not."""
    rig = open_rig(root)
    rig.engine.start()
    rig.running(), rig.running()
    assert rig.do(rig.engine.add(), Primitive.CREATE_AND_POWER_OFF).ok
    rig.stop()
    rig.backend.hypervisor.close()


def perform(root: Path, point: int | None, when: str = "after") -> int:
    """Do it, and die at a point; without one: how many points there are."""

    def work() -> int:
        rig = open_rig(root)
        vmids = [record.vmid for record in rig.engine.list()]
        wish = Wish(wish_for(rig, vmids), NODES)
        killer = Killer(point, when)
        killer.arm()
        result = rig.apply.submit(wish, ORIGIN).wait(30)
        assert result is not None
        assert result.ok, result.message
        eventually(lambda: bool(rig.applied), 5, "the end is told")
        return killer.count

    return in_child(work)


def after_restart(root: Path) -> tuple[dict[str, Picture], Rig]:
    """What the next agent makes of it, and that agent."""
    rig = open_rig(root)
    rig.apply.start()
    assert rig.apply.stop(20)
    rig.engine.start()
    assert rig.engine.drain(20)
    return {str(vmid): seen for vmid, seen in picture(rig).items()}, rig


@pytest.mark.parametrize("points", [(1, 4, 7, 10), pytest.param(range(1, 11), marks=pytest.mark.long)])
def test_killed_anywhere_it_is_all_or_nothing(points: Sequence[int], tmp_path: Path) -> None:
    """A-16: generated over every durable write; whoever asked hears of it by an alert; NewConfig goes only if done."""
    prepare(tmp_path)
    before, rig = after_restart(tmp_path)
    vmids = [record.vmid for record in rig.engine.list()]
    back = {record.vmid: record.allocation for record in rig.engine.list()}
    rig.stop()
    rig.backend.hypervisor.close()
    total = 1 + 8 + 1  # the intent, each step, which says that the one before is done, the commit
    outcomes = set()
    for point in points:
        for when in ("before", "after"):
            assert perform(tmp_path, point, when) == -9, f"there is no write {point}"
            seen, rig = after_restart(tmp_path)
            done = {str(vmid): rig.record(vmid).allocation for vmid in vmids} != {
                str(vmid): allocation for vmid, allocation in back.items()
            }
            outcomes.add(done)
            for applied in rig.applied:
                assert applied.origin == ORIGIN
                assert applied.result.ok is done
                assert dict(applied.nodes) == (NODES if done else {})
                rig.apply.reported(applied)
            assert Journal(rig.database).unfinished() == ()
            if done:
                assert point == total
                assert rig.applied, "it is reported"
                break
            assert seen == before, f"killed {when} write {point}"
            rig.stop()
            rig.backend.hypervisor.close()
    assert outcomes == {False, True}
    rig.stop()
    rig.backend.close()
