"""``GET/HEAD /images/<id>/<file>``: serves image files to devices, with ranges and a strong validator.

Devices fetch with nothing but the URL they were told over an authenticated DM session; its id is 128 random bits.
"""

from __future__ import annotations

import os

from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from virmo_server.clock import Clock
from virmo_server.database import Database
from virmo_server.images.descriptor import MAX_REPORT_BYTES, MEDIA_TYPE, REPORT_SUFFIX, SUFFIX, descriptor, parse_report
from virmo_server.images.library import ImageLibrary
from virmo_server.model import Image
from virmo_server.model_running import InstallReport

#: Bigger steps than Starlette's default: fewer thread hops per megabyte, at one buffer per running download.
CHUNK_BYTES = 256 * 1024
SIGNATURE_SUFFIX, SIGNATURE_TYPE = ".p7s", "application/pkcs7-signature"
#: Of one image; who was told its URL may write them.
MAX_REPORTS = 100_000


class _ImageResponse(FileResponse):
    chunk_size = CHUNK_BYTES


def download_url(base_url: str, image: Image) -> str:
    """The DownloadURI of an image for a device that reaches us at ``base_url``."""
    return f"{base_url}/images/{image.id}/{image.file_name}"


def descriptor_url(base_url: str, image: Image) -> str:
    """As :func:`download_url`, of the image's download descriptor."""
    return download_url(base_url, image) + SUFFIX


def signature_url(base_url: str, image: Image) -> str:
    """As :func:`download_url`, of a signature that is not in the file."""
    return download_url(base_url, image) + SIGNATURE_SUFFIX


def descriptor_routes(database: Database, clock: Clock, base_url: str | None) -> list[Route]:
    """``GET …/<file>.dd`` and ``.p7s``, ``POST …/<file>.report``; they know no more than who was told the URL.

    ``base_url`` of ``None``: the file is fetched from where the descriptor was.
    """

    def find(image_id: str, file_name: str) -> Image | None:
        with database.read() as session:
            image = session.get(Image, image_id)
        return None if image is None or image.file_name != file_name else image

    async def serve(request: Request) -> Response:
        image = await run_in_threadpool(find, request.path_params["image_id"], request.path_params["file_name"])
        if image is None:
            return PlainTextResponse("no such image\n", status_code=404)
        own = base_url or f"{request.url.scheme}://{request.url.netloc}"
        text = descriptor(image, download_url(own, image))
        return Response(text, media_type=MEDIA_TYPE, headers={"Cache-Control": "private"})

    def keep(image_id: str, file_name: str, report: tuple[int, str]) -> int:
        with database.write() as session:
            image = session.get(Image, image_id)
            if image is None or image.file_name != file_name:
                return 404
            number = session.scalar(select(func.count()).where(InstallReport.image_id == image_id))
            if (number or 0) >= MAX_REPORTS:
                return 429
            session.add(InstallReport(image_id=image_id, at=clock(), status=report[0], text=report[1]))
        return 204

    async def receive(request: Request) -> Response:
        untrusted_body = bytearray()
        async for chunk in request.stream():
            untrusted_body += chunk
            if len(untrusted_body) > MAX_REPORT_BYTES:
                return PlainTextResponse("a report is one line\n", status_code=413)
        report = parse_report(bytes(untrusted_body))
        if report is None:
            return PlainTextResponse("a report is a code and a text, such as 900 Success\n", status_code=400)
        path = request.path_params
        return Response(status_code=await run_in_threadpool(keep, path["image_id"], path["file_name"], report))

    async def serve_signature(request: Request) -> Response:
        image = await run_in_threadpool(find, request.path_params["image_id"], request.path_params["file_name"])
        if image is None or image.signature is None:
            return PlainTextResponse("no such signature\n", status_code=404)
        return Response(image.signature, media_type=SIGNATURE_TYPE, headers={"Cache-Control": "private, immutable"})

    return [
        Route(f"/images/{{image_id}}/{{file_name}}{SIGNATURE_SUFFIX}", serve_signature, methods=["GET"]),
        Route(f"/images/{{image_id}}/{{file_name}}{SUFFIX}", serve, methods=["GET"]),
        Route(f"/images/{{image_id}}/{{file_name}}{REPORT_SUFFIX}", receive, methods=["POST"]),
    ]


def image_route(database: Database, library: ImageLibrary) -> Route:
    """The route; a content never changes under its id, so its SHA-256 is the strong ETag (RFC 9110 13.1.5)."""

    def look_up(image_id: str, file_name: str) -> tuple[Image, os.stat_result] | None:
        with database.read() as session:
            image = session.get(Image, image_id)
        if image is None or image.file_name != file_name:
            return None
        try:
            return image, library.path(image.id).stat()
        except FileNotFoundError:
            return None

    async def serve(request: Request) -> Response:
        found = await run_in_threadpool(look_up, request.path_params["image_id"], request.path_params["file_name"])
        if found is None:
            return PlainTextResponse("no such image\n", status_code=404)
        image, stat_result = found
        return _ImageResponse(
            library.path(image.id),
            media_type=image.media_type,
            stat_result=stat_result,
            headers={"ETag": f'"{image.sha256}"', "Cache-Control": "private, immutable"},
        )

    return Route("/images/{image_id}/{file_name}", serve, methods=["GET", "HEAD"])
