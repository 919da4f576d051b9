"""``POST /api/v1/images``: the one endpoint that streams its body, so that an image never has to fit into memory."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from virmo_server import audit
from virmo_server.api import schema, views
from virmo_server.api import schema_base as base
from virmo_server.api.auth import Actor
from virmo_server.api.endpoint import InvalidRequest, Query
from virmo_server.images.library import ImageSpec
from virmo_server.model import Role
from virmo_server.problem import Problem
from virmo_server.services import Services

#: Written in blocks of this size: one hop into a thread for each, and the most that an upload holds in memory.
BLOCK_BYTES = 1 << 20

#: Signatures have a few kilobytes with their certificates; a request's head may have 16 KiB.
MAX_SIGNATURE_CHARS = 12288
BASE64_PATTERN = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

UPLOAD_QUERY = {
    "name": Query(base.Name, "what operators call it", required=True),
    "file_name": Query(Annotated[str, Field(pattern=base.FILE_NAME_PATTERN)], "last part of its URL", required=True),
    "media_type": Query(Annotated[str, Field(pattern=base.MEDIA_TYPE_PATTERN)], "its MIME type", required=True),
    "sha256": Query(Annotated[str, Field(pattern=base.SHA256_PATTERN)], "refuse the upload if it differs"),
    "signature": Query(
        Annotated[str, Field(pattern=BASE64_PATTERN, max_length=MAX_SIGNATURE_CHARS)],
        "detached CMS signature of the file, DER in base64; a signed bundle needs none",
    ),
}


def upload_route(
    services: Services,
    prefix: str,
    authorise: Callable[[Services, Request, Role], Actor],
    render: Callable[[Problem], Response],
) -> Route:
    """The route; the body is the file itself, its properties are query parameters."""

    async def receive(request: Request) -> schema.ImageView:
        actor = await run_in_threadpool(authorise, services, request, Role.OPERATOR)
        spec = _spec(request)
        upload = await run_in_threadpool(services.library.begin, spec)
        with upload:
            block = bytearray()
            async for chunk in request.stream():
                block += chunk
                if len(block) >= BLOCK_BYTES:
                    await run_in_threadpool(upload.write, bytes(block))
                    block.clear()
            await run_in_threadpool(upload.write, bytes(block))
            image = await run_in_threadpool(upload.finish)
        detail = f"image {image.id}, {image.size} bytes, SHA-256 {image.sha256}"
        await run_in_threadpool(audit.record, services, actor, "upload_image", image.name, (200, detail))
        return views.image_view(image, services.config)

    async def handle(request: Request) -> Response:
        try:
            view = await receive(request)
        except Problem as problem:
            return render(problem)
        except ClientDisconnect:
            return Response(status_code=499)
        return Response(view.model_dump_json(), 201, media_type="application/json")

    return Route(f"{prefix}/images", handle, methods=["POST"])


def _spec(request: Request) -> ImageSpec:
    unknown = sorted(set(request.query_params) - UPLOAD_QUERY.keys())
    if unknown:
        raise InvalidRequest([f"{name}: unknown query parameter" for name in unknown])
    values = {name: kind.parse(name, request.query_params.get(name)) for name, kind in UPLOAD_QUERY.items()}
    untrusted_length = request.headers.get("content-length", "")
    size = int(untrusted_length) if untrusted_length.isascii() and untrusted_length.isdigit() else None
    signature = values.pop("signature")
    return ImageSpec(size=size, signature=None if signature is None else b64decode(signature), **values)
