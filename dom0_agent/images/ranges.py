"""Partial answers of a web server (RFC 9110 14): is this exactly the part that was asked for? Pure functions.

Servers, proxies and caches get this wrong in every possible way, and a wrong part spliced into a right beginning is the
worst outcome of a download: it looks complete.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII | re.IGNORECASE)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,256}"', re.ASCII)


_REPR_DIGEST = re.compile(r"(?:^|,)[ \t]*sha-256=:([A-Za-z0-9+/]{43}=):", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """What a ``Content-Range`` says; ``end`` is the last byte's position."""

    start: int
    end: int
    total: int | None


def strong_etag(untrusted_value: str | None) -> str | None:
    """The ETag when it is a strong one: only that promises equal bytes (RFC 9110 13.1.5)."""
    etag = (untrusted_value or "").strip()
    return etag if _STRONG_ETAG.fullmatch(etag) else None


def repr_digest(untrusted_value: str | None) -> str | None:
    """The SHA-256 of the whole, lower-case hexadecimal, if a Repr-Digest header (RFC 9530) says it."""
    match = _REPR_DIGEST.search((untrusted_value or "")[:1000])
    return None if match is None else base64.b64decode(match[1]).hex()


def parse_content_range(untrusted_value: str | None) -> Part | None:
    """The part, or ``None`` when it is missing or malformed."""
    match = _CONTENT_RANGE.fullmatch((untrusted_value or "").strip())
    if match is None:
        return None
    return Part(int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3]))


def refuse_part(
    part: Part | None, *, offset: int, total: int | None, length: int | None, same_etag: bool
) -> str | None:
    """Why an answer to "from ``offset`` on" must not be used, or ``None`` when it may.

    :param total: bytes of the whole as an earlier answer said, if one did
    :param length: the answer's Content-Length, if it has one
    """
    if part is None:
        return "Content-Range is missing or malformed"
    size = part.end - part.start + 1
    known = part.total if total is None else total
    checks = (
        (part.start == offset, f"it begins at {part.start}, asked was {offset}"),
        (size > 0, "it ends before it begins"),
        (part.total is None or total is None or part.total == total, f"the total is {part.total}, was {total}"),
        (known is None or part.end < known, f"it ends at {part.end} of {known}"),
        (length is None or length == size, f"Content-Length is {length} for {size} bytes"),
        (same_etag, "it is of another representation (ETag)"),
    )
    return next((reason for fits, reason in checks if not fits), None)
