"""ApplyChanges of everything at once over three VMs, with real tc: a failure at any step leaves the picture as it was,
dom0's network included (R-060, A-16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import DomainState, Hypervisor, HypervisorError
from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.hypervisor.tool import ToolResult
from dom0_agent.operation import OperationResult
from dom0_agent.resources.apply import Applied, ApplyChanges, Wish
from dom0_agent.resources.config import NetworkConfig, ResourcesConfig
from dom0_agent.resources.enforcer import Enforcer
from dom0_agent.resources.picture import Resource
from dom0_agent.resources.sharing import open_sharing
from dom0_agent.resources.sweep import Sweep
from dom0_agent.store.database import Database
from dom0_agent.store.journal import Journal
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.engine import open_engine
from dom0_agent.vm.hints import Hints
from dom0_agent.vm.model import Allocation, Primitive, VmRecord, VmState
from tests.contract.support import MIB, FakeImages, SimBackend, eventually
from tests.integration.resources.shaping_testing import Lab
from tests.integration.resources.sim_network import InNamespace, with_network

BANDWIDTH = 100_000_000
RAM = 256 * MIB


class NetworkFails:
    """Runs tc and ip in the lab's dom0; the ``at``-th batch of tc from :meth:`arm` on fails half-way."""

    def __init__(self, lab: Lab) -> None:
        self._run = InNamespace(lab)
        self._left = 0

    def arm(self, at: int) -> None:
        """Begin to count."""
        self._left = at

    def __call__(self, argv: Any, deadline: float) -> ToolResult:
        if argv[0] == "tc" and self._left:
            self._left -= 1
            if self._left == 0:
                batch = Path(argv[-1])
                lines = batch.read_text().splitlines()
                batch.write_text("\n".join(lines[: len(lines) // 2]) + "\nqdisc add dev none root nonsense\n")
        return self._run(argv, deadline)


@dataclass
class Board:
    """An agent's parts over the simulator and a namespace that stands for dom0."""

    root: Path
    lab: Lab

    def __post_init__(self) -> None:
        self.backend = SimBackend(self.root, HostSettings(beat_interval=1.0))
        self.hypervisor: Hypervisor = with_network(self.backend.hypervisor, self.lab)
        self.database = Database(self.root / "agent.db")
        config = VmConfig(storage_reserve=0, shutdown_wait=1.0, default_storage=2 * MIB)
        resources = ResourcesConfig(network=NetworkConfig(bandwidth=BANDWIDTH))
        self.run = NetworkFails(self.lab)
        self.sharing = open_sharing(self.database, self.hypervisor, config, resources, self.root, run=self.run)
        images = FakeImages({"img-1": self.backend.image})
        self.engine = open_engine(self.database, self.hypervisor, images, config, self.root, sharing=self.sharing)
        self.applied: list[Applied] = []
        self.apply = ApplyChanges(self.database, self.engine.holds, self.sharing, self.applied.append)
        self.sweep = Sweep(self.sharing.enforcer, self.engine.holds, Hints(), 3600.0)
        self.engine.start()

    def record(self, vmid: UUID) -> VmRecord:
        record = self.engine.get(vmid)
        assert record is not None
        return record

    def do(self, vmid: UUID, primitive: Primitive) -> None:
        img_id = "img-1" if primitive.value.startswith("Create") else None
        result = self.engine.submit(vmid, primitive, img_id=img_id).wait(30)
        assert result is not None
        assert result.ok, result.message

    def change(self, wanted: dict[UUID, Allocation]) -> OperationResult:
        told = len(self.applied)
        result = self.apply.submit(Wish(wanted, {}), None).wait(60)
        assert result is not None
        eventually(lambda: len(self.applied) > told, 5, "the end is told")
        self.apply.reported(self.applied[-1])
        return result

    def picture(self) -> tuple[object, ...]:
        """All that there is: records, Xen, files, and what tc says of dom0's network."""
        resources, vms = self.hypervisor.resources, []
        for record in self.engine.list():
            data = self.root / "vms" / str(record.vmid) / "xvdb.raw"
            xen: tuple[object, ...] = ()
            if self.hypervisor.find(record.vmid) is not None:
                target = resources.memory(record.vmid).target
                xen = (resources.scheduling(record.vmid), resources.vcpus(record.vmid), target)
            vms.append((record.vmid, record.state, record.allocation, xen, data.stat().st_size))
        return (*vms, self.network())

    def network(self) -> list[str]:
        """tc's own words, interface by interface, without what counts; nothing of what it shows in hexadecimal."""
        told = []
        for link in sorted(self.lab.tc.links("ifb")) + sorted(self.lab.tc.links("veth")):
            for words in (("qdisc", "show", "dev", link), ("class", "show", "dev", link)):
                told.append(self.lab.inside("dom0", "tc", *words))
            for hook in ("ingress", "egress"):
                shown = self.lab.tc.batch([f"filter show dev {link} {hook}"]).documents
                told.append(f"{link} {hook} {[options['actions'][0]['to_dev'] for options in _redirects(shown)]}")
        return told

    def close(self) -> None:
        self.engine.stop(5)
        self.database.close()
        self.backend.close()


def _redirects(documents: tuple[Any, ...]) -> list[Any]:
    lines = [line["options"] for document in documents for line in document if "options" in line]
    return [options for options in lines if options.get("actions")]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    lab = Lab()
    opened = Board(tmp_path, lab)
    yield opened
    opened.close()
    lab.close()


@pytest.fixture
def vmids(board: Board) -> list[UUID]:
    """Two that run with a share of everything, and one that runs without a share of the network."""
    made = [board.engine.add() for _ in range(3)]
    shares = (Allocation(RAM, 2 * MIB, 40, 40), Allocation(RAM, 2 * MIB, 20, 20), Allocation(RAM, 2 * MIB, 10, 0))
    assert board.change(dict(zip(made, shares, strict=True))).ok
    for vmid in made:
        board.do(vmid, Primitive.CREATE)
    return made


def wanted_of(vmids: list[UUID]) -> dict[UUID, Allocation]:
    """The first gives, the second takes, the third gets a share of the network for the first time."""
    after = (
        Allocation(RAM - 64 * MIB, 4 * MIB, 10, 10),
        Allocation(RAM - 32 * MIB, 3 * MIB, 60, 50),
        Allocation(RAM - 16 * MIB, 2 * MIB, 30, 30, (("NetworkBps", "5000000"),)),
    )
    return dict(zip(vmids, after, strict=True))


def test_a_failure_at_any_step_leaves_everything_as_it_was(
    board: Board, vmids: list[UUID], monkeypatch: pytest.MonkeyPatch, long_form: bool
) -> None:
    """Generated: each step of the plan, before its effect and after it (in the short form one of both, in turns). Then
    it works, and the way back works."""
    wanted, before = wanted_of(vmids), board.picture()
    back = {vmid: board.record(vmid).allocation for vmid in vmids}
    steps = board.apply.plan(Wish(wanted, {}))[1]
    assert {(step.resource, step.live) for step in steps} == {(resource, True) for resource in Resource}
    assert len(steps) == 11
    works = Enforcer.apply
    for at, step in enumerate(steps):
        for late in (False, True) if long_form else (at % 2 == 0,):
            begun = iter(range(len(steps) + 1))

            def fails(*args: Any, at: int = at, late: bool = late, begun: Iterator[int] = begun, **rest: Any) -> None:
                hit = next(begun, None) == at
                if not hit or late:
                    works(*args, **rest)
                if hit:
                    raise HypervisorError("told to fail")

            monkeypatch.setattr(Enforcer, "apply", fails)
            result = board.change(wanted)
            monkeypatch.undo()
            assert (result.status, "told to fail" in result.message) == (500, True)
            assert board.picture() == before, f"{step.name}, {'after' if late else 'before'} its effect"
    assert Journal(board.database).unfinished() == ()
    assert board.change(wanted).ok
    assert board.picture() != before
    smaller = {vmid: replace(back[vmid], storage=wanted[vmid].storage) for vmid in vmids}
    assert board.change(smaller).ok
    assert board.network() == before[-1]


@pytest.mark.parametrize("at", [1, 4, 7, *(pytest.param(at, marks=pytest.mark.long) for at in (2, 3, 5, 6, 8))])
def test_a_tc_that_stops_half_way_changes_nothing(at: int, board: Board, vmids: list[UUID]) -> None:
    """The batches that change rates and those that make the third VM's limit, each cut off in its middle."""
    before = board.picture()
    board.run.arm(at)
    result = board.change(wanted_of(vmids))
    if result.ok:  # shaping mends an incomplete change by itself
        assert all(board.record(vmid).allocation == wanted for vmid, wanted in wanted_of(vmids).items())
    else:
        assert result.status == 500
        assert board.picture() == before
    board.run.arm(0)
    assert board.change(wanted_of(vmids)).ok


def test_a_guest_that_reboots_has_its_share_again(board: Board, vmids: list[UUID]) -> None:
    """Its interface has another name then; what was of the old one is gone."""
    resources = board.hypervisor.resources
    before = board.hypervisor.find(vmids[0])
    assert before is not None
    board.backend.guest_ends(vmids[0], "reboot")

    def again() -> bool:
        domain = board.hypervisor.find(vmids[0])
        return domain is not None and domain.state is DomainState.RUNNING and domain.domid != before.domid

    eventually(again, 20, "it boots again")
    assert board.engine.drain(20)
    rate = board.sharing.enforcer.rate(board.record(vmids[0]).allocation)
    assert board.lab.shaper.holds(vmids[0], resources.interfaces(vmids[0]), rate)
    assert len(board.lab.objects()[0]) == 4


@pytest.mark.parametrize("how", ["poweroff", "crash"])
def test_a_guest_that_ends_by_itself_leaves_nothing_on_dom0s_network(how: str, board: Board, vmids: list[UUID]) -> None:
    """At once, and not only when somebody looks at everything."""
    board.backend.guest_ends(vmids[0], how)
    eventually(lambda: board.record(vmids[0]).state is VmState.POWERED_OFF, 20, "the agent follows")
    assert board.engine.drain(20)
    assert board.sharing.shaper.owned() == {vmids[1]}


def test_a_look_removes_what_is_left_of_others_and_nothing_of_ours(board: Board, vmids: list[UUID]) -> None:
    """No leak survives a look: of a VM that nobody knows, of one that was powered off behind our back."""
    before = board.network()
    stranger = UUID(int=0x1234 << 64)
    board.lab.shaper.shape(stranger, ["up0"], board.sharing.enforcer.rate(Allocation(network=10)))
    assert stranger in board.sharing.shaper.owned()
    board.sweep.look()
    assert board.engine.drain(10)
    assert board.sharing.shaper.owned() == set(vmids[:2])
    board.lab.inside("dom0", "tc", "qdisc", "del", "dev", "up0", "clsact")
    assert board.network() == before
    for vmid in vmids:
        board.do(vmid, Primitive.DELETE)
    assert board.lab.objects()[0] == []
