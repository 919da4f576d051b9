"""Reads a shim's hello: who it is, and which management objects it says it serves. Nothing is believed unchecked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dom0_agent.guest.facts import parse_facts
from dom0_agent.guest.interface import GuestHello, ServedObject
from dom0_agent.hypervisor.interface import GuestFacts
from guest_shim.protocol import ProtocolError

OBJECTS_CAP = 64  #: management objects of one guest
PATHS_CAP = 256  #: live nodes, and operations, of one
#: Objects that say how VMs are run: dom0's alone, whoever claims to serve them.
RESERVED = ("urn:oma:mo:oma-virmo:", "urn:oma:mo:oma-vmimgmo:")

_MOID = re.compile(r"urn:[A-Za-z0-9:._-]{1,250}")
_SEGMENT = re.compile(r"[^/\x00-\x1f\x7f]{1,64}")
_PATH_CAP = 255
_CAPABILITY = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_INSTANCE = re.compile(r"[0-9a-f]{1,32}")


def facts_of(untrusted_hello: Mapping[str, Any]) -> GuestFacts:
    """What a hello says about the boot; what is malformed is ``None``."""
    return parse_facts(
        untrusted_boot_id=raw(untrusted_hello.get("boot_id")),
        untrusted_beats=raw(untrusted_hello.get("beats")),
        untrusted_version=raw(untrusted_hello.get("shim")),
    )


def parse_hello(untrusted_hello: Mapping[str, Any], transport: str) -> GuestHello:
    """The checked hello. :class:`ProtocolError` when objects or capabilities are not what they must be."""
    facts = facts_of(untrusted_hello)
    objects = tuple(_object(item) for item in _list(untrusted_hello.get("objects"), OBJECTS_CAP, "objects"))
    if len({served.moid for served in objects}) != len(objects):
        raise ProtocolError("hello names a management object twice")
    capabilities = _list(untrusted_hello.get("capabilities"), OBJECTS_CAP, "capabilities")
    if not all(isinstance(name, str) and _CAPABILITY.fullmatch(name) for name in capabilities):
        raise ProtocolError("hello names a capability that cannot be one")
    return GuestHello(facts.shim_version or "", facts.boot_id or "", transport, objects, frozenset(capabilities))


def instance_of(untrusted_hello: Mapping[str, Any]) -> str:
    """The shim's life that this hello belongs to; empty when it names none."""
    instance = untrusted_hello.get("instance")
    return instance if isinstance(instance, str) and _INSTANCE.fullmatch(instance) else ""


def raw(untrusted_value: object) -> bytes | None:
    """A JSON value as the bytes that XenStore would hold; what is neither text nor a number is nothing."""
    if isinstance(untrusted_value, str):
        return untrusted_value.encode("utf-8", "replace")
    if isinstance(untrusted_value, int) and not isinstance(untrusted_value, bool) and untrusted_value.bit_length() < 64:
        return str(untrusted_value).encode("ascii")
    return None


def _object(untrusted: object) -> ServedObject:
    if not isinstance(untrusted, dict):
        raise ProtocolError("hello has an object that is none")
    moid = untrusted.get("moid")
    if not isinstance(moid, str) or not _MOID.fullmatch(moid):
        raise ProtocolError("hello has an object without a valid MOID")
    if moid.lower().startswith(RESERVED):
        raise ProtocolError(f"hello claims {moid}, which is dom0's")
    return ServedObject(moid, _paths(untrusted.get("live"), "live"), _paths(untrusted.get("operations"), "operations"))


def _paths(untrusted: object, what: str) -> tuple[str, ...]:
    paths = _list(untrusted, PATHS_CAP, what)
    for path in paths:
        if not isinstance(path, str) or len(path) > _PATH_CAP:
            raise ProtocolError(f"hello's {what} has a path that is none")
        segments = path.split("/")
        if not all(_SEGMENT.fullmatch(segment) for segment in segments) or {".", ".."} & set(segments):
            raise ProtocolError(f"hello's {what} has the path {path[:80]!r}")
    return tuple(paths)


def _list(untrusted: object, cap: int, what: str) -> list[Any]:
    if untrusted is None:
        return []
    if not isinstance(untrusted, list) or len(untrusted) > cap:
        raise ProtocolError(f"hello's {what} is no list of at most {cap}")
    return untrusted
