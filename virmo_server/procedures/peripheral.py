"""Peripherals of a VM (DCMO below its DMTree): which there are, and enabling or disabling one.

Rows for the steps of ``guest``: DCMO is found by its MOID, or added. The device switches peripherals itself, whether
the VM runs or not. Enabling twice does no harm, so an Exec whose answer was lost is sent again; the order's end is what
``Enabled`` reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from dom0_agent.omadm.status import Status
from virmo_server.procedures.core import Decision, DmCommand, Done, Fail, Outcome, Situation, get
from virmo_server.procedures.guest import Action, ManagedObject, root
from virmo_server.procedures.guest_actions import table, tree

DCMO = ManagedObject("DCMO", "urn:oma:mo:oma-dcmo:1.0")
#: A device that claims more for a VM is broken.
MAX_PERIPHERALS = 64


def _tell_list(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if not outcomes[0].ok:
        return Fail("the peripherals cannot be read", outcomes[0].status)
    peripherals = table(outcomes[0], root(situation, DCMO.moid).rpartition("/")[2])
    if len(peripherals) > MAX_PERIPHERALS:
        return Fail(f"the VM claims {len(peripherals)} peripherals, more than {MAX_PERIPHERALS}")
    lines = []
    for name, leaves in peripherals.items():
        state = {"true": "enabled", "false": "disabled"}.get(leaves.get("Enabled", "").lower(), "state unknown")
        away = ", not attached" if leaves.get("Attached", "").lower() == "false" else ""
        lines.append(f"{name}: {leaves.get('Property') or 'no description'}, {state}{away}")
    return Done("\n".join(lines) or "the VM has no peripherals", Status.OK)


def _switch(operation: str, wanted: str) -> Action:
    def peripheral(situation: Situation) -> str:
        return f"{root(situation, DCMO.moid)}/{situation.params['peripheral']}"

    def read(situation: Situation) -> list[DmCommand]:
        return [get(f"{peripheral(situation)}/{leaf}") for leaf in ("Enabled", "Ext/AtNextStart")]

    def tell(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        shown, waits = ((outcome.value() or "").strip().lower() for outcome in outcomes)
        if shown != wanted:
            return Fail(f"the device reports success, but Enabled is {shown or 'unknown'}", int(Status.COMMAND_FAILED))
        later = ", from the VM's next start on" if waits == "true" else ""  # our own node: others have none
        return Done(f"Enabled is {wanted}{later}", Status.OK)

    return Action(
        (DCMO,),
        operation=lambda s: f"{peripheral(s)}/Operations/{operation}",
        read=read,
        tell=tell,
        repeatable=True,
    )


LIST = Action((DCMO,), read=tree(DCMO), tell=_tell_list)
ENABLE = _switch("Enable", "true")
DISABLE = _switch("Disable", "false")
