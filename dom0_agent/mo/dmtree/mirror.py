"""Live nodes: what a guest says of itself, brought into the tree that dom0 keeps (R-139), and what is pushed to it.

The tree holds the last value known; a Get while the VM runs asks the guest first, not more often than :data:`FRESH`
seconds, and not at all for a while after the guest let us wait: a session must not hang on a guest.
Everything that comes from a guest is checked here against the object's table before the tree checks it once more.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from dom0_agent.guest.interface import GuestAnswer, GuestError, GuestRequest, Guests, GuestTimeout
from dom0_agent.mo.dmtree.nodes import GuestObject
from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Value
from dom0_agent.omadm.status import DMError
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.uri import check_name, format_path

log = logging.getLogger(__name__)

FRESH = 1.0  #: seconds for which what a guest said is believed without asking again
LIVE_DEADLINE = 3.0  #: seconds that a Get waits for a guest
SULK = 15.0  #: seconds for which a guest that did not answer is not asked for live nodes again
MOST_NODES = 3000  #: live leaves of one object
MOST_OCTETS = 512 << 10  #: of an answer with live leaves


@dataclass(slots=True)
class _Known:
    """When an object was read."""

    until: float = 0.0  #: what is in the tree is believed so long


class Mirror:
    """Reads live nodes into the tree. Its methods are for the tree's thread, but for :meth:`ask`."""

    def __init__(self, tree: ManagementTree, guests: Guests, clock: Callable[[], float] = time.monotonic) -> None:
        self._tree = tree
        self._guests = guests
        self._clock = clock
        self._known: dict[Path, _Known] = {}

    def served(self, vmid: UUID, kind: GuestObject) -> bool:
        """Whether a shim is connected that serves this kind of object."""
        hello = self._guests.hello(vmid)
        return hello is not None and any(served.moid == kind.moid for served in hello.objects)

    def refresh(self, vmid: UUID, kind: GuestObject, mount: Path) -> None:
        """Bring the live nodes up to date if they may be old; what cannot be read stays as it is known."""
        known = self._known.setdefault(mount, _Known())
        now = self._clock()
        if now < known.until or not kind.live or not self.served(vmid, kind):
            return
        try:
            untrusted = self.ask(vmid, kind, LIVE_DEADLINE)
        except GuestTimeout as error:
            log.warning("event=live_nodes_old vm=%s node=%s reason=%r", vmid, format_path(mount), str(error))
            known.until = self._clock() + SULK
            return
        except GuestError as error:
            log.info("event=live_nodes_old vm=%s node=%s reason=%r", vmid, format_path(mount), str(error))
            return
        if untrusted is not None:
            self.apply(kind, mount, untrusted)
        known.until = self._clock() + FRESH

    def stale(self, mount: Path) -> None:
        """Something happened in the guest: ask it at the next Get."""
        self._known.pop(mount, None)

    def ask(self, vmid: UUID, kind: GuestObject, deadline: float) -> dict[str, str] | None:
        """What the guest says of this object now, path → value; ``None`` when it made no sense. Any thread.

        :class:`GuestError` when it did not say anything.
        """
        answer = self._guests.request(vmid, GuestRequest("read", {"moid": kind.moid}), deadline=deadline)
        return parse_nodes(answer, f"VM {vmid} {kind.moid}")

    def apply(self, kind: GuestObject, mount: Path, untrusted: Mapping[str, str]) -> None:
        """Make the live nodes below ``mount`` what the guest says they are."""
        wanted: dict[Path, Value] = {}
        for untrusted_name, text in list(untrusted.items())[:MOST_NODES]:
            path = tuple(untrusted_name.split("/"))
            definition = kind.leaf(path) if kind.is_live(path) else None
            if definition is None or not self._names_fit(path):
                log.warning("event=live_node_refused node=%s name=%r", format_path(mount), untrusted_name[:80])
                continue
            wanted[path] = Value(text, definition.format)
        for parent in kind.lists():
            keep = {path[len(parent)] for path in wanted if path[: len(parent)] == parent}
            for name in self._tree.children((*mount, *parent)):
                if name not in keep:
                    self._tree.device_delete((*mount, *parent, name))
        for path, value in wanted.items():
            if self._tree.stored_value((*mount, *path)) != value.data:
                self._set((*mount, *path), value)

    def _set(self, path: Path, value: Value) -> None:
        try:
            self._tree.device_set(path, value)
        except DMError as error:
            log.warning("event=live_node_refused node=%s status=%d reason=%r", format_path(path), error.status, error)

    def _names_fit(self, path: Path) -> bool:
        try:
            for name in path:
                check_name(name, self._tree.limits)
        except DMError:
            return False
        return True


def parse_nodes(answer: GuestAnswer, who: str) -> dict[str, str] | None:
    """The flat object of texts in an answer's payload; ``None`` (and a log line) when it is something else."""
    if answer.status != 200 or len(answer.payload) > MOST_OCTETS:
        log.warning("event=live_nodes_unread who=%r status=%d octets=%d", who, answer.status, len(answer.payload))
        return None
    try:
        untrusted = json.loads(answer.payload)
    except (ValueError, RecursionError) as error:
        log.warning("event=live_nodes_unread who=%r reason=%r", who, str(error)[:200])
        return None
    if not isinstance(untrusted, dict) or not all(isinstance(text, str) for text in untrusted.values()):
        log.warning("event=live_nodes_unread who=%r reason='not an object of texts'", who)
        return None
    return untrusted
