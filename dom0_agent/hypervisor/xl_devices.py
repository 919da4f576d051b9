"""Devices of the machine that are passed through to domains, by ``xl``'s pci and usb commands, and displays.

A USB device has a new number each time it is plugged in, so it is known by its port. What ``xl`` prints is foreign:
a line that cannot be understood is reported and left out. Knows domains and sysfs; must not know VMs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dom0_agent.hypervisor import xlcfg
from dom0_agent.hypervisor.interface import Device, DomainInfo, HypervisorError, Pci, Usb
from dom0_agent.hypervisor.resources import device_name
from dom0_agent.hypervisor.tool import ToolResult

logger = logging.getLogger(__name__)

#: Seconds for a guest to take a device or to let go of it.
DEVICE = 40.0
#: Seconds for a list.
SHORT = 60.0
#: PCI devices that can be assigned to domains are bound to this driver, also while they are assigned.
ASSIGNABLE = Path("/sys/bus/pci/drivers/pciback")
USB_DEVICES = Path("/sys/bus/usb/devices")

# "00.0 0000:03:00.0": the function as the guest sees it, and as dom0 does
_PCI_LINE = re.compile(r"[0-9a-f]{2}\.[0-7] (?P<address>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\s*")
# "0      pv           0   4     2       8": controller, type, backend, state, USB version, ports
_CONTROLLER_LINE = re.compile(r"(?P<controller>\d{1,5})\s+[a-z]+(\s+-?\d+){4}\s*")
# "  Port 1: Bus 003 Device 00a", in hexadecimal; a port with nothing in it ends after the colon
_PORT_LINE = re.compile(r"  Port (?P<port>\d{1,5}):( Bus (?P<bus>[0-9a-f]{3,4}) Device (?P<device>[0-9a-f]{3,4}))?\s*")


@dataclass(frozen=True, slots=True)
class GuestPort:
    """A port of a domain's virtual USB controller with a device of the machine in it."""

    controller: int
    port: int
    bus: int
    device: int


class XlDevices:
    """The raw calls. ``run`` runs a tool; ``children`` and ``exists`` look at XenStore."""

    def __init__(
        self,
        run: Callable[[Sequence[str], float, str], ToolResult],
        children: Callable[[str], Sequence[str]],
        exists: Callable[[str], bool],
    ) -> None:
        self._run = run
        self._children = children
        self._exists = exists

    def attached(self, domain: DomainInfo) -> set[str]:
        """What of the machine the domain has. Only a domain that has some costs calls of ``xl``."""
        kinds = self._children(f"/libxl/{domain.domid}/device")
        found = set()
        if "pci" in kinds:
            output = self._list("pci-list", domain)
            found |= {device_name(Pci(address)) for address in parse_pci_list(output)}
        if "vusb" in kinds:
            ports = {numbers: port for port, numbers in usb_addresses().items()}
            taken = [(one.bus, one.device) for one in parse_usb_list(self._list("usb-list", domain))]
            found |= {device_name(Usb(ports[numbers])) for numbers in taken if numbers in ports}
        if "vfb" in kinds or self._exists(f"/local/domain/{domain.domid}/console/vnc-port"):
            found.add("display")
        return found

    def attach(self, domain: DomainInfo, device: Pci | Usb) -> None:
        """``xl pci-attach`` or ``xl usbdev-attach``, which makes a controller where there is none."""
        domid, call = str(domain.domid), f"attach to domain {domain.uuid}"
        if isinstance(device, Pci):
            self._run(["xl", "pci-attach", domid, xlcfg.pci_specification(domain.uuid, device)], DEVICE, call)
            return
        numbers = usb_addresses().get(xlcfg.usb_port(domain.uuid, device))
        if numbers is None:
            raise HypervisorError(f"{call}: nothing is plugged in at USB port {device.port}")
        self._run(["xl", "usbdev-attach", domid, *xlcfg.usb_specification(*numbers).split(",")], DEVICE, call)

    def detach(self, domain: DomainInfo, device: Pci | Usb, *, force: bool) -> None:
        """``xl pci-detach``, or ``xl usbdev-detach``, which asks nobody and so has no force."""
        domid, call = str(domain.domid), f"detach from domain {domain.uuid}"
        if isinstance(device, Pci):
            options = ["-f"] if force else []
            self._run(["xl", "pci-detach", *options, domid, device.address], DEVICE, call)
            return
        numbers = usb_addresses().get(device.port)
        for one in parse_usb_list(self._list("usb-list", domain)):
            if (one.bus, one.device) == numbers:
                self._run(["xl", "usbdev-detach", domid, str(one.controller), str(one.port)], DEVICE, call)

    def _list(self, command: str, domain: DomainInfo) -> str:
        return self._run(["xl", command, str(domain.domid)], SHORT, f"devices of domain {domain.uuid}").untrusted_stdout


def present(device: Device) -> bool:
    """Whether dom0 has a device to give; what is no device of the machine always is."""
    if isinstance(device, Pci):
        return (ASSIGNABLE / device.address).exists()
    return not isinstance(device, Usb) or device.port in usb_addresses()


def usb_addresses() -> dict[str, tuple[int, int]]:
    """USB port → (bus, device) of what is plugged in there now."""
    found = {}
    for directory in sorted(USB_DEVICES.iterdir()) if USB_DEVICES.is_dir() else []:
        try:
            numbers = [int((directory / name).read_text(encoding="ascii")) for name in ("busnum", "devnum")]
        except (OSError, ValueError):  # an interface of a device, or one that was pulled out this moment
            continue
        found[directory.name] = (numbers[0], numbers[1])
    return found


def parse_pci_list(untrusted_output: str) -> tuple[str, ...]:
    """Addresses in what ``xl pci-list`` prints; nothing at all for a domain without."""
    found = []
    for line in untrusted_output.splitlines()[1:]:  # the first holds the headings
        match = _PCI_LINE.fullmatch(line)
        if match is None:
            logger.warning("xl_pci_list_line_not_understood line=%r", line[:200])
            continue
        found.append(match["address"])
    return tuple(found)


def parse_usb_list(untrusted_output: str) -> tuple[GuestPort, ...]:
    """Ports in use in what ``xl usb-list`` prints: a heading, a line and its ports for each controller."""
    found = []
    controller: int | None = None
    for line in untrusted_output.splitlines():
        own, port = _CONTROLLER_LINE.fullmatch(line), _PORT_LINE.fullmatch(line)
        if own is not None:
            controller = int(own["controller"])
        elif port is not None and controller is not None:
            if port["bus"] is not None:
                numbers = int(port["bus"], 16), int(port["device"], 16)
                found.append(GuestPort(controller, int(port["port"]), *numbers))
        elif not line.startswith("Devid "):
            logger.warning("xl_usb_list_line_not_understood line=%r", line[:200])
    return tuple(found)
