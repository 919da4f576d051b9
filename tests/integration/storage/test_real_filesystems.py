"""VMs' disks on real file systems, each in a loop-mounted image: xfs and btrfs can share blocks (reflink), ext4 cannot.

    image file ── loop ──▶ file system: images, and the engine's state directory
        ▲
        └── read from outside, as somebody does who has the board's flash chip

Issue: made from the image without copying where the file system can, sparse otherwise; deleting the image never touches
VMs; what Delete removed is inaccessible at once, and shredded where that is wanted (R-021, R-022, R-122).
"""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dom0_agent.images.model import ImageDisk
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Primitive
from dom0_agent.vm.shred import overwrite
from tests.contract.support import MIB, Rig, SimBackend, eventually

#: xfs is not made smaller.
SIZE = 320 * MIB
DISK = 32 * MIB
MKFS = {"xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q", "-m", "single"], "ext4": ["mkfs.ext4", "-q", "-F"]}
REFLINKS = {"xfs": True, "btrfs": True, "ext4": False}
#: What metadata may take when blocks are shared.
SLACK = 6 * MIB


@dataclass
class Mounted:
    """A file system of its own."""

    kind: str
    image: Path
    place: Path

    def free(self) -> int:
        """Bytes, once all that was written is on the storage."""
        self.sync()
        status = os.statvfs(self.place)
        return status.f_bavail * status.f_frsize

    def sync(self) -> None:
        """All to the image file."""
        subprocess.run(["sync", "-f", str(self.place)], check=True, timeout=60)

    def holds(self, secret: bytes) -> bool:
        """Whether it can be read from the storage, past the file system."""
        self.sync()
        with self.image.open("rb") as raw:
            position = 0
            while True:
                try:
                    start = os.lseek(raw.fileno(), position, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                        return False
                    raise
                position = os.lseek(raw.fileno(), start, os.SEEK_HOLE)
                if secret in os.pread(raw.fileno(), position - start, start):
                    return True


@pytest.fixture(params=MKFS)
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounted]:
    """A fresh file system, mounted."""
    kind = request.param
    image, place = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(SIZE)
    place.mkdir()
    subprocess.run([*MKFS[kind], str(image)], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", "-t", kind, str(image), str(place)], check=True, timeout=60)
    yield Mounted(kind, image, place)
    subprocess.run(["umount", str(place)], check=True, timeout=60)


def make_rig(mounted: Mounted, tmp_path: Path, **config: object) -> Rig:
    """An engine whose VMs lie there, and an image with a disk full of random bytes."""
    backend = SimBackend(tmp_path)
    disk = mounted.place / "disk.img"
    disk.write_bytes(os.urandom(DISK))
    image = dataclasses.replace(backend.image, disks=(ImageDisk(disk, "xvda", "raw", DISK),))
    backend.image = image
    settings = VmConfig(storage_reserve=0, shutdown_wait=5.0, **config)  # type: ignore[arg-type]
    rig = Rig(backend, backend.hypervisor, Database(tmp_path / "agent.db"), settings, mounted.place)
    rig.engine.start()
    return rig


def end(rig: Rig) -> None:
    """Nothing holds the file system any more."""
    rig.stop()
    rig.backend.close()


def test_disks_share_the_image_s_blocks_where_they_can(mounted: Mounted, tmp_path: Path) -> None:
    rig = make_rig(mounted, tmp_path)
    try:
        before = mounted.free()
        vmid = rig.running()
        taken = before - mounted.free()
        expected = 0 if REFLINKS[mounted.kind] else DISK
        assert expected <= taken + SLACK and taken <= expected + SLACK, f"{taken / MIB:.1f} MiB on {mounted.kind}"
        image = rig.backend.image.disks[0].path
        original = image.read_bytes()
        copy = rig.state_dir / "vms" / str(vmid) / "xvda.raw"
        assert copy.read_bytes() == original
        with copy.open("r+b") as disk:  # the guest writes
            disk.write(b"G" * MIB)
        assert image.read_bytes() == original, "nobody else sees it"
        image.unlink()
        mounted.sync()
        assert copy.read_bytes() == b"G" * MIB + original[MIB:], "the image's end does not touch the VM (R-122)"
        assert rig.do(vmid, Primitive.POWER_OFF).ok
        assert rig.do(vmid, Primitive.POWER_ON).ok
    finally:
        end(rig)


def test_a_sparse_image_stays_sparse(mounted: Mounted, tmp_path: Path) -> None:
    """A disk of a terabyte with some megabytes in it fits."""
    rig = make_rig(mounted, tmp_path)
    try:
        disk = rig.backend.image.disks[0].path
        with disk.open("r+b") as file:
            file.truncate(1 << 40)
        before = mounted.free()
        vmid = rig.running()
        copy = rig.state_dir / "vms" / str(vmid) / "xvda.raw"
        assert copy.stat().st_size == 1 << 40
        assert before - mounted.free() < DISK + SLACK
        assert rig.do(vmid, Primitive.DELETE).ok
        eventually(lambda: mounted.free() > before - SLACK, 20, "all its room is free again")
    finally:
        end(rig)


@pytest.mark.parametrize("policy", ["discard", "shred"])
def test_what_delete_leaves_on_the_storage(mounted: Mounted, tmp_path: Path, policy: str) -> None:
    """R-022: with ``shred`` nothing that the guest wrote can be found, also past the file system."""
    rig = make_rig(mounted, tmp_path, delete_policy=policy, default_storage=16 * MIB)
    try:
        vmid = rig.running()
        directory = rig.state_dir / "vms" / str(vmid)
        secrets = {}
        for name in ("xvda.raw", "xvdb.raw"):
            secrets[name] = os.urandom(64)
            with (directory / name).open("r+b") as disk:
                disk.seek(5 * MIB)
                disk.write(secrets[name])
                os.fsync(disk.fileno())
        assert all(mounted.holds(secret) for secret in secrets.values()), "the test sees what there is"
        assert rig.do(vmid, Primitive.DELETE).ok
        rig.assert_no_trace(vmid)
        assert not list((rig.state_dir / "trash").iterdir())
        found = [name for name, secret in secrets.items() if mounted.holds(secret)]
        assert found == ([] if policy == "shred" else list(secrets))
    finally:
        end(rig)


def test_a_vm_that_is_being_deleted_is_out_of_reach_at_once(
    mounted: Mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-021: before its data is destroyed, which may take long, the VM's files are where nothing finds them."""
    rig = make_rig(mounted, tmp_path, delete_policy="shred")
    seen: list[tuple[bool, int]] = []
    try:
        vmid = rig.running()
        directory, trash = rig.state_dir / "vms" / str(vmid), rig.state_dir / "trash"

        def look_first(path: Path) -> None:
            seen.append((directory.exists(), trash.stat().st_mode & 0o777))
            overwrite(path)

        monkeypatch.setattr("dom0_agent.vm.files.overwrite", look_first)
        assert rig.do(vmid, Primitive.DELETE).ok
        assert seen
        assert set(seen) == {(False, 0o700)}
    finally:
        end(rig)
