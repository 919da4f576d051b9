"""vm.yaml: what a VM image bundle says about itself. README.md documents the format; this module writes it.

Written without a YAML library, so that a bare build machine needs none: each value is in JSON's notation, which YAML
includes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

FORMAT = 1
FILE_NAME = "vm.yaml"


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the bundle. Nothing is used before its size and hash are verified."""

    file: str
    sha256: str
    size: int

    @classmethod
    def of(cls, file: str, parts: Iterable[bytes]) -> Member:
        """Measures a member given in pieces."""
        digest = hashlib.sha256()
        size = 0
        for part in parts:
            digest.update(part)
            size += len(part)
        return cls(file, digest.hexdigest(), size)

    def fields(self) -> dict[str, str | int]:
        return {"file": self.file, "sha256": self.sha256, "size": self.size}


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of the VM: `device` is its name in the guest, `format` raw or qcow2."""

    member: Member
    format: str
    device: str

    def fields(self) -> dict[str, str | int]:
        return {**self.member.fields(), "format": self.format, "device": self.device}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of vm.yaml. `memory` is in bytes: the least that the image works well with."""

    name: str
    arch: str
    type: str
    vcpus: int
    memory: int
    cmdline: str
    kernel: Member
    ramdisk: Member | None
    disks: tuple[Disk, ...] = ()

    def text(self) -> str:
        """The file."""
        lines = [f"format: {FORMAT}"]
        for name in ("name", "arch", "type", "vcpus", "memory", "cmdline"):
            lines.append(f"{name}: {json.dumps(getattr(self, name))}")
        lines.append(f"kernel: {_flow(self.kernel.fields())}")
        if self.ramdisk is not None:
            lines.append(f"ramdisk: {_flow(self.ramdisk.fields())}")
        if self.disks:
            lines.append("disks:")
            lines += [f"  - {_flow(disk.fields())}" for disk in self.disks]
        else:
            lines.append("disks: []")
        return "".join(f"{line}\n" for line in lines)


def _flow(fields: Mapping[str, str | int]) -> str:
    return "{" + ", ".join(f"{name}: {json.dumps(value)}" for name, value in fields.items()) + "}"
