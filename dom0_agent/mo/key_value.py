"""The ``key=value&key=value`` strings of VirMO: CreateParams, CurrentConfig, NewConfig, DeviceResources.

UTF-8, ``& = % +`` and non-ASCII percent-encoded, keys case-sensitive, decoded after splitting (R-036, R-037, A-18).
Unknown keys are kept, never an error (A-19). Must not know which keys mean what to a VM beyond the tables below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from dom0_agent.omadm.status import DMError, Status
from dom0_agent.vm.model import Allocation

MAX_PAIRS = 64  #: far more than any parameter list; bounds the work an odd value can cause
MAX_INTEGER_DIGITS = 18  #: bytes of any storage, without leaving 64 bits

#: keys of CurrentConfig and NewConfig (R-049), in the order in which they are printed
ALLOCATION_KEYS = {"RAM": "ram", "Storage": "storage", "CPU": "cpu", "Network": "network"}
PERCENTAGES = frozenset({"CPU", "Network"})
#: our own keys beside them (R-052), and the smallest value of each: vCPUs online, percent of one physical CPU (0: no
#: cap), bits a second each way (0: no limit)
VENDOR_KEYS = {"VCPUs": 1, "CPUCap": 0, "NetworkBps": 0}


@dataclass(frozen=True, slots=True)
class CreateParams:
    """VirMO/<x>/CreateParams (R-040 to R-043); ``vendor`` holds the keys that are not the specification's."""

    img_id: str
    running: bool = True
    vendor: Mapping[str, str] = field(default_factory=dict)


def parse_pairs(untrusted_text: str, node: str) -> dict[str, str]:
    """Split and decode; :class:`DMError` 412 for a pair without ``=``, an empty or repeated key, broken encoding."""
    pairs: dict[str, str] = {}
    parts = untrusted_text.strip().split("&") if untrusted_text.strip() else []
    if len(parts) > MAX_PAIRS:
        raise DMError(Status.INCOMPLETE, f"{node}: more than {MAX_PAIRS} key=value pairs")
    for part in parts:
        raw_key, equals, raw_value = part.partition("=")
        try:
            key, value = unquote(raw_key, errors="strict"), unquote(raw_value, errors="strict")
        except UnicodeDecodeError as error:
            raise DMError(Status.INCOMPLETE, f"{node}: {part!r} is not percent-encoded UTF-8") from error
        if not equals or not key:
            raise DMError(Status.INCOMPLETE, f"{node}: {part!r} is not key=value")
        if key in pairs:
            raise DMError(Status.INCOMPLETE, f"{node}: {key} is given twice")
        pairs[key] = value
    return pairs


def format_pairs(pairs: Iterable[tuple[str, object]]) -> str:
    """The inverse of :func:`parse_pairs`."""
    return "&".join(f"{quote(key, safe='')}={quote(str(value), safe='')}" for key, value in pairs)


def parse_create_params(untrusted_text: str, node: str) -> CreateParams:
    """CreateParams, validated on Exec Create; :class:`DMError` 412 for any mistake (A-20)."""
    pairs = parse_pairs(untrusted_text, node)
    img_id = pairs.pop("ImgID", "")
    if not img_id:
        raise DMError(Status.INCOMPLETE, f"{node}: ImgID is missing")
    running = pairs.pop("Running", "true").lower()
    if running not in ("true", "false"):
        raise DMError(Status.INCOMPLETE, f"{node}: Running must be true or false")
    return CreateParams(img_id, running == "true", pairs)


def format_allocation(allocation: Allocation) -> str:
    """CurrentConfig of a VM (R-046 to R-049), its vendor parameters after the specification's (R-052)."""
    return format_pairs(
        [*((key, getattr(allocation, name)) for key, name in ALLOCATION_KEYS.items()), *allocation.vendor]
    )


def parse_allocation(untrusted_text: str, node: str) -> Allocation:
    """NewConfig of a VM (R-054, A-14): all four keys, percentages at most 100; :class:`DMError` 412 for any mistake.

    Vendor keys that are ours are checked, unknown ones kept (A-19).
    """
    pairs = parse_pairs(untrusted_text, node)
    missing = [key for key in ALLOCATION_KEYS if key not in pairs]
    if missing:
        raise DMError(
            Status.INCOMPLETE, f"{node}: {' and '.join(missing)} missing; all of {', '.join(ALLOCATION_KEYS)}"
        )
    values = {name: parse_size(pairs.pop(key), key, node) for key, name in ALLOCATION_KEYS.items()}
    for key, name in ALLOCATION_KEYS.items():
        if key in PERCENTAGES and values[name] > 100:
            raise DMError(Status.INCOMPLETE, f"{node}: {key} is a percentage, at most 100, not {values[name]}")
    for key, smallest in VENDOR_KEYS.items():
        if key in pairs and parse_size(pairs[key], key, node) < smallest:
            raise DMError(Status.INCOMPLETE, f"{node}: {key} must be at least {smallest}")
    return Allocation(**values, vendor=tuple(pairs.items()))


def parse_size(untrusted_text: str, key: str, node: str) -> int:
    """A decimal number without sign (A-18); :class:`DMError` 412 otherwise."""
    if not (untrusted_text.isascii() and untrusted_text.isdigit() and len(untrusted_text) <= MAX_INTEGER_DIGITS):
        raise DMError(Status.INCOMPLETE, f"{node}: {key} must be a whole number, not {untrusted_text!r}")
    return int(untrusted_text)
