"""The tree browser: what is known of a device's management tree, node by node, with properties, and commands on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from virmo_server.api import operations as op
from virmo_server.api import schema
from virmo_server.console.devices import device_values
from virmo_server.console.links import url
from virmo_server.console.visit import Answer, Changed, Page, Visit
from virmo_server.model import OrderState
from virmo_server.problem import Problem

#: Node properties (OMA-TS-DM-TND 7.7) that the page can ask for, each by ``?prop=``.
PROPERTIES = ("ACL", "Format", "Name", "Size", "Title", "TStamp", "Type", "VerNo")
FORMATS = ("chr", "int", "bool", "b64", "xml", "node", "null", "date", "time", "float")
#: Answers to ``?prop=`` are no nodes: they are looked up in the device's newest orders.
_ORDERS = "200"
_ROOT = "."


@dataclass(frozen=True, slots=True)
class Child:
    """A line of the listing. ``below``: how many known nodes are under it."""

    name: str
    uri: str
    format: str | None
    value: str | None
    known_at: datetime | None
    below: int


@dataclass(frozen=True, slots=True)
class PropertyAnswer:
    """What the device said of a property, in which order; ``order`` is ``None`` when it was never asked."""

    name: str
    value: str | None
    is_refused: bool
    order: int | None
    at: datetime | None
    is_open: bool = False


def tree_page(visit: Visit) -> Answer:
    """One node with its children."""
    uri = _normal(visit.query.get("uri", _ROOT))
    nodes: list[schema.NodeView] = visit.call(op.list_nodes, path=visit.path, query={"uri": _ROOT})
    own = next((node for node in nodes if node.uri == uri), None)
    orders: list[schema.OrderView] = visit.call(
        op.list_orders, query={"device": visit.path["device"], "limit": _ORDERS}
    )
    values = {
        "uri": uri,
        "crumbs": _crumbs(uri),
        "node": own,
        "children": _children(nodes, uri),
        "known": len(nodes),
        "properties": [_property(orders, uri, name) for name in PROPERTIES],
        "commands": [placed for placed in orders if _concerns(placed, uri)][:8],
        "formats": FORMATS,
    }
    return Page("device_tree.html", {**device_values(visit), **values})


def read_properties(visit: Visit) -> Answer:
    """Ask for every property of a node: one order each, in one message of the device's next session."""
    uri = _normal(visit.form.get("uri", _ROOT))
    for name in PROPERTIES:
        visit.call(op.create_order, path=visit.path, form={"kind": "node-get", "uri": f"{uri}?prop={name}"})
    return Changed(f"Properties of {uri} are asked for.", url("orders", device=visit.path["device"]))


def _property(orders: Iterable[schema.OrderView], uri: str, name: str) -> PropertyAnswer:
    asked = f"{uri}?prop={name}"
    newest = next((order for order in orders if order.kind == "node-get" and order.name == asked), None)
    if newest is None:
        return PropertyAnswer(name, None, False, None, None)
    is_done = newest.state is OrderState.DONE
    answer = newest.message.rstrip("\x00") if is_done else newest.dm_status_text or newest.message
    value = answer if newest.state.is_final else None
    return PropertyAnswer(name, value, not is_done, newest.id, newest.finished_at, not newest.state.is_final)


def _concerns(order: schema.OrderView, uri: str) -> bool:
    """Commands on the node; reading its properties shows in their own list."""
    node, _, question = (order.name or "").partition("?")
    return order.kind.startswith("node-") and node == uri and not (order.kind == "node-get" and "prop=" in question)


def _children(nodes: Iterable[schema.NodeView], uri: str) -> list[Child]:
    """Direct children of ``uri``; one that is only known by what is below it is listed, too."""
    prefix = f"{uri}/"
    by_name: dict[str, Child] = {}
    for node in nodes:
        if not node.uri.startswith(prefix):
            continue
        name, _, rest = node.uri.removeprefix(prefix).partition("/")
        known = by_name.get(name) or Child(name, prefix + name, None, None, None, 0)
        if rest:
            child = Child(name, known.uri, known.format, known.value, known.known_at, known.below + 1)
        else:
            child = Child(name, known.uri, node.format, node.value, node.known_at, known.below)
        by_name[name] = child
    return sorted(by_name.values(), key=lambda child: child.name)


def _crumbs(uri: str) -> list[tuple[str, str]]:
    """(name, URI) of the node's ancestors and itself, from the root."""
    parts = uri.split("/")
    return [(part, "/".join(parts[: number + 1])) for number, part in enumerate(parts)]


def _normal(untrusted_uri: str) -> str:
    """A URI as the known tree has it; :class:`Problem` 422 for what is none."""
    uri = untrusted_uri.strip().rstrip("/") or _ROOT
    if uri != _ROOT and not uri.startswith("./"):
        uri = f"./{uri}"
    if len(uri) > 1024 or "?" in uri:
        raise Problem(422, "uri", "This is no URI of a node: expected something like ./VirMO/www-1a2b/State.")
    return uri
