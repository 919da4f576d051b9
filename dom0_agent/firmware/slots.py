"""Two system slots, and the boot loader that counts: which one runs, which one is good, which one is on trial.

A slot becomes good only by the health check of the system that runs from it (`firmware.health`); until then every start
takes one try away, and without tries the boot loader goes back to the good one. Knows no packages and no sessions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dom0_agent.firmware import grubenv

NAMES = ("a", "b")
BLOCK = 1 << 20
_PARAMETER = "virmo.slot="


class SlotError(Exception):
    """A slot cannot be told or written. The message says which, and why."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The slot that the boot loader is to try, and how often still."""

    slot: str
    tries: int


class Slots(Protocol):
    """What an update needs of a board."""

    def running(self) -> str:
        """The slot that this system was started from."""

    def good(self) -> str:
        """The slot that the boot loader goes back to."""

    def trial(self) -> Trial | None:
        """The slot on trial, if there is one."""

    def write(self, slot: str, system: Path, progress: Callable[[int], None]) -> None:
        """Put a system into a slot that does not run; what was written is read back. ``progress`` hears percent."""

    def arm(self, slot: str, tries: int) -> None:
        """Let the next starts be from this slot."""

    def disarm(self) -> None:
        """No slot is on trial any more."""

    def confirm(self) -> None:
        """The running slot is the good one from now on."""


def slot_of(command_line: str) -> str:
    """The slot that a kernel's command line names. :raises SlotError: none, or one that there is not"""
    for word in command_line.split():
        if word.startswith(_PARAMETER) and word.removeprefix(_PARAMETER) in NAMES:
            return word.removeprefix(_PARAMETER)
    raise SlotError(f"the kernel's command line has no {_PARAMETER}a or b: this system was not started from a slot")


class GrubSlots:
    """Slots as partitions, and GRUB's environment block."""

    def __init__(
        self,
        environment: Path,
        partitions: Path = Path("/dev/disk/by-partlabel"),
        command_line: Path = Path("/proc/cmdline"),
    ) -> None:
        self._environment = environment
        self._partitions = partitions
        self._command_line = command_line

    def running(self) -> str:
        """See :class:`Slots`."""
        return slot_of(self._command_line.read_text())

    def good(self) -> str:
        """See :class:`Slots`."""
        return self._read().get("slot", NAMES[0])

    def trial(self) -> Trial | None:
        """See :class:`Slots`."""
        variables = self._read()
        slot, tries = variables.get("try", ""), variables.get("tries", "")
        return Trial(slot, int(tries) if tries.isdecimal() else 0) if slot in NAMES else None

    def write(self, slot: str, system: Path, progress: Callable[[int], None]) -> None:
        """See :class:`Slots`. Compares digests of what was read and of what the partition gives back."""
        if slot == self.running():
            raise SlotError(f"slot {slot} runs; it cannot be written")
        partition = self._partitions / f"virmo-root-{slot}"
        size = system.stat().st_size
        try:
            wanted = _copy(system, partition, size, progress)
            found = _digest(partition, size)
        except OSError as error:
            raise SlotError(f"slot {slot} ({partition}) cannot be written: {error}") from error
        if found != wanted:
            raise SlotError(f"slot {slot} ({partition}) does not give back what was written to it: is the disk broken?")

    def arm(self, slot: str, tries: int) -> None:
        """See :class:`Slots`."""
        self._change({"try": slot, "tries": str(tries)})

    def disarm(self) -> None:
        """See :class:`Slots`."""
        self._change({"try": "", "tries": "0"})

    def confirm(self) -> None:
        """See :class:`Slots`. One write: there is no moment without a good slot."""
        self._change({"slot": self.running(), "try": "", "tries": "0"})

    def _read(self) -> dict[str, str]:
        try:
            return grubenv.read(self._environment)
        except grubenv.EnvironmentBroken as error:
            raise SlotError(str(error)) from error

    def _change(self, variables: dict[str, str]) -> None:
        try:
            grubenv.change(self._environment, variables)
        except grubenv.EnvironmentBroken as error:
            raise SlotError(str(error)) from error


def _copy(source: Path, target: Path, size: int, progress: Callable[[int], None]) -> str:
    """Copies ``size`` bytes, durably; the digest of what was read."""
    digest, done = hashlib.sha256(), 0
    number = os.open(target, os.O_WRONLY)
    with source.open("rb") as stream, os.fdopen(number, "wb", buffering=0) as out:
        room = out.seek(0, os.SEEK_END)
        if room < size:
            raise OSError(f"it has {room} bytes, the system {size}")
        out.seek(0)
        while block := stream.read(BLOCK):
            digest.update(block)
            out.write(block)
            done += len(block)
            progress(100 * done // size)
        os.fsync(out.fileno())
        os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def _digest(partition: Path, size: int) -> str:
    digest, left = hashlib.sha256(), size
    with partition.open("rb", buffering=0) as stream:
        while left and (block := stream.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
