"""GRUB's environment block: 1024 bytes of ``name=value`` lines that the boot loader reads and writes in place.

The file must never change its size or place: GRUB writes the blocks it found at its start, past the file system.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SIZE = 1024
_HEADER = "# GRUB Environment Block\n"


class EnvironmentBroken(Exception):  # noqa: N818 - it names what is the matter
    """The block cannot be read or is none; the message names the file."""


def parse(block: bytes) -> dict[str, str]:
    """The variables of a block. :raises ValueError: it is none"""
    text = block.decode("utf-8")
    if len(block) != SIZE or not text.startswith(_HEADER):
        raise ValueError(f"not a GRUB environment block of {SIZE} bytes")
    lines = (line for line in text[len(_HEADER) :].splitlines() if line and not line.startswith("#"))
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


def render(variables: Mapping[str, str]) -> bytes:
    """A block with these variables. :raises ValueError: they do not fit, or hold what a block cannot"""
    for name, value in variables.items():
        if not name.isidentifier() or "\n" in value:
            raise ValueError(f"GRUB's environment cannot hold {name}={value!r}")
    text = _HEADER + "".join(f"{name}={value}\n" for name, value in variables.items())
    block = text.encode("utf-8")
    if len(block) > SIZE:
        raise ValueError(f"GRUB's environment has {SIZE} bytes, {len(block)} are needed")
    return block + b"#" * (SIZE - len(block))


def read(file: Path) -> dict[str, str]:
    """The variables in the file. :raises EnvironmentBroken: there are none to be had"""
    try:
        return parse(file.read_bytes())
    except (OSError, ValueError) as error:
        raise EnvironmentBroken(f"{file}: {error}; is the boot partition mounted?") from error


def change(file: Path, variables: Mapping[str, str]) -> None:
    """Sets these variables, in one write that is durable when this returns. :raises EnvironmentBroken: it failed"""
    try:
        block = render({**read(file), **variables})
        number = os.open(file, os.O_WRONLY | os.O_SYNC)
        try:
            os.pwrite(number, block, 0)
            os.fsync(number)
        finally:
            os.close(number)
    except (OSError, ValueError) as error:
        raise EnvironmentBroken(f"{file}: {error}") from error
