"""``GET/HEAD /images/<id>/<file>``: serves image files to devices, with ranges and a strong validator.

Devices fetch with nothing but the URL they were told over an authenticated DM session; its id is 128 random bits.
"""

from __future__ import annotations

import os

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from virmo_server.database import Database
from virmo_server.images.library import ImageLibrary
from virmo_server.model import Image

#: Bigger steps than Starlette's default: fewer thread hops per megabyte, at one buffer per running download.
CHUNK_BYTES = 256 * 1024


class _ImageResponse(FileResponse):
    chunk_size = CHUNK_BYTES


def download_url(base_url: str, image: Image) -> str:
    """The DownloadURI of an image for a device that reaches us at ``base_url``."""
    return f"{base_url}/images/{image.id}/{image.file_name}"


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
