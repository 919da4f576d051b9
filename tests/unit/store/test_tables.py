"""VMs, journal, images, outbox and nonces come back from the disk as they were put there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.images.model import ImageRecord, ImageState
from dom0_agent.omadm.auth import NonceRole, NonceStore
from dom0_agent.operation import Origin
from dom0_agent.store.database import Database, StoreError
from dom0_agent.store.images import ImageTable, StoredImage
from dom0_agent.store.journal import Journal, StepState
from dom0_agent.store.nonces import NonceTable
from dom0_agent.store.outbox import Outbox
from dom0_agent.store.vms import StoredDisk, StoredVm, VmTable
from dom0_agent.vm.model import Allocation, VmRecord, VmState

VMID = UUID("0b0d4a34-1f5e-4d8c-9a3c-7d6c0e1f2a3b")
ORIGIN = Origin("com.example", "./VirMO/a/Operations/Create", "c-1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "agent.db")
    yield database
    database.close()


def test_vm_round_trip(database: Database) -> None:
    vms = VmTable(database)
    vm = StoredVm(
        VmRecord(VMID, VmState.SUSPENDED, "img-1", Allocation(1 << 40, 2, 3, 4), "saving", "oops", {"K": "ü&="}),
        reserved=Allocation(5, 6, 7, 8),
        macs=("00:16:3e:00:00:01",),
        disks=(StoredDisk("/var/a.raw", "xvda"), StoredDisk("/var/b.raw", "xvdb", "qcow2", "data", read_only=True)),
        build={"kernel": "/k", "vcpus": 2},
    )
    vms.put(vm)
    assert vms.get(VMID) == vm
    changed = replace(vm, record=replace(vm.record, state=VmState.RUNNING, last_error=None), reserved=None)
    vms.put(changed)
    assert vms.list() == (changed,)
    assert vms.delete(VMID)
    assert not vms.delete(VMID)
    assert vms.get(VMID) is None


def test_image_round_trip_and_progress(database: Database) -> None:
    images = ImageTable(database)
    image = StoredImage(
        ImageRecord("i1", ImageState.DOWNLOADING, None, 10, 0, None),
        uri="http://h/i",
        media_type="application/x-tar",
        etag='"e"',
        received=10,
        total=100,
        origin=ORIGIN,
        manifest={"members": ["a"]},
    )
    images.put(image)
    images.note_progress("i1", progress=50, received=50)
    assert images.get("i1") == replace(image, record=replace(image.record, progress=50), received=50)
    done = replace(
        image, record=ImageRecord("i1", ImageState.DOWNLOADED, Path("/x"), 100, 100), sha256="ab", origin=None
    )
    images.put(done)
    assert images.list() == (done,)
    assert images.delete("i1")
    assert images.list() == ()


def test_journal_tells_how_far_an_operation_got(database: Database) -> None:
    """R-010: what a restart needs to finish or undo is on disk before each step begins."""
    journal = Journal(database, clock=lambda: 12.5)
    operation = journal.begin("Create", ["storage", "domain"], vmid=VMID, origin=ORIGIN, params={"img": "i1"})
    journal.intend(operation, 0, {"path": "/a", "kept": None})
    journal.done(operation, 0, {"size": 3})
    journal.intend(operation, 1)
    (entry,) = journal.unfinished()
    assert (entry.operation_id, entry.vmid, entry.primitive) == (operation, VMID, "Create")
    assert (entry.origin, entry.params, entry.started) == (ORIGIN, {"img": "i1"}, 12.5)
    assert (entry.undoing, entry.reason) == (False, None)
    assert [step.state for step in entry.steps] == [StepState.DONE, StepState.INTENDED]
    assert entry.steps[0].detail == {"path": "/a", "kept": None, "size": 3}
    journal.turn_back(operation, "no memory")
    journal.undone(operation, 1)
    again = journal.get(operation)
    assert again is not None
    assert (again.undoing, again.reason) == (True, "no memory")
    assert [(step.name, step.state) for step in again.steps] == [
        ("storage", StepState.DONE),
        ("domain", StepState.UNDONE),
    ]
    journal.finish(operation)
    assert journal.unfinished() == ()
    assert database.query("SELECT * FROM operation_step") == []


def test_journal_refuses_what_it_does_not_know(database: Database) -> None:
    journal = Journal(database)
    operation = journal.begin("ApplyChanges", ["a"])
    assert journal.unfinished()[0].vmid is None
    with pytest.raises(StoreError, match="no step 7"):
        journal.done(operation, 7)
    with pytest.raises(StoreError, match="no operation"):
        journal.turn_back("nonsense", "x")


def test_record_and_journal_change_together(database: Database) -> None:
    """R-012: no crash can separate the new state from the end of the operation."""
    journal, vms = Journal(database), VmTable(database)
    operation = journal.begin("PowerOff", ["stop"], vmid=VMID)
    with pytest.raises(ZeroDivisionError), database.transaction():
        vms.put(StoredVm(VmRecord(VMID, VmState.POWERED_OFF)))
        journal.finish(operation)
        raise ZeroDivisionError
    assert vms.get(VMID) is None
    assert len(journal.unfinished()) == 1


def test_outbox_keeps_order_until_acknowledged(database: Database) -> None:
    """A-33: alerts stay until the server's status."""
    outbox = Outbox(database, clock=lambda: 7.0)
    first = outbox.add("s1", "urn:oma:at:oma-virmo:imageready:1.0", source_uri="./V/a", format="xml", correlator="c")
    second = outbox.add("s2", "t", source_uri="./V/b", format="int", data="500", mark="critical")
    outbox.sent([first, second])
    outbox.sent([first])
    (alert,) = outbox.list("s1")
    assert (alert.id, alert.correlator, alert.attempts, alert.created, alert.data) == (first, "c", 2, 7.0, "")
    assert [alert.id for alert in outbox.list()] == [first, second]
    outbox.remove([first, 999])
    outbox.remove([first])
    assert [alert.mark for alert in outbox.list()] == ["critical"]
    outbox.remove_server("s2")
    third = outbox.add("s1", "t", source_uri="./V/c")
    assert third > second
    assert [alert.id for alert in outbox.list()] == [third]


def test_nonces_per_account_and_role(database: Database) -> None:
    nonces: NonceStore = NonceTable(database)
    assert nonces.get("a", NonceRole.CLIENT) is None
    nonces.put("a", NonceRole.CLIENT, b"\x00\xff")
    nonces.put("a", NonceRole.SERVER, b"s")
    nonces.put("a", NonceRole.CLIENT, b"new")
    assert (nonces.get("a", NonceRole.CLIENT), nonces.get("a", NonceRole.SERVER)) == (b"new", b"s")
    NonceTable(database).delete("a")
    assert nonces.get("a", NonceRole.SERVER) is None


_WRITER = """
import sys
from pathlib import Path
from dom0_agent.store.database import Database
from dom0_agent.store.journal import Journal
journal = Journal(Database(Path(sys.argv[1])))
while True:
    operation = journal.begin("Create", ["one", "two"])
    for position in (0, 1):
        journal.intend(operation, position)
        journal.done(operation, position)
    print(operation, flush=True)
"""


def test_sigkill_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    """A writer killed at a random moment: every operation it reported is complete on disk, the file is sound."""
    path = tmp_path / "agent.db"
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = [process.stdout.readline().strip() for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        reported += [line.strip() for line in process.stdout if line.endswith("\n")]
    database = Database(path)
    entries = {entry.operation_id: entry for entry in Journal(database).unfinished()}
    assert set(reported) <= set(entries)
    for operation in reported:
        assert [step.state for step in entries[operation].steps] == [StepState.DONE, StepState.DONE]
    assert len(entries) - len(reported) <= 1
    database.close()
