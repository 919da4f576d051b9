"""Pages of the image library. The upload itself is the API's, which streams it; see ``console.http``."""

from __future__ import annotations

from virmo_server.api import operations as op
from virmo_server.api import schema
from virmo_server.console.visit import Answer, Changed, Page, Visit

#: Devices whose names are suggested; others can be typed.
SUGGESTED = "500"

#: media type, what it is for people, ends of file names that suggest it
MEDIA_TYPES = (
    ("application/vnd.virmo.bundle+tar", "VM bundle (tar, perhaps packed)", ".tar .tar.gz .tgz .tar.xz .tar.zst"),
    ("application/x-qcow2", "qcow2 disk", ".qcow2 .qcow2.gz .qcow2.xz .qcow2.zst"),
    ("application/x-raw-disk-image", "raw disk", ".raw .raw.gz .raw.xz .raw.zst .img .img.gz .img.xz .img.zst"),
    ("application/vnd.oma.dd+xml", "download descriptor", ".dd"),
    ("application/octet-stream", "something else", ""),
)


def images_page(visit: Visit) -> Answer:
    """The library."""
    images: list[schema.ImageView] = visit.call(op.list_images)
    devices: list[schema.DeviceView] = visit.call(op.list_all_devices, query={"limit": SUGGESTED})
    values = {
        "images": images,
        "total_size": sum(image.size for image in images),
        "media_types": MEDIA_TYPES,
        "devices": [device.name for device in devices],
    }
    return Page("images.html", values)


def delete_image(visit: Visit) -> Answer:
    """Remove a file; devices keep what they downloaded."""
    image: schema.ImageView = visit.call(op.get_image, path=visit.path)
    visit.call(op.delete_library_image, path=visit.path)
    return Changed(f"{image.name} is removed from the library. Devices keep what they downloaded.")
