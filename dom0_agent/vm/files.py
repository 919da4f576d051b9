"""The files of VMs: a directory each, named by the VMID, below ``vms``; what is being removed lies below ``trash``.

Copies images' disks without copying where the file system can (reflink), and sparse otherwise; a qcow2 becomes raw, so
that no program in dom0 has to serve it while the VM runs. Kernels, which nobody writes to, are the image's own files
under a second name. Knows paths and space; must not know states or domains.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal
from uuid import UUID

from dom0_agent.hypervisor.tool import ToolRunner, run_tool
from dom0_agent.vm.shred import overwrite, write_in_place

#: Seconds for copying a disk beside the time its bytes take at the slowest rate we serve (an SD card's).
COPY_BASE = 60.0
COPY_RATE = 4 << 20
#: Errors of the file system that mean "no room".
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Errors of a file system that cannot give a file a second name, or not this one.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
#: Names of what a VM may share with its image: it is read when its domain is built, and never written to.
SHARED = frozenset({"kernel", "ramdisk"})


class FilesError(Exception):
    """A file could not be made or removed. The message names it and says why."""


class NoSpace(FilesError):  # noqa: N818
    """The file system has no room (DM status 420)."""


class VmFiles:
    """The directories of all VMs."""

    def __init__(
        self,
        state_dir: Path,
        *,
        reserve: int = 0,
        delete_policy: Literal["discard", "shred"] = "discard",
        run: ToolRunner = run_tool,
    ) -> None:
        self._vms = state_dir / "vms"
        self._trash = state_dir / "trash"
        self._reserve = reserve
        self._delete_policy = delete_policy
        self._run = run
        for directory in (self._vms, self._trash):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def directory(self, vmid: UUID) -> Path:
        """A VM's directory, there or not."""
        return self._vms / str(vmid)

    def saved_state(self, vmid: UUID) -> Path:
        """Where a suspended VM's memory lies."""
        return self.directory(vmid) / "saved"

    def make(self, vmid: UUID) -> Path:
        """An empty directory for a VM; what an interrupted Create left there is gone."""
        self.discard(vmid)
        directory = self.directory(vmid)
        directory.mkdir(mode=0o700)
        if self._delete_policy == "shred":
            try:
                write_in_place(directory)
            except OSError as error:
                raise _wrap(error, f"cannot have {directory} written in place, which vm.delete_policy needs") from error
        return directory

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file of the image store, durably. :class:`NoSpace` when there is no room for what it really holds."""
        try:
            held = source.stat().st_blocks * 512
        except OSError as error:
            raise FilesError(f"cannot read {source}: {error.strerror}") from error
        argv = ["cp", "--reflink=auto", "--sparse=always", "--", str(source), str(target)]
        self._make(argv, COPY_BASE + held / COPY_RATE, source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a VM one of :data:`SHARED`, durable once its directory is: as a second name, or as a copy."""
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise _wrap(error, f"cannot link {source.name} to {target}") from error
            self.copy(source, target)

    def convert(self, source: Path, target: Path, virtual_size: int) -> None:
        """Make a raw, sparse disk of a verified qcow2, durably. ``virtual_size`` is what it may grow to.

        How much it holds is seen only afterwards: :class:`NoSpace` also when it would eat into the reserve.
        """
        argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-S", "4k", str(source), str(target)]
        self._make(argv, COPY_BASE + virtual_size / COPY_RATE, source, target)
        self.require_space(0, f"disk {target.name}")

    def size(self, vmid: UUID) -> int:
        """Bytes that a VM's files hold on storage."""
        try:
            return sum(path.stat().st_blocks * 512 for path in self.directory(vmid).iterdir())
        except FileNotFoundError:  # it comes or goes this moment
            return 0

    def set_size(self, target: Path, size: int) -> None:
        """Make a file ``size`` bytes long, with room for all of them; :class:`NoSpace` leaves it as it was."""
        held = target.stat().st_size if target.exists() else None
        growth = size - (held or 0)
        if growth > 0:
            self.require_space(growth, target.name)
        try:
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if growth > 0:
                    _fill(descriptor, held or 0, growth)
                else:
                    os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if held is None:
                target.unlink(missing_ok=True)
            raise _wrap(error, f"cannot make {target} {size} bytes long") from error

    def require_space(self, needed: int, what: str) -> None:
        """:class:`NoSpace` unless ``needed`` bytes (and the reserve) are free."""
        status = os.statvfs(self._vms)
        free = status.f_bavail * status.f_frsize - self._reserve
        if free < needed:
            mib = 1 << 20
            raise NoSpace(
                f"{what} needs {-(-needed // mib)} MiB in {self._vms}, and {max(0, free) // mib} MiB are free "
                f"(beside a reserve of {self._reserve // mib} MiB): delete images or VMs, or enlarge the storage"
            )

    def make_durable(self, path: Path) -> None:
        """fsync a file or directory."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _wrap(error, f"cannot write {path} to storage") from error
        finally:
            os.close(descriptor)

    def hide(self, vmid: UUID) -> None:
        """Make a VM's data inaccessible at once: move its directory to the trash. No error when it is there already."""
        try:
            self.directory(vmid).rename(self._trash / str(vmid))
            self.make_durable(self._trash)
            self.make_durable(self._vms)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _wrap(error, f"cannot move {self.directory(vmid)} to {self._trash}") from error

    def discard(self, vmid: UUID) -> None:
        """Remove a VM's directory, whatever is in it. No error when there is none."""
        self._remove(self.directory(vmid))

    def empty_trash(self, vmid: UUID) -> None:
        """Destroy a hidden VM's data, as ``delete_policy`` says."""
        self.destroy_leftover(self._trash / str(vmid))

    def leftovers(self, known: Callable[[UUID], bool]) -> tuple[Path, ...]:
        """Directories in ``vms`` and ``trash`` that belong to no known VM."""
        found = (*sorted(self._vms.iterdir()), *sorted(self._trash.iterdir()))
        return tuple(path for path in found if not _names_known(path.name, known))

    def destroy_leftover(self, directory: Path) -> None:
        """Remove a VM's directory in the way ``delete_policy`` says. No error when there is none."""
        if self._delete_policy == "shred" and directory.is_dir():
            self._shred(sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()))
        self._remove(directory)

    def _make(self, argv: Sequence[str], deadline: float, source: Path, target: Path) -> None:
        result = self._run(argv, deadline)
        if result.returncode != 0:
            complaint = result.untrusted_complaint
            kind = NoSpace if os.strerror(errno.ENOSPC) in complaint else FilesError
            raise kind(f"cannot copy {source.name} to {target}: {complaint}")
        target.chmod(0o600)
        self.make_durable(target)

    def _shred(self, files: Sequence[Path]) -> None:
        for file in files:
            try:
                if file.name in SHARED and file.stat().st_nlink > 1:  # an image's too, and others' of the same image
                    continue
                overwrite(file)
            except OSError as error:
                raise _wrap(error, f"cannot overwrite {file}") from error

    def _remove(self, directory: Path) -> None:
        try:
            shutil.rmtree(directory)
            self.make_durable(directory.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _wrap(error, f"cannot remove {directory}") from error


def _fill(descriptor: int, start: int, length: int) -> None:
    """Reserve blocks; half of them is none."""
    try:
        os.posix_fallocate(descriptor, start, length)
    except OSError:
        os.ftruncate(descriptor, start)
        raise


def _names_known(name: str, known: Callable[[UUID], bool]) -> bool:
    try:
        return known(UUID(name))
    except ValueError:  # not a VM's directory, and not ours to touch
        return True


def _wrap(error: OSError, what: str) -> FilesError:
    kind = NoSpace if error.errno in _NO_ROOM else FilesError
    return kind(f"{what}: {error.strerror}")
