"""What an endpoint of the HTTP API is: one row of a table, from which routes, checks and the OpenAPI text are made.

Handlers are plain functions that run in a thread: the event loop never waits for the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from virmo_server.api.auth import Actor
from virmo_server.config import describe_error
from virmo_server.model import Role
from virmo_server.problem import Problem
from virmo_server.services import Services


class InvalidRequest(Problem):
    """422 with every mistake in ``errors``, each as ``place: what was expected``."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(422, "invalid", "the request is not valid: " + "; ".join(errors[:5]))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter. ``type`` is a pydantic-able type, read from text."""

    type: Any
    description: str
    default: Any = None
    required: bool = False

    def parse(self, name: str, untrusted_text: str | None) -> Any:
        """The value, or :class:`InvalidRequest`."""
        if untrusted_text is None:
            if self.required:
                raise InvalidRequest([f"{name}: query parameter is missing"])
            return self.default
        try:
            return TypeAdapter(self.type).validate_python(untrusted_text)
        except ValidationError as error:
            raise InvalidRequest([f"{name}: {detail['msg']}" for detail in error.errors()]) from error


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request."""

    services: Services
    actor: Actor
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of the API. ``result`` is a type that pydantic can describe; ``None`` answers 204.

    A ``role`` of ``None``: for who has not logged in yet.
    """

    method: str
    path: str
    role: Role | None
    summary: str
    handler: Callable[[Call], Any]
    result: Any = None
    body: Any = None
    query: Mapping[str, Query] = field(default_factory=dict)
    status: int = 200
    problems: tuple[int, ...] = (404,)

    @property
    def operation_id(self) -> str:
        """A name for generated clients."""
        return self.handler.__name__.lstrip("_")


def parse_body(kind: Any, untrusted_bytes: bytes) -> BaseModel:
    """The body as ``kind``, or :class:`InvalidRequest`; never shows values, they may be secrets."""
    try:
        return TypeAdapter(kind).validate_json(untrusted_bytes)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise InvalidRequest(
            [describe_error(detail) for detail in error.errors(include_url=False, include_input=False)]
        ) from error
