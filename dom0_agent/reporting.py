"""What is told to the server without being asked: Generic Alerts for what happened to VMs and images.

Turns engine events into rows of the outbox (OMA-ER-VirMO 12, readings A-27 to A-33). Called from the engines' worker
threads; writes nothing but the outbox, so an alert survives whatever happens next. Knows no session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dom0_agent.images.model import ImageEvent
from dom0_agent.operation import OperationResult, Origin
from dom0_agent.resources.apply import Applied
from dom0_agent.store.outbox import Outbox
from dom0_agent.vm.model import VmEvent

IMAGE_READY = "urn:oma:at:oma-virmo:imageready:1.0"  #: R-161
#: the end of an operation that was answered 202; Data is the final status code (A-27)
OPERATION_COMPLETE = "Reversed-Domain-Name: org.virmo/operationcomplete"
#: a VM changed its state and no server had asked for it; Data is the new State
STATE_CHANGED = "Reversed-Domain-Name: org.virmo/statechanged"
#: a VM's guest was cut off for going past its budget or breaking the protocol; Data says how
GUEST_EXPELLED = "Reversed-Domain-Name: org.virmo/guestexpelled"


class Reporter:
    """Writes the alerts that events call for; ``server_ids`` are all accounts, for what no server asked for."""

    def __init__(self, outbox: Outbox, server_ids: Callable[[], Iterable[str]]) -> None:
        self._outbox = outbox
        self._server_ids = server_ids

    def image(self, event: ImageEvent) -> None:
        """Image Ready when it is complete, even when the Exec was answered 200 (A-28); else the failure, if unheard."""
        if event.result is None or event.origin is None:
            return
        if event.result.ok:
            self._outbox.add(
                event.origin.server_id,
                IMAGE_READY,
                source_uri=event.origin.uri,
                format="xml",
                mark="informational",
                correlator=event.origin.correlator,
            )
        elif not event.awaited:
            self._operation_complete(event.origin, event.result)

    def operation(self, event: VmEvent) -> None:
        """The end of a VM's operation that nobody waited for."""
        if event.result is not None and event.origin is not None:
            self._operation_complete(event.origin, event.result)

    def applied(self, event: Applied) -> None:
        """The end of an ApplyChanges that nobody waited for."""
        if event.origin is not None:
            self._operation_complete(event.origin, event.result)

    def state_changed(self, event: VmEvent, node: str) -> None:
        """A VM at ``node`` (``./VirMO/<x>``) changed its State, and no server had asked for it."""
        if event.record is None:
            return
        for server_id in self._server_ids():
            self._outbox.add(
                server_id,
                STATE_CHANGED,
                source_uri=f"{node}/State",
                format="int",
                data=str(int(event.record.state)),
                mark="warning",
            )

    def guest_expelled(self, node: str, reason: str) -> None:
        """The guest of the VM at ``node`` (``./VirMO/<x>``) was cut off from its channel."""
        for server_id in self._server_ids():
            self._outbox.add(
                server_id, GUEST_EXPELLED, source_uri=f"{node}/DMTree", format="chr", data=reason[:200], mark="warning"
            )

    def _operation_complete(self, origin: Origin, result: OperationResult) -> None:
        self._outbox.add(
            origin.server_id,
            OPERATION_COMPLETE,
            source_uri=origin.uri,
            format="int",
            data=str(result.status),
            mark="informational" if result.ok else "warning",
            correlator=origin.correlator,
        )
