"""Guests' channels on real Xen: vchan and XenStore, suspend in the middle of a transfer, a malicious guest.

What runs in dom0 is ``channel/driver.py``; what runs in the malicious guest is ``channel/attacks.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from image.qemu import Dom0, open_dom0
from tests.nested.channel.layout import PLACE, REPOSITORY, lay_out, python

pytestmark = pytest.mark.nested

#: Seconds for one scenario, boots of guests under emulation included.
DEADLINE = 1100.0
_BAD_SHIM = """#!/bin/sh
export PYTHONPATH=/usr/lib/virmo:/root
exec python3 -S -m tests.nested.channel.attacks
"""


@pytest.fixture(scope="module")
def dom0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dom0]:
    """A dom0 with the driver and both guests in it; no agent runs."""
    folder = tmp_path_factory.mktemp("channel")
    attacks = "tests/nested/channel/attacks.py"
    code = ("dom0_agent", "guest_shim", "tests/nested/channel")
    lay_out(folder, code, _BAD_SHIM, {attacks: REPOSITORY / attacks})
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
def test_a_malicious_guest_harms_nobody(dom0: Dom0) -> None:
    drive(dom0, "bad")
