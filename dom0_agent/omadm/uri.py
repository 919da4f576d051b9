"""URIs of the management tree: text to segments and back (OMA-TS-DM-TND 6.3, our digest 7.1).

A path is a tuple of decoded segments without the leading "."; the root is ``()``. Names are compared as they are,
case-sensitively, after percent-decoding. Knows no node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.status import DMError, Status


@dataclass(frozen=True, slots=True)
class UriLimits:
    """What ``DevDetail/URI/*`` announces; counted in characters, 0 is no limit.

    The defaults leave room for the deepest path there is (an operation of a component inside a VM's SCOMO: 9 segments)
    and stop URIs that are made to cost memory.
    """

    max_depth: int = 32
    max_total_length: int = 1024
    max_segment_length: int = 128


class DmUri(NamedTuple):
    """A parsed target: the node, and at most one of ``?prop=`` and ``?list=``."""

    path: Path
    prop: str | None = None
    list: str | None = None


DEFAULT_LIMITS = UriLimits()

#: pchar of the URI syntax, plus any non-ASCII character (servers send those unescaped)
_NAME = r"(?:[A-Za-z0-9\-_.~!*'();:@&=+$,]|%[0-9A-Fa-f]{2}|[^\x00-\x9f])+"
_PATH = re.compile(rf"(?:\./)?({_NAME}(?:/{_NAME})*)")
_NEEDS_CARE = re.compile(r"%|(?:^|/)(?:\.\.?|\*)(?:/|$)")
_UNSAFE_NAME = re.compile(r"[/\x00-\x1f\x7f-\x9f]")
_NOT_NAMES = frozenset({"", ".", "..", "*"})
_SAFE = "-_.~!*'();:@&=+$,"  # what quote() may leave alone besides letters and digits


def parse_uri(untrusted_uri: str, limits: UriLimits = DEFAULT_LIMITS) -> DmUri:
    """The parsed URI. :class:`DMError` 414 over a limit, 404 bad syntax, 406 a query that is neither prop nor list."""
    if limits.max_total_length and len(untrusted_uri) > limits.max_total_length:
        raise DMError(Status.URI_TOO_LONG, f"URI of {len(untrusted_uri)} characters; {limits.max_total_length} allowed")
    text, question, query = untrusted_uri.partition("?")
    path = _parse_path(text, limits)
    if not question:
        return DmUri(path)
    name, _, value = query.partition("=")
    if value and name == "prop":
        return DmUri(path, prop=value)
    if value and name == "list":
        return DmUri(path, list=value)
    raise DMError(Status.NOT_SUPPORTED, f"{untrusted_uri}: only ?prop=<property> and ?list=<attribute> are known")


def parse_path(untrusted_uri: str, limits: UriLimits = DEFAULT_LIMITS) -> Path:
    """The path of a URI that must not have a query; errors as :func:`parse_uri`."""
    uri = parse_uri(untrusted_uri, limits)
    if uri.prop is not None or uri.list is not None:
        raise DMError(Status.NOT_FOUND, f"{untrusted_uri}: a node is wanted here, not a property")
    return uri.path


def check_name(untrusted_name: str, limits: UriLimits = DEFAULT_LIMITS) -> str:
    """A decoded node name, as it is. :class:`DMError` 414 too long, 405 not usable as a name."""
    if limits.max_segment_length and len(untrusted_name) > limits.max_segment_length:
        raise DMError(
            Status.URI_TOO_LONG,
            f"node name of {len(untrusted_name)} characters; {limits.max_segment_length} are allowed",
        )
    if untrusted_name in _NOT_NAMES or _UNSAFE_NAME.search(untrusted_name):
        raise DMError(Status.NOT_ALLOWED, f"{untrusted_name!r} cannot be a node's name")
    return untrusted_name


def check_path(untrusted_path: Path, limits: UriLimits = DEFAULT_LIMITS) -> None:
    """:class:`DMError` unless a URI could name this path: 414 over a limit, 405 a name that cannot be one."""
    for name in untrusted_path:
        check_name(name, limits)
    if limits.max_depth and len(untrusted_path) > limits.max_depth:
        raise DMError(Status.URI_TOO_LONG, f"path of {len(untrusted_path)} segments; {limits.max_depth} are allowed")
    if limits.max_total_length and len(format_path(untrusted_path)) > limits.max_total_length:
        raise DMError(Status.URI_TOO_LONG, f"path over {limits.max_total_length} characters")


def format_path(path: Path) -> str:
    """The URI of a node, with the leading ``./``; percent-encoded where the syntax wants it."""
    return "./" + "/".join(map(format_name, path)) if path else "."


def format_name(name: str) -> str:
    """One segment, percent-encoded where the syntax wants it."""
    return name if name.isalnum() and name.isascii() else quote(name, safe=_SAFE)


def _parse_path(text: str, limits: UriLimits) -> Path:
    if text == ".":
        return ()
    match = _PATH.fullmatch(text)
    if match is None:
        raise DMError(Status.NOT_FOUND, f"{text!r} is not the URI of a node")
    segments = match.group(1).split("/")
    if _NEEDS_CARE.search(match.group(1)):
        segments = [_decode(segment, text) for segment in segments]
    if limits.max_depth and len(segments) > limits.max_depth:
        raise DMError(Status.URI_TOO_LONG, f"URI of {len(segments)} segments; {limits.max_depth} are allowed")
    longest = len(max(segments, key=len))
    if limits.max_segment_length and longest > limits.max_segment_length:
        raise DMError(Status.URI_TOO_LONG, f"segment of {longest} characters; {limits.max_segment_length} are allowed")
    return tuple(segments)


def _decode(segment: str, text: str) -> str:
    if "%" in segment:
        try:
            segment = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError as error:
            raise DMError(Status.NOT_FOUND, f"{text!r} is not UTF-8 behind its percent signs") from error
    if segment in _NOT_NAMES or _UNSAFE_NAME.search(segment):
        raise DMError(Status.NOT_FOUND, f"{text!r} is not the URI of a node: {segment!r} cannot be a name")
    return segment
