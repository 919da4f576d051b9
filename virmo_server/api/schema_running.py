"""The bodies of the API's operations on the server's own running: traces, operators, the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from virmo_server.api.schema import AlertView
from virmo_server.api.schema_base import Body, Name, View
from virmo_server.model import Role

#: Long enough that guessing is hopeless at five a minute; any characters.
Password = Annotated[str, Field(min_length=10, max_length=256)]


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


class FleetAlertView(AlertView):
    """A Generic Alert, and the device that sent it."""

    device: str


class LoginBody(Body):
    """Who logs in."""

    name: Annotated[str, Field(max_length=64)]
    password: Annotated[str, Field(max_length=256)]


class LoginView(View):
    """A log-in; ``token`` is a key to the API until ``expires_at``, shown this one time."""

    name: str
    role: Role
    token: str
    expires_at: datetime


class NewOperatorBody(Body):
    """A new account."""

    name: Name
    role: Role = Field(strict=False)
    password: Password


class OperatorChangeBody(Body):
    """What shall change of an account; its log-ins end."""

    role: Annotated[Role, Field(strict=False)] | None = None
    password: Password | None = None


class PasswordBody(Body):
    """An operator's own new password."""

    old: Annotated[str, Field(max_length=256)]
    new: Password


class OperatorView(View):
    """An account, without its password."""

    name: str
    role: Role
    created_at: datetime
    locked_until: datetime | None


class AuditView(View):
    """A request that would have changed something; ``status`` is HTTP's, 200 for all that succeeded."""

    id: int
    at: datetime
    actor: str
    role: Role | None
    operation: str
    target: str
    status: int
    detail: str


class InstallReportView(View):
    """What a device reported to a download descriptor's installNotifyURI; 900 is success."""

    at: datetime
    status: int
    text: str
