"""SIGKILL of the agent at journal writes of a rebuild: the VM runs its old or its new system, and its data is there.

The machinery is that of ``tests/contract/test_kill_points``, on the simulator; R-010 to R-012.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import Rebuild, VmState
from tests.contract.support import MIB, Rig, SimBackend, eventually, open_backend
from tests.contract.test_kill_points import Killer, in_child
from tests.contract.truth import assert_truth

OLD, NEW, PRECIOUS = b"old system", b"new system", b"precious"


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes machines' directories; at the end each machine's domains are destroyed."""
    made: list[Path] = []

    def make(name: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        made.append(root)
        return root

    yield make
    for root in made:
        open_backend(root).close()


def open_rig(root: Path) -> Rig:
    backend = open_backend(root)
    assert isinstance(backend, SimBackend)
    config = VmConfig(shutdown_wait=5.0, storage_reserve=0, sweep_interval=0.5, default_storage=MIB)
    rig = Rig(backend, backend.hypervisor, Database(root / "agent.db"), config, root)
    disk = root / "guest" / "new-disk"
    disk.write_bytes(NEW)
    image = backend.image
    rig.images.images["img-2"] = replace(image, img_id="img-2", disks=(replace(image.disks[0], path=disk),))
    return rig


def disks(rig: Rig) -> dict[str, bytes]:
    (row,) = rig.engine._vms.list()
    return {disk.device: Path(disk.path).read_bytes()[: len(OLD)] for disk in Vm.load(row).disks}


def perform(root: Path, rebuild: Rebuild, point: int | None, when: str = "after") -> int:
    """A VM with data; rebuild it and die at a point; without one: how many points there are."""

    def work() -> int:
        rig = open_rig(root)
        rig.engine.start()
        vmid = rig.running()
        for row in rig.engine._vms.list():
            for disk in Vm.load(row).disks:
                Path(disk.path).write_bytes(PRECIOUS if disk.role == "data" else OLD)
        rig.beats(vmid)
        assert rig.engine.drain(10)
        killer = Killer(point, when)
        killer.arm()
        img_id = "img-2" if rebuild is Rebuild.REPLACE_SYSTEM else "img-1"
        result = rig.engine.rebuild(vmid, rebuild, img_id, health_timeout=20).wait(60)
        assert result is not None
        assert result.ok, result.message
        rig.assert_nothing_open()
        return killer.count

    return in_child(work)


def check_after_restart(root: Path, rebuild: Rebuild) -> None:
    rig = open_rig(root)
    try:
        rig.engine.start()
        assert rig.engine.drain(30)
        assert_truth(rig)
        (record,) = rig.engine.list()
        assert record.state is VmState.RUNNING
        found = disks(rig)
        systems = (OLD, NEW) if rebuild is Rebuild.REPLACE_SYSTEM else (OLD, (b"disk" * 3)[: len(OLD)])
        assert found["xvda"] in systems
        kept = rebuild is Rebuild.REPLACE_SYSTEM or found["xvda"] == OLD
        assert found["xvdb"] == (PRECIOUS if kept else bytes(len(OLD)))
        eventually(lambda: rig.hypervisor.guest_facts(record.vmid).boot_id is not None, 10, "its shim is there")
        rig.assert_nothing_open()
    finally:
        rig.stop()
        rig.hypervisor.close()


def kill_at(points: list[tuple[int, str]], rebuild: Rebuild, roots: Callable[[str], Path]) -> None:
    for point, when in points:
        root = roots(f"{when}-{point}")
        assert perform(root, rebuild, point, when) == -signal.SIGKILL, f"{when} write {point}"
        try:
            check_after_restart(root, rebuild)
        except AssertionError as error:
            raise AssertionError(f"{rebuild.value}, killed {when} write {point}: {error}") from error
        open_backend(root).close()


def test_killed_while_the_old_system_ends_and_while_the_new_one_waits(roots: Callable[[str], Path]) -> None:
    """The points that matter most: nothing runs; the new one runs, and is not yet believed."""
    kill_at([(2, "after"), (6, "before"), (7, "after")], Rebuild.REPLACE_SYSTEM, roots)


@pytest.mark.long
@pytest.mark.parametrize("rebuild", list(Rebuild), ids=lambda rebuild: rebuild.value)
def test_killed_at_every_journal_write(rebuild: Rebuild, roots: Callable[[str], Path]) -> None:
    total = perform(roots("count"), rebuild, None)
    assert total >= 4
    kill_at([(point, when) for point in range(1, total + 1) for when in ("before", "after")], rebuild, roots)
