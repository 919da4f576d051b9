"""What a page's handler gets and gives: one visit of one operator, and three kinds of answers. Knows no HTTP.

Handlers reach the server through :meth:`Visit.call` only: the operations of the HTTP API, with its roles and its checks
of bodies and queries. There is no second set of rules for people who click.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from virmo_server.api.auth import Actor, require
from virmo_server.api.endpoint import Call, InvalidRequest
from virmo_server.api.endpoints import ENDPOINTS
from virmo_server.config import describe_error
from virmo_server.console.session import ConsoleSession
from virmo_server.services import Services

#: An operation of the API, as ``api.operations`` has it.
Operation = Callable[[Call], Any]

_ENDPOINT_OF = {endpoint.handler: endpoint for endpoint in ENDPOINTS}


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is logged in. ``query`` and ``form`` are untrusted until an operation checks them."""

    services: Services
    session: ConsoleSession
    actor: Actor
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]

    def call(
        self,
        operation: Operation,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what the API does for this operation. ``form`` is its body as texts; fields left empty are left out.

        :raises Problem: as the API answers it: 403 for the role, 422 for what was typed, the operation's own.
        """
        endpoint = _ENDPOINT_OF[operation]
        if endpoint.role is not None:
            require(self.actor, endpoint.role)
        asked = query or {}
        values = {name: kind.parse(name, asked.get(name)) for name, kind in endpoint.query.items()}
        body = None if endpoint.body is None else read_form(endpoint.body, form or {})
        return operation(Call(self.services, self.actor, path or {}, values, body))


def read_form(kind: Any, untrusted_form: Mapping[str, Any]) -> Any:
    """A form as the API's body ``kind``, or :class:`InvalidRequest` with every mistake."""
    filled = {name: value for name, value in untrusted_form.items() if value != ""}
    try:
        return TypeAdapter(kind).validate_python(filled, strict=False)
    except ValidationError as error:
        raise InvalidRequest(
            [describe_error(detail) for detail in error.errors(include_url=False, include_input=False)]
        ) from error


@dataclass(frozen=True, slots=True)
class Page:
    """A page made from a template."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changed:
    """Something was done: a sentence for the operator, who stays on the page, with a place to read more."""

    notice: str
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Goto:
    """Something was done, and another page (a path of ours) shows it best."""

    path: str


Answer = Page | Changed | Goto
Handler = Callable[[Visit], Answer]
