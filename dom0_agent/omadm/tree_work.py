"""The unit of work: every write can be taken back, in the store and in the management objects, until it is durable.

A *write* is one command (or one call of the device side) with everything it did: several store changes, several
objects prepared. Writes collect until :meth:`Work.commit`; outside Atomic and batches that is at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from dom0_agent.omadm.mo import Change, ManagementObject, Undo
from dom0_agent.omadm.nodestore import NodeStore, NodeStoreError
from dom0_agent.omadm.status import CommitFailed, Status

logger = logging.getLogger(__name__)


class Write:
    """What one command did so far; a context manager, which :meth:`Work.write` describes."""

    __slots__ = ("_work", "changes", "depth", "savepoint", "undos")

    def __init__(self, work: Work, savepoint: int) -> None:
        self._work = work
        self.depth = 0
        self.savepoint = savepoint
        self.undos: list[Undo] = []
        self.changes: list[tuple[ManagementObject, Change]] = []

    def prepare(self, mo: ManagementObject | None, change: Change) -> None:
        """Ask the object; a veto (:class:`DMError`) passes through, an undo is kept."""
        if mo is None:
            return
        undo = mo.prepare(change)
        self.changes.append((mo, change))
        if undo is not None:
            self.undos.append(undo)

    def __enter__(self) -> Write:
        self.depth += 1
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.depth -= 1
        if not self.depth:
            self._work.ended(self, failed=error is not None)


class Work:
    """All writes since the last commit. ``taken_back`` is told whenever the store went back in time."""

    def __init__(self, store: NodeStore, taken_back: Callable[[], None]) -> None:
        self._store = store
        self._taken_back = taken_back
        self._writes: list[Write] = []
        self._open: Write | None = None  #: being done; an object's prepare may write through the device side
        self._holds = 0

    def write(self) -> Write:
        """One command: taken back as a whole when the block raises, else kept, and committed unless that is held.

        Inside another write (an object that uses the device side in ``prepare``) it is part of that one.
        """
        if self._open is None:
            self._open = Write(self, self._store.savepoint())
        return self._open

    def ended(self, write: Write, *, failed: bool) -> None:
        """The outermost block of ``write`` is over."""
        self._open = None
        if failed:
            self._undo(write)
            return
        self._writes.append(write)
        if not self._holds:
            self.commit()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Writes of the block are not committed one by one, but what is left of them at its end (if outermost)."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self.commit()

    def mark(self) -> int:
        """The number of writes not yet committed, as a mark for :meth:`rollback`."""
        return len(self._writes)

    def commit(self) -> None:
        """Make all writes durable and tell the objects; :class:`CommitFailed` 420 or 510 when it was taken back."""
        if not self._writes:
            return
        try:
            self._store.commit()
        except NodeStoreError as error:
            logger.error("tree.commit failed error=%s", error)
            undone = self.rollback(0)
            status = Status.DEVICE_FULL if error.full else Status.DATA_STORE_FAILURE
            raise CommitFailed(status, f"the device could not store the change: {error}", undone) from error
        done, self._writes = self._writes, []
        for mo, changes in _by_object(done):
            try:
                mo.committed(changes)
            except Exception:
                logger.exception("mo.committed failed moid=%s: the tree is right, the device may lag behind", mo.moid)

    def rollback(self, mark: int) -> list[bool]:
        """Take back all writes since ``mark``, last first; per write, oldest first, whether its undo worked."""
        worked: list[bool] = []
        while len(self._writes) > mark:
            worked.append(self._undo(self._writes.pop()))
        return worked[::-1]

    def _undo(self, write: Write) -> bool:
        self._store.rollback(write.savepoint)
        self._taken_back()
        worked = True
        for undo in reversed(write.undos):
            try:
                undo()
            except Exception:
                logger.exception("mo.undo failed: the device may differ from the tree")
                worked = False
        return worked


def _by_object(writes: list[Write]) -> Iterable[tuple[ManagementObject, list[Change]]]:
    """The changes of all writes in order, per object."""
    if len(writes) == 1 and len(writes[0].changes) == 1:  # nearly always
        mo, change = writes[0].changes[0]
        return ((mo, [change]),)
    found: dict[int, tuple[ManagementObject, list[Change]]] = {}
    for write in writes:
        for mo, change in write.changes:
            found.setdefault(id(mo), (mo, []))[1].append(change)
    return found.values()
