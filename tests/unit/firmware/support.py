"""Slots and packages that are simply there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dom0_agent.firmware.slots import SlotError, Trial
from dom0_agent.images.model import ImageDisk, ImageEvent, ImageRecord, ImageState, VerifiedImage
from dom0_agent.operation import OperationHandle, OperationResult, Origin


@dataclass
class FakeSlots:
    """A board in memory. ``calls`` is what was done to it, in order."""

    now: str = "a"
    kept: str = "a"
    tried: Trial | None = None
    broken: str = ""
    fault: OSError | None = None
    calls: list[str] = field(default_factory=list)

    def running(self) -> str:
        return self.now

    def good(self) -> str:
        return self.kept

    def trial(self) -> Trial | None:
        return self.tried

    def write(self, slot: str, system: Path, progress: Callable[[int], None]) -> None:
        self.calls.append(f"write {slot}")
        if self.broken:
            raise SlotError(self.broken)
        if self.fault is not None:
            raise self.fault
        progress(100)

    def arm(self, slot: str, tries: int) -> None:
        self.calls.append(f"arm {slot}")
        self.tried = Trial(slot, tries)

    def disarm(self) -> None:
        self.calls.append("disarm")
        self.tried = None

    def confirm(self) -> None:
        self.calls.append("confirm")
        self.kept, self.tried = self.now, None


@dataclass
class FakePackages:
    """An image service whose downloads end at once, as told."""

    folder: Path
    ends: OperationResult = field(default_factory=lambda: OperationResult(200))
    name: str = "virmo-dom0"
    content: bytes = b"hsqs and so on"
    there: set[str] = field(default_factory=set)

    def add(self) -> str:
        img_id = f"img-{len(self.there) + 1}"
        self.there.add(img_id)
        return img_id

    def get(self, img_id: str) -> ImageRecord | None:
        return ImageRecord(img_id, ImageState.DOWNLOADED) if img_id in self.there else None

    def list(self) -> tuple[ImageRecord, ...]:
        return tuple(ImageRecord(img_id, ImageState.DOWNLOADED) for img_id in sorted(self.there))

    def download(self, img_id: str, uri: str, media_type: str, origin: Origin | None = None) -> OperationHandle:
        handle = OperationHandle(origin)
        handle.finish(self.ends)
        return handle

    def delete(self, img_id: str) -> None:
        self.there.discard(img_id)

    def verified(self, img_id: str) -> VerifiedImage:
        system = self.folder / "system"
        system.write_bytes(self.content)
        disks = (ImageDisk(system, "xvda", "raw", len(self.content)),)
        return VerifiedImage(img_id, self.name, "x86_64", "pvh", 1, 1 << 30, "", system, None, disks)

    def subscribe(self, listener: Callable[[ImageEvent], None]) -> None:
        raise AssertionError("the firmware waits by handles")
