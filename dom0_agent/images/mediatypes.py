"""Which content a MediaType allows (A-38). A table; knows neither HTTP nor archives.

What counts is what the bytes are, not what the web server calls them: most hand out octet-stream. Two answers
of a web server are believed, because no image is ever served so: a download descriptor, and text (the log-in page of a
captive portal, an error page with status 200; ``text/xml`` may still be a descriptor).
"""

from __future__ import annotations

from enum import Enum

from dom0_agent.images.errors import TypeMismatch, Unsupported

DESCRIPTOR = "application/vnd.oma.dd+xml"
BUNDLE = "application/vnd.virmo.bundle+tar"


class Kind(Enum):
    """What an image file is inside its compression."""

    BUNDLE = "bundle"
    QCOW2 = "qcow2 disk"
    RAW = "raw disk"
    UNKNOWN = "unknown content"  #: may be a raw disk: nothing says what a raw disk begins with


class Compression(Enum):
    """How an image file is packed."""

    NONE = "none"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"


_ANY_DISK = frozenset({Kind.QCOW2, Kind.RAW})
_PACKED = frozenset({Kind.BUNDLE, Kind.QCOW2, Kind.RAW})
_EVERY = frozenset(Compression)


def _only(compression: Compression) -> frozenset[Compression]:
    return frozenset({compression})


#: media type → (kinds, compressions) it allows
_TABLE: dict[str, tuple[frozenset[Kind], frozenset[Compression]]] = {
    "": (_PACKED, _EVERY),  # MediaType is required, but an empty one only means that nothing was said
    "application/octet-stream": (_PACKED, _EVERY),
    "binary/octet-stream": (_PACKED, _EVERY),
    DESCRIPTOR: (_PACKED, _EVERY),  # the descriptor's own type list says what the object is
    BUNDLE: (frozenset({Kind.BUNDLE}), _EVERY),
    "application/x-tar": (frozenset({Kind.BUNDLE}), _EVERY),
    "application/tar": (frozenset({Kind.BUNDLE}), _EVERY),
    "application/x-gtar": (frozenset({Kind.BUNDLE}), _EVERY),
    "application/x-compressed-tar": (frozenset({Kind.BUNDLE}), _EVERY),
    "application/gzip": (_PACKED, _only(Compression.GZIP)),
    "application/x-gzip": (_PACKED, _only(Compression.GZIP)),
    "application/x-xz": (_PACKED, _only(Compression.XZ)),
    "application/zstd": (_PACKED, _only(Compression.ZSTD)),
    "application/x-zstd": (_PACKED, _only(Compression.ZSTD)),
    "application/x-qemu-disk": (frozenset({Kind.QCOW2}), _EVERY),
    "application/x-qcow2": (frozenset({Kind.QCOW2}), _EVERY),
    "application/x-raw-disk-image": (frozenset({Kind.RAW, Kind.UNKNOWN}), _EVERY),
    "application/x-disk-image": (_ANY_DISK, _EVERY),
    "application/vnd.efi.img": (frozenset({Kind.RAW, Kind.UNKNOWN}), _EVERY),
}


def essence(media_type: str) -> str:
    """The media type without parameters, in lower case: ``Text/HTML; charset=x`` → ``text/html``."""
    return media_type.partition(";")[0].strip().lower()


def is_supported(media_type: str) -> bool:
    """Whether any content of this type is taken."""
    return essence(media_type) in _TABLE


def check_supported(media_type: str) -> None:
    """:raises Unsupported: no content of this type is taken"""
    if not is_supported(media_type):
        raise Unsupported(f"MediaType {essence(media_type)[:80]!r} is not one this device can use; use {BUNDLE}")


def check_response(content_type: str) -> None:
    """:raises TypeMismatch: the web server says that this is text: a page for people, not an image"""
    if essence(content_type).startswith("text/") and essence(content_type) != "text/xml":
        raise TypeMismatch(
            f"the web server answers with {essence(content_type)[:80]}, not with an image "
            "(a log-in page or an error page?)"
        )


def check_content(media_type: str, kind: Kind, compression: Compression) -> None:
    """:raises TypeMismatch: ``media_type`` promised something else (A-38)"""
    kinds, compressions = _TABLE[essence(media_type)]
    if kind not in kinds or compression not in compressions:
        packed = "" if compression is Compression.NONE else f" in {compression.value}"
        raise TypeMismatch(f"MediaType is {essence(media_type) or 'empty'!r}, but the content is {kind.value}{packed}")


def check_described(types: tuple[str, ...], kind: Kind, compression: Compression) -> None:
    """The same for the types of a download descriptor: one of them must fit. :raises TypeMismatch: none does"""
    for media_type in types:
        if is_supported(media_type):
            kinds, compressions = _TABLE[essence(media_type)]
            if kind in kinds and compression in compressions:
                return
    shown = ", ".join(essence(media_type)[:80] for media_type in types[:4])
    raise TypeMismatch(f"the download descriptor says {shown}, but the content is {kind.value}")
