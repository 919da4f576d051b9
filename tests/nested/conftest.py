"""Tests on real Xen, nested in QEMU. They are never skipped: what is missing on this machine is installed and built.

`dom0` goes on from the state saved after the image's first boot, so that a module's tests start within seconds. It is
one machine per module, not per session: a module that boots its own would otherwise run beside a second QEMU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from image.guest import build_guest
from image.qemu import Dom0, open_dom0

#: The first test on a machine waits for the packages, the image and a cold boot, all perhaps beside other work.
FIRST_TIMEOUT = 1800.0
#: Under emulation a guest needs 10 s to start on an idle machine and a minute on a busy one.
GUEST_TIMEOUT = 240.0
_POLL = 1.0
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives these tests the time a first run needs, unless they name their own."""
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FIRST_TIMEOUT))


@pytest.fixture(scope="module")
def dom0() -> Iterator[Dom0]:
    """A running dom0 with today's agent in it."""
    with open_dom0(say=print) as machine:
        yield machine


def eventually(truth: Callable[[], bool], what: str, timeout: float = GUEST_TIMEOUT) -> None:
    """Waits until it is true, and fails by name when it does not become so."""
    deadline = time.monotonic() + timeout
    while not truth():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(_POLL)


@dataclass(frozen=True, slots=True)
class Guest:
    """A domain made of the sample guest with `xl` alone, without the agent."""

    dom0: Dom0
    name: str

    def state(self) -> str:
        """The letters of `xl list`: r, b, p, s…; empty when there is no such domain."""
        listed = self.dom0.run(["xl", "list", self.name], check=False, timeout=120)
        return listed.stdout.splitlines()[1].split()[4].replace("-", "") if listed.rc == 0 else ""

    def store(self, path: str) -> str | None:
        """What the domain's XenStore folder holds at `path`."""
        domid = self.dom0.run(["xl", "domid", self.name], timeout=120).stdout.strip()
        read = self.dom0.run(["xenstore-read", f"/local/domain/{domid}/{path}"], check=False)
        return read.stdout.strip() if read.rc == 0 else None

    def destroy(self) -> None:
        """Ends the domain, if it is there."""
        self.dom0.run(["xl", "destroy", self.name], check=False, timeout=120)


@pytest.fixture
def start_guest(dom0: Dom0) -> Iterator[Callable[[str], Guest]]:
    """Starts the sample guest as PV or PVH and waits until its shim has said hello."""
    started: list[Guest] = []

    def start(guest_type: str) -> Guest:
        guest = Guest(dom0, f"sample-{guest_type}")
        folder = f"/root/{guest.name}"
        bundle = build_guest(guest_type=guest_type, say=print)
        dom0.run(["mkdir", "-p", folder])
        dom0.put(bundle, f"{folder}.tar.zst")
        dom0.run(["tar", "--zstd", "-x", "-C", folder, "-f", f"{folder}.tar.zst"], timeout=GUEST_TIMEOUT)
        about = yaml.safe_load(dom0.read(f"{folder}/vm.yaml"))
        config = {
            "name": guest.name,
            "type": about["type"],
            "kernel": f"{folder}/{about['kernel']['file']}",
            "ramdisk": f"{folder}/{about['ramdisk']['file']}",
            "extra": about["cmdline"],
        }
        lines = [f'{name} = "{value}"' for name, value in config.items()]
        lines += [f"memory = {about['memory'] >> 20}", f"vcpus = {about['vcpus']}", 'vif = ["bridge=xenbr0"]']
        dom0.write(f"{folder}.cfg", "\n".join(lines) + "\n")
        started.append(guest)
        dom0.run(["xl", "create", "-e", f"{folder}.cfg"], timeout=GUEST_TIMEOUT)
        eventually(lambda: guest.store("data/virmo/hello") is not None, f"{guest.name}: the shim's hello")
        return guest

    yield start
    for guest in started:
        guest.destroy()
