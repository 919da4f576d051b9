"""Which management object and which definition a path belongs to. Knows definitions, not nodes.

A :class:`Place` is a node definition compiled for fast descent; a path is resolved by the longest mounted prefix and
then name by name, so the cost depends on the depth only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dom0_agent.omadm.mo import ManagementObject, Path, Refreshable
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Source

#: What a server may do to nodes that no definition describes (below an ``open`` node); never Exec (reading A-42).
FREE_ACCESS = frozenset({Command.ADD, Command.COPY, Command.DELETE, Command.GET, Command.REPLACE})
#: Paths whose place is remembered; a few hundred octets each.
PLACES_REMEMBERED = 4096
_STRUCTURE = NodeDef("*", Format.NODE, frozenset({Command.GET}), scope=Scope.PERMANENT, types=())


class Place:
    """A definition where it applies. ``free``: no definition describes the node, its format and type are its own."""

    __slots__ = ("_child_of_open", "_named", "_unnamed", "definition", "free", "is_live", "is_refreshable", "mo")

    def __init__(self, definition: NodeDef, mo: ManagementObject | None, *, free: bool = False) -> None:
        self.definition = definition
        self.mo = mo
        self.free = free
        self.is_refreshable = isinstance(mo, Refreshable)
        self.is_live = definition.source is Source.LIVE and not definition.is_interior
        self._named: dict[str, Place] = {}
        self._unnamed: Place | None = None
        self._child_of_open: Place | None = None
        if free:
            self._child_of_open = self
            return
        for child in definition.children:
            if child.name == "*":
                self._unnamed = Place(child, mo)
            else:
                self._named[child.name] = Place(child, mo)
        if definition.open:
            access = FREE_ACCESS if Command.GET in definition.access else definition.access  # the Inbox only takes
            anything = NodeDef(
                "*", access=access, occurrence="ZeroOrMore", types=(), open=True, max_size=definition.max_size
            )
            self._child_of_open = Place(anything, mo, free=True)

    def child(self, name: str) -> Place | None:
        """Where a child of that name is, or ``None`` when there can be none."""
        place = self._named.get(name)
        if place is not None:
            return place
        if self._unnamed is not None and name not in self._unnamed.definition.reserved:
            return self._unnamed
        return self._child_of_open

    def reserves(self, name: str) -> bool:
        """Whether ``name`` is one that an unnamed child may not take (reading A-24)."""
        return self._unnamed is not None and name in self._unnamed.definition.reserved

    def named(self) -> Iterator[tuple[str, Place]]:
        """The children that have a name in the definition."""
        return iter(self._named.items())

    @property
    def is_unnamed(self) -> bool:
        """Whether the node's name was chosen at run time, so that it can be renamed."""
        return self.free or self.definition.name == "*"


class Places:
    """All mounted management objects, and what stands between them and the root."""

    def __init__(self) -> None:
        self._mounts: dict[Path, Place] = {(): Place(_STRUCTURE, None)}
        self._lengths: tuple[int, ...] = (0,)
        self._resolved: dict[Path, Place] = {}  #: dropped as a whole when objects come or go
        self._factories: dict[str, Callable[[Path], ManagementObject]] = {}

    def resolve(self, path: Path) -> Place | None:
        """The place of ``path``, or ``None`` when no definition allows such a node."""
        place = self._resolved.get(path)
        if place is None:
            place = self._descend(path)
            if place is not None:
                if len(self._resolved) >= PLACES_REMEMBERED:
                    self._resolved.clear()
                self._resolved[path] = place
        return place

    def _descend(self, path: Path) -> Place | None:
        for length in self._lengths:
            place = self._mounts.get(path[:length]) if length <= len(path) else None
            if place is not None:
                for name in path[length:]:
                    place = place.child(name)
                    if place is None:
                        return None
                return place
        return None

    def mount(self, mo: ManagementObject) -> None:
        """Let ``mo`` describe everything from its mount down. ``ValueError`` when the place is taken."""
        if not mo.mount or (mo.mount in self._mounts and self._mounts[mo.mount].mo is not None):
            raise ValueError(f"{mo.moid} cannot be mounted at {mo.mount}: another object is there")
        for depth in range(1, len(mo.mount)):
            if self._descend(mo.mount[:depth]) is None:
                self._mounts[mo.mount[:depth]] = Place(_STRUCTURE, None)
        self._mounts[mo.mount] = Place(mo.definition, mo)
        self._measure()

    def unmount(self, path: Path) -> ManagementObject | None:
        """Forget the object mounted at ``path`` and return it."""
        place = self._mounts.get(path)
        if place is None or place.mo is None:
            return None
        del self._mounts[path]
        self._measure()
        return place.mo

    def mounted(self) -> tuple[ManagementObject, ...]:
        """All mounted objects, outermost first."""
        places = sorted(self._mounts.items(), key=lambda item: len(item[0]))
        return tuple(place.mo for _, place in places if place.mo is not None)

    def mounted_below(self, path: Path) -> tuple[ManagementObject, ...]:
        """Objects mounted at ``path`` or below it, outermost first."""
        if len(path) > self._lengths[0]:
            return ()
        return tuple(mo for mo in self.mounted() if mo.mount[: len(path)] == path)

    def offer(self, moid: str, factory: Callable[[Path], ManagementObject]) -> None:
        """Let ``factory`` make the object for every interior node of Type ``moid`` below an open node (R-144)."""
        self._factories[moid] = factory

    def factory(self, moid: str) -> Callable[[Path], ManagementObject] | None:
        """The factory offered for ``moid``."""
        return self._factories.get(moid)

    def _measure(self) -> None:
        self._resolved.clear()
        self._lengths = tuple(sorted({len(path) for path in self._mounts}, reverse=True))
