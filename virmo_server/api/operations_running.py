"""The operations of the HTTP API on the server's own running; ``api.endpoints`` lists them."""

from __future__ import annotations

from virmo_server.api import schema_running as schema
from virmo_server.api.endpoint import Call
from virmo_server.devices.registry import find_device
from virmo_server.dm.trace import ShownSession


def get_trace(call: Call) -> list[schema.TraceSessionView]:
    """What was said in the last DM sessions of a device, newest session first."""
    with call.services.database.read() as session:
        device = find_device(session, call.path["device"])
        return [_trace_view(shown) for shown in call.services.trace.show(session, device, call.query["sessions"])]


def _trace_view(shown: ShownSession) -> schema.TraceSessionView:
    messages = [
        schema.TraceMessageView(
            at=message.at,
            from_device=message.from_device,
            media_type=message.media_type,
            size=message.size,
            lines=message.lines,
        )
        for message in shown.messages
    ]
    return schema.TraceSessionView(serial=shown.serial, started_at=messages[0].at, messages=messages)
