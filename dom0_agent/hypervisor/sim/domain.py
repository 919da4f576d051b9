"""One simulated domain: this process *is* it. Its guest is the real shim and a piece of "memory".

Stopped (SIGSTOP) is paused, killed is destroyed. What dom0 asks of it lies in ``command.json``, announced by SIGUSR1,
so that a request to a paused domain waits as it does in XenStore. Run as
``python -m dom0_agent.hypervisor.sim.domain --dir DIR [--restore FILE]`` by :mod:`.toolstack`.

A saved state is one JSON line (boot id, beats, length and SHA-256 of the memory) and the memory's bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dom0_agent.hypervisor.sim.guest_home import make_home
from dom0_agent.hypervisor.sim.ledger import Ledger, read_json, start_time, write_json
from guest_shim.services import make_dispatcher
from guest_shim.shim import Shim
from guest_shim.unix_socket import UnixSocketTransport

#: Bytes of "memory" that a guest really has; what it is accounted for is in its configuration.
MEMORY_SIZE = 64 * 1024
#: Seconds the shim waits for the agent; the guest must stay able to obey commands meanwhile.
CHANNEL_TIMEOUT = 0.5
#: Words of the kernel's command line that make a guest one that fails: it panics at once, or has no shim.
PANICS, MUTE = "sim.guest=panic", "sim.guest=mute"
#: Bytes of a saved state's first line.
HEADER_CAP = 4096


@dataclass
class Guest:
    """What runs in the domain, and what a saved state carries over."""

    boot_id: str
    beats: int
    memory: bytes
    ignores_shutdown: bool = False

    @classmethod
    def boot(cls) -> Guest:
        """A fresh boot: a new boot id, a counter from 0, new memory."""
        boot_id = str(uuid.uuid4())
        memory = random.Random(boot_id).randbytes(MEMORY_SIZE)  # noqa: S311 - filler, not a secret
        return cls(boot_id, 0, memory)

    @classmethod
    def load(cls, path: Path) -> Guest:
        """From a saved state. :class:`ValueError` when the file is not one, or damaged."""
        with path.open("rb") as file:
            header = json.loads(file.readline(HEADER_CAP))
            memory = file.read(header["length"])
        if hashlib.sha256(memory).hexdigest() != header["sha256"]:
            raise ValueError(f"{path}: the memory in this saved state is damaged")
        return cls(header["boot_id"], header["beats"], memory, header["ignores_shutdown"])

    def save(self, path: Path) -> None:
        """Write the saved state."""
        header = {
            "boot_id": self.boot_id,
            "beats": self.beats,
            "length": len(self.memory),
            "sha256": self.checksum(),
            "ignores_shutdown": self.ignores_shutdown,
        }
        path.write_bytes(json.dumps(header).encode() + b"\n" + self.memory)

    def checksum(self) -> str:
        """SHA-256 of the memory."""
        return hashlib.sha256(self.memory).hexdigest()


class Domain:
    """The process' main loop."""

    def __init__(self, directory: Path, guest: Guest, interval: float) -> None:
        self._directory = directory
        self._guest = guest
        self._interval = interval
        dispatcher = make_dispatcher(make_home(directory))
        transport = UnixSocketTransport("channel.sock", CHANNEL_TIMEOUT, dispatcher)
        self._shim = Shim(transport, guest.boot_id, guest.beats)
        self._answered: int | None = None

    def run(self) -> str:
        """Run the guest until it ends; returns the shutdown reason ("suspend" after a save)."""
        while True:
            self._shim.step()
            self._guest.beats = self._shim.beats
            truth = {
                "boot_id": self._guest.boot_id,
                "beats": self._guest.beats,
                "memory_sha256": self._guest.checksum(),
            }
            write_json(self._directory / "truth.json", truth)
            signal.sigtimedwait([signal.SIGUSR1], self._interval)
            reason = self._obey()
            if reason is not None:
                self._shim.close()
                return reason

    def _obey(self) -> str | None:
        """Do what was asked; the shutdown reason when the guest ends by it."""
        try:
            command = read_json(self._directory / "command.json")
        except FileNotFoundError:
            return None
        if command["id"] == self._answered:
            return None
        self._answered = command["id"]
        error: str | None = None
        reason: str | None = None
        match command["do"]:
            case "shutdown":
                reason = None if self._guest.ignores_shutdown else "poweroff"
            case "poweroff" | "reboot" | "crash" as ending:
                reason = ending
            case "ignore-shutdown":
                self._guest.ignores_shutdown = True
            case "save":
                reason, error = self._save(Path(command["path"]))
            case unknown:
                error = f"unknown command {unknown!r}"
        self._answer(command, error)
        return reason

    def _save(self, path: Path) -> tuple[str | None, str | None]:
        try:
            self._guest.save(path)
        except OSError as error:  # a full disk, a missing directory: the guest runs on, as after a failed xl save
            return None, f"cannot write {path}: {error.strerror}"
        return "suspend", None

    def _answer(self, command: dict[str, Any], error: str | None) -> None:
        with contextlib.suppress(FileNotFoundError):  # destroyed meanwhile
            write_json(self._directory / "reply.json", {"id": command["id"], "error": error})


def main(argv: list[str] | None = None) -> int:
    """Build the domain, wait paused, run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="sim.domain")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("--restore", type=Path)
    parser.add_argument("--cmdline", default="", help=f"the guest's kernel's; {PANICS} and {MUTE} mean something here")
    arguments = parser.parse_args(argv)
    os.chdir(arguments.dir)  # keeps channel.sock within the 108 bytes of a socket's path
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        guest = Guest.load(arguments.restore) if arguments.restore else None
    except (OSError, ValueError, KeyError) as error:
        print(f"cannot restore from {arguments.restore}: {error!r}", file=sys.stderr)
        return 1
    ledger = Ledger(arguments.dir.parent.parent)
    uuid_ = arguments.dir.name
    try:
        register(ledger, uuid_)
        os.kill(os.getpid(), signal.SIGSTOP)  # built, and paused
        reason = boot(arguments, guest)
        if reason == "suspend":  # as xl does after a save: the file is all that stays
            ledger.remove(uuid_)
        else:
            write_json(arguments.dir / "status.json", {"reason": reason})
    except FileNotFoundError:  # the domain was removed meanwhile, and this process should have been
        return 1
    return 0


def boot(arguments: argparse.Namespace, restored: Guest | None) -> str:
    """Run the guest that the kernel's command line asks for; the shutdown reason."""
    words = arguments.cmdline.split()
    if PANICS in words:
        return "crash"
    if MUTE in words:
        while True:
            signal.pause()
    return Domain(arguments.dir, restored or Guest.boot(), arguments.interval).run()


def register(ledger: Ledger, uuid_: str) -> None:
    """Write down that this process is the domain: only the process itself does, so that a killed agent loses none."""
    entry = ledger.entry(uuid_)
    if entry is None:
        raise FileNotFoundError(uuid_)
    ledger.put(replace(entry, pid=os.getpid(), started=start_time(os.getpid())))


if __name__ == "__main__":
    sys.exit(main())
