"""The ASGI application: DM endpoint, image files, HTTP API, console. Wires routes; every part is tested on its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute

from virmo_server.api.http import api_routes
from virmo_server.console.http import console_routes
from virmo_server.dm.conversation import converse
from virmo_server.dm.endpoint import dm_route
from virmo_server.dm.message_queue import MessageQueue
from virmo_server.images.hosting import descriptor_routes, image_route
from virmo_server.maintenance import maintain
from virmo_server.operations_routes import operations_routes
from virmo_server.services import Services

#: How often overdue orders and lost sessions are looked for; requests that show orders look by themselves.
SWEEP_SECONDS = 30
#: Threads of a process that work on DM messages, where one of them may have to wait for a device.
POSTGRESQL_THREADS = 4


def make_app(services: Services, *, is_alone: bool) -> Starlette:
    """The application over ``services``; closes them at shutdown. Unless it ``is_alone``, other processes serve too."""

    # One writes to an SQLite file at a time; with PostgreSQL one thread goes on while another waits for a device.
    is_postgresql = services.database.is_postgresql
    work = partial(converse, services, ahead=not is_postgresql and not is_alone)
    messages = MessageQueue(work, POSTGRESQL_THREADS if is_postgresql else 1)

    async def sweep_regularly() -> None:
        while True:
            await run_in_threadpool(maintain, services)
            await anyio.sleep(SWEEP_SECONDS)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        services.notifier.start()
        messages.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sweep_regularly)
            yield
            tasks.cancel_scope.cancel()
        await run_in_threadpool(messages.close)
        await run_in_threadpool(services.notifier.close)
        await run_in_threadpool(services.leadership.give_up)
        services.close()

    routes: list[BaseRoute] = [
        *operations_routes(services),
        dm_route(services.config.limits.message_bytes, messages),
        *descriptor_routes(services.database, services.clock, services.config.proxied_url),
        image_route(services.database, services.library),
        *api_routes(services),
        *console_routes(services),
    ]
    return Starlette(routes=routes, lifespan=lifespan)
