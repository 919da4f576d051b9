"""VM images as the rest of the agent sees them: states, records, the verified content, and the service's interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from dom0_agent.operation import OperationHandle, OperationResult, Origin


class ImageState(IntEnum):
    """VMImgMO/<x>/State (R-088)."""

    NOT_DOWNLOADED = 0
    DOWNLOADING = 1
    DOWNLOADED = 2
    DOWNLOAD_FAILED = 3


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image as it is known and persisted."""

    img_id: str
    state: ImageState
    location: Path | None = None  #: DownloadedLocation, only in DOWNLOADED
    progress: int = 0  #: percent of the running download and verification
    size: int = 0  #: bytes on disk
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class ImageDisk:
    """A disk of a verified image, unpacked in the store; VMs work on copies of it."""

    path: Path
    device: str
    format: str
    virtual_size: int  #: bytes


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """A bundle whose every member matched its SHA-256, unpacked in the store (``vm.yaml`` is its manifest)."""

    img_id: str
    name: str
    arch: str
    type: str  #: pv, pvh or hvm
    vcpus: int
    memory: int  #: bytes the image wants
    cmdline: str
    kernel: Path | None
    ramdisk: Path | None
    disks: tuple[ImageDisk, ...]


@dataclass(frozen=True, slots=True)
class ImageEvent:
    """An image changed, or (``result``) its download ended; ``origin`` is the Exec Download that began it."""

    img_id: str
    record: ImageRecord | None  #: None: the image is gone
    origin: Origin | None = None
    result: OperationResult | None = None
    awaited: bool = False  #: a session waited for the result and will answer with it


class ImageService(Protocol):
    """What management objects, virmoctl and the VM engine ask of the image store. Thread-safe."""

    def add(self) -> str:
        """A new entry in NOT_DOWNLOADED with a fresh ImgID (R-081, R-082, R-103)."""

    def get(self, img_id: str) -> ImageRecord | None:
        """The record, or ``None``."""

    def list(self) -> tuple[ImageRecord, ...]:
        """All records."""

    def download(self, img_id: str, uri: str, media_type: str, origin: Origin | None = None) -> OperationHandle:
        """Begin the download; it ends 200, or with the code of ``management-objects`` 7.3 and DOWNLOAD_FAILED.

        :class:`OperationRefused`: 417 in DOWNLOADING, 405 in DOWNLOADED (A-34), 412 empty or not http(s) URI (A-39).
        """

    def delete(self, img_id: str) -> None:
        """Abort a download, remove data and entry; VMs made from the image are not touched (R-094, A-22)."""

    def verified(self, img_id: str) -> VerifiedImage:
        """The content, for building a VM. :class:`OperationRefused` 404 unknown, 405 not DOWNLOADED (A-20)."""

    def subscribe(self, listener: Callable[[ImageEvent], None]) -> None:
        """Call ``listener`` from worker threads at each change; it must only queue."""
