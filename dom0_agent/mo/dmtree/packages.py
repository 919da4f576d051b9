"""Packages in dom0 for guests: got over HTTP with resume, verified, kept, and brought through the channel.

A guest without network is managed too, and the guest never meets the web server. Knows files, downloads and guests;
must not know the tree.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

from dom0_agent.guest.interface import GuestAbsent, GuestRequest, Guests
from dom0_agent.images.download import Downloaded, Downloader, Order
from dom0_agent.images.errors import Corrupt, ImageError, NoSpace, disk_failure
from dom0_agent.images.partial import Partial
from dom0_agent.images.space import free_bytes

log = logging.getLogger(__name__)

CHUNK = 1 << 20  #: bytes of a package in one request
CHUNK_DEADLINE = 120.0  #: seconds that a guest has for one
ATTEMPTS = 3  #: beginnings of a transfer whose guest went away in the middle
RETURN_WAIT = 60.0  #: seconds that such a guest has to come back
DOWNLOAD_DEADLINE = 24 * 3600.0


class TransferFailed(Exception):  # noqa: N818 - it says what happened
    """The guest did not take the package; ``code`` is what it said (0: nothing)."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Packages:
    """Files below ``folder``, one directory a VM. Thread-safe as long as each package has one user at a time."""

    def __init__(
        self,
        folder: Path,
        downloader: Downloader,
        guests: Guests,
        *,
        max_size: int,
        reserve: int,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._downloader = downloader
        self._guests = guests
        self._max_size = max_size
        self._reserve = reserve
        self._wait = wait

    def path(self, vmid: UUID, name: str) -> Path:
        """Where the package that a node of that name stands for lies; names of servers are not names of files."""
        return self._folder / str(vmid) / hashlib.sha256(name.encode()).hexdigest()[:32]

    def get(self, vmid: UUID, name: str, uri: str, sha256: str) -> None:
        """Download ``uri`` to :meth:`path`; ``sha256`` (hexadecimal, or empty) is what it must be.

        :raises ImageError: as for images; :class:`Corrupt` when it is something else
        """
        target = self.path(vmid, name)
        scratch = target.with_name(f"{target.name}.d")
        partial = Partial(scratch)
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            order = Order(uri, self._max_size)
            got = self._downloader.fetch(order, partial, _Watch(self._room), threading.Event())
            self._check(got, sha256, uri)
            partial.path.replace(target)
        except OSError as error:
            raise disk_failure(self._folder, error) from error
        except ImageError as error:
            if not error.keep_partial:
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        shutil.rmtree(scratch, ignore_errors=True)
        log.info("event=package_got vm=%s bytes=%d", vmid, got.size)

    def put(self, vmid: UUID, name: str, data: bytes) -> None:
        """Keep a package that came over DM. :class:`OSError` when that is impossible."""
        target = self.path(vmid, name)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.write_bytes(data)

    def drop(self, vmid: UUID, name: str) -> None:
        """Forget a package; no error when there is none."""
        target = self.path(vmid, name)
        target.unlink(missing_ok=True)
        shutil.rmtree(target.with_name(f"{target.name}.d"), ignore_errors=True)

    def sweep(self, known: Iterable[tuple[UUID, str]]) -> None:
        """At start: remove what no node stands for any more."""
        wanted = {self.path(vmid, name) for vmid, name in known}
        for directory in self._folder.glob("*"):
            for path in list(directory.iterdir()):
                if path not in wanted and path.with_suffix("") not in wanted:
                    log.info("event=package_swept path=%s", path)
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not any(directory.iterdir()):
                directory.rmdir()

    def bring(self, vmid: UUID, name: str) -> str:
        """Bring a package into the guest; returns the id under which it is there.

        :raises TransferFailed: the guest did not take it, or went away and did not come back
        :raises GuestError: it did not answer
        :raises OSError: the package cannot be read
        """
        path = self.path(vmid, name)
        sha256 = _sha256(path)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._send(vmid, path, sha256)
            except GuestAbsent as error:
                log.warning("event=transfer_broken vm=%s attempt=%d reason=%r", vmid, attempt, str(error))
                if attempt == ATTEMPTS or not self._returns(vmid):
                    raise TransferFailed(f"the guest went away while it was given the package: {error}") from error
        raise AssertionError("unreachable")

    def _send(self, vmid: UUID, path: Path, sha256: str) -> str:
        size, offset, identifier = path.stat().st_size, 0, path.name
        with path.open("rb") as file:
            while True:
                chunk = file.read(CHUNK)
                fields = {"id": identifier, "offset": offset, "size": size, "sha256": sha256}
                answer = self._guests.request(vmid, GuestRequest("package", fields, chunk), deadline=CHUNK_DEADLINE)
                if answer.status != 200:
                    words = " ".join(str(answer.fields.get("error", ""))[:200].split())
                    raise TransferFailed(f"the guest did not take the package: {words}", answer.status)
                offset += len(chunk)
                if offset >= size:
                    return identifier

    def _returns(self, vmid: UUID) -> bool:
        for _ in range(int(RETURN_WAIT * 2)):
            if self._guests.hello(vmid) is not None:
                return True
            self._wait(0.5)
        return False

    def _room(self, needed: int) -> None:
        free = free_bytes(self._folder) - self._reserve
        if free < needed:
            raise NoSpace(f"the package needs {needed} bytes and {max(0, free)} are free in {self._folder}")

    @staticmethod
    def _check(got: Downloaded, sha256: str, uri: str) -> None:
        if sha256 and got.sha256 != sha256.strip().lower():
            raise Corrupt(f"{uri} is not the package that was ordered: its SHA-256 is {got.sha256}")


class _Watch:
    """Sees to it that the download fits. :class:`dom0_agent.images.download.Watcher`."""

    def __init__(self, room: Callable[[int], None]) -> None:
        self._room = room

    def begins(self, content_type: str, missing: int | None) -> None:
        del content_type
        self._room(missing or 0)

    def received(self, size: int, total: int | None, fresh: int) -> None:
        del size
        if total is None:
            self._room(fresh)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
