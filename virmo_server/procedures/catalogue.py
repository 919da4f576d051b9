"""All kinds of orders by name: the one table that says which procedure fulfils which kind."""

from __future__ import annotations

from collections.abc import Mapping

from virmo_server.procedures.core import Procedure
from virmo_server.procedures.guest import guest_procedure
from virmo_server.procedures.guest_actions import ACTIONS
from virmo_server.procedures.image import delete_procedure, deliver_procedure
from virmo_server.procedures.node import NODE_COMMANDS, node_procedure
from virmo_server.procedures.peripheral import DISABLE, ENABLE, LIST
from virmo_server.procedures.refresh import refresh_procedure
from virmo_server.procedures.resources import apply_procedure
from virmo_server.procedures.vm import PRIMITIVES, create_procedure, primitive_procedure

DELIVER_IMAGE = "deliver-image"
DELETE_IMAGE = "delete-image"
CREATE_VM = "create-vm"
REFRESH = "refresh"
APPLY_RESOURCES = "apply-resources"
LIST_PERIPHERALS = "list-peripherals"
ENABLE_PERIPHERAL = "enable-peripheral"
DISABLE_PERIPHERAL = "disable-peripheral"

PROCEDURES: Mapping[str, Procedure] = {
    DELIVER_IMAGE: deliver_procedure(),
    DELETE_IMAGE: delete_procedure(),
    CREATE_VM: create_procedure(),
    REFRESH: refresh_procedure(),
    APPLY_RESOURCES: apply_procedure(),
    LIST_PERIPHERALS: guest_procedure(LIST),
    ENABLE_PERIPHERAL: guest_procedure(ENABLE),
    DISABLE_PERIPHERAL: guest_procedure(DISABLE),
    **{kind: node_procedure(verb) for kind, verb in NODE_COMMANDS.items()},
    **{kind: guest_procedure(action) for kind, action in ACTIONS.items()},
    **{kind: primitive_procedure(primitive) for kind, primitive in PRIMITIVES.items()},
}
