"""The management tree: what a DM server may do to it (``TreeAccess``), and the device's own side of it.

Puts the parts together and begins each command: parse the URI (step 1 of the check order), look at ``?prop=`` and
``?list=`` (step 2), hand over to reader or writes. One thread owns the tree. Knows no session, transport or device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from dom0_agent.omadm.acl import ROOT_DEFAULT, parse_acl
from dom0_agent.omadm.mo import ExecRequest, ManagementObject, Path, Refreshable
from dom0_agent.omadm.node import Command, Format, Value
from dom0_agent.omadm.nodestore import NodeStore, StoredNode
from dom0_agent.omadm.properties import known_property
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tnds import is_tnds
from dom0_agent.omadm.tree_access import ItemValue, NodeResult
from dom0_agent.omadm.tree_automatic import AutomaticChildren
from dom0_agent.omadm.tree_get import Reader
from dom0_agent.omadm.tree_lookup import Lookup
from dom0_agent.omadm.tree_mounts import Mounts
from dom0_agent.omadm.tree_places import Places
from dom0_agent.omadm.tree_tnds import TndsWrites
from dom0_agent.omadm.tree_work import Work, Write
from dom0_agent.omadm.tree_writes import TreeLimits, Writes, check_acl
from dom0_agent.omadm.uri import DEFAULT_LIMITS, DmUri, UriLimits, check_name, format_path, parse_uri

#: Parsed URIs that are remembered: servers poll the same nodes. Bounds the memory to less than a megabyte.
URIS_REMEMBERED = 512


class ManagementTree:
    """Implements ``TreeAccess`` for sessions, and the device side for management objects and the daemon."""

    def __init__(
        self,
        store: NodeStore,
        clock: Callable[[], datetime],
        *,
        limits: UriLimits = DEFAULT_LIMITS,
        capacity: TreeLimits = TreeLimits(),  # noqa: B008 - immutable
    ) -> None:
        """``clock`` gives the present moment with a time zone, for TStamp."""
        self._store = store
        self._clock = clock
        self._tstamp = ""  #: the second that it is now, as it is written; writing it is dear
        self._second = self._next_second = datetime.max.replace(tzinfo=UTC)
        self.limits = limits
        self._parse = lru_cache(maxsize=URIS_REMEMBERED)(lambda uri: parse_uri(uri, limits))
        self._places = Places()
        self._lookup = Lookup(store, self._places)
        self._work = Work(store, self._lookup.forget_acls)
        automatic = AutomaticChildren(store, self._now)
        self._mounts = Mounts(store, self._places, automatic)
        self._writes = Writes(
            store, self._places, self._lookup, self._mounts, automatic, now=self._now, limits=capacity
        )
        self._tnds = TndsWrites(self._places, self._lookup, self._writes, limits)
        self._reader = Reader(self._lookup)
        self._atomic: OpenAtomic | None = None
        if store.get(()) is None:
            store.put(StoredNode((), Format.NODE, acl=ROOT_DEFAULT, tstamp=self._now()))
            store.commit()

    # -- what a server does ------------------------------------------------------------------------------------------

    def get(self, server_id: str, uri: str) -> Sequence[NodeResult]:
        """See ``TreeAccess``."""
        target = self._parse(uri)
        self._refresh(server_id, target.path, below=target.list is not None)
        return self._reader.get(server_id, target, uri)

    def add(self, server_id: str, uri: str, value: ItemValue) -> None:
        """See ``TreeAccess``."""
        path = self._node_path(uri)
        with self._work.write() as write:
            if is_tnds(value.type):
                self._tnds.add(write, server_id, path, value)
            else:
                self._writes.add(write, server_id, path, value)

    def replace(self, server_id: str, uri: str, value: ItemValue) -> None:
        """See ``TreeAccess``."""
        target = self._target(uri)
        with self._work.write() as write:
            if target.prop is not None:
                self._replace_property(write, server_id, target.path, target.prop, value)
            elif is_tnds(value.type):
                self._tnds.replace(write, server_id, target.path, value)
            else:
                self._writes.set_value(write, server_id, target.path, value)

    def delete(self, server_id: str, uri: str) -> None:
        """See ``TreeAccess``."""
        path = self._node_path(uri)
        with self._work.write() as write:
            self._writes.delete(write, server_id, path)

    def copy(self, server_id: str, source: str, target: str) -> None:
        """See ``TreeAccess``. The rights are those of a Get of the source and a Replace or Add of the target (7.4)."""
        source_path, target_path = self._node_path(source), self._node_path(target)
        self._refresh(server_id, source_path, below=False)
        place, node = self._lookup.need(source_path)
        self._lookup.require(server_id, Command.GET, source_path)
        if node.is_interior or place.definition.access.isdisjoint((Command.GET, Command.COPY)):
            raise DMError(Status.NOT_ALLOWED, f"{source} cannot be copied")
        value = ItemValue("" if node.data is None else node.data, node.format, node.type)
        with self._work.write() as write:
            if self._lookup.find(target_path) is not None:
                self._writes.set_value(write, server_id, target_path, value)
            else:
                self._writes.add(write, server_id, target_path, value)

    def execute(self, server_id: str, uri: str, data: str | bytes = "", correlator: str | None = None) -> int:
        """See ``TreeAccess``. All earlier writes are durable before the object acts."""
        path = self._node_path(uri)
        place, _ = self._lookup.need(path)
        self._lookup.require(server_id, Command.EXEC, path)
        if place.mo is None or Command.EXEC not in place.definition.access:
            raise DMError(Status.NOT_ALLOWED, f"{uri} is not an operation")
        if self._atomic is not None:
            raise DMError(Status.NOT_ALLOWED, f"{uri}: Exec cannot be a member of Atomic, it could not be undone")
        self._work.commit()
        outcome = place.mo.execute(ExecRequest(path, format_path(path), server_id, data, correlator))
        if outcome.removed:
            with self._work.write() as write:
                for removed in outcome.removed:
                    self._writes.remove(write, removed)
        return outcome.status

    @contextmanager
    def atomic(self) -> Iterator[OpenAtomic]:
        """See ``TreeAccess``."""
        if self._atomic is not None:
            raise DMError(Status.COMMAND_FAILED, "Atomic cannot be nested")
        self._work.commit()  # what a batch has done so far stands, whatever becomes of the Atomic
        with self._work.held():
            self._atomic = opened = OpenAtomic(self._work)
            try:
                yield opened
            finally:
                self._atomic = None
                if opened.is_open:
                    opened.rollback()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make the writes of the block durable together at its end, or before an Exec: one fsync for a message.

        Each command still succeeds or fails alone. :class:`DMError` at the end of the block means that none of those
        not yet durable was stored, and that they were taken back.
        """
        with self._work.held():
            yield

    # -- what the device does ----------------------------------------------------------------------------------------

    def mount(self, mo: ManagementObject) -> None:
        """Serve ``mo`` from now on; makes its permanent and automatic nodes, drops stored ones it no longer defines."""
        with self._work.write() as write:
            self._mounts.mount(write, mo)

    def unmount(self, path: Path) -> None:
        """Serve the object at ``path`` no more; its stored nodes stay."""
        self._mounts.unmount(path)

    def offer(self, moid: str, factory: Callable[[Path], ManagementObject]) -> None:
        """Mount what ``factory`` makes wherever an interior node of Type ``moid`` is below an ``open`` node (A-42)."""
        with self._work.write() as write:
            self._mounts.offer(write, moid, factory)

    def find_mo(self, moid: str) -> tuple[Path, ...]:
        """Where objects with this MOID are mounted."""
        return tuple(mo.mount for mo in self._places.mounted() if mo.moid == moid)

    def exists(self, path: Path) -> bool:
        """Whether there is such a node now."""
        return self._lookup.find(path) is not None

    def value(self, path: Path) -> str | None:
        """A leaf's text, live or stored; ``None`` when there is no such leaf or its value is octets."""
        found = self._lookup.find(path)
        data = None if found is None else found[1].data
        return data if isinstance(data, str) else None

    def stored_value(self, path: Path) -> str | None:
        """As :meth:`value`, of a stored leaf only: what an object may ask while it answers ``read`` itself."""
        node = self._store.get(path)
        return node.data if node is not None and isinstance(node.data, str) else None

    def node(self, path: Path) -> StoredNode | None:
        """The node with its properties, live value included."""
        found = self._lookup.find(path)
        return None if found is None else found[1]

    def children(self, path: Path) -> tuple[str, ...]:
        """Names of the node's children; empty when there is no such node."""
        found = self._lookup.find(path)
        if found is None or not found[1].is_interior:
            return ()
        return tuple(self._lookup.children(path, found[0]))

    def device_add(self, path: Path, value: Value | None = None, *, type_: str = "", acl: str = "") -> None:
        """Add a leaf, or (without ``value``) an interior node; missing interior parents too.

        ACL, AccessType and Scope do not count, definition and limits do: :class:`DMError` as for a server.
        """
        item = ItemValue(format=Format.NODE, type=type_ or None) if value is None else _item(value)
        check_acl(acl, path)
        with self._work.write() as write:
            self._writes.add(write, None, path, item, acl)

    def device_add_tnds(self, target: Path, value: ItemValue) -> None:
        """Add a TNDS document below ``target``, all or nothing (bootstrap)."""
        with self._work.write() as write:
            self._tnds.add(write, None, target, value)

    def device_set(self, path: Path, value: Value) -> None:
        """Set a leaf's value; the leaf is made when there is none."""
        with self._work.write() as write:
            if self._lookup.find(path) is None:
                self._writes.add(write, None, path, _item(value))
            else:
                self._writes.set_value(write, None, path, _item(value))

    def device_delete(self, path: Path) -> None:
        """Delete the node with all below it; :class:`DMError` 404 when there is none."""
        with self._work.write() as write:
            self._writes.delete(write, None, path)

    def device_set_acl(self, path: Path, acl: str) -> None:
        """Set a node's own ACL; "" inherits."""
        with self._work.write():
            self._writes.update(path, acl=acl)

    def device_changed(self, path: Path) -> None:
        """A live leaf has another value now: TStamp and VerNo say so (A-53)."""
        with self._work.write():
            self._writes.update(path)

    def forget_server(self, server_id: str) -> None:
        """An account is gone: take its id out of every ACL (7.4)."""
        with self._work.write():
            self._forget_server((), server_id)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _replace_property(self, write: Write, server_id: str, path: Path, name: str, value: ItemValue) -> None:
        wanted = known_property(name)
        self._lookup.need(path)
        if name == "ACL":
            self._writes.require_acl_right(server_id, path)
        else:
            self._lookup.require(server_id, Command.REPLACE, path)
        if not wanted.replaceable:
            raise DMError(Status.NOT_ALLOWED, f"{name} cannot be replaced")
        if not isinstance(value.data, str) or value.format not in (None, Format.CHR):
            raise DMError(Status.UNSUPPORTED_FORMAT, f"{name} is text")
        if name == "ACL":
            self._writes.update(path, acl=value.data)
        elif name == "Title":
            self._writes.update(path, title=value.data)
        else:
            self._writes.rename(write, server_id, path, check_name(value.data, self.limits))

    def _forget_server(self, path: Path, server_id: str) -> None:
        node = self._store.get(path)
        if node is not None and node.acl:
            acl = str(parse_acl(node.acl).without(server_id))
            if acl != node.acl:
                self._writes.update(path, acl=acl or ("" if path else ROOT_DEFAULT))
        for name in self._store.children(path):
            self._forget_server((*path, name), server_id)

    def _refresh(self, server_id: str, path: Path, *, below: bool) -> None:
        """Let the object at ``path``, or all ``below``, mirror what is true now, if the server may read there."""
        place = self._places.resolve(path)
        if place is None or not (below or place.is_refreshable):
            return
        if self._lookup.effective_acl(path).grants(Command.GET, server_id):
            concerned: tuple[object, ...] = (place.mo, *(self._places.mounted_below(path) if below else ()))
            for mo in concerned:
                if isinstance(mo, Refreshable):
                    mo.refresh()

    def _target(self, uri: str) -> DmUri:
        target = self._parse(uri)
        if target.list is not None:
            raise DMError(Status.NOT_ALLOWED, f"{uri}: ?list= is for Get only")
        return target

    def _node_path(self, uri: str) -> Path:
        target = self._target(uri)
        if target.prop is not None:
            known_property(target.prop)
            raise DMError(Status.NOT_ALLOWED, f"{uri}: properties take Get and Replace only")
        return target.path

    def _now(self) -> str:
        moment = self._clock()
        if not self._second <= moment < self._next_second:
            self._second = moment.replace(microsecond=0)
            self._next_second = self._second + timedelta(seconds=1)
            self._tstamp = moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        return self._tstamp


class OpenAtomic:
    """An Atomic being executed; see ``AtomicAccess``."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._mark = work.mark()
        self.is_open = True

    def commit(self) -> None:
        """See ``AtomicAccess``."""
        self.is_open = False
        self._work.commit()

    def rollback(self) -> Sequence[bool]:
        """See ``AtomicAccess``."""
        self.is_open = False
        return self._work.rollback(self._mark)


def _item(value: Value) -> ItemValue:
    return ItemValue(value.data, value.format, value.type)
