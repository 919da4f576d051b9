"""Runs in a nested dom0: what the agent has of guests' channels, on real Xen, with the real shim or a bad one inside.

    driver.py SCENARIO GUEST_DIR pv|pvh

``GUEST_DIR`` holds ``kernel``, ``ramdisk`` and ``other-ramdisk`` (the same with another program
instead of the shim, see ``layout.py``).
Prints what it sees; ends with 0 when all of it was as it must be.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dom0_agent.guest.config import GuestConfig
from dom0_agent.guest.hub import GuestHub
from dom0_agent.guest.interface import GuestError, GuestEvent, GuestEventKind, GuestRequest
from dom0_agent.hypervisor.interface import DomainConfig, DomainType
from dom0_agent.hypervisor.xl import open_xl

MIB = 1 << 20
GOOD, OTHER = uuid.UUID(int=0x600D), uuid.UUID(int=0x07BE)
PATIENCE = 300.0
TRANSFER = 10 * MIB


def until(
    condition: Callable[[], bool], what: str, seconds: float = PATIENCE, seen: Callable[[], str] = lambda: ""
) -> None:
    """Wait for it; ``seen`` says in a failure what there is instead."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}; {seen()}"
        time.sleep(0.1)


class Agent:
    """The parts of an agent that a channel needs, on this dom0."""

    def __init__(self, guest_dir: Path, guest_type: str, **config: Any) -> None:
        self.guest_dir, self.type = guest_dir, DomainType(guest_type)
        self.hypervisor = open_xl(Path(f"/run/channel-{os.getpid()}"))
        self.hub = GuestHub(self.hypervisor, GuestConfig(**config))
        self.events: list[GuestEvent] = []
        self.hub.subscribe(self._note)
        self.hub.start()

    def _note(self, event: GuestEvent) -> None:
        """Beside what a scenario prints: channels' threads tell of their ends until after it."""
        if event.kind is not GuestEventKind.SAID:
            seen = f"  {time.monotonic():.1f} {event.vmid.hex[-4:]} {event.kind.value} {event.reason}"
            print(seen, file=sys.stderr, flush=True)
        self.events.append(event)

    def config(self, vmid: uuid.UUID) -> DomainConfig:
        return DomainConfig(
            uuid=vmid,
            name=f"channel-{vmid.hex[-4:]}",
            type=self.type,
            memory=128 * MIB,
            max_memory=128 * MIB,
            vcpus=1,
            max_vcpus=1,
            kernel=self.guest_dir / "kernel",
            ramdisk=self.guest_dir / ("ramdisk" if vmid == GOOD else "other-ramdisk"),
            cmdline="console=hvc0 quiet",
        )

    def boot(self, vmid: uuid.UUID) -> None:
        self.hypervisor.create(self.config(vmid))
        self.hypervisor.unpause(vmid)

    def connected(self, vmid: uuid.UUID = GOOD) -> None:
        until(lambda: self.hub.hello(vmid) is not None, f"{vmid} says hello")

    def transport(self) -> str:
        """How the guest speaks with us now."""
        hello = self.hub.hello(GOOD)
        return "" if hello is None else hello.transport

    def ping(self, size: int = 0, deadline: float = PATIENCE, vmid: uuid.UUID = GOOD) -> float:
        payload = os.urandom(size)
        began = time.monotonic()
        answer = self.hub.request(vmid, GuestRequest("ping", {}, payload), deadline=deadline)
        assert (answer.status, answer.payload) == (200, payload)
        return time.monotonic() - began

    def close(self) -> None:
        self.hub.close()
        self.hypervisor.close()


@contextlib.contextmanager
def agent(guest_dir: Path, guest_type: str, **config: Any) -> Iterator[Agent]:
    made = Agent(guest_dir, guest_type, **config)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class Held:
    """What this process has of the kernel."""

    descriptors: int
    threads: int

    def is_within(self, other: Held) -> bool:
        """Not more of anything."""
        return self.descriptors <= other.descriptors and self.threads <= other.threads

    @classmethod
    def now(cls) -> Held:
        """At the moment."""
        return cls(len(list(Path("/proc/self/fd").iterdir())), threading.active_count())


@contextlib.contextmanager
def nothing_leaks() -> Iterator[None]:
    """What an agent took is given back when it ends: descriptors (rings, event channels, pipes) and threads."""
    before = Held.now()
    yield
    given_back(before)
    no_zombies()


def given_back(before: Held) -> None:
    """Soon there is no more than there was."""
    until(lambda: Held.now().is_within(before), f"all but {before} is given back", 30, lambda: str(Held.now()))


def no_zombies() -> None:
    """R-018: nothing of a dead guest stays in Xen."""

    def clean() -> bool:
        return "(null)" not in subprocess.run(["xl", "list"], capture_output=True, text=True, check=True).stdout

    until(clean, "no (null) domains", 30)


def talk(guest_dir: Path, guest_type: str) -> None:
    """Both transports, suspend and resume in the middle of a transfer, nothing left at the end."""
    with agent(guest_dir, guest_type, transport="vchan") as first:
        first.boot(GOOD)
        first.connected()
        hello = first.hub.hello(GOOD)
        assert hello is not None
        assert hello.transport == "vchan"
        print("vchan", [round(first.ping(size), 3) for size in (0, 200, 300_000)], flush=True)
    with agent(guest_dir, guest_type, transport="xenstore") as second:
        second.connected()
        print("xenstore", [round(second.ping(size), 3) for size in (0, 200, 20_000)], flush=True)
    with agent(guest_dir, guest_type) as third:
        third.connected()
        hello = third.hub.hello(GOOD)
        assert hello is not None
        assert hello.transport == "vchan", "the better one"
        suspend_in_the_middle(third)
        third.hypervisor.destroy(GOOD)
        until(lambda: third.hub.hello(GOOD) is None, "the channel of a dead guest ends", 30)
    no_zombies()


def suspend_in_the_middle(rig: Agent) -> None:
    """A 10 MiB request is on its way when its guest is saved; after the restore all is as before."""
    transport = rig.transport()
    outcome = transfer_in_background(rig)
    time.sleep(0.5)
    saved = Path("/root/channel.saved")
    rig.hypervisor.save(GOOD, saved)
    print(transport, "the transfer ended with", outcome(), flush=True)
    rig.hypervisor.restore(saved, rig.config(GOOD))
    rig.hypervisor.unpause(GOOD)
    rig.hub.look()
    until(lambda: resumed(rig), "the shim came back after the resume")
    rig.connected()
    assert rig.transport() == transport
    print(transport, "after resume", round(rig.ping(1000), 3), flush=True)
    saved.unlink()


def suspends(guest_dir: Path, guest_type: str) -> None:
    """The guest is saved in the middle of a transfer, over both transports; nothing leaks."""
    for transport in ("vchan", "xenstore"):
        with nothing_leaks(), agent(guest_dir, guest_type, transport=transport) as rig:
            rig.boot(GOOD)
            rig.connected()
            suspend_in_the_middle(rig)
            rig.hypervisor.destroy(GOOD)


def resumed(rig: Agent) -> bool:
    """Two connections: the shim's first with this agent, and the one after the restore."""
    return [event.kind for event in rig.events].count(GuestEventKind.CONNECTED) >= 2


def transfer_in_background(rig: Agent, vmid: uuid.UUID = GOOD) -> Callable[[], str]:
    """A 10 MiB request; returns what waits for its end."""
    result: list[str] = []

    def run() -> None:
        try:
            rig.ping(TRANSFER, 120, vmid)
            result.append("success")
        except GuestError as error:
            result.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> str:
        thread.join(130)
        assert result, "the transfer hangs"
        return result[0]

    return wait


def main() -> int:
    """Runs one scenario."""
    from tests.nested.channel.interruptions import agents_killed, shims_hit
    from tests.nested.channel.malice import malice

    scenarios = {
        "talk": talk,
        "suspends": suspends,
        "agents-killed": agents_killed,
        "shims-hit": shims_hit,
        "malice": malice,
    }
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
    scenario, guest_dir, guest_type = sys.argv[1:]
    scenarios[scenario](Path(guest_dir), guest_type)
    print("as it must be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
