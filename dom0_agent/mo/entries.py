"""Entries below a management object (``<x>`` of VirMO and VMImgMO) that stand for something in an engine.

A server's Add makes the engine's entry at once, because its id must be a node of the new sub-tree; a Delete drops it
only when the sub-tree is durably gone. A transaction that is rolled back leaves the engine as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dom0_agent.omadm.mo import Change, Undo
from dom0_agent.omadm.node import Command

Id = TypeVar("Id")

DEPTH = 2  #: segments of an entry's path: the object's mount, and its name


class Entries(Generic[Id]):
    """``make`` gives a new entry of the engine, ``drop`` takes one away for good."""

    def __init__(self, make: Callable[[], Id], drop: Callable[[Id], None]) -> None:
        self._make = make
        self._drop = drop
        self._arriving: dict[str, Id] = {}  #: sub-trees being added in the open transaction
        self._leaving: dict[str, Id] = {}  #: sub-trees being deleted in the open transaction

    def new_id(self, name: str) -> Id:
        """The id of an entry whose sub-tree is being made."""
        return self._arriving[name]

    def add(self, name: str) -> Undo:
        """A sub-tree is being added."""
        self._arriving[name] = self._make()
        return lambda: self._drop(self._arriving.pop(name))

    def delete(self, name: str, entry: Id) -> Undo:
        """The sub-tree of ``entry`` is being deleted."""
        self._leaving[name] = entry

        def undo() -> None:
            self._leaving.pop(name, None)

        return undo

    def committed(self, changes: Sequence[Change]) -> None:
        """The transaction is durable."""
        for change in changes:
            if len(change.path) == DEPTH and change.command is Command.ADD:
                self._arriving.pop(change.path[1], None)
            elif len(change.path) == DEPTH and change.command is Command.DELETE:
                entry = self._leaving.pop(change.path[1], None)
                if entry is not None:
                    self._drop(entry)
