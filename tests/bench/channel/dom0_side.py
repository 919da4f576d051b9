"""In dom0: measures the channel and the bare thing in turns, and prints one line of JSON.

dom0_side.py GUEST_DIR ROUNDS
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dom0_agent.guest.interface import GuestRequest
from dom0_agent.hypervisor.xenstore import XenStore
from guest_shim.lawmo import MOID
from guest_shim.memory import keep_freed_memory
from guest_shim.vchan import VchanLink
from tests.bench.channel.guest_side import CONFIRMED, DOWN, NODE, ORDER, UP, BareVchan
from tests.nested.channel.driver import OTHER, Agent, until

SMALL = 200  #: bytes of a small answer or payload
LARGE = {"vchan": 1 << 20, "xenstore": 64 << 10}  #: bytes of a large one
DEADLINE = 120.0  #: seconds for anything


class Rival(Protocol):
    """The bare thing."""

    def exchange(self, up: int, down: int) -> None:
        """So many bytes to the guest, and then so many from it."""

    def close(self) -> None:
        """Nothing stays."""


class RivalVchan:
    """A vchan of its own."""

    def __init__(self, domid: int) -> None:
        self._bare = BareVchan(VchanLink.serve(domid, f"/local/domain/{domid}/data/bare/vchan"))
        until(lambda: self._bare.is_open() == 1, "the bare vchan is connected", 60)

    def exchange(self, up: int, down: int) -> None:
        self._bare.send(ORDER.pack(up, down) + bytes(up))
        self._bare.receive(down)

    def close(self) -> None:
        self._bare.close()


class RivalXenStore:
    """One node after the other, each written, announced by a watch, read, and answered by another one."""

    def __init__(self, domid: int) -> None:
        self._store = XenStore()
        self._base = f"/local/domain/{domid}/data/bare"
        self._changed = threading.Event()
        self._number = 0
        self._unwatch = self._store.watch(f"{self._base}/from", lambda _: self._changed.set())

    def exchange(self, up: int, down: int) -> None:
        for _ in range(0, up, NODE):
            self._one(UP, b"." * min(up, NODE))
        for _ in range(0, down if down > SMALL else 0, NODE):  # what is small comes as the confirmation
            self._one(DOWN, b"")

    def _one(self, what: bytes, more: bytes) -> None:
        self._number += 1
        head = what + f"{self._number:08x}".encode()
        self._changed.clear()
        self._store.write(f"{self._base}/to", (head + more)[:NODE])
        while not (self._store.read(f"{self._base}/from") or b"").startswith(head):
            assert self._changed.wait(DEADLINE)
            self._changed.clear()

    def close(self) -> None:
        self._unwatch()
        self._store.close()


RIVALS: dict[str, Callable[[int], Rival]] = {"vchan": RivalVchan, "xenstore": RivalXenStore}


class Ours:
    """What the agent does for a server's command on a node below DMTree, as soon as it is on its way to the guest."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def get(self, _size: int) -> None:
        """LAWMO's live nodes."""
        nodes = json.loads(self._ask("read", {"moid": MOID}))
        assert nodes["State"] == "30"

    def replace(self, size: int) -> None:
        """LAWMO's configuration, with a name as long as the bare payload."""
        nodes = {f"AvailableWipeList/{os.urandom(size // 2).hex()}/ToBeWiped": "false"}
        self._ask("configure", {"moid": MOID}, json.dumps(nodes).encode())

    def large_get(self, size: int) -> None:
        """A long answer."""
        assert len(self._ask("give", {"size": size})) == size

    def large_replace(self, size: int) -> None:
        """A long payload."""
        self._ask("take", {}, bytes(size))

    def _ask(self, verb: str, fields: dict[str, Any], payload: bytes = b"") -> bytes:
        answer = self._agent.hub.request(OTHER, GuestRequest(verb, fields, payload), deadline=DEADLINE)
        assert answer.status == 200, answer
        return answer.payload


def timed(call: Callable[..., None], *arguments: int) -> float:
    began = time.monotonic()
    call(*arguments)
    return (time.monotonic() - began) * 1000


@contextmanager
def connected(guest_dir: Path, transport: str) -> Iterator[tuple[Agent, int]]:
    """An agent that speaks with the guest this way, and the guest's domain; it is booted when it is not there yet."""
    agent = Agent(guest_dir, "pv", transport=transport)
    try:
        if agent.hypervisor.find(OTHER) is None:
            agent.boot(OTHER)
        agent.connected(OTHER)
        found = agent.hypervisor.find(OTHER)
        assert found is not None
        yield agent, found.domid
    finally:
        agent.close()


def measure(ours: Ours, rival: Rival, large: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of ours and of the bare one: medians, in turns."""
    figures = {}
    for what, call, size, bare, times in (
        ("Get", ours.get, SMALL, (SMALL, SMALL), rounds),
        ("Replace", ours.replace, SMALL, (SMALL, SMALL), rounds),
        ("large Get", ours.large_get, large, (CONFIRMED, large), max(2, rounds // 2)),
        ("large Replace", ours.large_replace, large, (large, CONFIRMED), max(2, rounds // 2)),
    ):
        timed(call, size), timed(rival.exchange, *bare)
        pairs = [(timed(call, size), timed(rival.exchange, *bare)) for _ in range(times)]
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        figures[what] = {"bytes": size, "ours_ms": mine, "bare_ms": theirs}
    return figures


def main() -> None:
    guest_dir, rounds = Path(sys.argv[1]), int(sys.argv[2])
    keep_freed_memory()  # as the agent does
    figures: dict[str, dict[str, float]] = {}
    for transport, make in RIVALS.items():
        with connected(guest_dir, transport) as (agent, domid):
            rival = make(domid)
            measured = measure(Ours(agent), rival, LARGE[transport], rounds)
            figures.update({f"{transport} {what}": row for what, row in measured.items()})
            rival.close()
    agent = Agent(guest_dir, "pv")
    agent.hypervisor.destroy(OTHER)
    agent.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
