"""``POST /dm``: DM messages over HTTP (``oma-dm`` 12). Checks what is HTTP's; the rest is the conversation's."""

from __future__ import annotations

import logging

from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dom0_agent.omadm.auth import HMAC_HEADER
from dom0_agent.omadm.codec import codec_for
from dom0_agent.omadm.status import ProtocolError
from virmo_server.client_certificates import client_subject
from virmo_server.dm.conversation import Busy, Question, WrongCertificate
from virmo_server.dm.message_queue import MessageQueue
from virmo_server.metrics import DM_MESSAGES, DM_SECONDS

logger = logging.getLogger(__name__)

#: Reading a larger message takes milliseconds, in which nobody else would be answered.
LARGE_BYTES = 16 * 1024
RETRY_AFTER_SECONDS = 60
DATABASE_RETRY_SECONDS = 1


def dm_route(limit: int, queue: MessageQueue) -> Route:
    """The route; ``limit`` is in octets."""

    async def read(request: Request) -> bytes:
        untrusted_body = bytearray()
        async for chunk in request.stream():
            untrusted_body += chunk
            if len(untrusted_body) > limit:
                raise _Refused(413, f"message is larger than {limit} octets")
        return bytes(untrusted_body)

    async def respond(request: Request) -> Response:
        try:
            codec = codec_for(request.headers.get("content-type", ""))
        except ProtocolError as error:
            raise _Refused(415, str(error)) from error
        untrusted_body, untrusted_hmac = await read(request), request.headers.get(HMAC_HEADER)
        try:
            if len(untrusted_body) > LARGE_BYTES:
                message = await run_in_threadpool(codec.decode, untrusted_body)
            else:
                message = codec.decode(untrusted_body)
            answer = await queue.ask(
                Question(codec, untrusted_body, untrusted_hmac, _address(request), message, client_subject(request))
            )
        except ProtocolError as error:
            raise _Refused(400, str(error)) from error
        except WrongCertificate as error:
            raise _Refused(403, str(error)) from error
        except Busy as error:
            raise _Refused(503, str(error), RETRY_AFTER_SECONDS) from error
        except (IntegrityError, OperationalError) as error:
            # Nothing was changed; the same message, sent again, finds things as they were.
            logger.error("database failed: %s", type(error.orig).__name__)
            raise _Refused(503, "the server's database does not answer", DATABASE_RETRY_SECONDS) from error
        headers = {"Cache-Control": "no-store, private"}
        if answer.hmac is not None:
            headers[HMAC_HEADER] = answer.hmac
        return Response(answer.body, media_type=codec.media_type, headers=headers)

    async def handle(request: Request) -> Response:
        with DM_SECONDS.time():
            try:
                response = await respond(request)
            except _Refused as refused:
                response = _refusal(request, refused)
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody will read it
        DM_MESSAGES.labels(response.status_code).inc()
        return response

    return Route("/dm", handle, methods=["POST"])


class _Refused(Exception):  # noqa: N818 - it is what happened
    """The message is not taken, with this HTTP status; ``retry_after`` in seconds."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


def _refusal(request: Request, refused: _Refused) -> Response:
    logger.warning("dm message refused client=%s status=%d: %s", _address(request), refused.status, refused)
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    return PlainTextResponse(f"{refused}\n", refused.status, headers=headers)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"
