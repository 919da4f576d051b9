"""Describes the HTTP API as an OpenAPI 3.1 document, from the same table that serves it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from virmo_server.api import schema
from virmo_server.api.endpoint import Endpoint, Query
from virmo_server.api.stream import EVENTS_QUERY
from virmo_server.api.stream import MEDIA_TYPE as EVENTS_MEDIA_TYPE
from virmo_server.api.upload import UPLOAD_QUERY
from virmo_server.model_running import EventKind
from virmo_server.version import VERSION

REF_TEMPLATE = "#/components/schemas/{model}"
_WORDS = {
    401: "token missing or unknown",
    403: "the token's role does not suffice",
    404: "no such thing",
    409: "does not fit the present state",
    413: "too large",
    422: "not valid",
    429: "too many attempts",
    503: "busy",
    507: "disk full",
}
_ALWAYS = (401, 403, 413, 422)


def openapi_document(endpoints: Sequence[Endpoint], prefix: str) -> dict[str, Any]:
    """The document as JSON-able data."""
    inputs: list[tuple[Any, JsonSchemaMode, Any]] = []
    for kind, mode in _kinds(endpoints):
        inputs.append((_key(kind), mode, TypeAdapter(kind).core_schema))
    schemas, definitions = GenerateJsonSchema(ref_template=REF_TEMPLATE).generate_definitions(inputs)
    paths: dict[str, Any] = {
        f"{prefix}/images": {"post": _upload_operation(schemas)},
        f"{prefix}/events": {"get": _events_operation(schemas)},
    }
    for endpoint in endpoints:
        paths.setdefault(prefix + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "VirMO Server", "version": VERSION, "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _kinds(endpoints: Sequence[Endpoint]) -> list[tuple[Any, JsonSchemaMode]]:
    kinds: dict[tuple[str, JsonSchemaMode], Any] = {
        (_key(schema.ProblemView), "serialization"): schema.ProblemView,
        (_key(schema.ImageView), "serialization"): schema.ImageView,
    }
    for endpoint in endpoints:
        if endpoint.body is not None:
            kinds[_key(endpoint.body), "validation"] = endpoint.body
        if endpoint.result is not None:
            kinds[_key(endpoint.result), "serialization"] = endpoint.result
    return [(kind, mode) for (_, mode), kind in kinds.items()]


def _key(kind: Any) -> str:
    return repr(kind)


def _operation(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "description": f"{endpoint.handler.__doc__ or endpoint.summary} {_needed(endpoint)}",
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
              for name in re.findall(r"{(\w+)}", endpoint.path)),
            *_query_parameters(endpoint.query),
        ],
        "responses": _responses(endpoint.status, (*_ALWAYS, *endpoint.problems), schemas),
    }  # fmt: skip
    if endpoint.role is None:
        operation["security"] = []
    if endpoint.result is not None:
        content = {"application/json": {"schema": schemas[_key(endpoint.result), "serialization"]}}
        operation["responses"][str(endpoint.status)]["content"] = content
    if endpoint.body is not None:
        content = {"application/json": {"schema": schemas[_key(endpoint.body), "validation"]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _needed(endpoint: Endpoint) -> str:
    return "Needs no token." if endpoint.role is None else f"Needs the role {endpoint.role}."


def _upload_operation(schemas: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": "upload_image",
        "summary": "Add a file to the image library",
        "description": "The body is the file. Needs the role operator.",
        "parameters": _query_parameters(UPLOAD_QUERY),
        "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {}}}},
        "responses": _responses(201, (*_ALWAYS, 507), schemas),
    }
    content = {"application/json": {"schema": schemas[_key(schema.ImageView), "serialization"]}}
    operation["responses"]["201"]["content"] = content
    return operation


#: In a stream of events a schema is that of each of them (OpenAPI 3.1).
_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string", "enum": [*EventKind, "reset"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


def _events_operation(schemas: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": "follow_events",
        "summary": "Follow what changes",
        "description": (
            "Server-sent events without end: the event's name is its kind (device, vm, image, order, alert), its data"
            " a JSON object with at, device and what changed. An event 'reset' says that events were missed: look at"
            " everything again. Needs the role viewer."
        ),
        "parameters": _query_parameters(EVENTS_QUERY),
        "responses": _responses(200, (*_ALWAYS, 503), schemas),
    }
    operation["responses"]["200"]["content"] = {EVENTS_MEDIA_TYPE: {"schema": _EVENT}}
    return operation


def _query_parameters(query: Any) -> list[dict[str, Any]]:
    parameters: dict[str, Query] = dict(query)
    return [
        {
            "name": name,
            "in": "query",
            "required": kind.required,
            "description": kind.description,
            "schema": TypeAdapter(kind.type).json_schema(),
        }
        for name, kind in parameters.items()
    ]


def _responses(status: int, problems: Sequence[int], schemas: dict[Any, Any]) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": schemas[_key(schema.ProblemView), "serialization"]}}
    responses: dict[str, Any] = {str(status): {"description": "done"}}
    responses |= {str(code): {"description": _WORDS[code], "content": problem} for code in sorted(set(problems))}
    return responses
