"""What the simulated hypervisor knows, as files: it survives the agent as Xen's domains do.

Layout of the state directory::

    host.json               the machine (HostSettings)
    lock                    held while domains are made or removed
    next-domid
    domains/<uuid>/         one simulated domain; its being there is the domain's being there
        domain.json         Entry: name, memory, process
        status.json         how the guest ended, written by the domain's process
        truth.json          the guest's own view, for people and tests (never read for decisions)
        command.json        the last thing asked of the domain's process; reply.json its answer
        channel.sock        where the agent listens for the shim
        console.log

Knows files and processes; must not know the agent's interfaces to them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The simulated machine. Written to host.json when that is absent; edit the file to change a machine."""

    total_memory: int = 4096 * MIB
    dom0_memory: int = 1024 * MIB
    cpus: int = 2
    scheduler: str = "credit2"
    version: str = "4.17-sim"
    can_save: bool = True
    balloons: bool = True  #: the guests have balloon drivers
    pci: list[str] = dataclasses.field(default_factory=list)  #: addresses of devices that can be passed through
    usb: list[str] = dataclasses.field(default_factory=list)  #: ports in which something is plugged
    beat_interval: float = 1.0  #: seconds between the guests' beats; tests shorten it


@dataclass(frozen=True, slots=True)
class Entry:
    """One domain. ``pid`` is 0 while it is being built."""

    uuid: str
    domid: int
    name: str
    memory: int
    vcpus: int
    pid: int = 0
    started: int = 0  #: the process' start time in clock ticks: a pid alone may have been given to another one
    max_vcpus: int = 0  #: as built; 0: as many as it has
    weight: int = 256
    cap: int = 0
    memory_target: int = 0  #: what its balloon was asked for; 0: nothing yet
    boot_memory: int = 0  #: what its guest can grow to
    max_memory: int = 0  #: what the toolstack lets it grow to
    disks: list[list[Any]] = dataclasses.field(default_factory=list)  #: device, path, bytes
    vifs: list[str] = dataclasses.field(default_factory=list)  #: MACs
    passed: list[str] = dataclasses.field(default_factory=list)  #: names of devices of the machine that it has


@dataclass(frozen=True, slots=True)
class Process:
    """A domain's process as the kernel shows it."""

    alive: bool
    stopped: bool
    cpu_seconds: float


class Ledger:
    """The state directory."""

    def __init__(self, root: Path, settings: HostSettings | None = None) -> None:
        """Open ``root``, making it if absent; ``settings`` are used only for a new one."""
        self.root = root
        self.domains_dir = root / "domains"
        self.domains_dir.mkdir(parents=True, exist_ok=True)
        if not (root / "host.json").exists():
            write_json(root / "host.json", dataclasses.asdict(settings or HostSettings()))

    def settings(self) -> HostSettings:
        """The machine, read now."""
        return HostSettings(**read_json(self.root / "host.json"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other processes and threads that make or remove domains."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def directory(self, uuid: UUID | str) -> Path:
        """A domain's directory, there or not."""
        return self.domains_dir / str(uuid)

    def entries(self) -> list[Entry]:
        """All domains."""
        entries = []
        for directory in sorted(self.domains_dir.iterdir()):
            entry = self.entry(directory.name)
            if entry is not None:
                entries.append(entry)
        return entries

    def entry(self, uuid: UUID | str) -> Entry | None:
        """One domain."""
        try:
            return Entry(**read_json(self.directory(uuid) / "domain.json"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, entry: Entry) -> None:
        """Write a domain's entry."""
        write_json(self.directory(entry.uuid) / "domain.json", dataclasses.asdict(entry))

    def remove(self, uuid: UUID | str) -> None:
        """Forget a domain, all at once for those who look."""
        directory = self.directory(uuid)
        grave = self.root / f"gone-{uuid}-{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            directory.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    def next_domid(self) -> int:
        """A number never used before in this state directory. Call it locked."""
        file = self.root / "next-domid"
        domid = int(file.read_text()) if file.exists() else 1
        write_text(file, str(domid + 1))
        return domid

    def free_memory(self) -> int:
        """Bytes no domain holds."""
        settings = self.settings()
        return settings.total_memory - settings.dom0_memory - sum(entry.memory for entry in self.entries())


def look(entry: Entry) -> Process:
    """The state of a domain's process now."""
    try:
        stat = Path(f"/proc/{entry.pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return Process(alive=False, stopped=False, cpu_seconds=0.0)
    fields = stat[stat.rindex(")") + 2 :].split()
    state, started = fields[0], int(fields[19])
    alive = state not in "ZX" and (not entry.started or started == entry.started)
    ticks = int(fields[11]) + int(fields[12])
    return Process(alive, stopped=state in "tT", cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"))


def start_time(pid: int) -> int:
    """A process' start time in clock ticks."""
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return int(stat[stat.rindex(")") + 2 :].split()[19])


def read_json(path: Path) -> dict[str, Any]:
    """An object from one of the files above."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a file, so that a reader sees all of it or nothing."""
    write_text(path, json.dumps(value))


def write_text(path: Path, text: str) -> None:
    """Replace a file, so that a reader sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
