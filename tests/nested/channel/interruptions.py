"""Runs in a nested dom0: what happens in the middle of a 10 MiB transfer. It ends with success or a clean error, never
hangs, and the next request is served."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from dom0_agent.hypervisor.xenstore import XenStore
from tests.nested.channel.driver import (
    GOOD,
    OTHER,
    TRANSFER,
    Agent,
    agent,
    no_zombies,
    nothing_leaks,
    transfer_in_background,
    until,
)

TRANSPORTS = ("vchan", "xenstore")
#: Seconds of transfer before the blow.
BEFORE = 1.0
#: What befalls the other guest's shim: see ``guest_programs.py``.
BLOWS = ("kill-vchan", "kill-xenstore", "full-vchan", "full-xenstore")


def agents_killed(guest_dir: Path, guest_type: str) -> None:
    """The agent is killed in the middle, over both transports; the next one is served."""
    with agent(guest_dir, guest_type) as first:
        first.boot(GOOD)
        first.connected()
    for transport in TRANSPORTS:
        begun, begins = os.pipe()
        child = os.fork()
        if child == 0:
            doomed = Agent(guest_dir, guest_type, transport=transport)
            doomed.connected()
            os.write(begins, b"!")
            doomed.ping(TRANSFER, 600)
            os._exit(0)
        os.close(begins)
        assert os.read(begun, 1) == b"!", "the agent that is to be killed has no channel"
        os.close(begun)
        time.sleep(BEFORE)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the transfer ended before the blow"
        with agent(guest_dir, guest_type, transport=transport) as rig:
            rig.connected()
            print(transport, "after SIGKILL", round(rig.ping(1000), 3), flush=True)
    with agent(guest_dir, guest_type) as last:
        last.hypervisor.destroy(GOOD)
    no_zombies()


def shims_hit(guest_dir: Path, guest_type: str) -> None:
    """The shim is killed in the middle, or the guest's XenStore quota is used up, over both transports."""
    store = XenStore()
    store.list("/")  # it connects at the first request
    with nothing_leaks(), agent(guest_dir, guest_type) as rig:
        rig.boot(OTHER)
        found = rig.hypervisor.find(OTHER)
        assert found is not None
        base = f"/local/domain/{found.domid}/data"
        until(lambda: store.read(f"{base}/ready") == b"1", "the guest is up")
        for blow in BLOWS:
            hit(rig, store, base, blow)
        rig.hypervisor.destroy(OTHER)
    store.close()


def hit(rig: Agent, store: XenStore, base: str, blow: str) -> None:
    """One blow, from a new shim to its end."""
    store.write(f"{base}/attack", blow.encode())
    rig.connected(OTHER)
    hello = rig.hub.hello(OTHER)
    assert hello is not None
    assert hello.transport == blow.partition("-")[2]
    outcome = transfer_in_background(rig, OTHER)
    time.sleep(BEFORE)
    store.write(f"{base}/blow", blow.encode())
    print(f"{blow}: the transfer ended with {outcome()}", flush=True)
    until(lambda: store.read(f"{base}/blow") == b"over", "the blow is over")
    rig.connected(OTHER)
    print(f"{blow}: afterwards {rig.ping(1000, vmid=OTHER):.3f}", flush=True)
    store.write(f"{base}/blow", b"end")
    until(lambda: store.read(f"{base}/done") == blow.encode(), "the guest ends its shim")
    until(lambda: rig.hub.hello(OTHER) is None, "the channel of a dead shim ends")
