"""What the server knows of each device's management tree, fed by every answer to a command, with the time of it.

Only what a device said is known: a Replace that succeeded is not, until a Get shows the value. Nodes that the device
reports gone are forgotten, with all below them, and with the operator's name for them.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from dom0_agent.omadm.node import Command
from dom0_agent.omadm.status import Status
from virmo_server.events.recorder import tell
from virmo_server.model import DeliveredImage, Device, KnownNode, Vm
from virmo_server.model_running import EventKind
from virmo_server.procedures.core import Outcome, ReadNode
from virmo_server.procedures.create_params import without_profile
from virmo_server.procedures.refresh import (
    DEFAULT_VIRMO_ROOT,
    DEFAULT_VMIMG_ROOT,
    RESERVED_NODES,
    child_names,
)

#: A longer value is remembered without its text: the database is no copy of what a device could write.
MAX_VALUE_CHARS = 65536
#: Longest URI that the table takes; devices limit theirs far below (DevDetail/URI/MaxTotLen).
MAX_URI_CHARS = 1024
#: Name columns of ``vm`` and ``delivered_image``.
MAX_NODE_CHARS = 64


def virmo_root(device: Device) -> str:
    """Where the VirMO is, as discovered or by default."""
    return device.virmo_root or DEFAULT_VIRMO_ROOT


def vmimg_root(device: Device) -> str:
    """Where the VMImgMO is, as discovered or by default."""
    return device.vmimg_root or DEFAULT_VMIMG_ROOT


def observe(session: Session, device: Device, outcome: Outcome, at: datetime) -> None:
    """Learn from one answered command."""
    uri, _, query = outcome.command.uri.partition("?")
    uri = _normal(uri)
    match outcome.command.verb:
        case Command.GET if not query:
            _observe_get(session, device, uri, outcome, at)
        case Command.DELETE if outcome.ok:
            forget(session, device, uri)
        case _:
            pass


def learn_state(session: Session, device: Device, untrusted_uri: str, state: int, at: datetime) -> None:
    """A device reported a VM's new State by itself; only nodes that are known already are believed."""
    known = session.get(KnownNode, (device.id, _normal(untrusted_uri)))
    if known is not None and known.uri.startswith(f"{virmo_root(device)}/") and known.uri.endswith("/State"):
        known.value, known.known_at = str(state), at


def forget(session: Session, device: Device, uri: str) -> None:
    """The node is gone: drop it, all below it, and the entry that it was."""
    uri = _normal(uri)
    session.execute(
        delete(KnownNode).where(
            KnownNode.device_id == device.id,
            or_(KnownNode.uri == uri, KnownNode.uri.startswith(f"{uri}/", autoescape=True)),
        )
    )
    parent, _, node = uri.rpartition("/")
    for root, table, kind in (
        (virmo_root(device), Vm, EventKind.VM),
        (vmimg_root(device), DeliveredImage, EventKind.IMAGE),
    ):
        if parent == root:
            entry = table.device_id == device.id, table.node == node
            name = session.scalar(select(table.name).where(*entry))
            session.execute(delete(table).where(*entry))
            tell(session, kind, device.name, {"change": "removed", "node": node, "name": name, "uri": uri})


def nodes_below(session: Session, device: Device, uri: str) -> list[KnownNode]:
    """The known nodes strictly below ``uri``."""
    query = select(KnownNode).where(
        KnownNode.device_id == device.id, KnownNode.uri.startswith(f"{_normal(uri)}/", autoescape=True)
    )
    return list(session.scalars(query.order_by(KnownNode.uri)))


def _observe_get(session: Session, device: Device, uri: str, outcome: Outcome, at: datetime) -> None:
    if outcome.ok:
        for node in outcome.nodes:
            _remember(session, device, node, at)
            _sync_entries(session, device, _normal(node.uri), node)
    elif outcome.status == Status.NOT_FOUND:
        parent, _, leaf = uri.rpartition("/")
        # State is Required/One: where it is missing, the whole entry is (10.3, R-095, R-125).
        is_entry_state = leaf == "State" and parent.rpartition("/")[0] in {virmo_root(device), vmimg_root(device)}
        forget(session, device, parent if is_entry_state else uri)


def _remember(session: Session, device: Device, untrusted_node: ReadNode, at: datetime) -> None:
    uri = _normal(untrusted_node.uri)
    if len(uri) > MAX_URI_CHARS:
        return
    value = untrusted_node.value
    if value is not None and uri.endswith("/CreateParams"):
        value = without_profile(value)
    if value is not None and len(value) > MAX_VALUE_CHARS:
        value = None
    known = session.get(KnownNode, (device.id, uri))
    if known is None:
        known = KnownNode(device_id=device.id, uri=uri)
        session.add(known)
    known.format, known.value, known.known_at = untrusted_node.format[:16], value, at


def _sync_entries(session: Session, device: Device, uri: str, untrusted_node: ReadNode) -> None:
    """The listing of an MO root: forget entries that vanished, take up entries that others made."""
    table: type[Vm | DeliveredImage]
    if uri == virmo_root(device):
        table, reserved = Vm, RESERVED_NODES
    elif uri == vmimg_root(device):
        table, reserved = DeliveredImage, frozenset()
    else:
        return
    present = {
        name
        for name in child_names(untrusted_node.value)
        if name not in reserved and len(name) <= MAX_NODE_CHARS and name.isprintable()
    }
    columns = select(table.node, table.name).where(table.device_id == device.id)
    names: dict[str, str] = {row[0]: row[1] for row in session.execute(columns)}
    for node in sorted(present - names.keys()):
        if node not in names.values():  # else it stays reachable by its URI only, until the other name is free
            session.add(table(device_id=device.id, name=node, node=node))
    for node in names.keys() - present:
        if nodes_below(session, device, f"{uri}/{node}"):  # one that never was seen is still being made
            forget(session, device, f"{uri}/{node}")


def _normal(untrusted_uri: str) -> str:
    """``./A/B`` for ``A/B``, ``./A/B/`` and with white space around (some clients write so)."""
    uri = untrusted_uri.strip().rstrip("/")
    if uri in {"", "."}:
        return "."
    return uri if uri.startswith("./") else f"./{uri}"
