"""``GET /api/v1/events``: changes as server-sent events (WHATWG HTML 9.2), for as long as the client listens.

Each stream reads the database by itself, so it sees what any process of the server changes, and may go on in another
process with ``Last-Event-ID``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import anyio
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from virmo_server.api import schema_base as base
from virmo_server.api.auth import Actor
from virmo_server.api.endpoint import InvalidRequest, Query
from virmo_server.events.feed import is_lost, newest, read_after
from virmo_server.model import Role
from virmo_server.model_running import Event, EventKind
from virmo_server.problem import Problem
from virmo_server.services import Services

#: How often each stream looks for new events.
POLL_SECONDS = 0.3
#: Silence after which a comment is sent, so that proxies keep the connection and a dead client is noticed.
PING_SECONDS = 15.0
#: Streams in one process; each costs a query every :data:`POLL_SECONDS`.
MAX_STREAMS = 200
MEDIA_TYPE = "text/event-stream"

EventId = Annotated[int, Field(ge=0, le=2**63 - 1)]
EVENTS_QUERY = {
    "device": Query(base.Text, "only of this device, by name"),
    "kind": Query(EventKind, "only of this kind"),
    "after": Query(EventId, "begin after the event with this number (as Last-Event-ID; default: from now on)"),
}


def events_route(
    services: Services,
    prefix: str,
    authorise: Callable[[Services, Request, Role], Actor],
    render: Callable[[Problem], Response],
) -> Route:
    """The route; ends when the client goes or the process stops."""
    streams = anyio.CapacityLimiter(MAX_STREAMS)

    def begin(request: Request) -> tuple[dict[str, Any], int, bool]:
        authorise(services, request, Role.VIEWER)
        wanted = _query(request)
        if streams.available_tokens < 1:
            raise Problem(503, "busy", f"{MAX_STREAMS} event streams are open already: close some, or ask again later")
        cursor = wanted.pop("after")
        with services.database.read() as session:
            if cursor is None:
                return wanted, newest(session), False
            return wanted, cursor, is_lost(session, cursor)

    def read(cursor: int) -> list[Event]:
        with services.database.read() as session:
            return read_after(session, cursor, services.clock())

    async def follow(wanted: dict[str, Any], cursor: int, lost: bool) -> AsyncIterator[str]:
        async with streams:
            yield ": events of the VirMO Server\nretry: 1000\n\n"
            if lost:
                with services.database.read() as session:
                    cursor = newest(session)
                yield f"id: {cursor}\nevent: reset\ndata: {{}}\n\n"
            quiet = 0.0
            while not services.stopping.is_set():
                events = await run_in_threadpool(read, cursor)
                text = "".join(_text(event) for event in events if _is_wanted(event, wanted))
                cursor = events[-1].id if events else cursor
                quiet = 0.0 if text else quiet + POLL_SECONDS
                if text:
                    yield text
                elif quiet >= PING_SECONDS:
                    quiet = 0.0
                    yield f"id: {cursor}\n: still here\n\n"
                await anyio.sleep(POLL_SECONDS)

    async def handle(request: Request) -> Response:
        try:
            begun = await run_in_threadpool(begin, request)
        except Problem as problem:
            return render(problem)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(follow(*begun), media_type=MEDIA_TYPE, headers=headers)

    return Route(f"{prefix}/events", handle, methods=["GET"])


def _query(request: Request) -> dict[str, Any]:
    unknown = sorted(set(request.query_params) - EVENTS_QUERY.keys())
    if unknown:
        raise InvalidRequest([f"{name}: unknown query parameter" for name in unknown])
    untrusted = dict(request.query_params)
    last = request.headers.get("last-event-id")
    if last:
        untrusted["after"] = last
    return {name: kind.parse(name, untrusted.get(name)) for name, kind in EVENTS_QUERY.items()}


def _is_wanted(event: Event, wanted: dict[str, Any]) -> bool:
    return wanted["device"] in {None, event.device} and wanted["kind"] in {None, event.kind}


def _text(event: Event) -> str:
    data = {"at": event.at.isoformat(), "device": event.device, **event.data}
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(data)}\n\n"
