"""OMA Download over the Air 1.0: a small XML descriptor instead of the image, and a report to its author (R-084).

Parses untrusted XML and posts one line; the download itself is not its business. Flow and codes:
``management-objects`` 7.1.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dom0_agent.images.errors import BadDescriptor, BadDescriptorVersion, LoaderError, NetworkLost
from dom0_agent.images.http import Network, send
from dom0_agent.images.mediatypes import DESCRIPTOR, essence
from dom0_agent.images.urls import BadUrl, Url, resolve

if TYPE_CHECKING:
    from lxml import etree

logger = logging.getLogger(__name__)

#: real descriptors have less than 2 KiB
MAX_DESCRIPTOR = 64 * 1024
#: of text in one element: URLs are the longest
MAX_TEXT = 8000
#: tries to deliver the report; it is one line, and the image is waiting for it
TRIES = 3
SUCCESS = 900

_NAMESPACES = (None, "http://www.openmobilealliance.org/xmlns/dd")
_TEXTS = {
    900: "Success",
    901: "Insufficient memory",
    902: "User Cancelled",
    903: "Loss of Service",
    905: "Attribute mismatch",
    906: "Invalid descriptor",
    951: "Invalid DDVersion",
    952: "Device Aborted",
    953: "Non-Acceptable Content",
    954: "Loader Error",
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A download descriptor. ``problem`` says why it must not be followed; then only ``notify`` is of use."""

    object_uri: str = ""
    size: int = 0  #: bytes
    types: tuple[str, ...] = ()  #: media types of the object
    notify: Url | None = None  #: installNotifyURI
    problem: BadDescriptor | None = None


def is_descriptor(content_type: str, head: bytes) -> bool:
    """Whether a response is a descriptor: by its media type, or (any XML type, or none) by its root element."""
    if essence(content_type) == DESCRIPTOR:
        return True
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith((b"<?xml", b"<media")) and b"<media" in start[:2000]


def parse_descriptor(untrusted_bytes: bytes, base: Url) -> Descriptor:
    """The descriptor in ``untrusted_bytes``, which came from ``base``.

    A bad one is returned with its ``problem`` and, when that much can be read, where to report it.
    """
    try:
        root = _root(untrusted_bytes)
    except BadDescriptor as error:
        return Descriptor(problem=error)
    notify, problem = None, None
    try:
        address = _text(root, "installNotifyURI", required=False)
        notify = resolve(base, address) if address else None
    except BadUrl as error:
        problem = BadDescriptor(f"download descriptor: installNotifyURI: {error}")
    except BadDescriptor as error:
        problem = error
    try:
        return replace(_descriptor(root, base), notify=notify, problem=problem)
    except BadDescriptor as error:
        return Descriptor(notify=notify, problem=error)


def _root(untrusted_bytes: bytes) -> etree._Element:
    from lxml import etree

    if len(untrusted_bytes) > MAX_DESCRIPTOR:
        raise BadDescriptor(f"download descriptor: larger than {MAX_DESCRIPTOR} bytes")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(untrusted_bytes, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadDescriptor(f"download descriptor: not well-formed XML: {str(error)[:200]}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise BadDescriptor("download descriptor: a document type declaration is not allowed")
    if _local_name(root) != "media":
        raise BadDescriptor("download descriptor: the root element is not media")
    return root


def _descriptor(root: etree._Element, base: Url) -> Descriptor:
    version = _text(root, "DDVersion", required=False) or "1.0"
    if not version.startswith("1."):
        raise BadDescriptorVersion(f"download descriptor: DDVersion {version[:20]!r}, known is 1.x")
    size = _text(root, "size")
    if not (size.isascii() and size.isdigit() and len(size) <= 18 and int(size) > 0):
        raise BadDescriptor(f"download descriptor: size {size[:20]!r} is not a number of bytes")
    types = tuple(text for text in _texts(root, "type") if text)
    if not types:
        raise BadDescriptor("download descriptor: type is missing")
    try:
        uri = resolve(base, _text(root, "objectURI"))
    except BadUrl as error:
        raise BadDescriptor(f"download descriptor: objectURI: {error}") from error
    return Descriptor(uri.full, int(size), types)


def _local_name(element: etree._Element) -> str | None:
    """The name, when the element is a descriptor's."""
    namespace, _, name = element.tag.rpartition("}")
    return name if (namespace.removeprefix("{") or None) in _NAMESPACES else None


def _texts(root: etree._Element, name: str) -> list[str]:
    texts = [" ".join((child.text or "").split()) for child in root if _local_name(child) == name]
    if any(len(text) > MAX_TEXT for text in texts):
        raise BadDescriptor(f"download descriptor: {name} is longer than {MAX_TEXT} characters")
    return texts


def _text(root: etree._Element, name: str, *, required: bool = True) -> str:
    texts = _texts(root, name)
    if len(texts) > 1 or (required and not (texts and texts[0])):
        raise BadDescriptor(f"download descriptor: {name} is {'there more than once' if texts[1:] else 'missing'}")
    return texts[0] if texts else ""


def post_report(
    network: Network, url: Url, code: int, wait: Callable[[int], bool], cancel: threading.Event | None = None
) -> None:
    """Tell ``url`` how it ended. ``wait`` is called with the number of the failed try, ``True`` ends the trying.

    :raises NetworkLost: nobody acknowledged it; :raises LoaderError: it was refused
    """
    body = f"{code} {_TEXTS[code]}".encode("ascii")
    stop = cancel or threading.Event()
    for number in range(1, TRIES + 1):
        try:
            _post(network, url, body, stop)
        except NetworkLost as error:
            logger.info("download report failed url=%s try=%d reason=%s", url, number, error)
            if number == TRIES or wait(number):
                raise
        else:
            logger.info("download reported url=%s code=%d", url, code)
            return


def _post(network: Network, url: Url, body: bytes, cancel: threading.Event) -> None:
    with send(
        network, url, headers={"Content-Type": "text/plain"}, method="POST", body=body, cancel=cancel
    ) as response:
        if response.status >= 500 or response.status in (408, 425, 429):
            raise NetworkLost(f"{url}: HTTP {response.status}")
        if not 200 <= response.status < 300:
            raise LoaderError(f"{url}: the download report was refused: HTTP {response.status}")
