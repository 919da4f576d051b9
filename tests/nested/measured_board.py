"""A nested board whose VMs are measured from inside: an :class:`AgentBoard` with ``dom0/measure.py`` and subjects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.story.steps import DEVICE
from tests.nested.agent_board import PROGRAMS, AgentBoard
from tests.nested.conftest import eventually
from tests.nested.subject import build_subject, unpack_iperf

MIB = 1 << 20
BANDWIDTH = 10_000_000  #: bits a second that the device is said to have: an emulated machine moves them with ease
STORAGE = 8 * MIB
SWEEP = 15.0
BRIDGE = "xenbr0"
SECOND_MAC = "00:16:3e:77:2a:5b"
REDIRECTS = """
for interface in /sys/class/net/vif"$1".*; do
    for hook in ingress egress; do tc filter show dev "${interface##*/}" "$hook" 2>/dev/null; done
done
"""
CONFIG: dict[str, dict[str, Any]] = {
    "vm": {"bridge": BRIDGE, "default_storage": STORAGE, "default_cpu": 30, "sweep_interval": SWEEP},
    "resources": {"network": {"bandwidth": BANDWIDTH}},
}
#: Beyond what is measured: boots of Python and answers of guests under emulation, on a machine with other work.
PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Burned:
    """What VMs got while all burned, in the order asked for. Percent."""

    work: tuple[float, ...]  #: of all their work, counted in the guests
    time: tuple[float, ...]  #: of all their processor time, by Xen
    cpus: tuple[float, ...]  #: of one physical CPU, by Xen
    ran: tuple[float, ...]  #: of one physical CPU, by the guests' kernels
    rounds: tuple[float, ...]  #: work a second
    online: tuple[int, ...]  #: CPUs in the guest
    dom0: float  #: of one physical CPU
    idle: tuple[float, ...]  #: seconds of each ``virmoctl status`` before they burned
    status: tuple[float, ...]  #: and meanwhile
    python: tuple[float, ...]  #: seconds that Python alone took to start and end, beside each of these


class MeasuredBoard(AgentBoard):
    """``image(n)`` asks for n vCPUs."""

    def __init__(self, folder: Path, scheduler: str, vcpus: Sequence[int]) -> None:
        iperf = unpack_iperf(folder / "iperf")
        bundles = {count: build_subject(folder, image(count), iperf, count) for count in vcpus}
        self.scheduler = scheduler
        super().__init__(bundles[vcpus[0]], folder, CONFIG, scheduler)
        self.dom0.put(folder / "iperf", f"{PROGRAMS}/iperf")
        self._measure("prepare")
        for count, bundle in bundles.items():
            self.deliver(image(count), bundle)

    def share(self, shares: Mapping[str, str]) -> None:
        """One ApplyChanges: ``share({"guest-1": "cpu:70"})``."""
        self.order("resources", "apply", DEVICE, *(f"{name}={what}" for name, what in shares.items()))

    def plug(self, name: str) -> None:
        """A second interface, by hand, and the agent has seen it."""
        before = self._interfaces(name)
        self.dom0.run(["xl", "network-attach", self.domain_name(name), f"bridge={BRIDGE}", f"mac={SECOND_MAC}"])
        eventually(lambda: self._interfaces(name) > before, f"{name} has a second interface that is limited", 60)

    def _interfaces(self, name: str) -> int:
        """How many of the domain's interfaces are redirected to the VM's budget, both ways."""
        (domid,) = self.dom0.run(["xl", "domid", self.domain_name(name)]).stdout.split()
        shown = self.dom0.run(["sh", "-c", REDIRECTS, "redirects", domid]).stdout
        return shown.count("mirred") // 2

    def burn(self, seconds: float, *names: str) -> Burned:
        """All of these VMs burn on all their CPUs at once."""
        told = self._json("cpu", seconds, *map(self.vmid, names), timeout=seconds + PATIENCE)
        dom0 = float(told.pop("dom0"))
        return Burned(dom0=dom0, **{key: tuple(values) for key, values in told.items()})

    def traffic(self, name: str, seconds: int, rate: int, kinds: Sequence[str]) -> Mapping[str, list[float]]:
        """Bits a second of each kind (see ``dom0/measure.py``), for each interface; UDP is sent at ``rate``."""
        timeout = PATIENCE + len(kinds) * (seconds + 30)
        told: dict[str, list[float]] = self._json("network", self.vmid(name), seconds, rate, *kinds, timeout=timeout)
        return told

    def sh(self, name: str, line: str) -> tuple[int, str]:
        """A line of shell in a guest, as root: exit status and output."""
        told = self._json("sh", self.vmid(name), line)
        return told["status"], told["output"]

    def await_answer(self, name: str) -> None:
        """Its answerer is up."""
        argv = self._argv("sh", self.vmid(name), "true")
        eventually(lambda: self.dom0.run(argv, check=False, timeout=PATIENCE).rc == 0, f"{name} answers")

    def memory(self, name: str) -> int:
        """Bytes that the guest's kernel says it has."""
        return int(self.sh(name, "grep MemTotal /proc/meminfo")[1].split()[1]) * 1024

    def disk(self, name: str) -> int:
        """Bytes of the data disk, as the guest sees it."""
        status, sectors = self.sh(name, "cat /sys/block/xvdb/size")
        return int(sectors) * 512 if status == 0 else 0

    def _json(self, *words: object, timeout: float = PATIENCE) -> Any:
        return json.loads(self.dom0.run(self._argv(*words), timeout=timeout).stdout)

    def _measure(self, *words: object) -> None:
        self.dom0.run(self._argv(*words))

    @staticmethod
    def _argv(*words: object) -> list[str]:
        return ["python3", f"{PROGRAMS}/measure.py", *map(str, words)]


def image(vcpus: int) -> str:
    """What the image for so many vCPUs is called."""
    return f"subject-{vcpus}"
