"""Step 6 of the check order: whether a value that a command brings fits the node's Format, Type and size."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Format, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.tree_places import Place
from dom0_agent.omadm.uri import format_path

DEFAULT_TYPE = "text/plain"


#: Characters of a Type property: media types and MOIDs are far below.
MAX_TYPE = 255


def wants_interior(place: Place, value: ItemValue) -> bool:
    """Whether Add with this value makes an interior node: Meta says so, or the definition where Meta is silent."""
    if value.format is None:
        return place.definition.is_interior
    return value.format is Format.NODE


def interior_type(place: Place, value: ItemValue, path: Path) -> str:
    """Type of an interior node to be added: its MOID or "". :class:`DMError` 415 when it does not fit."""
    where = format_path(path)
    if value.data:
        raise DMError(Status.UNSUPPORTED_FORMAT, f"{where}: an interior node has no value")
    if not place.free and not place.definition.is_interior:
        raise DMError(Status.UNSUPPORTED_FORMAT, f"{where} is a leaf of format {place.definition.format.value}")
    given = "" if value.type is None or _bare(value.type) == DEFAULT_TYPE else value.type.strip()
    if place.free:
        return _not_too_long(given, path)
    allowed = place.definition.types
    if given and given not in allowed:
        raise DMError(Status.UNSUPPORTED_FORMAT, f"{where}: Type {given!r} is not {' or '.join(allowed) or 'empty'}")
    return given or (allowed[0] if allowed else "")


def leaf_value(place: Place, value: ItemValue, path: Path) -> Value:
    """The value to be stored. :class:`DMError` 415 wrong Format or Type or text, 413 too large."""
    definition, data, given = place.definition, value.data, value.format
    format_ = (given or Format.CHR) if place.free else definition.format
    if format_ is Format.BIN and isinstance(data, str):
        if given not in (None, Format.B64, Format.BIN):
            raise _unsupported(path, f"Format is bin, not {given}")
        data = _decode(data, path)
    elif given is not None and given is not format_:
        raise _unsupported(path, f"Format is {format_}, not {given}")
    if format_ is Format.NODE:
        raise _unsupported(path, "Format node has no value")
    size = size_of(data)
    if size > definition.max_size:
        raise DMError(Status.TOO_LARGE, f"{format_path(path)}: {size} bytes; {definition.max_size} are allowed")
    if isinstance(data, bytes) != (format_ is Format.BIN):
        raise _unsupported(path, f"octets and text are mixed up for Format {format_}")
    check = _CHECKS.get(format_)
    if check is not None and not check(str(data)):
        raise _unsupported(path, f"{data[:40]!r} is not a value of Format {format_}")
    return Value(data, format_, _leaf_type(definition.types, value.type, path))


def size_of(data: str | bytes | None) -> int:
    """Size property: octets of the value, decoded."""
    if data is None:
        return 0
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())


def _leaf_type(allowed: tuple[str, ...], given: str | None, path: Path) -> str:
    if given in allowed:
        return given
    if given is None or not given.strip():
        return allowed[0] if allowed else DEFAULT_TYPE
    if allowed and _bare(given) not in map(_bare, allowed):
        raise _unsupported(path, f"Type {given!r} is not {' or '.join(allowed)}")
    return _not_too_long(given.strip(), path)


def _not_too_long(type_: str, path: Path) -> str:
    if len(type_) > MAX_TYPE:
        raise _unsupported(path, f"a Type of {len(type_)} characters; {MAX_TYPE} are allowed")
    return type_


def _bare(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _unsupported(path: Path, why: str) -> DMError:
    return DMError(Status.UNSUPPORTED_FORMAT, f"{format_path(path)}: {why}")


def _decode(text: str, path: Path) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _unsupported(path, f"the value is not base64: {error}") from error


def _is_b64(text: str) -> bool:
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_int(text: str) -> bool:
    return _INT.fullmatch(text) is not None and -(2**31) <= int(text) < 2**31


_INT = re.compile(r"[+-]?[0-9]{1,11}")
_FLOAT = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?|[+-]?INF|NaN")
_DATE = re.compile(r"[0-9]{4}-?(0[1-9]|1[0-2])-?(0[1-9]|[12][0-9]|3[01])")
_TIME = re.compile(r"([01][0-9]|2[0-3]):?[0-5][0-9](:?[0-5][0-9](\.[0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?")

#: Formats whose text is checked (7.3); chr takes any, xml is checked by who uses it
_CHECKS: dict[Format, Callable[[str], bool]] = {
    Format.B64: _is_b64,
    Format.BOOL: lambda text: text.lower() in ("true", "false"),
    Format.DATE: lambda text: _DATE.fullmatch(text) is not None,
    Format.FLOAT: lambda text: _FLOAT.fullmatch(text) is not None,
    Format.INT: _is_int,
    Format.NULL: lambda text: text == "",
    Format.TIME: lambda text: _TIME.fullmatch(text) is not None,
}
