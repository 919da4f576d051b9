"""The node definitions of every management object that is shipped, by name: what ``virmo-agent ddf <name>`` prints.

Imports an object's table only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import NodeDef


def _devinfo() -> tuple[Path, NodeDef]:
    from dom0_agent.mo import devinfo

    return devinfo.MOUNT, devinfo.DEFINITION


def _devdetail() -> tuple[Path, NodeDef]:
    from dom0_agent.mo import devdetail

    return devdetail.MOUNT, devdetail.DEFINITION


def _dmacc() -> tuple[Path, NodeDef]:
    from dom0_agent.mo import dmacc, dmacc_nodes

    return dmacc.MOUNT, dmacc_nodes.DEFINITION


def _inbox() -> tuple[Path, NodeDef]:
    from dom0_agent.mo import inbox

    return inbox.MOUNT, inbox.DEFINITION


def _virmo() -> tuple[Path, NodeDef]:
    from dom0_agent.mo import virmo, virmo_nodes

    return virmo.MOUNT, virmo_nodes.virmo_definition()


def _vmimgmo() -> tuple[Path, NodeDef]:
    from dom0_agent.mo import vmimgmo, vmimgmo_nodes

    return vmimgmo.MOUNT, vmimgmo_nodes.vmimgmo_definition()


def _dcmo() -> tuple[Path, NodeDef]:
    from dom0_agent.mo import dcmo_nodes

    return ("VirMO", "<x>", "DMTree", "DCMO"), dcmo_nodes.DCMO.definition


def _guest_object(module: str, row: str) -> Callable[[], tuple[Path, NodeDef]]:
    def load() -> tuple[Path, NodeDef]:
        definition: NodeDef = getattr(import_module(f"dom0_agent.mo.dmtree.{module}"), row).definition
        return ("VirMO", "<x>", "DMTree", definition.name), definition

    return load


#: name (that of the root node) → where the object is mounted, and its definition
CATALOGUE: dict[str, Callable[[], tuple[Path, NodeDef]]] = {
    "DCMO": _dcmo,
    "DevDetail": _devdetail,
    "DevInfo": _devinfo,
    "DMAcc": _dmacc,
    "FUMO": _guest_object("fumo_nodes", "FUMO"),
    "GuestDevDetail": _guest_object("facts_nodes", "DEVDETAIL"),
    "GuestDevInfo": _guest_object("facts_nodes", "DEVINFO"),
    "Inbox": _inbox,
    "LAWMO": _guest_object("lawmo_nodes", "LAWMO"),
    "SCOMO": _guest_object("scomo_nodes", "SCOMO"),
    "VirMO": _virmo,
    "VMImgMO": _vmimgmo,
}
