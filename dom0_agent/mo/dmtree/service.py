"""All objects below DMTree: finds them by MOID (A-42), and follows the guests' channels.

``DmTree`` is what the rest of the agent sees. Its methods are for the thread that owns the tree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from uuid import UUID

from dom0_agent.guest.interface import GuestEvent, GuestEventKind
from dom0_agent.mo.dmtree.bootstrapping import Bootstrapping
from dom0_agent.mo.dmtree.forwarded import ForwardedObject, Surroundings
from dom0_agent.mo.dmtree.nodes import GuestObject
from dom0_agent.omadm.mo import Path

log = logging.getLogger(__name__)

STOP_DEADLINE = 2.0  #: seconds that operations in guests get to end when the agent stops

Make = Callable[[GuestObject, Path, Surroundings], ForwardedObject]


class DmTree:
    """Mounts the objects of ``kinds`` wherever a server adds a root with their MOID, and keeps guests in step."""

    def __init__(self, surroundings: Surroundings, kinds: Mapping[GuestObject, Make]) -> None:
        self.around = surroundings
        self._kinds = kinds
        self._bootstrapping = Bootstrapping(surroundings)
        self._objects: dict[Path, ForwardedObject] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Serve what is in the tree, report what was lost, and follow the guests."""
        for kind, make in self._kinds.items():
            self.around.tree.offer(kind.moid, self._factory(kind, make))
        self.around.work.recover()
        self._unsubscribe = self.around.guests.subscribe(self._event)

    def stop(self) -> None:
        """Give operations a moment to end; nothing is written from here on."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        self.around.work.close(STOP_DEADLINE)

    def objects(self) -> list[ForwardedObject]:
        """Those that are in the tree now."""
        self._objects = {
            path: item for path, item in self._objects.items() if self.around.tree.exists(path) and item.mount == path
        }
        return list(self._objects.values())

    def _factory(self, kind: GuestObject, make: Make) -> Callable[[Path], ForwardedObject]:
        def factory(mount: Path) -> ForwardedObject:
            item = make(kind, mount, self.around)
            self._objects[mount] = item
            self.around.tasks.post(item.connected)
            return item

        return factory

    def _event(self, event: GuestEvent) -> None:
        """In a channel's thread: only queue."""
        if event.kind is GuestEventKind.CONNECTED:
            self.around.tasks.post(lambda: self._connected(event.vmid))
        elif event.kind is GuestEventKind.SAID and event.verb == "changed":
            self.around.tasks.post(lambda: self._changed(event.vmid, str(event.fields.get("moid", ""))))

    def _connected(self, vmid: UUID) -> None:
        self._bootstrapping.connected(vmid)
        for item in self._of(vmid):
            item.connected()

    def _changed(self, vmid: UUID, untrusted_moid: str) -> None:
        for item in self._of(vmid):
            if item.moid == untrusted_moid:
                self.around.mirror.stale(item.mount)

    def _of(self, vmid: UUID) -> list[ForwardedObject]:
        found = []
        for item in self.objects():
            record = item.record()
            if record is not None and record.vmid == vmid:
                found.append(item)
        return found
