"""Reads what an ELF file needs (DT_NEEDED) and for which machine it is: any architecture's, without its tools."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from image.errors import ImageError

_MAGIC = b"\x7fELF"
_CLASS_64_LITTLE = b"\x02\x01"
_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def is_elf(data: bytes) -> bool:
    """Whether this is a 64-bit little-endian ELF file."""
    return data[:6] == _MAGIC + _CLASS_64_LITTLE


def machine_of(data: bytes) -> int:
    """The e_machine field: 62 is x86-64, 183 is AArch64."""
    return int(_HEADER.unpack_from(data)[1])


def needed(data: bytes) -> tuple[str, ...]:
    """The shared libraries that a program or library names."""
    segments = _segments(data)
    entries = [entry for segment in segments if segment.kind == _PT_DYNAMIC for entry in _dynamic(data, segment)]
    tables = [value for tag, value in entries if tag == _DT_STRTAB]
    if not tables:
        return ()
    names = _file_offset(tables[0], segments)
    return tuple(_text(data, names + value) for tag, value in entries if tag == _DT_NEEDED)


def library_closure(roots: Iterable[Path], libraries: Mapping[str, Path]) -> dict[str, Path]:
    """All libraries that the roots need, directly or not, among those at hand."""
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        for name in needed(path.read_bytes()):
            if name not in libraries:
                raise ImageError(f"{path.name} needs {name}, which none of the chosen packages brings")
            if name not in found:
                found[name] = libraries[name]
                waiting.append(libraries[name])
    return found


def _segments(data: bytes) -> list[_Segment]:
    fields = _HEADER.unpack_from(data)
    offset, size, count = fields[4], fields[8], fields[9]
    found = []
    for number in range(count):
        kind, _flags, start, address, _physical, length, _memory, _align = _SEGMENT.unpack_from(
            data, offset + number * size
        )
        found.append(_Segment(kind, start, address, length))
    return found


def _dynamic(data: bytes, segment: _Segment) -> list[tuple[int, int]]:
    entries = []
    for offset in range(segment.offset, segment.offset + segment.size, _DYNAMIC.size):
        tag, value = _DYNAMIC.unpack_from(data, offset)
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    return entries


def _file_offset(address: int, segments: Iterable[_Segment]) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise ImageError(f"no segment of the ELF file holds address {address:#x}")


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
