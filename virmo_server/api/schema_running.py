"""The bodies of the API's operations on the server's own running: traces, operators, the audit trail."""

from __future__ import annotations

from datetime import datetime

from virmo_server.api.schema import View


class TraceMessageView(View):
    """A DM message, one line for each command; credentials and nonces are left out. ``size`` is in octets."""

    at: datetime
    from_device: bool
    media_type: str
    size: int
    lines: list[str]


class TraceSessionView(View):
    """A DM session's messages in their order; ``serial`` is the server's name for the session."""

    serial: str
    started_at: datetime
    messages: list[TraceMessageView]
