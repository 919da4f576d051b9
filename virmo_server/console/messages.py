"""The trace of DM messages: what device and server said to each other in the last sessions, for people."""

from __future__ import annotations

from virmo_server.api import operations_running as running
from virmo_server.api import schema_running as schema
from virmo_server.console.devices import device_values
from virmo_server.console.visit import Answer, Page, Visit

SESSIONS = "10"


def messages_page(visit: Visit) -> Answer:
    """The last sessions of a device, newest first."""
    sessions: list[schema.TraceSessionView] = visit.call(
        running.get_trace, path=visit.path, query={"sessions": SESSIONS}
    )
    return Page("device_messages.html", {**device_values(visit), "sessions": sessions})
