"""``POST /dm``: DM messages over HTTP (``oma-dm`` 12). Checks what is HTTP's; the rest is the conversation's."""

from __future__ import annotations

import logging

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dom0_agent.omadm.auth import HMAC_HEADER
from dom0_agent.omadm.codec import codec_for
from dom0_agent.omadm.status import ProtocolError
from virmo_server.dm.conversation import Busy, converse
from virmo_server.services import Services

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 60


def dm_route(services: Services) -> Route:
    """The route."""
    limit = services.config.limits.message_bytes

    async def handle(request: Request) -> Response:
        untrusted_type = request.headers.get("content-type", "")
        try:
            codec = codec_for(untrusted_type)
        except ProtocolError as error:
            return _refusal(415, request, str(error))
        untrusted_body = bytearray()
        try:
            async for chunk in request.stream():
                untrusted_body += chunk
                if len(untrusted_body) > limit:
                    return _refusal(413, request, f"message is larger than {limit} octets")
        except ClientDisconnect:
            return Response(status_code=499)  # nobody will read it
        try:
            answer = await run_in_threadpool(
                converse, services, codec, bytes(untrusted_body), request.headers.get(HMAC_HEADER)
            )
        except ProtocolError as error:
            return _refusal(400, request, str(error))
        except Busy as error:
            return _refusal(503, request, str(error), {"Retry-After": str(RETRY_AFTER_SECONDS)})
        headers = {"Cache-Control": "no-store, private"}
        if answer.hmac is not None:
            headers[HMAC_HEADER] = answer.hmac
        return Response(answer.body, media_type=codec.media_type, headers=headers)

    return Route("/dm", handle, methods=["POST"])


def _refusal(status: int, request: Request, reason: str, headers: dict[str, str] | None = None) -> Response:
    client = request.client.host if request.client else "unknown"
    logger.warning("dm message refused client=%s status=%d: %s", client, status, reason)
    return PlainTextResponse(f"{reason}\n", status, headers=headers)
