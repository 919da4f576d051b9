"""How the tables of the objects below DMTree are written: a few words for node definitions, and the object's row.

Plain data. Which nodes are *live* (the guest's, mirrored into the tree) and which are *configuration* (the server's,
pushed to the guest) is said here by patterns: ``*`` is one name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope

GET = frozenset({Command.GET})
EXEC = frozenset({Command.EXEC})
SET = frozenset({Command.GET, Command.ADD, Command.REPLACE})
GIVE = frozenset({Command.ADD, Command.REPLACE})
ENTRY = frozenset({Command.GET, Command.ADD, Command.DELETE})


def interior(name: str, *children: NodeDef, description: str = "", occurrence: str = "One") -> NodeDef:
    """A node that comes with its parent."""
    return NodeDef(name, Format.NODE, GET, occurrence, types=(), description=description, children=children)


def entries(*children: NodeDef, description: str = "", writable: bool = False) -> NodeDef:
    """``<x>``: nodes whose names are chosen at run time; ``writable``: a server adds and deletes them."""
    access = ENTRY if writable else GET
    return NodeDef("*", Format.NODE, access, "ZeroOrMore", types=(), description=description, children=children)


def told(
    name: str, description: str, format_: Format = Format.CHR, *, default: str = "", occurrence: str = "One"
) -> NodeDef:
    """A leaf that the device or the guest sets."""
    return NodeDef(name, format_, GET, occurrence, default=default, description=description, max_size=4096)


def chosen(
    name: str, description: str, format_: Format = Format.CHR, *, default: str = "", occurrence: str = "One"
) -> NodeDef:
    """A leaf that the server sets."""
    return NodeDef(
        name, format_, SET, occurrence, default=default, description=description, max_size=4096, settable_default=True
    )


def operation(name: str, description: str) -> NodeDef:
    """A node to Exec."""
    return NodeDef(name, Format.NULL, EXEC, types=(), description=description)


def root(name: str, moid: str, title: str, *children: NodeDef, description: str) -> NodeDef:
    """The object's root: a server adds it below DMTree with the MOID as Type (R-143, R-144), and may delete it."""
    return NodeDef(
        name,
        Format.NODE,
        ENTRY,
        scope=Scope.DYNAMIC,
        types=(moid,),
        title=title,
        description=description,
        children=children,
    )


@dataclass(frozen=True, slots=True, eq=False)
class GuestObject:
    """One kind of management object that VMs can have."""

    definition: NodeDef
    #: nodes that are the guest's, below the root
    live: tuple[Path, ...] = ()
    #: nodes that are the server's and that the guest is told
    configuration: tuple[Path, ...] = ()
    #: operations that run in the guest → the result code when the guest does not answer
    forwarded: dict[Path, int] = field(default_factory=dict)
    #: result code of what went wrong in dom0 or on the way
    client_error: int = 500
    #: Type of the alert that tells an operation's end
    alert_type: str = ""

    @property
    def moid(self) -> str:
        """The Type of its root."""
        return self.definition.types[0]

    def is_live(self, path: Path) -> bool:
        """Whether ``path`` (below the root) is the guest's to say."""
        return any(fits(pattern, path) for pattern in self.live)

    def is_configuration(self, path: Path) -> bool:
        """Whether the guest is to be told of ``path`` (below the root)."""
        return any(fits(pattern, path) for pattern in self.configuration)

    def lists(self) -> frozenset[Path]:
        """Interior nodes whose entries come and go as the guest says."""
        return frozenset(pattern[: pattern.index("*")] for pattern in self.live if "*" in pattern)

    def leaf(self, path: Path) -> NodeDef | None:
        """The definition of a leaf below the root; ``None`` when there is none."""
        definition: NodeDef | None = self.definition
        for name in path:
            children = () if definition is None else definition.children
            definition = next((child for child in children if child.name in (name, "*")), None)
        return None if definition is None or definition.is_interior else definition


def fits(pattern: Path, path: Path) -> bool:
    """Whether ``path`` is one that ``pattern`` means."""
    return len(pattern) == len(path) and all(p in ("*", name) for p, name in zip(pattern, path, strict=True))
