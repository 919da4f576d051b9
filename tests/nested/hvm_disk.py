"""A disk that is a whole guest of type hvm: a boot sector that counts, on the disk, its boots and how long it has run.

A Linux would take minutes to be read by an emulated machine's firmware; this is there in its first second, and tells
all that the life of a VM is about: that it was booted (again), and that it goes on with what it had in memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

SIZE = 1 << 20
SECTOR = 512
#: Real-mode code of the PC's boot sector, made by ``as --32`` of::
#:
#:          cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss; mov $0x7c00,%sp; sti
#:          mov %dl,(0x7a00)               # the disk that it was booted from
#:          mov $0x0201,%ax; call disk     # read the counters
#:          incl (0x8000)                  # one more boot
#:          movl $0,(0x8004)               # and no beat in it yet: from here on this number is only kept in memory
#:   again: incl (0x8004)
#:          mov $0x0301,%ax; call disk     # write both
#:          mov $9,%si
#:   tick:  hlt; dec %si; jnz tick         # half a second of timer interrupts
#:          jmp again
#:   disk:  mov $0x8000,%bx; mov $2,%cx; xor %dh,%dh; mov (0x7a00),%dl; int $0x13; ret
CODE = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cfb8816007a" "b80102e82200" "66ff060080" "66c706048000000000" "66ff060480" "b80103e80900"
    "be0900" "f44e75fcebec" "bb0080b9020030f68a16007acd13c3"
)  # fmt: skip
SIGNATURE = b"\x55\xaa"


@dataclass(frozen=True, slots=True)
class Counters:
    """What the guest has written."""

    boots: int
    beats: int  #: of this boot, two a second

    @classmethod
    def parse(cls, sector: bytes) -> Counters:
        """The disk's second sector."""
        return cls(*struct.unpack("<II", sector[:8]))


def write_disk(file: Path) -> None:
    """The disk, of a guest that has never been booted."""
    disk = bytearray(SIZE)
    disk[: len(CODE)] = CODE
    disk[SECTOR - len(SIGNATURE) : SECTOR] = SIGNATURE
    file.write_bytes(disk)
