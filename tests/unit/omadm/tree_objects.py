"""A management object for tests of the tree: vending machines with products, some live values, and an open corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Source, Value
from dom0_agent.omadm.nodestore import MemoryNodeStore, NodeStore, StoredNode
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.uri import DEFAULT_LIMITS, UriLimits

SERVER = "com.example.server"
OTHER = "com.example.other"
MOID = "urn:example:mo:machines:1.0"
FULL_ACL = "Add=*&Delete=*&Exec=*&Get=*&Replace=*"

GET = frozenset({Command.GET})
SET = frozenset({Command.GET, Command.ADD, Command.REPLACE})
ALL = frozenset({Command.GET, Command.ADD, Command.REPLACE, Command.DELETE})

DEFINITION = NodeDef(
    "Machines",
    Format.NODE,
    GET,
    scope=Scope.PERMANENT,
    types=(MOID,),
    title="Machines",
    children=(
        NodeDef(
            "*",
            Format.NODE,
            ALL,
            "ZeroOrMore",
            types=(),
            reserved=frozenset({"Operations"}),
            children=(
                NodeDef("Id", Format.CHR, GET),
                NodeDef("Label", Format.CHR, SET, settable_default=True, default="none", max_size=100),
                NodeDef("Price", Format.INT, SET, default="0"),
                NodeDef("Note", Format.CHR, ALL, "ZeroOrOne", types=("text/plain", "text/html")),
                NodeDef("Secret", Format.BIN, frozenset({Command.ADD, Command.REPLACE}), "ZeroOrOne", types=()),
                NodeDef("Stock", Format.INT, GET, source=Source.LIVE),
                NodeDef("Fault", Format.CHR, GET, "ZeroOrOne", source=Source.LIVE),
                NodeDef(
                    "Light", Format.BOOL, frozenset({Command.GET, Command.REPLACE}), "ZeroOrOne", source=Source.LIVE
                ),
                NodeDef("Run", Format.NULL, frozenset({Command.EXEC}), types=()),
                NodeDef(
                    "Slots",
                    Format.NODE,
                    GET,
                    types=(),
                    children=(NodeDef("*", Format.CHR, ALL, "ZeroOrN:3"),),
                ),
                NodeDef(
                    "Owners",
                    Format.NODE,
                    ALL,
                    "ZeroOrOne",
                    types=(),
                    children=(NodeDef("*", Format.CHR, ALL, "OneOrMore"),),
                ),
                NodeDef("Ext", Format.NODE, ALL, types=(), open=True, max_size=1000),
            ),
        ),
        NodeDef(
            "Operations",
            Format.NODE,
            GET,
            scope=Scope.PERMANENT,
            types=(),
            children=(NodeDef("Reset", Format.NULL, frozenset({Command.EXEC, Command.GET}), types=()),),
        ),
    ),
)


@dataclass
class Machines:
    """Remembers what the tree asked of it; ``veto`` and ``broken_undo`` make it difficult."""

    mount: Path = ("Machines",)
    moid: str = MOID
    definition: NodeDef = DEFINITION
    stock: dict[str, int] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    lights: dict[str, str] = field(default_factory=dict)
    prepared: list[Change] = field(default_factory=list)
    undone: list[Change] = field(default_factory=list)
    told: list[list[Change]] = field(default_factory=list)
    executed: list[ExecRequest] = field(default_factory=list)
    veto: dict[Path, DMError] = field(default_factory=dict)
    broken_undo: set[Path] = field(default_factory=set)
    deaf: bool = False
    outcome: ExecOutcome = field(default_factory=lambda: ExecOutcome(Status.OK))

    def read(self, path: Path) -> Value | None:
        machine, leaf = path[len(self.mount)], path[-1]
        if leaf == "Stock":
            return Value(str(self.stock.get(machine, 0)), Format.INT)
        if leaf == "Light":
            return Value(self.lights[machine], Format.BOOL) if machine in self.lights else None
        return Value(self.faults[machine]) if machine in self.faults else None

    def initial(self, path: Path) -> Value | None:
        return Value(f"id-of-{path[-2]}") if path[-1] == "Id" else None

    def prepare(self, change: Change) -> Undo | None:
        if change.path in self.veto:
            raise self.veto[change.path]
        self.prepared.append(change)
        before = dict(self.lights)
        if change.path[-1] == "Light" and change.value is not None:
            self.lights[change.path[-2]] = str(change.value.data)

        def undo() -> None:
            if change.path in self.broken_undo:
                raise RuntimeError("the motor is stuck")
            self.undone.append(change)
            self.lights = before

        return undo

    def committed(self, changes: Sequence[Change]) -> None:
        if self.deaf:
            raise RuntimeError("the motor is stuck")
        self.told.append(list(changes))

    def execute(self, request: ExecRequest) -> ExecOutcome:
        self.executed.append(request)
        return self.outcome


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 8, 1, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def make_tree(
    store: NodeStore | None = None, limits: UriLimits = DEFAULT_LIMITS
) -> tuple[ManagementTree, Machines, Clock]:
    """A tree that lets everybody do everything that the nodes allow, with one machine ``m``."""
    clock = Clock()
    tree = ManagementTree(MemoryNodeStore() if store is None else store, clock, limits=limits)
    machines = Machines()
    tree.mount(machines)
    tree.device_set_acl((), FULL_ACL)
    tree.add(SERVER, "./Machines/m", ItemValue(format=Format.NODE))
    machines.prepared.clear()
    machines.told.clear()
    return tree, machines, clock


def snapshot(tree: ManagementTree, path: Path = ()) -> dict[Path, StoredNode]:
    """Every node there is, with all properties."""
    node = tree.node(path)
    found = {} if node is None else {path: node}
    for name in tree.children(path):
        found.update(snapshot(tree, (*path, name)))
    return found


def status_of(error: DMError) -> int:
    """The status as a plain number."""
    return int(error.status)
