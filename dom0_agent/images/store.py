"""The folders that images live in, and what may be in them.

    <dir>/downloads/<img_id>/   body.part, body.json: a download that is running, or can be continued
    <dir>/staging/<img_id>/     content being unpacked; never used
    <dir>/content/<digest>/     verified content: vm.yaml, kernel, ramdisk, disk-0.raw…; one for all its images
    <dir>/trash/<n>/            content being removed

Content appears under its name at once (rename), complete and on the disk, or not at all. Everything that no image
refers to is an orphan of a crash and goes at start. All names are made by the agent. Knows no downloads and no records
beyond the locations it is told.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from dom0_agent.images.errors import StoreFailure
from dom0_agent.images.manifest import MANIFEST_NAME, parse_manifest
from dom0_agent.images.model import ImageDisk, VerifiedImage
from dom0_agent.images.unpack import Content, check_disk, disk_name, named_files

_FOLDERS = ("downloads", "staging", "content", "trash")


class ContentStore:
    """Works on folders only. Who calls :meth:`put` and :meth:`retire` holds a lock over them and over the records."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folders, readable by the agent's user only. :raises OSError: that is not possible"""
        for name in _FOLDERS:
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def clean(self, unfinished: Iterable[str], locations: Iterable[Path]) -> list[Path]:
        """Remove what no image refers to; returns what was removed. For the start, when nothing runs.

        :param unfinished: ImgIDs whose downloads may go on
        :param locations: of the content in use
        """
        keep = {self.download_folder(img_id) for img_id in unfinished} | set(locations)
        removed = []
        for name in _FOLDERS:
            for path in sorted((self.root / name).iterdir()):
                if path not in keep:
                    _remove(path)
                    removed.append(path)
        return removed

    def download_folder(self, img_id: str) -> Path:
        """Where the image's download is (or would be)."""
        return self.root / "downloads" / img_id

    def download_size(self, img_id: str) -> int:
        """Bytes of the image's download that are there."""
        folder = self.download_folder(img_id)
        return sum(path.stat().st_size for path in folder.glob("*.part")) if folder.is_dir() else 0

    def staging_folder(self, img_id: str) -> Path:
        """Where the image is unpacked."""
        return self.root / "staging" / img_id

    def begin_staging(self, img_id: str) -> Path:
        """A fresh, empty folder to unpack into."""
        folder = self.staging_folder(img_id)
        _remove(folder)
        folder.mkdir(mode=0o700)
        return folder

    def drop_staging(self, img_id: str) -> None:
        """Remove what was unpacked so far."""
        _remove(self.staging_folder(img_id))

    def drop_download(self, img_id: str) -> None:
        """Remove the image's download."""
        _remove(self.download_folder(img_id))

    def put(self, staging: Path, content: Content) -> Path:
        """Make the staged folder the content of its digest; when that is there already, the staged copy goes.

        Durable when it returns.
        """
        target = self.root / "content" / content.digest
        if target.exists():
            _remove(staging)
        else:
            staging.rename(target)
            _fsync(target.parent)
        return target

    def retire(self, location: Path) -> Path | None:
        """Make content inaccessible at once; what is returned is to be given to :meth:`discard`."""
        if location.parent != self.root / "content":
            raise ValueError(f"{location} is not content of this store")
        if not location.exists():
            return None
        doomed = self.root / "trash" / uuid.uuid4().hex
        location.rename(doomed)
        return doomed

    def discard(self, retired: Path) -> None:
        """Remove retired content; takes as long as the file system needs for large files."""
        _remove(retired)

    def verified(self, img_id: str, location: Path) -> VerifiedImage:
        """The content at ``location``, for building a VM.

        :raises StoreFailure: files are missing or cut short: the disk lost them after they were verified
        """
        try:
            manifest = parse_manifest((location / MANIFEST_NAME).read_bytes())
            for file, name in named_files(manifest):
                if (location / name).stat().st_size != file.size:
                    raise StoreFailure(f"image {img_id}: {location / name} has lost its size; download the image again")
            return VerifiedImage(
                img_id=img_id,
                name=manifest.name,
                arch=manifest.arch,
                type=manifest.type,
                vcpus=manifest.vcpus,
                memory=manifest.memory,
                cmdline=manifest.cmdline,
                kernel=location / "kernel" if manifest.kernel is not None else None,
                ramdisk=location / "ramdisk" if manifest.ramdisk is not None else None,
                disks=tuple(
                    ImageDisk(
                        path=location / disk_name(index, disk),
                        device=disk.device,
                        format=disk.format,
                        virtual_size=check_disk(location / disk_name(index, disk), disk.format),
                    )
                    for index, disk in enumerate(manifest.disks)
                ),
            )
        except OSError as error:
            raise StoreFailure(f"image {img_id}: its content cannot be read: {error}; download it again") from error


def _remove(path: Path) -> None:
    """Remove a file or a tree. Links are removed, not followed. It is no error when it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
