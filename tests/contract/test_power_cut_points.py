"""The power goes at every journal write of every primitive: State is the one before or the one after, nothing leaks
(R-010, R-023, A-56).

As ``test_kill_points``, and worse: all domains are gone, dom0 boots anew, and of the database there is only what was
flushed to storage, while every file that a step made or removed is there or gone. That is the worst disk for a journal:
effects are never lost, what is written of them may be. So only "before" each write: "after" it nothing more has
happened than before the next one. Only on the simulator; real Xen's is ``tests/nested/test_power_cuts.py``.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from sqlite3 import Connection

import pytest

from dom0_agent.store.database import Database
from dom0_agent.vm import engine
from dom0_agent.vm.model import Primitive, VmState
from tests.contract.support import Rig, open_backend
from tests.contract.test_kill_points import counted, open_rig, perform, settled
from tests.contract.test_kill_points_pausing import machine

#: What ``PRAGMA synchronous`` says where each commit is flushed.
FULL = 2
#: SQLite's files beside the database: ``-shm`` is memory only.
FILES = ("agent.db", "agent.db-wal")
FLUSHED = "flushed"


@pytest.fixture
def flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each commit that is flushed, keep what is on storage then."""
    commit = Database._commit

    def keep(self: Database, connection: Connection) -> None:
        commit(self, connection)
        if connection.execute("PRAGMA synchronous").fetchone()[0] == FULL:
            folder = self.path.parent / FLUSHED
            folder.mkdir(exist_ok=True)
            for name in FILES:
                shutil.copy(self.path.with_name(name), folder / name)

    monkeypatch.setattr(Database, "_commit", keep)


def cut_power(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the agent's death: no domain, another boot of dom0, and the database that was flushed."""
    open_backend(root).close()
    for name in (*FILES, "agent.db-shm"):
        (root / name).unlink(missing_ok=True)
    for name in FILES:
        shutil.copy(root / FLUSHED / name, root / name)
    boot_id = root / "host-boot-id"
    boot_id.write_text("another boot of dom0\n")
    monkeypatch.setattr(engine, "HOST_BOOT_ID", boot_id)


@pytest.mark.parametrize("primitive", list(Primitive), ids=lambda primitive: primitive.value)
def test_power_goes_at_every_journal_write(
    primitive: Primitive, tmp_path: Path, flushing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = counted(machine(tmp_path / "count"), primitive)
    for point in range(1, points + 1):
        root = machine(tmp_path / f"before-{point}")
        try:
            assert perform(root, primitive, point, "before") == -signal.SIGKILL
            with monkeypatch.context() as patch:
                cut_power(root, patch)
                check(root, primitive)
        except AssertionError as error:
            raise AssertionError(f"{primitive.value}, cut before write {point} of {points}: {error}") from error
        finally:
            open_backend(root).close()


def check(root: Path, primitive: Primitive) -> None:
    """What the agent of the next boot makes of it. What ran runs in a new boot of its guest."""
    rig = open_rig(root)
    try:
        settled(rig, primitive)
        check_guest(rig, root)
    finally:
        rig.stop()
        rig.hypervisor.close()


def check_guest(rig: Rig, root: Path) -> None:
    """What is Suspended goes on where it was; what runs was started anew."""
    if not (root / "boot-id").exists() or not rig.engine.list():
        return
    record, boot_id = rig.engine.list()[0], (root / "boot-id").read_text()
    if record.state is VmState.SUSPENDED:
        assert rig.do(record.vmid, Primitive.RESUME).ok
        assert rig.beats(record.vmid)[0] == boot_id
    elif record.state is VmState.RUNNING:
        assert rig.beats(record.vmid)[0] != boot_id
