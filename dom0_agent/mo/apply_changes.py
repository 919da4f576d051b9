"""``VirMO/Operations/ApplyChanges``: an adapter between the NewConfig nodes and the resources (R-053, R-060 to R-063).

Collects and parses all NewConfigs, runs the change, and lets the nodes that were applied go. A NewConfig that a server
rewrote meanwhile is not one of them. Must not know how a resource is set.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from dom0_agent.mo.key_value import parse_allocation
from dom0_agent.mo.virmo_nodes import DEVICE_RESOURCES, OPERATIONS
from dom0_agent.omadm.mo import ExecOutcome, ExecRequest, Path
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.uri import format_path, parse_path
from dom0_agent.operation import OperationHandle, OperationRefused, Origin
from dom0_agent.resources.apply import Applied, Wish
from dom0_agent.vm.model import Allocation

ROOT: Path = ("VirMO",)
NEW_CONFIG: Path = ("Resources", "NewConfig")
CURRENT_CONFIG: Path = ("Resources", "CurrentConfig")


class Tree(Protocol):
    """What is needed of the tree's device side."""

    def children(self, path: Path) -> tuple[str, ...]: ...
    def exists(self, path: Path) -> bool: ...
    def stored_value(self, path: Path) -> str | None: ...
    def device_delete(self, path: Path) -> None: ...
    def device_changed(self, path: Path) -> None: ...


class Changes(Protocol):
    """What carries a wish out."""

    def submit(self, wish: Wish, origin: Origin | None) -> OperationHandle: ...


def collect(tree: Tree) -> Wish:
    """All NewConfigs. :class:`DMError` 412 for the first that is none; an empty one asks for nothing (A-14, A-15)."""
    allocations: dict[UUID, Allocation] = {}
    nodes: dict[str, str] = {}
    for name in tree.children(ROOT):
        node = (*ROOT, name, *NEW_CONFIG)
        if name in (OPERATIONS, DEVICE_RESOURCES) or not tree.exists(node):
            continue
        text = tree.stored_value(node) or ""
        uri = format_path(node)
        nodes[uri] = text
        if text:
            vmid = tree.stored_value((*ROOT, name, "VMID"))
            if vmid is None:
                raise DMError(Status.COMMAND_FAILED, f"{uri}: the VM of this sub-tree is unknown to the device")
            allocations[UUID(vmid)] = parse_allocation(text, uri)
    return Wish(allocations, nodes)


class ApplyChangesNode:
    """What Exec on the node does."""

    def __init__(self, tree: Tree, changes: Changes, answer_limit: float) -> None:
        self._tree = tree
        self._changes = changes
        self._answer_limit = answer_limit

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Waits up to the answer limit, then 202 and an alert (R-121, A-27). On failure all NewConfigs stay (A-16)."""
        wish = collect(self._tree)
        origin = Origin(request.server_id, request.uri, request.correlator)
        try:
            result = self._changes.submit(wish, origin).wait(self._answer_limit)
        except OperationRefused as refusal:
            raise DMError(refusal.status, str(refusal)) from refusal
        if result is None:
            return ExecOutcome(Status.ACCEPTED)
        if not result.ok:
            raise DMError(result.status, result.message)
        return ExecOutcome(result.status, [path for path in map(parse_path, wish.nodes) if self._tree.exists(path)])


def settle(tree: Tree, applied: Applied) -> None:
    """Bring the tree in step with an ApplyChanges that ended: R-062, and new values of the live leaves (A-53)."""
    for uri, text in applied.nodes.items():
        path = parse_path(uri)
        if tree.exists(path) and (tree.stored_value(path) or "") == text:
            tree.device_delete(path)
    vmids = {str(vmid) for vmid in applied.changed}
    for name in tree.children(ROOT):
        if name not in (OPERATIONS, DEVICE_RESOURCES) and tree.stored_value((*ROOT, name, "VMID")) in vmids:
            tree.device_changed((*ROOT, name, *CURRENT_CONFIG))
