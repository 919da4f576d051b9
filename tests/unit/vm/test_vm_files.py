"""VMs' files: sparse, private, hidden at once, removed completely."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from dom0_agent.hypervisor.tool import ToolResult
from dom0_agent.vm.files import FilesError, NoSpace, VmFiles
from dom0_agent.vm.shred import overwrite

MIB = 1 << 20


@pytest.fixture
def files(tmp_path: Path) -> VmFiles:
    return VmFiles(tmp_path / "state")


@pytest.fixture
def vmid() -> UUID:
    return uuid4()


def test_directories_are_private(files: VmFiles, vmid: UUID, tmp_path: Path) -> None:
    directory = files.make(vmid)
    assert directory == tmp_path / "state" / "vms" / str(vmid)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "vms").stat().st_mode & 0o777 == 0o700


def test_making_again_removes_what_an_interrupted_create_left(files: VmFiles, vmid: UUID) -> None:
    (files.make(vmid) / "half").write_bytes(b"x")
    assert list(files.make(vmid).iterdir()) == []


def test_a_copy_is_the_same_sparse_and_not_linked(files: VmFiles, vmid: UUID, tmp_path: Path) -> None:
    source = tmp_path / "disk"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(64 * MIB)
        file.write(b"end")
    target = files.make(vmid) / "xvda.raw"
    files.copy(source, target)
    assert target.stat().st_size == source.stat().st_size
    assert target.stat().st_blocks * 512 < MIB
    assert target.stat().st_mode & 0o777 == 0o600
    target.write_bytes(b"changed")
    assert source.read_bytes()[:5] == b"begin"


def test_a_copy_of_nothing_says_what_is_missing(files: VmFiles, vmid: UUID, tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="no-such-disk"):
        files.copy(tmp_path / "no-such-disk", files.make(vmid) / "xvda.raw")


def test_what_nobody_writes_to_is_the_images_own_file(files: VmFiles, vmid: UUID, tmp_path: Path) -> None:
    source = tmp_path / "kernel"
    source.write_bytes(b"kernel")
    target = files.make(vmid) / "kernel"
    files.link(source, target)
    assert target.samefile(source)
    source.unlink()
    assert target.read_bytes() == b"kernel", "the image may go before its VMs"


def test_where_there_are_no_links_it_is_a_copy(
    files: VmFiles, vmid: UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(_source: Path, _target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
    source = tmp_path / "kernel"
    source.write_bytes(b"kernel")
    target = files.make(vmid) / "kernel"
    files.link(source, target)
    assert target.read_bytes() == b"kernel"
    assert not target.samefile(source)


def test_a_link_to_nothing_says_what_is_missing(files: VmFiles, vmid: UUID, tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="no-such-kernel"):
        files.link(tmp_path / "no-such-kernel", files.make(vmid) / "kernel")


def test_shredding_a_vm_leaves_its_image_alone(tmp_path: Path, vmid: UUID) -> None:
    """R-022: the kernel is no data of the VM's, and other VMs are started from it."""
    files = VmFiles(tmp_path / "state", delete_policy="shred")
    source = tmp_path / "kernel"
    source.write_bytes(b"kernel")
    directory = files.make(vmid)
    files.link(source, directory / "kernel")
    (directory / "xvda.raw").write_bytes(b"secret")
    os.link(directory / "xvda.raw", tmp_path / "linked-by-hand")
    files.hide(vmid)
    files.empty_trash(vmid)
    assert source.read_bytes() == b"kernel"
    assert (tmp_path / "linked-by-hand").read_bytes() != b"secret"


@pytest.mark.parametrize(
    ("said", "kind"), [("cp: error writing 'x': No space left on device", NoSpace), ("cp: I/O error", FilesError)]
)
def test_what_cp_says_of_a_full_disk_is_told_apart(
    said: str, kind: type[FilesError], tmp_path: Path, vmid: UUID
) -> None:
    def cp(argv: Sequence[str], deadline: float) -> ToolResult:
        return ToolResult(tuple(argv), 1, "", said)

    files = VmFiles(tmp_path / "state", run=cp)
    source = tmp_path / "disk"
    source.write_bytes(b"x")
    with pytest.raises(FilesError) as error:
        files.copy(source, files.make(vmid) / "xvda.raw")
    assert type(error.value) is kind


def test_the_room_of_a_data_disk_is_really_reserved(files: VmFiles, vmid: UUID) -> None:
    """R-049: Storage is the VM's own, whatever others write meanwhile."""
    disk = files.make(vmid) / "xvdb.raw"
    files.set_size(disk, 1 << 20)
    assert disk.stat().st_blocks * 512 >= 1 << 20
    files.set_size(disk, 3 << 20)
    assert disk.stat().st_size == 3 << 20
    assert disk.stat().st_blocks * 512 >= 3 << 20


def test_a_data_disk_that_does_not_fit_leaves_what_there_was(files: VmFiles, vmid: UUID) -> None:
    disk = files.make(vmid) / "xvdb.raw"
    with pytest.raises(NoSpace, match=r"xvdb\.raw needs"):
        files.set_size(disk, 1 << 60)
    assert not disk.exists()
    files.set_size(disk, 1 << 20)
    with pytest.raises(NoSpace):
        files.set_size(disk, 1 << 60)
    assert disk.stat().st_size == 1 << 20


def test_space_is_checked_with_the_reserve(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    VmFiles(tmp_path / "a").require_space(free // 2, "VM x")
    with pytest.raises(NoSpace, match=r"VM x needs \d+ MiB .* reserve"):
        VmFiles(tmp_path / "b", reserve=free).require_space(MIB, "VM x")


def test_hiding_is_immediate_and_repeatable(files: VmFiles, vmid: UUID) -> None:
    """R-021."""
    (files.make(vmid) / "xvda.raw").write_bytes(b"secret")
    files.hide(vmid)
    files.hide(vmid)
    assert not files.directory(vmid).exists()


@pytest.mark.parametrize("policy", ["discard", "shred"])
def test_emptying_the_trash_removes_all(policy: str, tmp_path: Path, vmid: UUID) -> None:
    """R-022."""
    files = VmFiles(tmp_path / "state", delete_policy=policy)  # type: ignore[arg-type]
    disk = files.make(vmid) / "xvda.raw"
    disk.write_bytes(b"secret" * 1000)
    with disk.open("rb") as kept_open:
        files.hide(vmid)
        files.empty_trash(vmid)
        files.empty_trash(vmid)
        gone_or_overwritten = kept_open.read(6)
    assert not list((tmp_path / "state" / "trash").iterdir())
    assert (gone_or_overwritten == b"secret") == (policy == "discard")


def test_shredding_writes_only_over_what_there_is(tmp_path: Path) -> None:
    """Holes stay holes: a sparse disk of a terabyte is gone at once, and needs no terabyte of room."""
    disk = tmp_path / "disk"
    secret = os.urandom(3 * MIB // 2)
    with disk.open("wb") as file:
        file.truncate(1 << 40)
        for place in (0, 1 << 30, (1 << 40) - len(secret)):
            file.seek(place)
            file.write(secret)
        os.fsync(file.fileno())
    held = disk.stat().st_blocks
    overwrite(disk)
    assert disk.stat().st_size == 1 << 40
    assert disk.stat().st_blocks == held
    with disk.open("rb") as file:
        for place in (0, 1 << 30, (1 << 40) - len(secret)):
            file.seek(place)
            now = file.read(len(secret))
            assert all(now[at : at + 64] != secret[at : at + 64] for at in range(0, len(secret), 64))


def test_shredding_follows_no_link(tmp_path: Path) -> None:
    target = tmp_path / "somebody-elses"
    target.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="link"):
        overwrite(tmp_path / "link")
    assert target.read_bytes() == b"precious"


def test_leftovers_are_what_belongs_to_no_vm(files: VmFiles, vmid: UUID, tmp_path: Path) -> None:
    stranger, gone = uuid4(), uuid4()
    files.make(vmid)
    left = files.make(stranger)
    files.make(gone)
    files.hide(gone)
    (tmp_path / "state" / "vms" / "lost+found").mkdir()
    found = files.leftovers(lambda known: known == vmid)
    assert found == (left, tmp_path / "state" / "trash" / str(gone))
    for path in found:
        files.destroy_leftover(path)
    assert files.leftovers(lambda known: known == vmid) == ()
    assert files.directory(vmid).exists()
