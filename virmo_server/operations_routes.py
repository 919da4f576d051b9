"""``/health`` and ``/metrics``: for load balancers and for Prometheus."""

from __future__ import annotations

import logging

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from virmo_server.api.http import authorised_actor, problem_response
from virmo_server.metrics import MEDIA_TYPE, exposition
from virmo_server.model import Role
from virmo_server.problem import Problem
from virmo_server.services import Services

logger = logging.getLogger(__name__)


def operations_routes(services: Services) -> list[BaseRoute]:
    """Health needs no token; metrics need one with the role viewer (``authorization`` in Prometheus' settings)."""

    def is_healthy() -> bool:
        try:
            with services.database.read() as session:
                session.execute(text("SELECT 1"))
        except OperationalError as error:
            logger.error("health: the database does not answer: %s", type(error.orig).__name__)
            return False
        return True

    async def health(_request: Request) -> Response:
        if await run_in_threadpool(is_healthy):
            return PlainTextResponse("ok\n")
        return PlainTextResponse("the database does not answer\n", 503)

    def read(request: Request) -> Response:
        try:
            authorised_actor(services, request, Role.VIEWER)
        except Problem as problem:
            return problem_response(problem)
        return Response(exposition(services), media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    async def metrics(request: Request) -> Response:
        return await run_in_threadpool(read, request)

    return [Route("/health", health, methods=["GET"]), Route("/metrics", metrics, methods=["GET"])]
