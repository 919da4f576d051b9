"""Runs in a nested dom0: a guest with all rights over its kernel does its worst; agent and other guest do not care.

The measure is a Get to the other guest's shim: what it takes beside an attack, against what it takes just before and
after it, when both guests idle. The last line but one that is printed holds all figures, as JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dom0_agent.guest.config import BudgetConfig
from dom0_agent.guest.interface import GuestEvent, GuestEventKind, GuestRequest
from dom0_agent.hypervisor.xenstore import XenStore
from guest_shim.lawmo import MOID
from tests.nested.channel.attacks import ATTACKS
from tests.nested.channel.driver import GOOD, OTHER, Agent, Held, agent, given_back, nothing_leaks, until

#: No attack: what the other guest's use of its CPU alone does to a Get.
NEIGHBOUR = "burn"
#: Gets before each attack.
QUIET = 8
#: Seconds between two of them: a server asks now and then, and a request that waits for another is no measure.
PAUSE = 0.02
#: Seconds after an attack before Gets are quiet again.
CALM = 1.0
#: Seconds that one attack may take.
DEADLINE = 240.0
#: Attacks that need not cost a guest its channel: they may stay below its budget, or nobody hears of them, or the guest
#: has closed the channel itself by what it wrote.
FORGIVEN = frozenset({"half-frame", "ring-pointers", "slots-flood", "quota", "wishes", "changes", "closing", NEIGHBOUR})
#: Tight enough for a flood under emulation, and wide enough to open channels often; without a penalty, one attack may
#: follow on another at once.
MILD: dict[str, Any] = {"budget": BudgetConfig(window=4.0, messages=800), "penalty_first": 0.0, "penalty_max": 1.0}


def get(rig: Agent) -> float:
    """Seconds that a Get to the good guest takes."""
    began = time.monotonic()
    answer = rig.hub.request(GOOD, GuestRequest("read", {"moid": MOID}), deadline=60.0)
    assert answer.status == 200
    taken = time.monotonic() - began
    time.sleep(PAUSE)
    return taken


def figures(times: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds, and of how many."""
    ordered = sorted(times)
    median, slowest = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
    return {"median": round(median * 1000, 1), "p95": round(slowest * 1000, 1), "gets": len(ordered)}


def malice(guest_dir: Path, guest_type: str) -> None:
    """All attacks, one after the other."""
    store = XenStore()
    store.list("/")  # it connects at the first request
    with nothing_leaks(), agent(guest_dir, guest_type, **MILD) as rig:
        rig.boot(GOOD)
        rig.connected()
        rig.boot(OTHER)
        found = rig.hypervisor.find(OTHER)
        assert found is not None
        base = f"/local/domain/{found.domid}/data"
        until(lambda: store.read(f"{base}/ready") == b"1", "the bad guest is up")
        quiet = [quiet_gets(rig)]
        held = Held.now()
        beside: dict[str, list[float]] = {}
        for name in (NEIGHBOUR, *ATTACKS):
            beside[name], expelled = attack(rig, store, base, name)
            quiet.append(quiet_gets(rig))
            around, times = figures(quiet[-2] + quiet[-1]), figures(beside[name])
            print(f"{name}: {times} beside it, {around} around it, cut off {expelled} times", flush=True)
        given_back(held)
        for vmid in (GOOD, OTHER):
            rig.hypervisor.destroy(vmid)
    store.close()
    attacks = {
        name: {"quiet": figures(quiet[number] + quiet[number + 1]), "beside": figures(times)}
        for number, (name, times) in enumerate(beside.items())
    }
    neighbour = attacks.pop(NEIGHBOUR)
    of_all = figures([taken for name in ATTACKS for taken in beside[name]])
    quiet_all = figures([taken for times in quiet for taken in times])
    print(json.dumps({"quiet": quiet_all, "beside": of_all, "neighbour": neighbour, "attacks": attacks}), flush=True)


def quiet_gets(rig: Agent) -> list[float]:
    """Gets while nobody does anything else."""
    time.sleep(CALM)
    return [get(rig) for _ in range(QUIET)]


def attack(rig: Agent, store: XenStore, base: str, name: str) -> tuple[list[float], int]:
    """Have the bad guest do it; what Gets took meanwhile, and how often the guest was cut off for it."""
    before = len(rig.events)
    store.write(f"{base}/attack", name.encode())
    end, times = time.monotonic() + DEADLINE, [get(rig)]
    while store.read(f"{base}/done") != name.encode():
        times.append(get(rig))
        assert time.monotonic() < end, f"{name} does not end"
    assert rig.hub.hello(GOOD) is not None, f"the other guest lost its channel by {name}"

    def cut_off() -> list[GuestEvent]:
        return [event for event in rig.events[before:] if event.kind is GuestEventKind.EXPELLED]

    if name not in FORGIVEN:  # the guest may say that it is done before we have told of its end
        until(lambda: bool(cut_off()), f"{name} is noticed", 30)
    told = cut_off()
    assert all(event.vmid == OTHER for event in told), told
    return times, len(told)
