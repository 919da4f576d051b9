"""Random sequences of commands on the tree, against a model that is too simple to be wrong.

The model knows what a node is, how ACLs are inherited (7.4) and in which order things are checked (4.1); nothing of
places, savepoints or caches. After every command the status and the whole tree must be the same, a roll-back must
restore everything to the last property, and what was committed must come back from the disk.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dom0_agent.omadm.acl import parse_acl
from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope
from dom0_agent.omadm.nodestore import MemoryNodeStore, NodeStore
from dom0_agent.omadm.status import DMError
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.uri import format_path
from dom0_agent.store.database import Database
from dom0_agent.store.nodes import SqliteNodeStore
from tests.unit.omadm.tree_objects import FULL_ACL, Clock, Machines, snapshot

MOUNT: Path = ("T",)
DEFINITION = NodeDef("T", Format.NODE, frozenset(Command), scope=Scope.PERMANENT, types=(), open=True)
SERVERS = ("A", "B")
ACLS = (
    "",
    FULL_ACL,
    "Add=*&Get=*",
    "Add=*&Delete=*&Get=*",
    "Add=A&Delete=A&Get=A&Replace=A",
    "Get=*&Replace=*",
    "Delete=*&Replace=A+B",
)


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelNode:
    value: str | None  #: None: interior
    acl: str = ""


class Refused(Exception):  # noqa: N818 - says what happened
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Model:
    nodes: dict[Path, ModelNode] = field(
        default_factory=lambda: {(): ModelNode(None, FULL_ACL), MOUNT: ModelNode(None)}
    )

    def in_force(self, path: Path) -> str:
        return self.nodes[path].acl or self.in_force(path[:-1])

    def need(self, condition: bool, status: int) -> None:
        if not condition:
            raise Refused(status)

    def may(self, server: str, command: Command, path: Path) -> bool:
        return parse_acl(self.in_force(path)).grants(command, server)

    def names(self, path: Path) -> list[str]:
        return sorted(other[-1] for other in self.nodes if other and other[:-1] == path)

    def get(self, server: str, path: Path) -> str:
        self.need(path in self.nodes, 404)
        self.need(self.may(server, Command.GET, path), 425)
        value = self.nodes[path].value
        return "/".join(self.names(path)) if value is None else value

    def add(self, server: str, path: Path, value: str | None) -> None:
        self.need(path not in self.nodes, 418)
        anchor = next(path[:depth] for depth in range(len(path) - 1, -1, -1) if path[:depth] in self.nodes)
        self.need(self.may(server, Command.ADD, anchor), 425)
        self.need(self.nodes[anchor].value is None, 405)
        for depth in range(len(anchor) + 1, len(path) + 1):
            here, interior = path[:depth], depth < len(path) or value is None
            acl = ""
            if interior and not self.may(server, Command.REPLACE, here[:-1]):
                parent = parse_acl(self.in_force(here[:-1]))
                kept = [
                    f"{command}={'+'.join(sorted(parent.ids(command)))}"
                    for command in (Command.EXEC, Command.GET)
                    if parent.ids(command)
                ]
                acl = "&".join([f"Add={server}", f"Delete={server}", *kept, f"Replace={server}"])
            self.nodes[here] = ModelNode(None if interior else value, acl)

    def replace(self, server: str, path: Path, value: str) -> None:
        self.need(path in self.nodes, 404)
        self.need(self.may(server, Command.REPLACE, path), 425)
        self.need(self.nodes[path].value is not None, 405)
        self.nodes[path] = replace(self.nodes[path], value=value)

    def delete(self, server: str, path: Path) -> None:
        self.need(path in self.nodes, 404)
        self.need(self.may(server, Command.DELETE, path), 425)
        self.need(len(path) > 1, 405)
        self.nodes = {other: node for other, node in self.nodes.items() if other[: len(path)] != path}

    def rename(self, server: str, path: Path, name: str) -> None:
        self.need(path in self.nodes, 404)
        self.need(self.may(server, Command.REPLACE, path), 425)
        self.need(len(path) > 1, 405)
        self.need((*path[:-1], name) not in self.nodes, 418)
        self.nodes = {
            (*path[:-1], name, *other[len(path) :]) if other[: len(path)] == path else other: node
            for other, node in self.nodes.items()
        }

    def set_acl(self, server: str, path: Path, acl: str) -> None:
        self.need(path in self.nodes, 404)
        by_parent = bool(path) and self.may(server, Command.REPLACE, path[:-1])
        by_node = (self.nodes[path].value is None or not path) and self.may(server, Command.REPLACE, path)
        self.need(by_parent or by_node, 425)
        self.need(bool(path) or bool(acl), 405)
        self.nodes[path] = replace(self.nodes[path], acl=acl)

    def copy(self, server: str, source: Path, target: Path) -> None:
        self.need(source in self.nodes, 404)
        self.need(self.may(server, Command.GET, source), 425)
        value = self.nodes[source].value
        if value is None:
            raise Refused(405)
        if target in self.nodes:
            self.replace(server, target, value)
        else:
            self.add(server, target, value)


# -- commands ----------------------------------------------------------------------------------------------------------

_names = st.sampled_from("ab")
#: few paths, so that commands meet: most of them below ./T/a
_paths = st.sampled_from([(*MOUNT, *names) for names in ("", "a", "a", "b", "aa", "aa", "ab", "aab", "ba")])
_any_paths = st.one_of(_paths, _paths, _paths, _paths, st.just(()))
_servers = st.sampled_from(SERVERS)
_values = st.sampled_from(("1", "2"))

Step = tuple[str, tuple[object, ...]]
_plain: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("add"), st.tuples(_servers, _paths, st.one_of(st.none(), _values))),
    st.tuples(st.just("add"), st.tuples(_servers, _paths, st.one_of(st.none(), _values))),
    st.tuples(st.just("replace"), st.tuples(_servers, _any_paths, _values)),
    st.tuples(st.just("delete"), st.tuples(_servers, _any_paths)),
    st.tuples(st.just("rename"), st.tuples(_servers, _any_paths, _names)),
    st.tuples(st.just("set_acl"), st.tuples(_servers, _any_paths, st.sampled_from(ACLS))),
    st.tuples(st.just("copy"), st.tuples(_servers, _paths, _paths)),
    st.tuples(st.just("get"), st.tuples(_servers, _any_paths)),
)
_atomic: st.SearchStrategy[Step] = st.tuples(st.just("atomic"), st.tuples(st.booleans(), st.lists(_plain, max_size=6)))
_steps = st.lists(st.one_of(_plain, _plain, _plain, _atomic), min_size=10, max_size=40)


def run_on_tree(tree: ManagementTree, name: str, arguments: tuple[object, ...]) -> object:
    server, path, *rest = arguments
    assert isinstance(server, str)
    assert isinstance(path, tuple)
    uri = format_path(path)
    actions: dict[str, Callable[[], object]] = {
        "get": lambda: tree.get(server, uri)[0].value.data,
        "add": lambda: tree.add(server, uri, _item(rest[0])),
        "replace": lambda: tree.replace(server, uri, ItemValue(str(rest[0]))),
        "delete": lambda: tree.delete(server, uri),
        "rename": lambda: tree.replace(server, f"{uri}?prop=Name", ItemValue(str(rest[0]))),
        "set_acl": lambda: tree.replace(server, f"{uri}?prop=ACL", ItemValue(str(rest[0]))),
        "copy": lambda: tree.copy(
            server, uri, format_path(tuple(map(str, rest[0])) if isinstance(rest[0], tuple) else ())
        ),
    }
    return actions[name]()


def _item(value: object) -> ItemValue:
    return ItemValue(format=Format.NODE) if value is None else ItemValue(str(value))


def both(tree: ManagementTree, model: Model, name: str, arguments: tuple[object, ...]) -> bool:
    """Run on both; the same status and result, whether it was done."""
    try:
        wanted, status = getattr(model, name)(*arguments), 200
    except Refused as refused:
        wanted, status = None, refused.status
    try:
        got, got_status = run_on_tree(tree, name, arguments), 200
    except DMError as error:
        got, got_status = None, int(error.status)
    assert (got_status, got) == (status, wanted), (name, arguments)
    return status == 200


def compare(tree: ManagementTree, model: Model) -> None:
    found = {path: (node.data, node.acl) for path, node in snapshot(tree).items()}
    assert found == {path: (node.value, node.acl) for path, node in model.nodes.items()}


def play(tree: ManagementTree, steps: list[Step]) -> Model:
    model = Model()
    for name, arguments in steps:
        if name != "atomic":
            both(tree, model, name, arguments)
            compare(tree, model)
            continue
        commit, members = arguments
        assert isinstance(members, list)
        before, nodes_before = dict(model.nodes), snapshot(tree)
        with tree.atomic() as atomic:
            done = sum(both(tree, model, *member) for member in members if member[0] != "get")
            if commit:
                atomic.commit()
            else:
                assert atomic.rollback() == [True] * done
                model.nodes = before
                assert snapshot(tree) == nodes_before  # every property, byte for byte
        compare(tree, model)
    return model


def make(store: NodeStore, *, reopened: bool = False) -> ManagementTree:
    tree = ManagementTree(store, Clock())
    tree.mount(Machines(mount=MOUNT, definition=DEFINITION))
    if not reopened:
        tree.device_set_acl((), FULL_ACL)
    return tree


@given(_steps)
@settings(max_examples=150, deadline=None)
def test_tree_behaves_like_the_model(steps: list[Step]) -> None:
    play(make(MemoryNodeStore()), steps)


@given(_steps)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_was_committed_comes_back(steps: list[Step]) -> None:
    with temporary_database() as database:
        tree = make(SqliteNodeStore(database))
        model = play(tree, steps)
        before = snapshot(tree)
        again = make(SqliteNodeStore(database), reopened=True)
        assert snapshot(again) == before
        compare(again, model)


@contextmanager
def temporary_database() -> Iterator[Database]:
    folder = FilePath(tempfile.mkdtemp())
    database = Database(folder / "agent.db")
    try:
        yield database
    finally:
        database.close()
        shutil.rmtree(folder)


def test_tree_behaves_like_the_model_for_long(long_form: bool) -> None:
    """The same with many more examples; the short form makes do with a handful."""

    @given(_steps)
    @settings(max_examples=3000 if long_form else 20, deadline=None)
    def campaign(steps: list[Step]) -> None:
        play(make(MemoryNodeStore()), steps)

    campaign()
