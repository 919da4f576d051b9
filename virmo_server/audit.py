"""The audit trail: every request that would change something, who made it, and what came of it.

Kept beside the trails of orders, which tell what became of each. Never holds bodies: they may carry secrets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete

from virmo_server.api import schema
from virmo_server.api.auth import Actor
from virmo_server.api.endpoint import Call
from virmo_server.model_running import AuditRecord
from virmo_server.problem import Problem
from virmo_server.services import Services

#: How long it is kept.
KEEP = timedelta(days=400)
_MAX_DETAIL_CHARS = 1000
_MAX_TARGET_CHARS = 255
_MAX_ACTOR_CHARS = 64
_AUDITED = "is_audited"


def audited(handler: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """An operation of the API whose every call is recorded, whether it succeeds or is refused."""

    @functools.wraps(handler)
    def recorded(call: Call) -> Any:
        try:
            result = handler(call)
        except Problem as problem:
            record(call.services, call.actor, handler.__name__, _target(call), (problem.status, str(problem)))
            raise
        record(call.services, call.actor, handler.__name__, _target(call), (200, _describe(result)))
        return result

    setattr(recorded, _AUDITED, True)
    return recorded


def is_audited(handler: Callable[[Call], Any]) -> bool:
    """Whether :func:`audited` made it."""
    return bool(getattr(handler, _AUDITED, False))


def record(services: Services, actor: Actor, operation: str, target: str, outcome: tuple[int, str]) -> None:
    """Write one line; ``outcome`` is the HTTP status and a sentence."""
    status, detail = outcome
    with services.database.write() as session:
        session.add(
            AuditRecord(
                at=services.clock(),
                actor=actor.name[:_MAX_ACTOR_CHARS],
                role=actor.role,
                operation=operation,
                target=target[:_MAX_TARGET_CHARS],
                status=status,
                detail=detail[:_MAX_DETAIL_CHARS],
            )
        )


def prune(services: Services) -> None:
    """Drop what is older than :data:`KEEP`."""
    with services.database.write() as session:
        session.execute(delete(AuditRecord).where(AuditRecord.at < services.clock() - KEEP))


def _target(call: Call) -> str:
    return "/".join(call.path.values()) or str(getattr(call.body, "name", ""))


def _describe(result: Any) -> str:
    describe = _DESCRIBE.get(type(result))
    return "" if describe is None else describe(result)


def _order(order: schema.OrderView) -> str:
    name = "" if order.name is None else f" {order.name}"
    return f"order {order.id}: {order.kind}{name} on {order.device}, {order.state}"


def _group(group: schema.GroupView) -> str:
    count = sum(group.states.values())
    return f"order group {group.id}: {count} orders, {len(group.refused)} refused, label {group.label}"


_DESCRIBE: Mapping[type, Callable[[Any], str]] = {
    schema.OrderDetailView: _order,
    schema.GroupView: _group,
    schema.DeviceView: lambda device: f"device {device.name}",
    schema.RegistrationView: lambda made: f"device {made.device.name}",
    schema.NewTokenView: lambda token: f"token {token.name} with the role {token.role}",
}
