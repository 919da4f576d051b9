"""Shares real Xen out: schedulers through libxenctrl or ``xl``, vCPUs and memory through XenStore and ``xl``, disks
through their loop devices, devices through ``xl``.

The raw calls of :class:`~dom0_agent.hypervisor.readback_resources.RawResources`: none checks its own success.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dom0_agent.hypervisor import xlcfg
from dom0_agent.hypervisor.interface import Device, Disk, DomainInfo, HypervisorError, NotCapable, Pci, Usb, Vif
from dom0_agent.hypervisor.resources import MemoryLimits, Scheduling
from dom0_agent.hypervisor.tool import ToolResult
from dom0_agent.hypervisor.xenstore import XenStoreError
from dom0_agent.hypervisor.xl_devices import DEVICE, XlDevices, present

KIB, MIB = 1 << 10, 1 << 20
SECTOR = 512  #: what XenStore and sysfs count disks in
#: Seconds for calls that flip a switch.
SHORT = 60.0
NETWORK_DEVICES = Path("/sys/class/net")
BLOCK_DEVICES = Path("/sys/block")

#: Schedulers with weights and caps, and the ``xl`` commands for them.
COMMANDS = {"credit": "sched-credit", "credit2": "sched-credit2"}
# the last line of `xl sched-credit -d N`: name, domid, weight, cap
_SCHEDULING = re.compile(r".*\s(?P<domid>\d{1,5})\s+(?P<weight>\d{1,5})\s+(?P<cap>\d{1,6})\s*")


class Store(Protocol):
    """What is used of XenStore."""

    def read(self, path: str) -> bytes | None: ...
    def list(self, path: str) -> tuple[str, ...]: ...
    def write(self, path: str, value: bytes) -> None: ...


class Scheduler(Protocol):
    """The direct way to a scheduler, where there is one."""

    def scheduling(self, scheduler: str, domid: int) -> tuple[int, int]: ...
    def set_scheduling(self, scheduler: str, domid: int, weight: int, cap: int) -> None: ...


#: Runs a tool: ``(argv, deadline in seconds, what is being done) → its output``; a complaint is an error.
Run = Callable[[Sequence[str], float, str], ToolResult]


class XlResources:
    """The raw calls over one dom0. ``direct`` gives the direct way to the scheduler once it is open."""

    def __init__(
        self, store: Store, run: Run, scheduler: Callable[[], str], direct: Callable[[], Scheduler | None]
    ) -> None:
        self._store = store
        self._run = run
        self._scheduler = scheduler
        self._direct = direct
        self._devices = XlDevices(run, self._list, lambda path: self._read(path) is not None)

    # -- processors -------------------------------------------------------------------------------------------------

    def scheduling(self, domid: int) -> Scheduling:
        """Weight and cap under the scheduler that the domain is really under (cpupools can have their own)."""
        return self._of_scheduler(domid)[1]

    def set_scheduling(self, domid: int, scheduling: Scheduling) -> None:
        """Set both at once."""
        name, _ = self._of_scheduler(domid)
        direct = self._direct()
        if direct is not None:
            direct.set_scheduling(name, domid, scheduling.weight, scheduling.cap)
            return
        argv = ["xl", COMMANDS[name], "-d", str(domid), "-w", str(scheduling.weight), "-c", str(scheduling.cap)]
        self._run(argv, SHORT, f"scheduling of domain {domid}")

    def _of_scheduler(self, domid: int) -> tuple[str, Scheduling]:
        """The scheduler of a domain is the one that knows it; most often that is the machine's."""
        first = self._scheduler()
        names = sorted(COMMANDS, key=lambda name: name != first)
        errors = []
        for name in names:
            try:
                return name, self._ask(name, domid)
            except HypervisorError as error:
                errors.append(str(error))
        if first not in COMMANDS:
            raise NotCapable(f"scheduler {first} has no weights and caps: boot Xen with sched=credit2 or sched=credit")
        raise HypervisorError("; ".join(errors))

    def _ask(self, name: str, domid: int) -> Scheduling:
        direct = self._direct()
        if direct is not None:
            return Scheduling(*direct.scheduling(name, domid))
        call = f"scheduling of domain {domid}"
        output = self._run(["xl", COMMANDS[name], "-d", str(domid)], SHORT, call).untrusted_stdout.splitlines()
        match = _SCHEDULING.fullmatch(output[-1]) if output else None
        if match is None or int(match["domid"]) != domid:
            raise HypervisorError(f"xl {COMMANDS[name]} said of domain {domid} what cannot be understood: {output!r}")
        return Scheduling(int(match["weight"]), int(match["cap"]))

    def vcpus(self, domain: DomainInfo) -> tuple[int, int]:
        """From ``cpu/N/availability``, which is dom0's word and not the guest's."""
        base = self._home(domain, "cpu")
        known = self._known(base)
        online = [number for number in known if self._read(f"{base}/{number}/availability") == b"online"]
        return len(online), len(known)

    def set_vcpus(self, domain: DomainInfo, count: int) -> None:
        """As ``xl vcpu-set`` does for guests without a device model; those are told by it."""
        if self._list(f"/local/domain/0/device-model/{domain.domid}"):
            argv = ["xl", "vcpu-set", str(domain.domid), str(count)]
            self._run(argv, SHORT, f"vcpus of domain {domain.uuid}")
            return
        base = self._home(domain, "cpu")
        for number in self._known(base):
            self._write(f"{base}/{number}/availability", b"online" if int(number) < count else b"offline")

    # -- memory -----------------------------------------------------------------------------------------------------

    def memory(self, domain: DomainInfo) -> MemoryLimits:
        """``memory/target`` and ``memory/static-max``, in KiB, both written by dom0 alone."""
        base = self._home(domain, "memory")
        return MemoryLimits(self._number(f"{base}/target") * KIB, self._number(f"{base}/static-max") * KIB)

    def set_memory_target(self, domain: DomainInfo, size: int) -> None:
        """``xl mem-set``."""
        self._run(["xl", "mem-set", str(domain.domid), f"{size // MIB}m"], SHORT, f"memory of domain {domain.uuid}")

    def set_memory_maximum(self, domain: DomainInfo, size: int) -> None:
        """``xl mem-max``."""
        self._run(["xl", "mem-max", str(domain.domid), f"{size // MIB}m"], SHORT, f"memory of domain {domain.uuid}")

    # -- disks and devices ------------------------------------------------------------------------------------------

    def disk_size(self, domain: DomainInfo, device: str) -> int:
        """The size of the loop device that the guest's disk is."""
        loop = self._loop(domain, device)
        try:
            return int((BLOCK_DEVICES / loop.name / "size").read_text(encoding="ascii")) * SECTOR
        except (OSError, ValueError) as error:
            raise HypervisorError(f"disk {device} of domain {domain.uuid}: the size of {loop} is unknown") from error

    def resize_disk(self, domain: DomainInfo, device: str) -> None:
        """``losetup -c``: the loop device takes its file's size, and the backend tells the guest."""
        call = f"resize of disk {device} of domain {domain.uuid}"
        self._run(["losetup", "-c", str(self._loop(domain, device))], SHORT, call)

    def attached(self, domain: DomainInfo) -> frozenset[str]:
        """What dom0's backends have for the domain."""
        disks = {self._text(f"{path}/dev") for path in self._backends(domain, "vbd")}
        macs = {self._text(f"{path}/mac").lower() for path in self._backends(domain, "vif")}
        return frozenset((disks | macs | self._devices.attached(domain)) - {""})

    def present(self, device: Device) -> bool:
        """Disks and interfaces always are."""
        return present(device)

    def attach(self, domain: DomainInfo, device: Device) -> None:
        """``xl block-attach`` or ``xl network-attach``; devices of the machine: see :class:`XlDevices`."""
        call = f"attach to domain {domain.uuid}"
        if isinstance(device, Pci | Usb):
            self._devices.attach(domain, device)
            return
        if isinstance(device, Disk):
            specification = xlcfg.disk_specification(domain.uuid, device)
            self._run(["xl", "block-attach", str(domain.domid), specification], DEVICE, call)
            return
        assert isinstance(device, Vif), "a fixture is refused before it comes here"
        specification = xlcfg.vif_specification(domain.uuid, device)
        self._run(["xl", "network-attach", str(domain.domid), *specification.split(",")], DEVICE, call)

    def detach(self, domain: DomainInfo, device: Device, *, force: bool) -> None:
        """``xl block-detach`` or ``xl network-detach``, which has no force of its own."""
        call = f"detach from domain {domain.uuid}"
        if isinstance(device, Pci | Usb):
            self._devices.detach(domain, device, force=force)
            return
        if isinstance(device, Disk):
            options = ["--force"] if force else []
            self._run(["xl", "block-detach", *options, str(domain.domid), device.device], DEVICE, call)
            return
        assert isinstance(device, Vif), "a fixture is refused before it comes here"
        self._run(["xl", "network-detach", str(domain.domid), device.mac], DEVICE, call)

    def interfaces(self, domain: DomainInfo) -> tuple[str, ...]:
        """The backends' interfaces, and the emulated ones beside them (HVM)."""
        names = [f"vif{domain.domid}.{path.rpartition('/')[2]}" for path in self._backends(domain, "vif")]
        candidates = [name + suffix for name in names for suffix in ("", "-emu")]
        return tuple(name for name in candidates if (NETWORK_DEVICES / name).exists())

    def _loop(self, domain: DomainInfo, device: str) -> Path:
        for path in self._backends(domain, "vbd"):
            if self._text(f"{path}/dev") == device:
                node = self._text(f"{path}/node")
                if re.fullmatch(r"/dev/loop\d{1,6}", node):
                    return Path(node)
                raise HypervisorError(
                    f"disk {device} of domain {domain.uuid} is on {node or 'no device of dom0'}, not on a loop device: "
                    "it cannot be resized while the VM runs"
                )
        raise HypervisorError(f"domain {domain.uuid} has no disk {device}")

    # -- XenStore ---------------------------------------------------------------------------------------------------

    def _backends(self, domain: DomainInfo, kind: str) -> tuple[str, ...]:
        base = f"/local/domain/0/backend/{kind}/{domain.domid}"
        return tuple(f"{base}/{number}" for number in self._list(base))

    def _known(self, base: str) -> tuple[str, ...]:
        return tuple(name for name in self._list(base) if name.isdigit())

    @staticmethod
    def _home(domain: DomainInfo, folder: str) -> str:
        return f"/local/domain/{domain.domid}/{folder}"

    def _number(self, path: str) -> int:
        value = self._read(path)
        if value is None or not value.isdigit():
            raise HypervisorError(f"XenStore has no number at {path}")
        return int(value)

    def _text(self, path: str) -> str:
        return (self._read(path) or b"").decode("ascii", "replace")

    def _read(self, path: str) -> bytes | None:
        try:
            return self._store.read(path)
        except XenStoreError as error:
            raise HypervisorError(f"XenStore does not tell {path}: {error}") from error

    def _list(self, path: str) -> tuple[str, ...]:
        try:
            return self._store.list(path)
        except XenStoreError as error:
            raise HypervisorError(f"XenStore does not list {path}: {error}") from error

    def _write(self, path: str, value: bytes) -> None:
        try:
            self._store.write(path, value)
        except XenStoreError as error:
            raise HypervisorError(f"XenStore does not take {path}: {error}") from error
