"""The simulated toolstack: starts, stops, freezes and removes the processes that are the domains.

The same thin contract as real Xen's (:class:`~dom0_agent.hypervisor.readback.Toolstack`), under the same read-back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import dom0_agent
from dom0_agent.guest.unix_channel import UnixChannelServer
from dom0_agent.hypervisor.interface import (
    DomainConfig,
    DomainInfo,
    DomainState,
    GuestFacts,
    HostInfo,
    HypervisorError,
    HypervisorTimeout,
    OutOfMemory,
)
from dom0_agent.hypervisor.readback import SETTLE, TEARDOWN, ReadBackHypervisor
from dom0_agent.hypervisor.sim.faults import FaultTable, FaultyToolstack
from dom0_agent.hypervisor.sim.ledger import Entry, HostSettings, Ledger, look, read_json, write_json
from dom0_agent.hypervisor.sim.resources import SimResources, new_entry
from dom0_agent.hypervisor.sim.watcher import Watcher

#: Seconds for a domain's process to be built, to save itself, or to die.
DEADLINE = 20.0
_POLL = 0.01


def open_sim(
    state_dir: Path,
    settings: HostSettings | None = None,
    environment: Mapping[str, str] = os.environ,
    settle: float = SETTLE,
    teardown: float = TEARDOWN,
) -> ReadBackHypervisor:
    """A simulated machine in ``state_dir``; the domains of an earlier agent are found again.

    ``settle`` and ``teardown``: see :mod:`dom0_agent.hypervisor.readback`.
    """
    faults = environment.get("VIRMO_SIM_FAULTS")
    table = FaultTable(Path(faults) if faults else state_dir / "faults.json")
    toolstack = FaultyToolstack(Sim(Ledger(state_dir, settings)), table)
    return ReadBackHypervisor(toolstack, settle=settle, teardown=teardown)


class Sim:
    """The toolstack over a :class:`Ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._channels = UnixChannelServer()
        self._watcher = Watcher(ledger.domains_dir)
        self._attaching = threading.Lock()
        self._resources = SimResources(ledger)
        self._attach()

    def host(self) -> HostInfo:
        """The simulated machine."""
        settings = self._ledger.settings()
        return HostInfo(
            version=settings.version,
            scheduler=settings.scheduler,
            cpus=settings.cpus,
            total_memory=settings.total_memory,
            free_memory=self._ledger.free_memory(),
            can_save=settings.can_save,
        )

    def can_save(self) -> bool:
        """As host.json says."""
        return self._ledger.settings().can_save

    def domains(self) -> tuple[DomainInfo, ...]:
        """All domains, looked at now."""
        return tuple(self._info(entry) for entry in self._attach())

    def create(self, config: DomainConfig) -> None:
        """Start a domain's process; it stops itself before its guest runs."""
        for path in (config.kernel, config.ramdisk, *(disk.path for disk in config.disks)):
            if path is not None and not path.is_file():
                raise HypervisorError(f"create of domain {config.uuid}: there is no file {path}")
        self._start(config, "create")

    def restore(self, path: Path, config: DomainConfig) -> None:
        """Start a domain's process with a saved guest."""
        self._start(config, "restore", path)

    def save(self, domain: DomainInfo, path: Path) -> None:
        """Have the domain write itself to ``path``; it ends by that."""
        entry = self._entry(domain, "save")
        command_id = self._ask(entry, {"do": "save", "path": str(path)})
        self._await_end(entry, "save", command_id)

    def pause(self, domain: DomainInfo) -> None:
        """SIGSTOP."""
        self._signal(domain, "pause", signal.SIGSTOP)

    def unpause(self, domain: DomainInfo) -> None:
        """SIGCONT."""
        self._signal(domain, "unpause", signal.SIGCONT)

    def request_shutdown(self, domain: DomainInfo) -> None:
        """Leave the request; a paused guest finds it when it goes on."""
        self._ask(self._entry(domain, "shutdown"), {"do": "shutdown"})

    def destroy(self, domain: DomainInfo) -> None:
        """SIGKILL, and forget it."""
        entry = self._entry(domain, "destroy")
        if look(entry).alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry.pid, signal.SIGKILL)
            self._await_end(entry, "destroy")
        with self._ledger.locked():
            self._ledger.remove(entry.uuid)

    def guest_facts(self, domain: DomainInfo) -> GuestFacts:
        """What its shim said last."""
        return self._channels.facts((domain.uuid, domain.domid))

    def channels(self) -> UnixChannelServer:
        """Their Unix sockets."""
        return self._channels

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        """Hints from the watcher."""
        return self._watcher.subscribe(hint)

    @property
    def resources(self) -> SimResources:
        """How the machine is shared out."""
        return self._resources

    def close(self) -> None:
        """End the threads; the domains go on."""
        self._watcher.close()
        self._channels.close()

    def command(self, uuid: UUID, do: str) -> None:
        """For people and tests: make the guest do something by itself (poweroff, reboot, crash, ignore-shutdown)."""
        entry = self._ledger.entry(uuid)
        if entry is None:
            raise HypervisorError(f"{do}: there is no domain {uuid}")
        self._ask(entry, {"do": do})

    # -- inside -----------------------------------------------------------------------------------------------------

    def _attach(self) -> list[Entry]:
        """All domains; those found for the first time (an earlier agent's) get their channel and are watched."""
        with self._attaching:  # two threads that bind the same socket would leave the loser's path behind
            entries = self._ledger.entries()
            listening = self._channels.keys()
            keys = {(UUID(entry.uuid), entry.domid): entry for entry in entries}
            for key in keys.keys() - listening:
                with contextlib.suppress(FileNotFoundError):  # just removed by another process
                    self._channels.listen(key, self._ledger.directory(keys[key].uuid))
            for gone in listening - keys.keys():
                self._channels.forget(gone)
        self._watcher.follow(entry.pid for entry in entries)
        return entries

    def _info(self, entry: Entry) -> DomainInfo:
        process = look(entry)
        state, reason = self._state(entry, alive=process.alive, stopped=process.stopped)
        return DomainInfo(
            uuid=UUID(entry.uuid),
            domid=entry.domid,
            name=entry.name,
            state=state,
            memory=entry.memory,
            vcpus=entry.vcpus,
            cpu_seconds=process.cpu_seconds,
            shutdown_reason=reason,
        )

    def _state(self, entry: Entry, *, alive: bool, stopped: bool) -> tuple[DomainState, str | None]:
        if not entry.pid or stopped:
            return DomainState.PAUSED, None
        if alive:
            return DomainState.RUNNING, None
        try:
            reason = str(read_json(self._ledger.directory(entry.uuid) / "status.json")["reason"])
        except FileNotFoundError:  # its process was killed: nobody asked the guest
            reason = "crash"
        return (DomainState.CRASHED if reason == "crash" else DomainState.SHUTDOWN), reason

    def _start(self, config: DomainConfig, call: str, saved: Path | None = None) -> None:
        uuid = str(config.uuid)
        directory = self._ledger.directory(uuid)
        with self._ledger.locked():
            if self._ledger.entry(uuid) is not None:
                raise HypervisorError(f"{call}: domain {uuid} is already there")
            if self._ledger.free_memory() < config.memory:
                raise OutOfMemory(f"{call} of domain {uuid}: {self._ledger.free_memory()} bytes are free")
            self._resources.need_free([*config.pci, *config.usb])
            entry = new_entry(config, self._ledger.next_domid())
            building = self._ledger.root / f"building-{uuid}"
            building.mkdir(exist_ok=True)
            building.rename(directory)
            self._ledger.put(entry)
        self._attach()
        pid = self._spawn(directory, saved, config.cmdline)
        self._watcher.follow([pid])
        end = time.monotonic() + DEADLINE
        while not (entry.pid and look(entry).stopped):
            if not look(replace(entry, pid=pid, started=0)).alive:
                said = _last_words(directory)
                self._ledger.remove(uuid)
                raise HypervisorError(f"{call} of domain {uuid} failed: {said}")
            if time.monotonic() > end:
                raise HypervisorTimeout(f"{call} of domain {uuid}: not built within {DEADLINE:g} s")
            time.sleep(_POLL)
            entry = self._ledger.entry(uuid) or entry  # the process itself writes down its pid

    def _spawn(self, directory: Path, saved: Path | None, cmdline: str) -> int:
        interval = str(self._ledger.settings().beat_interval)
        module = "dom0_agent.hypervisor.sim.domain"
        argv = [sys.executable, "-m", module, "--dir", str(directory), "--interval", interval]
        argv += [f"--cmdline={cmdline}"]
        if saved is not None:
            argv += ["--restore", str(saved)]
        environment = {**os.environ, "PYTHONPATH": str(Path(dom0_agent.__file__).parent.parent)}
        log = str(directory / "console.log")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        return os.posix_spawn(sys.executable, argv, environment, file_actions=actions, setsid=True)

    def _entry(self, domain: DomainInfo, call: str) -> Entry:
        entry = self._ledger.entry(domain.uuid)
        if entry is None:
            raise HypervisorError(f"{call}: there is no domain {domain.uuid}")
        return entry

    def _signal(self, domain: DomainInfo, call: str, number: signal.Signals) -> None:
        entry = self._entry(domain, call)
        try:
            os.kill(entry.pid, number)
        except ProcessLookupError:
            raise HypervisorError(f"{call} of domain {domain.uuid}: it has ended") from None

    def _ask(self, entry: Entry, command: dict[str, object]) -> int:
        """Leave a command for a domain's process; returns the command's id."""
        directory = self._ledger.directory(entry.uuid)
        command_id = time.monotonic_ns()
        try:
            write_json(directory / "command.json", {**command, "id": command_id})
            os.kill(entry.pid, signal.SIGUSR1)
        except (FileNotFoundError, ProcessLookupError):
            raise HypervisorError(f"{command['do']} of domain {entry.uuid}: it has ended") from None
        return command_id

    def _await_end(self, entry: Entry, call: str, command_id: int | None = None) -> None:
        """Wait until a domain's process has ended; its refusal of the command is an error."""
        end = time.monotonic() + DEADLINE
        while look(entry).alive:
            error = self._refusal(entry, command_id)
            if error:
                raise HypervisorError(f"{call} of domain {entry.uuid} failed: {error}")
            if time.monotonic() > end:
                raise HypervisorTimeout(f"{call} of domain {entry.uuid}: no end within {DEADLINE:g} s")
            time.sleep(_POLL)

    def _refusal(self, entry: Entry, command_id: int | None) -> str | None:
        try:
            reply = read_json(self._ledger.directory(entry.uuid) / "reply.json")
        except FileNotFoundError:
            return None
        return str(reply["error"]) if reply["id"] == command_id and reply["error"] else None


def _last_words(directory: Path) -> str:
    """What a domain's process said at its end."""
    try:
        said = (directory / "console.log").read_text(errors="replace").strip()
    except FileNotFoundError:
        return "it was destroyed while it was built"
    return said[-500:] or "its process ended"
