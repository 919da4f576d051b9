"""What dom0 does to a guest on real Xen: a suspend, after which the guest's clock is right and its hooks run; a lock
that the hypervisor holds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from image.story.steps import DEVICE
from tests.nested.conftest import eventually
from tests.nested.guest_site import VM, Site, site

pytestmark = [pytest.mark.nested, pytest.mark.long]

#: Seconds that a clock may be off: an order and an ssh under emulation lie between the two looks.
TOLERANCE = 20
HOOK = "/etc/virmo/resume.d/10-tell"
#: A program of the guest that is heard as long as the domain runs; no lock ends it.
TICKS = "(while sleep 1; do echo tick >/dev/console; done) </dev/null >/dev/null 2>&1 &"


def domain_state(at: Site) -> str:
    """As Xen says it: ``running``, ``paused``."""
    domain = at.board.domain(at.vmid)
    return domain.state if domain is not None else "gone"


def clock(at: Site) -> int:
    """Seconds since the epoch, as the guest has them."""
    at.console.enter("echo clock=$(date +%s)=")
    at.console.shows("clock=1")
    return int(at.console.text().rpartition("\nclock=")[2].partition("=")[0])


def suspend_and_resume(at: Site, transport: str) -> None:
    """A clock that stood years behind at the suspend is dom0's after the resume; the hook ran, once."""
    at.console.enter(f"mkdir -p {HOOK.rpartition('/')[0]}; printf '#!/bin/sh\\necho ran >>/root/hook\\n' >{HOOK}")
    at.console.enter(f"chmod +x {HOOK}; date -s '2021-03-04 05:06:07' >/dev/null; echo set-$((6*7))")
    at.console.shows("set-42")
    assert clock(at) < time.time() - 10_000_000
    assert at.order("vm", "suspend", DEVICE, VM)["state"] == "done"
    assert domain_state(at) == "gone"
    assert at.order("vm", "resume", DEVICE, VM)["state"] == "done"
    at.attach()
    at.greeted(transport)
    eventually(lambda: abs(clock(at) - time.time()) < TOLERANCE, "the guest's clock is right", 60)
    at.console.enter("wc -l </root/hook; echo counted-$((6*7))")
    at.console.shows("counted-42")
    assert at.console.text().rpartition("counted-42")[0].split()[-1] == "1"


def lock_by_the_hypervisor(at: Site, transport: str) -> None:
    """The domain is paused until UnLock, also over a restart of the agent; State stays Running."""
    at.console.enter(TICKS)
    at.console.shows("tick")
    locked = at.vm("lock")
    assert (locked["state"], locked["message"]) == ("done", "fully locked"), locked
    assert domain_state(at) == "paused"
    at.console.type("")
    at.console.keeps_silent("tick", 5.0)
    assert at.listed()["state"] == 2
    at.use(transport)
    time.sleep(5.0)
    assert domain_state(at) == "paused"
    unlocked = at.vm("unlock")
    assert unlocked["message"] == "unlocked", unlocked
    assert domain_state(at) == "running"
    at.console.shows("this machine is unlocked")
    at.console.enter("echo alive-$((6*7))")
    at.console.shows("alive-42")


def test_suspend_with_hooks_and_a_lock_that_the_hypervisor_holds(tmp_path: Path) -> None:
    """R-018, HLF-12: a PVH guest, through XenStore."""
    transport = "xenstore"
    with site(tmp_path, "pvh", transport, lawmo={"enforce": "hypervisor"}) as at:
        suspend_and_resume(at, transport)
        lock_by_the_hypervisor(at, transport)
