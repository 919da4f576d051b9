"""Guests' channels on real Xen: vchan and XenStore, what happens in the middle of a transfer, a malicious guest.

What runs in dom0 is ``channel/driver.py``; what runs in a guest instead of the shim is ``channel/guest_programs.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from image.qemu import Dom0, open_dom0
from tests.nested.channel.layout import PLACE, REPOSITORY, lay_out, python

pytestmark = pytest.mark.nested

#: Seconds for one scenario, boots of guests under emulation included.
DEADLINE = 1400.0
#: How much longer a Get may take beside an attack; how many of them make a median.
SLOWER, ENOUGH = 2.0, 20
_OTHER_SHIM = """#!/bin/sh
export PYTHONPATH=/usr/lib/virmo:/root
exec python3 -S -m tests.nested.channel.guest_programs
"""


@pytest.fixture(scope="module")
def dom0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dom0]:
    """A dom0 with the driver and both guests in it; no agent runs."""
    folder = tmp_path_factory.mktemp("channel")
    programs = [f"tests/nested/channel/{name}.py" for name in ("attacks", "guest_programs")]
    code = ("dom0_agent", "guest_shim", "tests/nested/channel")
    lay_out(folder, code, _OTHER_SHIM, {name: REPOSITORY / name for name in programs})
    with open_dom0("x86_64", say=print) as opened:
        opened.run(["sh", "-c", "systemctl stop virmo-agent 2>/dev/null; true"])
        opened.put(folder, PLACE)
        yield opened


def drive(dom0: Dom0, scenario: str, guest_type: str = "pv") -> str:
    """Run one scenario in dom0; what it printed."""
    command = python("tests.nested.channel.driver", scenario, f"{PLACE}/guest", guest_type)
    result = dom0.run(command, timeout=DEADLINE, check=False)
    print(result.stdout, result.stderr)
    assert result.rc == 0, f"{scenario} {guest_type}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_both_transports_and_a_suspend_in_the_middle(dom0: Dom0) -> None:
    """R-018, R-130: requests over vchan and XenStore; a guest that is saved in the middle comes back by itself."""
    drive(dom0, "talk")


@pytest.mark.long
def test_a_suspend_in_the_middle_leaks_nothing(dom0: Dom0) -> None:
    """R-018: over vchan and XenStore; descriptors, threads and domains are given back."""
    drive(dom0, "suspends")


@pytest.mark.long
@pytest.mark.parametrize("guest_type", ["pv", "pvh"])
@pytest.mark.parametrize("scenario", ["agents-killed", "shims-hit"])
def test_a_transfer_is_interrupted(dom0: Dom0, scenario: str, guest_type: str) -> None:
    """SIGKILL of agent and shim, a full XenStore: success or a clean error, nothing hangs or leaks."""
    drive(dom0, scenario, guest_type)


@pytest.fixture(scope="module")
def malice(dom0: Dom0) -> dict[str, Any]:
    """All attacks of a malicious guest; what Gets to the other guest took (see ``channel/malice.py``)."""
    figures: dict[str, Any] = json.loads(drive(dom0, "malice").splitlines()[-2])
    return figures


@pytest.mark.long
def test_a_malicious_guest_harms_nobody(malice: dict[str, Any]) -> None:
    """Every Get to another guest was answered beside every attack; nothing of an attack stays in dom0."""
    assert all(figures["beside"]["gets"] > 0 for figures in malice["attacks"].values())


@pytest.mark.long
def test_a_malicious_guest_slows_nobody_down(malice: dict[str, Any]) -> None:
    """A Get to another guest takes less than twice as long as when all is quiet."""
    slow = {
        name: figures
        for name, figures in malice["attacks"].items()
        if figures["beside"]["gets"] >= ENOUGH and figures["beside"]["median"] >= SLOWER * figures["quiet"]["median"]
    }
    assert not slow
    for figure in ("median", "p95"):
        assert malice["beside"][figure] < SLOWER * malice["quiet"][figure]
