"""Shares on real Xen, measured inside guests: processor time, network, memory, disks, and a disk that is taken away.

``in_dom0/measure.py`` runs in dom0 with the agent's own engine; ``in_dom0/probe.py`` runs in the guests. Emulation is
slow: rates and sizes are scaled down, shares are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from image.initramfs import Ramdisk
from image.qemu import Dom0, open_dom0
from tests.nested.test_contract_xen import PLACE, REPOSITORY, lay_out

pytestmark = pytest.mark.nested

IN_DOM0 = Path(__file__).parent / "in_dom0"
POINTS = 2.0  #: by which a measured share of CPU may differ
WITHIN = 0.05  #: of a network share
MIB = 1 << 20


def put_tests(folder: Path, machine: Dom0) -> None:
    """The code, the experiments, and a guest with the probe in it."""
    lay_out(folder, "x86_64")
    for name in ("tests/integration/resources", "tests/nested/in_dom0"):
        target = folder / name
        target.mkdir(parents=True)
        for file in (REPOSITORY / name).glob("*.py"):
            (target / file.name).write_bytes(file.read_bytes())
    inittab = (REPOSITORY / "image/files/guest/etc/inittab").read_bytes()
    disk = Ramdisk()
    disk.file("etc/inittab", inittab + b"::respawn:/probe.sh\n")
    disk.file("probe.sh", b"#!/bin/sh\npython3 -S /probe.py >/dev/console 2>&1\nsleep 1\n", executable=True)
    disk.file("probe.py", (IN_DOM0 / "probe.py").read_bytes())
    disk.file("traffic.py", (REPOSITORY / "tests/integration/resources/traffic.py").read_bytes())
    with (folder / "guest" / "ramdisk").open("ab") as ramdisk:
        ramdisk.write(disk.archive())
    machine.run(["sh", "-c", "systemctl stop virmo-agent 2>/dev/null; true"])
    machine.put(folder, PLACE)
    machine.run(["truncate", "-s", "1M", f"{PLACE}/guest/disk"])


def measured(machine: Dom0) -> dict[str, Any]:
    """Run the measurements in dom0; what they found."""
    environment = [f"VIRMO_GUEST_DIR={PLACE}/guest", f"PYTHONPATH={PLACE}:{PLACE}/lib", "PYTHONDONTWRITEBYTECODE=1"]
    command = ["env", "-C", PLACE, *environment, "python3", "-m", "tests.nested.in_dom0.measure"]
    result = machine.run(command, timeout=800, check=False)
    assert result.rc == 0, f"{result.stdout}\n{result.stderr[-6000:]}"
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def credit2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dom0]:
    """Xen's default scheduler."""
    with open_dom0("x86_64", scheduler="credit2") as opened:
        put_tests(tmp_path_factory.mktemp("resources"), opened)
        yield opened


def close_to(measured: Sequence[float], shares: Sequence[int]) -> bool:
    """Each within the points."""
    return all(abs(m - s) <= POINTS for m, s in zip(measured, shares, strict=True))


def test_shares_are_what_guests_get(credit2: Dom0) -> None:
    """R-046 to R-053, R-060, HLF-05, HLF-06, VirMO-C-010: two guests at 70/30, a quarter of the network, memory and a
    disk that change while they run, and a disk that root in the guest cannot read when DCMO has taken it away."""
    seen = measured(credit2)
    assert close_to(seen["cpu"]["time"], (70, 30)), seen["cpu"]
    assert seen["cpu"]["online"] == [2, 1]
    for rate in seen["network"]:
        assert rate == pytest.approx(seen["network_share"], rel=WITHIN)
    assert seen["memory_before"] - seen["memory_after"] == pytest.approx(24 * MIB, abs=2 * MIB)
    assert (seen["disk_before"], seen["disk_after"]) == (8 * MIB, 12 * MIB)
    assert seen["online"] == [1, 2]
    assert seen["read_before"] == 0
    assert seen["read_disabled"] != 0
    assert not seen["listed_disabled"]
