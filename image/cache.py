"""Results that are slow to build, kept under the hash of everything they were built from.

An entry is a folder. It appears whole (built aside, then renamed) or not at all; two builders of one kind wait for each
other; an entry somebody uses is never pruned; entries nobody used for long go when newer ones of the same kind arrive.
Knows nothing of images.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from image.errors import ImageError

#: Entries of one kind that stay: today's, and those of the branches one switches between.
KEEP = 3
#: Waiting for another builder of the same thing is bounded: a full build takes minutes, not an hour.
LOCK_TIMEOUT = 1800.0
_LOCK_POLL = 0.2
_KEY_LENGTH = 20
_INPUTS = "inputs.json"
_LEASE = ".lease"


def default_root() -> Path:
    """$VIRMO_CACHE, or ~/.cache/virmo."""
    configured = os.environ.get("VIRMO_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "virmo"


def key_of(inputs: Mapping[str, str]) -> str:
    """The name of the entry made from these inputs."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """One hash over files and folders: names (below `root`), contents and whether they are executable."""
    digest = hashlib.sha256()
    for path in sorted(_files(paths)):
        executable = bool(path.stat().st_mode & 0o100)
        body = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)}\0{executable}\0{body}\n".encode())
    return digest.hexdigest()


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
        else:
            yield from (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished result. `key` names its inputs, `path` its folder."""

    kind: str
    key: str
    path: Path
    fresh: bool

    @contextmanager
    def lease(self) -> Iterator[Path]:
        """Keeps the entry from being pruned while its files are in use (also after a crash: the kernel lets go)."""
        with (self.path / _LEASE).open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            os.utime(self.path)
            yield self.path


class Cache:
    """A folder of entries, `<root>/<kind>/<key>/`."""

    def __init__(self, root: Path | None = None, *, say: Callable[[str], None] = lambda _message: None) -> None:
        self.root = default_root() if root is None else root
        self._say = say

    def find(self, kind: str, inputs: Mapping[str, str]) -> Entry | None:
        """The entry, if it exists."""
        key = key_of(inputs)
        path = self.root / kind / key
        if not path.is_dir():
            return None
        os.utime(path)
        return Entry(kind, key, path, fresh=False)

    def get_or_build(
        self, kind: str, inputs: Mapping[str, str], build: Callable[[Path], None], *, keep: int = KEEP
    ) -> Entry:
        """The entry made from `inputs`, built by `build(folder)` when it is not there yet."""
        found = self.find(kind, inputs)
        if found is not None:
            return found
        with self.lock(kind):
            found = self.find(kind, inputs)
            if found is not None:
                return found
            self._clear_leftovers(kind)
            folder = Path(tempfile.mkdtemp(prefix=".building-", dir=self.root / kind))
            folder.chmod(0o755)
            try:
                build(folder)
                (folder / _INPUTS).write_text(json.dumps(inputs, sort_keys=True, indent=1) + "\n")
                final = self.root / kind / key_of(inputs)
                folder.rename(final)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            self._prune(kind, final.name, keep)
            return Entry(kind, final.name, final, fresh=True)

    @contextmanager
    def lock(self, kind: str) -> Iterator[None]:
        """One builder of a kind at a time, on this machine."""
        (self.root / kind).mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + LOCK_TIMEOUT
        waiting = False
        with (self.root / f"{kind}.lock").open("a") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not waiting:
                        waiting = True
                        self._say(f"waiting: another process is building {kind}")
                    if time.monotonic() > deadline:
                        raise ImageError(
                            f"another process has been building {kind} for {LOCK_TIMEOUT:.0f} s",
                            todo=f"see who holds {self.root / f'{kind}.lock'} (fuser) and end it",
                        ) from None
                    time.sleep(_LOCK_POLL)
                else:
                    break
            yield

    def _clear_leftovers(self, kind: str) -> None:
        """Removes what a killed builder left behind. Called with the lock held, so nobody is building here."""
        for folder in (self.root / kind).glob(".building-*"):
            shutil.rmtree(folder)

    def _prune(self, kind: str, newest: str, keep: int) -> None:
        entries = [p for p in (self.root / kind).iterdir() if p.is_dir() and p.name != newest]
        entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for old in entries[keep - 1 :]:
            with (old / _LEASE).open("a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(old)
