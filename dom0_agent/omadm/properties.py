"""The properties of a node that a server can name with ``?prop=`` (OMA-TS-DM-TND 7.7, our digest 7.2).

Their values are text. Which commands a property takes and what they need is the table at the end; knows no store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dom0_agent.omadm.nodestore import StoredNode
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_values import size_of

MAX_TITLE_BYTES = 255


@dataclass(frozen=True, slots=True)
class Property:
    """One property. ``read`` gives its text; ``replaceable``: a server may set it; ``leaf_only``: interiors lack it."""

    name: str
    read: Callable[[StoredNode], str]
    replaceable: bool = False
    leaf_only: bool = False


def known_property(name: str) -> Property:
    """The property; :class:`DMError` 406 when there is none of that name."""
    found = PROPERTIES.get(name)
    if found is None:
        raise DMError(Status.NOT_SUPPORTED, f"there is no property {name!r}; known are {', '.join(PROPERTIES)}")
    return found


def check_title(text: str) -> str:
    """``text`` as Title; :class:`DMError` 413 when it is too long."""
    if size_of(text) > MAX_TITLE_BYTES:
        raise DMError(Status.TOO_LARGE, f"a Title has at most {MAX_TITLE_BYTES} bytes")
    return text


def _name(node: StoredNode) -> str:
    return node.path[-1] if node.path else "."


PROPERTIES: dict[str, Property] = {
    known.name: known
    for known in (
        Property("ACL", lambda node: node.acl, replaceable=True),
        Property("Format", lambda node: node.format.value),
        Property("Name", _name, replaceable=True),
        Property("Size", lambda node: str(size_of(node.data)), leaf_only=True),
        Property("Title", lambda node: node.title, replaceable=True),
        Property("TStamp", lambda node: node.tstamp),
        Property("Type", lambda node: node.type),
        Property("VerNo", lambda node: str(node.verno)),
    )
}
