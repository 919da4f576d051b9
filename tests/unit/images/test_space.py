"""Space is promised once: free bytes, minus the reserve, minus what others were promised and have not written."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dom0_agent.images.errors import NoSpace
from dom0_agent.images.space import SpaceLedger, free_bytes


class Disk:
    """A file system with a number of free bytes."""

    def __init__(self, free: int, reserve: int = 0) -> None:
        self.free = free
        self.ledger = SpaceLedger(Path("/images"), reserve, lambda _: self.free)


def test_promises_add_up() -> None:
    disk = Disk(1000, reserve=100)
    first = disk.ledger.reserve("the download", 500)
    with pytest.raises(NoSpace) as refused:
        disk.ledger.reserve("unpacking", 401)
    assert str(refused.value).startswith(
        "not enough space in /images for unpacking: needs 401 bytes, 1000 are free, of which 500 are reserved for "
        "other images and 100 are kept for dom0"
    )
    assert refused.value.status == 420 and refused.value.notify == 901
    assert disk.ledger.reserved() == 500, "the refused promise is forgotten"
    assert disk.ledger.available() == 400
    disk.ledger.reserve("unpacking", 400)
    first.release()
    assert disk.ledger.available() == 500


def test_written_bytes_are_counted_once() -> None:
    """The file system counts what was written; the promise shrinks by it."""
    disk = Disk(1000)
    with disk.ledger.reserve("the download", 600) as space:
        disk.free -= 250
        space.consume(250)
        assert (space.remaining, disk.ledger.available()) == (350, 400)
        space.consume(9999)
        assert space.remaining == 0
    assert disk.ledger.reserved() == 0


def test_promise_can_be_made_larger_and_smaller() -> None:
    disk = Disk(1000)
    space = disk.ledger.reserve("unpacking", 100)
    space.ensure(1000)
    with pytest.raises(NoSpace):
        space.ensure(1001)
    assert space.remaining == 1000
    disk.free = 10
    space.ensure(900)
    assert space.remaining == 900, "less is always possible, also when others have filled the disk"
    assert disk.ledger.available() == 0


def test_two_threads_do_not_get_the_same_bytes() -> None:
    disk = Disk(10)
    got: list[int] = []

    def take() -> None:
        try:
            disk.ledger.reserve("the download", 1)
            got.append(1)
        except NoSpace:
            return

    threads = [threading.Thread(target=take) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 10


def test_free_bytes_of_a_real_file_system(tmp_path: Path) -> None:
    facts = os.statvfs(tmp_path)
    assert 0 < free_bytes(tmp_path) <= facts.f_blocks * facts.f_frsize
