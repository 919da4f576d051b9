"""Joins the table of endpoints to HTTP: authentication, role, sizes, bodies, problems. Knows no operation's meaning."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from virmo_server import audit
from virmo_server.api.auth import ANYBODY, Actor, authenticate, require
from virmo_server.api.endpoint import Call, Endpoint, InvalidRequest, parse_body
from virmo_server.api.endpoints import ENDPOINTS
from virmo_server.api.openapi import openapi_document
from virmo_server.api.stream import events_route
from virmo_server.api.upload import upload_route
from virmo_server.metrics import API_REQUESTS
from virmo_server.model import Role
from virmo_server.problem import Problem, conflict
from virmo_server.services import Services

logger = logging.getLogger(__name__)

API_PREFIX = "/api/v1"
PROBLEM_TYPE = "application/problem+json"


def api_routes(services: Services) -> list[BaseRoute]:
    """All routes below :data:`API_PREFIX`."""
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in ENDPOINTS:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    routes: list[BaseRoute] = [
        upload_route(services, API_PREFIX, authorised_actor, problem_response),
        events_route(services, API_PREFIX, authorised_actor, problem_response),
        _document_route(),
    ]
    routes += [_route(services, path, endpoints) for path, endpoints in by_path.items()]
    return routes


def problem_response(problem: Problem) -> Response:
    """RFC 9457."""
    content: dict[str, Any] = {"status": problem.status, "code": problem.code, "detail": str(problem)}
    if isinstance(problem, InvalidRequest):
        content["errors"] = problem.errors
    headers = {"WWW-Authenticate": 'Bearer realm="virmo"'} if problem.status == 401 else {}
    return Response(
        json.dumps(content), problem.status, media_type=PROBLEM_TYPE, headers={"Cache-Control": "no-store", **headers}
    )


def authorised_actor(services: Services, request: Request, role: Role) -> Actor:
    """Who asks; :class:`Problem` 401 or 403. Blocking: call in a thread."""
    with services.database.read() as session:
        actor = authenticate(session, request.headers.get("authorization"))
    require(actor, role)
    return actor


async def read_body(request: Request, limit: int) -> bytes:
    """The body, or :class:`Problem` 413 as soon as it is over ``limit``."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Problem(413, "too-large", f"the request body is larger than {limit} bytes")
    return bytes(body)


def _route(services: Services, path: str, endpoints: Sequence[Endpoint]) -> Route:
    table = {endpoint.method: endpoint for endpoint in endpoints}
    results = {endpoint.method: TypeAdapter(endpoint.result) for endpoint in endpoints if endpoint.result is not None}

    def admit(request: Request, endpoint: Endpoint) -> Actor:
        if endpoint.role is None:
            return ANYBODY
        with services.database.read() as session:
            actor = authenticate(session, request.headers.get("authorization"))
        try:
            require(actor, endpoint.role)
        except Problem as problem:
            target = request.url.path.removeprefix(API_PREFIX)
            audit.record(services, actor, endpoint.operation_id, target, (problem.status, str(problem)))
            raise
        return actor

    def run(request: Request, endpoint: Endpoint, untrusted_body: bytes) -> Response:
        actor = admit(request, endpoint)
        unknown = sorted(set(request.query_params) - endpoint.query.keys())
        if unknown:
            raise InvalidRequest([f"{name}: unknown query parameter" for name in unknown])
        query = {name: kind.parse(name, request.query_params.get(name)) for name, kind in endpoint.query.items()}
        body = None if endpoint.body is None else parse_body(endpoint.body, untrusted_body)
        result = endpoint.handler(Call(services, actor, request.path_params, query, body))
        headers = {"Cache-Control": "no-store"}
        if endpoint.method not in results:
            return Response(status_code=endpoint.status, headers=headers)
        content = results[endpoint.method].dump_json(result)
        return Response(content, endpoint.status, media_type="application/json", headers=headers)

    async def handle(request: Request) -> Response:
        endpoint = table["GET" if request.method == "HEAD" else request.method]
        untrusted_body = await read_body(request, services.config.limits.request_bytes)
        return await run_in_threadpool(run, request, endpoint, untrusted_body)

    answered = problems_rendered(handle)

    async def counted(request: Request) -> Response:
        response = await answered(request)
        operation = table["GET" if request.method == "HEAD" else request.method].operation_id
        API_REQUESTS.labels(operation, response.status_code).inc()
        return response

    return Route(API_PREFIX + path, counted, methods=list(table))


def problems_rendered(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """``handle`` with :class:`Problem` turned into an answer."""

    async def wrapped(request: Request) -> Response:
        try:
            return await handle(request)
        except IntegrityError:
            return problem_response(conflict("somebody else changed the same at the same time: look again"))
        except OperationalError as error:
            logger.error("database failed path=%s: %s", request.url.path, type(error.orig).__name__)
            return problem_response(Problem(503, "database", "the server's database does not answer: try again"))
        except Problem as problem:
            logger.info("request refused path=%s status=%d code=%s", request.url.path, problem.status, problem.code)
            return problem_response(problem)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody will read it

    return wrapped


def _document_route() -> Route:
    document = json.dumps(openapi_document(ENDPOINTS, API_PREFIX))

    async def serve(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    return Route(f"{API_PREFIX}/openapi.json", serve, methods=["GET"])
