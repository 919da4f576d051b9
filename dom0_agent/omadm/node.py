"""What a node of the management tree is made of: formats, values, the definition (DDF) a management object declares.

Everything here is plain data, shared by the tree, the management objects, the DDF printer and the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

from dom0_agent.omadm.frozen import frozen


class Format(StrEnum):
    """Format property of a node (OMA-TS-DM-TND 7.7.1.2). ``xml`` is text that holds XML."""

    B64 = "b64"
    BIN = "bin"
    BOOL = "bool"
    CHR = "chr"
    INT = "int"
    NODE = "node"
    NULL = "null"
    XML = "xml"
    DATE = "date"
    TIME = "time"
    FLOAT = "float"


@frozen
class Value:
    """A leaf's value. ``data`` is ``bytes`` for Format ``bin`` and ``str`` for all the others (empty for ``null``)."""

    data: str | bytes
    format: Format = Format.CHR
    type: str = "text/plain"


class Command(StrEnum):
    """Commands that an AccessType or an ACL entry can name."""

    ADD = "Add"
    COPY = "Copy"
    DELETE = "Delete"
    EXEC = "Exec"
    GET = "Get"
    REPLACE = "Replace"


class Scope(Enum):
    """Permanent nodes can neither be added, deleted nor renamed by a server."""

    PERMANENT = "Permanent"
    DYNAMIC = "Dynamic"


class Source(Enum):
    """Where a leaf's value lives."""

    STORED = "stored"  #: in the node store; the server's writes go there
    LIVE = "live"  #: read from the management object at each Get; absent when it answers ``None``


@dataclass(frozen=True, slots=True)
class NodeDef:
    """One node as its management object declares it; the tree checks by it and the DDF is printed from it.

    ``name`` is ``"*"`` for an unnamed (server- or client-chosen) node. ``occurrence`` is the DDF literal (``One``,
    ``ZeroOrOne``, ``ZeroOrMore``, ``OneOrMore``, ``ZeroOrN:n``, ``OneOrN:n``). A child with occurrence ``One``
    and Scope dynamic is made together with its parent, with ``default`` as value. ``types`` are the MIME types that a
    leaf accepts, for an interior node its MOID or empty. ``settable_default``: Add on the automatic, still untouched
    child sets it (200) instead of 418 (reading A-23). ``open``: below this interior node anything may be stored.
    """

    name: str
    format: Format = Format.CHR
    access: frozenset[Command] = frozenset({Command.GET})
    occurrence: str = "One"
    scope: Scope = Scope.DYNAMIC
    types: tuple[str, ...] = ("text/plain",)
    default: str = ""
    source: Source = Source.STORED
    title: str = ""
    description: str = ""
    max_size: int = 65536  #: bytes
    settable_default: bool = False
    reserved: frozenset[str] = frozenset()  #: names that an unnamed child may not take (reading A-24)
    open: bool = False
    children: tuple[NodeDef, ...] = field(default=())

    @property
    def is_interior(self) -> bool:
        """Interior nodes have children and no value."""
        return self.format is Format.NODE
