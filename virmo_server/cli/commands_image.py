"""``virmo image …``: the library and the images on devices."""

from __future__ import annotations

import argparse
import base64
import hashlib
import mimetypes
import re
from pathlib import Path
from typing import Any

from virmo_server.cli.arguments import Nouns, command, device_argument, noun, order_options
from virmo_server.cli.client import ClientError, file_content, segment
from virmo_server.cli.context import EXIT_OK, Context
from virmo_server.cli.output import ago, size
from virmo_server.cli.waiting import upload_progress

DEFAULT_MEDIA_TYPE = "application/octet-stream"
COMPRESSED_TYPES = {"gzip": "application/gzip", "xz": "application/x-xz", ".zst": "application/zstd"}
SIGNATURE_WORDS = {"none": "-", "unchecked": "not checked", "good": "?"}
_BLOCK_BYTES = 1 << 20


def register(nouns: Nouns) -> None:
    """Add the commands to the parser."""
    verbs = noun(nouns, "image", "upload VM images and deliver them to devices")
    deliver = command(verbs, "deliver", _deliver, "deliver an image file to a device (it is uploaded when new)")
    device_argument(deliver)
    deliver.add_argument("--name", required=True, metavar="IMAGE", help="what it is called on the device")
    source = deliver.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path, metavar="FILE", help="the image: a bundle (tar) or a disk")
    source.add_argument("--image-id", metavar="ID", help="an image of the library, see 'virmo image list'")
    _media_type(deliver)
    _signature(deliver)
    deliver.add_argument(
        "--descriptor", action="store_true",
        help="let the device fetch a download descriptor first (DLOTA), and report there: 'virmo image reports ID'",
    )  # fmt: skip
    deliver.add_argument("--description", default="", metavar="TEXT", help="for people who look at the device")
    order_options(deliver)
    upload = command(verbs, "upload", _upload, "add a file to the library, without delivering it")
    upload.add_argument("file", type=Path, metavar="FILE")
    upload.add_argument("--name", metavar="IMAGE", help="what it is called (default: from the file's name)")
    _media_type(upload)
    _signature(upload)
    listing = command(verbs, "list", _list, "list the images on a device; without DEVICE, the library")
    listing.add_argument("device", nargs="?", metavar="DEVICE", help="name or DevId of the device")
    show = command(verbs, "show", _show, "show a file of the library")
    show.add_argument("image_id", metavar="ID")
    delete = command(verbs, "delete", _delete, "delete an image from a device (VMs made from it stay)")
    device_argument(delete)
    delete.add_argument("name", metavar="IMAGE")
    order_options(delete)
    reports = command(verbs, "reports", _reports, "show what devices reported of an image fetched by its descriptor")
    reports.add_argument("image_id", metavar="ID")
    reports.add_argument("--limit", type=int, default=200, metavar="N", help="at most so many (default: %(default)s)")
    forget = command(verbs, "forget", _forget, "remove a file from the library (devices keep theirs)")
    forget.add_argument("image_id", metavar="ID")


def _media_type(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--media-type", metavar="TYPE", help="its MIME type (default: by the file's name)")


def _signature(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--signature", type=Path, metavar="FILE", help="its detached CMS signature, DER (a signed bundle needs none)"
    )


def _deliver(context: Context) -> int:
    options = context.options
    image_id = options.image_id or uploaded(context, options.file, options.name)["id"]
    return context.place_order(
        options.device,
        {
            "kind": "deliver-image",
            "name": options.name,
            "image_id": image_id,
            "description": options.description,
            "by_descriptor": options.descriptor,
        },
    )


def _upload(context: Context) -> int:
    options = context.options
    image = uploaded(context, options.file, options.name or safe_name(options.file.name))
    if context.output.as_json:
        context.output.json(image)
    else:
        context.output.line(f"image {image['id']} ({size(image['size'])}, SHA-256 {image['sha256']}) is in the library")
    return EXIT_OK


def uploaded(context: Context, path: Path, name: str) -> dict[str, Any]:
    """The library's image with this file's content; uploaded unless it is there already."""
    media_type = getattr(context.options, "media_type", None) or guess_media_type(path.name)
    signature = getattr(context.options, "signature", None)
    try:
        length = path.stat().st_size
        digest = _sha256(path)
    except OSError as error:
        raise ClientError(f"{path}: cannot be read: {error.strerror}") from error
    image: dict[str, Any]
    for image in context.client.get("/images", sha256=digest):
        if image["media_type"] == media_type and (signature is None or image["signature_url"] is not None):
            return image
    query = {"name": name, "file_name": safe_name(path.name), "media_type": media_type, "sha256": digest}
    if signature is not None:
        query["signature"] = base64.b64encode(file_content(signature)).decode()
    with upload_progress(context.output, path.name, length) as progress:
        image = context.client.upload(path, length, query, progress)
    return image


def _show(context: Context) -> int:
    image = context.client.get(f"/images/{segment(context.options.image_id)}")
    if context.output.as_json:
        context.output.json(image)
    else:
        context.output.facts({name: str(value) for name, value in image.items()})
    return EXIT_OK


def _list(context: Context) -> int:
    return _list_library(context) if context.options.device is None else _list_device(context)


def _list_library(context: Context) -> int:
    images = context.client.get("/images")
    if context.output.as_json:
        context.output.json(images)
        return EXIT_OK
    rows = [
        [
            i["id"],
            i["name"],
            i["file_name"],
            i["media_type"],
            size(i["size"]),
            i["sha256"][:12],
            i["signed_by"] or SIGNATURE_WORDS[i["signature"]],
            ago(i["created_at"]),
        ]
        for i in images
    ]
    headings = ["ID", "NAME", "FILE", "MEDIA TYPE", "SIZE", "SHA-256", "SIGNED BY", "UPLOADED"]
    context.output.table(headings, rows, empty="the library is empty: 'virmo image upload FILE' adds an image")
    return EXIT_OK


def _list_device(context: Context) -> int:
    device = context.options.device
    images = context.client.get(f"/devices/{segment(device)}/images")
    if context.output.as_json:
        context.output.json(images)
        return EXIT_OK
    rows = [
        [
            i["name"],
            i["state_text"],
            i["img_id"] or "-",
            i["media_type"] or "-",
            i["location"] or "-",
            ago(i["known_at"]),
            str(i["open_order"] or "-"),
        ]
        for i in images
    ]
    headings = ["IMAGE", "STATE", "IMGID", "MEDIA TYPE", "LOCATION", "READ", "ORDER"]
    empty = f"no images on {device}: 'virmo image deliver {device} --name NAME --file FILE' delivers one"
    context.output.table(headings, rows, empty=empty)
    return EXIT_OK


def _delete(context: Context) -> int:
    return context.place_order(context.options.device, {"kind": "delete-image", "name": context.options.name})


def _forget(context: Context) -> int:
    context.client.delete(f"/images/{segment(context.options.image_id)}")
    context.output.line(f"image {context.options.image_id} is removed from the library")
    return EXIT_OK


def _reports(context: Context) -> int:
    reports = context.client.get(f"/images/{segment(context.options.image_id)}/reports", limit=context.options.limit)
    if context.output.as_json:
        context.output.json(reports)
        return EXIT_OK
    rows = [[ago(report["at"]), str(report["status"]), report["text"]] for report in reports]
    context.output.table(["WHEN", "CODE", "TEXT"], rows, empty="no device reported anything of this image")
    return EXIT_OK


def guess_media_type(file_name: str) -> str:
    """By the name's end; of ``web.tar.gz`` it is the outer format that counts."""
    media_type, encoding = mimetypes.guess_type(file_name)
    if encoding is not None:
        return COMPRESSED_TYPES.get(encoding, DEFAULT_MEDIA_TYPE)
    return media_type or COMPRESSED_TYPES.get(Path(file_name).suffix, DEFAULT_MEDIA_TYPE)


def safe_name(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64].strip("-._")
    return safe or "image"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
