"""Random primitives on some VMs at once, awaited or not, while calls of the toolstack are slow or fail.

Whatever is asked and whenever: it is refused at once as the table of 7.1.4 says, or it ends within its time; Delete and
PowerOff are accepted while anything else runs; at the end State, domains, files and journal tell the same story
(R-010, R-012, R-023, R-058, R-121, A-08, A-27). On the simulator alone: hundreds of boots.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.operation import OperationHandle, OperationRefused, Origin
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Primitive, VmState
from dom0_agent.vm.states import TRANSITIONS
from tests.contract.support import Rig, SimBackend, eventually
from tests.contract.truth import assert_truth

VMS = 3
STEPS = 25
#: Seconds in which anything ends here, however many faults hit it.
ENDS = 60.0
CREATES = (Primitive.CREATE, Primitive.CREATE_AND_POWER_OFF)
PREEMPTING = (Primitive.POWER_OFF, Primitive.DELETE)
FAULTS = tuple(
    Fault(call, behaviour, count=1, seconds=0.15)
    for call in ("create", "restore", "save", "pause", "unpause", "destroy", "request_shutdown", "domains", "host")
    for behaviour in ("fail", "slow", "hang", "lie")
    if (call, behaviour) != ("host", "lie")
)


@pytest.fixture(params=[True, False], ids=["saves", "pauses"])
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A started engine, on a machine that can save and on one that cannot."""
    backend = SimBackend(tmp_path, HostSettings(beat_interval=0.05, can_save=request.param))
    config = VmConfig(shutdown_wait=0.5, storage_reserve=0, sweep_interval=0.3)
    made = Rig(backend, backend.hypervisor, Database(tmp_path / "agent.db"), config, tmp_path)
    made.engine.start()
    yield made
    made.stop()
    backend.close()


@dataclass(eq=False)
class Asked:
    """An Exec that was accepted."""

    primitive: Primitive
    handle: OperationHandle
    correlator: str
    answered: bool = False  #: its session got the result in time

    @property
    def ended(self) -> bool:
        """Looks without waiting: a wait that comes back empty would be another session."""
        return self.handle._done.is_set()


@pytest.mark.parametrize("seed", range(3))
def test_any_requests_at_any_time(rig: Rig, seed: int) -> None:
    play(rig, random.Random(seed))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 140))
def test_many_of_them(rig: Rig, seed: int) -> None:
    play(rig, random.Random(seed))


def play(rig: Rig, dice: random.Random) -> None:
    """One random story."""
    assert isinstance(rig.backend, SimBackend)
    asked: dict[UUID, list[Asked]] = {rig.engine.add(): [] for _ in range(VMS)}
    everything: list[Asked] = []
    for number in range(STEPS):
        if dice.random() < 0.4:
            rig.backend.faults.set(dice.choice(FAULTS))
        vmid = dice.choice(list(asked))
        accepted = ask(rig, vmid, dice.choice(list(Primitive)), asked[vmid], f"correlator-{number}")
        if accepted is not None:
            asked[vmid].append(accepted)
            everything.append(accepted)
            accepted.answered = accepted.handle.wait(dice.choice([0.0, 0.05, 0.3, ENDS])) is not None
        if rig.engine.get(vmid) is None:
            del asked[vmid]
            asked[rig.engine.add()] = []
    rig.backend.faults.set()
    eventually(lambda: all(one.ended for one in everything), ENDS, "all that was accepted ends")
    assert rig.engine.drain(ENDS)
    assert_truth(rig)
    told = Counter(e.origin.correlator for e in rig.events if e.origin is not None and e.result is not None)
    for one in everything:  # a status or an alert, never both, never neither
        assert told[one.correlator] == (0 if one.answered else 1), f"{one.primitive.value}: {told[one.correlator]}"
    for vmid in asked:  # whatever it went through, it can be got rid of
        if rig.engine.get(vmid) is not None and rig.state(vmid) is not VmState.NOT_CREATED:
            assert rig.do(vmid, Primitive.DELETE).ok
            rig.assert_no_trace(vmid)


def ask(rig: Rig, vmid: UUID, primitive: Primitive, before: list[Asked], correlator: str) -> Asked | None:
    """Ask, and check the answer against the table."""
    known, running = rig.engine.get(vmid), {one.primitive for one in before if not one.ended}
    img_id = rig.backend.image.img_id if primitive in CREATES else None
    origin = Origin("server", f"./VirMO/{vmid}", correlator)
    try:
        handle = rig.engine.submit(vmid, primitive, img_id=img_id, origin=origin)
    except OperationRefused as refusal:
        assert str(vmid) in str(refusal)
        if known is not None and not running:
            assert refusal.status != 417, f"nothing runs, but: {refusal}"
            if refusal.status == 405 and known == rig.engine.get(vmid):
                assert known.state not in TRANSITIONS[primitive].sources, str(refusal)
        if refusal.status == 417 and primitive in PREEMPTING:
            assert {primitive, Primitive.DELETE} & running, f"{primitive.value} while {running} run: {refusal}"
        assert refusal.status in (404, 405, 417), str(refusal)
        return None
    return Asked(primitive, handle, correlator)
