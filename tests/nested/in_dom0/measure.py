"""Runs in dom0: VMs with shares, made by the agent's own engine, and what their guests measure of them.

Prints a line of JSON. The guest of ``VIRMO_GUEST_DIR`` has ``probe.py`` in it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from dom0_agent.resources.apply import Wish
from dom0_agent.resources.config import NetworkConfig, ResourcesConfig
from dom0_agent.resources.peripherals import Peripherals
from dom0_agent.store.database import Database
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Allocation, Primitive
from tests.contract.support import MIB, Rig, XlBackend, eventually
from tests.integration.resources.shaping_testing import measure

BRIDGE = "xenbr0"
PORT = 7777
PATIENCE = 240.0
BANDWIDTH = 8_000_000  #: bits a second: what an emulated machine moves with ease
WINDOW = 15.0  #: seconds of burning


class Guest:
    """A VM with a probe in it."""

    def __init__(self, rig: Rig, number: int, allocation: Allocation) -> None:
        self.rig = rig
        self.number = number
        image = rig.backend.image
        img_id = f"img-{number}"
        cmdline = f"{image.cmdline} probe={number}"
        rig.images.images[img_id] = replace(image, img_id=img_id, cmdline=cmdline, memory=allocation.ram, disks=())
        self.vmid = rig.engine.add()
        apply(rig, {self.vmid: allocation})
        result = rig.engine.submit(self.vmid, Primitive.CREATE, img_id=img_id).wait(PATIENCE)
        assert result is not None
        assert result.ok, result.message

    def up(self) -> Guest:
        """Wait for its probe."""
        eventually(self._answers, PATIENCE, f"the probe of guest {self.number}")
        return self

    def ask(self, line: str, deadline: float = 120.0) -> str:
        """What the probe answers."""
        with socket.create_connection((f"10.77.0.{self.number}", PORT), timeout=deadline) as connection:
            connection.sendall(line.encode() + b"\n")
            with connection.makefile() as answer:
                return answer.read()

    def sh(self, line: str) -> tuple[int, str]:
        """A line of shell in the guest: exit status and output."""
        status, _, output = self.ask(line).partition("\n")
        return int(status), output

    def _answers(self) -> bool:
        try:
            return self.ask("echo", 5.0).startswith("0")
        except OSError:
            return False


def apply(rig: Rig, wanted: dict[UUID, Allocation]) -> None:
    """An ApplyChanges that must work."""
    told = len(rig.applied)
    result = rig.apply.submit(Wish(wanted, {}), None).wait(PATIENCE)
    assert result is not None
    assert result.ok, result.message
    eventually(lambda: len(rig.applied) > told, 10, "the end is told")
    rig.apply.reported(rig.applied[-1])


def allocation(cpu: int = 0, network: int = 0, storage: int = 0, ram: int = 160 * MIB, **vendor: str) -> Allocation:
    """What a guest is to have."""
    return Allocation(ram, storage, cpu, network, tuple(vendor.items()))


@contextmanager
def machine(*allocations: Allocation) -> Iterator[tuple[Rig, list[Guest]]]:
    """An engine with guests that run; all is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="measure-", dir="/root") as folder:
        root = Path(folder)
        backend = XlBackend(root)
        config = VmConfig(shutdown_wait=1.0, storage_reserve=0, sweep_interval=600.0, bridge=BRIDGE)
        resources = ResourcesConfig(network=NetworkConfig(bandwidth=BANDWIDTH))
        rig = Rig(backend, backend.hypervisor, Database(root / "agent.db"), config, root, resources)
        subprocess.run(["ip", "addr", "add", "10.77.0.1/24", "dev", BRIDGE], check=False, capture_output=True)
        subprocess.run(["ip", "addr", "add", "fd77::1/64", "dev", BRIDGE, "nodad"], check=False, capture_output=True)
        rig.engine.start()
        guests: list[Guest] = []
        try:
            for number, wanted in enumerate(
                allocations, start=2
            ):  # one after the other: xl's hotplug scripts have 10 s
                guests.append(Guest(rig, number, wanted))
                guests[-1].up()
            yield rig, guests
        finally:
            for guest in guests:
                rig.do(guest.vmid, Primitive.DELETE)
            left = rig.sharing.shaper.owned()
            rig.stop()
            backend.close()
            assert not left, f"ifb devices are left of {left}"


def burned(rig: Rig, guests: list[Guest], seconds: float = WINDOW) -> dict[str, Any]:
    """All burn on all CPUs at once: each guest's part of the work by its own count, and its CPUs by Xen's."""
    work = [0] * len(guests)

    def ask(index: int, guest: Guest) -> None:
        _, cpus = guest.sh("nproc")
        work[index] = int(guest.ask(f"burn {seconds + 4} {cpus.strip()}", seconds + 300))

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(guests)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    before, began = seconds_of(rig, guests), time.monotonic()
    time.sleep(seconds)
    after, ended = seconds_of(rig, guests), time.monotonic()
    for thread in threads:
        thread.join()
    used = [(b - a) / (ended - began) * 100 for a, b in zip(before, after, strict=True)]
    return {
        "work": [round(100 * w / sum(work), 1) for w in work],
        "time": [round(100 * u / sum(used), 1) for u in used],
        "cpus": [round(u, 1) for u in used],
        "online": [rig.hypervisor.resources.vcpus(guest.vmid)[0] for guest in guests],
    }


def seconds_of(rig: Rig, guests: list[Guest]) -> list[float]:
    """Each guest's CPU seconds so far."""
    found = {domain.uuid: domain.cpu_seconds for domain in rig.hypervisor.domains()}
    return [found[guest.vmid] for guest in guests]


def traffic(guest: Guest, kind: str, seconds: float = 6.0) -> list[float]:
    """[down, up] in bits a second."""
    v6, options = kind.endswith("6"), (kind.removesuffix("6"), "rate=5e6")
    mine, theirs = ("fd77::1", f"fd77::{guest.number}") if v6 else ("10.77.0.1", f"10.77.0.{guest.number}")
    words = " ".join(options)
    receiver = Remote(guest, f"python3 -S /traffic.py receive {theirs} {seconds} {words}")
    time.sleep(3)
    sender = subprocess.Popen([sys.executable, str(TRAFFIC), "send", theirs, str(seconds + 1), *options])
    down = float(receiver.result().split()[-1])
    sender.wait()
    remote = Remote(guest, f"sleep 2; python3 -S /traffic.py send {mine} {seconds + 1} {words}")
    up = measure([], [], mine, seconds, options, send=lambda: remote)
    return [round(down), round(up)]


TRAFFIC = Path(__file__).parent.parent.parent / "integration" / "resources" / "traffic.py"


class Remote:
    """A line of shell that runs in the guest meanwhile."""

    def __init__(self, guest: Guest, line: str) -> None:
        self._output = ""
        self._thread = threading.Thread(target=self._run, args=(guest, line))
        self._thread.start()

    def _run(self, guest: Guest, line: str) -> None:
        self._output = guest.sh(line)[1]

    def result(self) -> str:
        """What it printed."""
        self._thread.join()
        return self._output

    def kill(self) -> None:
        """It ends by itself."""

    def wait(self) -> None:
        """Until it has ended."""
        self._thread.join()


def story() -> dict[str, Any]:
    """Two guests: shares of CPU, a network share, memory and disk by ApplyChanges, and a disk taken away."""
    first, second = allocation(70, 25, 8 * MIB), allocation(30, 0, 0)
    with machine(first, second) as (rig, guests):
        one = guests[0]
        seen: dict[str, Any] = {"cpu": burned(rig, guests), "network": traffic(one, "udp")}
        seen["network_share"] = BANDWIDTH // 4
        seen["memory_before"], seen["disk_before"] = memory(one), disk(one)
        rig_change = replace(first, ram=first.ram - 24 * MIB, storage=12 * MIB, cpu=30)
        apply(rig, {one.vmid: rig_change, guests[1].vmid: replace(second, cpu=70)})
        eventually(lambda: disk(one) == 12 * MIB, 30, "the guest sees its disk's size")
        seen["memory_after"], seen["disk_after"] = memory(one), disk(one)
        seen["online"] = [rig.hypervisor.resources.vcpus(guest.vmid)[0] for guest in guests]
        eventually(lambda: guests[1].sh("nproc")[1].strip() == "2", 60, "the guest has a second CPU")
        peripherals = Peripherals(VmTable(rig.database), rig.hypervisor, BRIDGE, (), rig.engine.holds)
        # a node of its own: root in the guest needs no help of the kernel's to have one
        read = "rm -f /tmp/d; mknod /tmp/d b 202 16 && python3 -S -c \"open('/tmp/d', 'rb').read(4096)\""
        seen["read_before"] = one.sh(read)[0]
        peripherals.switch(one.vmid, "xvdb", enabled=False)
        seen["read_disabled"], seen["listed_disabled"] = one.sh(read)[0], "xvdb" in one.sh("cat /proc/partitions")[1]
        peripherals.switch(one.vmid, "xvdb", enabled=True)
        eventually(lambda: one.sh(read)[0] == 0, 60, "the disk can be read again")
        return seen


def memory(guest: Guest) -> int:
    """Bytes that the guest's kernel has."""
    return int(guest.sh("grep MemTotal /proc/meminfo")[1].split()[1]) * 1024


def disk(guest: Guest) -> int:
    """Bytes of the data disk, as the guest sees it."""
    status, sectors = guest.sh("cat /sys/block/xvdb/size")
    return int(sectors) * 512 if status == 0 else 0


if __name__ == "__main__":
    print(json.dumps(story()), flush=True)
