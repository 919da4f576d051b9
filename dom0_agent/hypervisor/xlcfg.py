"""Writes xl.cfg(5) files. The only place that does, so that no text can break out of its quotes.

Knows the file's syntax; must not know where a value came from: every string is treated as hostile. In a quoted string
the quote and the backslash are escaped by a backslash. What the syntax cannot carry is refused: control characters and
text beyond ASCII. (xl.cfg's numeric escapes would be the way, but they do not work: Xen 4.17 says of ``\\x41`` that it
is invalid, and reads ``\\101`` as the end of the string.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from uuid import UUID

from dom0_agent.hypervisor.interface import (
    PCI_ADDRESS,
    USB_PORT,
    Disk,
    DomainConfig,
    DomainType,
    HypervisorError,
    Pci,
    Usb,
    Vif,
)

MIB = 1 << 20

#: Linux takes at most 2048 bytes of command line on x86; Xen's ELF note area for it is 4096.
CMDLINE_CAP = 2048

_DISK_PATH = re.compile(r"/[A-Za-z0-9._/+-]+")
_DEVICE = re.compile(r"(xvd|hd|sd)[a-z][0-9]{0,2}")
_FORMATS = frozenset({"raw", "qcow2"})
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")  # IFNAMSIZ
_PCI = re.compile(PCI_ADDRESS)
_USB = re.compile(USB_PORT)
#: A screen that only dom0 itself can look at.
_SCREEN = "vnc=1,vnclisten=127.0.0.1,vncunused=1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: By machine. On Arm this is what it is by default; but then xl mem-set and mem-max fail on an assertion (Xen 4.17).
_MACHINE_SETTINGS = {"aarch64": {"acpi": "0"}}


def render(
    config: DomainConfig, usb_addresses: Mapping[str, tuple[int, int]] | None = None, machine: str = "x86_64"
) -> str:
    """The file for ``xl create`` and ``xl restore``. :class:`HypervisorError` when a value cannot be written safely.

    ``usb_addresses``: port → (bus, device) of what is plugged in; nothing is passed through from the other ports.
    ``machine`` is what Xen runs on, as ``uname -m`` says it.
    """
    if not _NAME.fullmatch(config.name):
        raise _unsafe(config.uuid, "name", config.name)
    settings: dict[str, str] = {
        "name": quote(config.name),
        "uuid": quote(str(config.uuid)),
        "type": quote(config.type.value),
        "memory": str(_mebibytes(config.memory)),
        "maxmem": str(_mebibytes(config.max_memory)),
        "vcpus": str(config.vcpus),
        "maxvcpus": str(config.max_vcpus),
        # The agent owns what happens at a domain's end: xl must neither restart nor remove it on its own.
        "on_poweroff": quote("preserve"),
        "on_reboot": quote("preserve"),
        "on_watchdog": quote("preserve"),
        "on_crash": quote("preserve"),
        "on_soft_reset": quote("preserve"),
        **_MACHINE_SETTINGS.get(machine, {}),
    }
    if config.kernel is not None:
        settings["kernel"] = quote(str(config.kernel))
    if config.ramdisk is not None:
        settings["ramdisk"] = quote(str(config.ramdisk))
    if config.cmdline:
        if len(config.cmdline) > CMDLINE_CAP:
            raise HypervisorError(f"domain {config.name}: its kernel command line is over {CMDLINE_CAP} characters")
        settings["cmdline"] = quote(config.cmdline)
    if config.type is DomainType.HVM:
        screen = {"vga": quote("stdvga"), "vnc": "1", "vnclisten": quote("127.0.0.1"), "vncunused": "1"}
        settings |= {"serial": quote("pty"), **(screen if config.display else {"vga": quote("none"), "vnc": "0"})}
        # Its firmware reads an AHCI disk in large pieces, and an IDE one word by word.
        settings |= {"sdl": "0", "hdtype": quote("ahci")}
    elif config.display:
        settings["vfb"] = _list([_SCREEN])
    if config.disks:
        settings["disk"] = _list(disk_specification(config.uuid, disk) for disk in config.disks)
    if config.vifs:
        settings["vif"] = _list(vif_specification(config.uuid, vif) for vif in config.vifs)
    if config.pci:
        settings["pci"] = _list(pci_specification(config.uuid, device) for device in config.pci)
    elif config.later_pci:  # without it, xl builds a domain that no PCI device can be given to
        settings["passthrough"] = quote("enabled")
    ports = [usb_port(config.uuid, device) for device in config.usb]
    known = usb_addresses or {}
    plugged = [usb_specification(*known[port]) for port in ports if port in known]
    if plugged:
        settings["usbdev"] = _list(plugged)
    return "".join(f"{key} = {value}\n" for key, value in settings.items())


def quote(text: str) -> str:
    """``text`` as a quoted string. :class:`HypervisorError` when it holds a control character or is not ASCII."""
    if not text.isascii() or not text.isprintable():
        raise HypervisorError(f"xl.cfg cannot carry {text[:200]!r}: only printable ASCII")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _list(items: Iterable[str]) -> str:
    return "[" + ", ".join(quote(item) for item in items) + "]"


def disk_specification(domain: UUID, disk: Disk) -> str:
    """A disk as xl.cfg and ``xl block-attach`` take it. :class:`HypervisorError` when it cannot be written safely."""
    if not _DISK_PATH.fullmatch(str(disk.path)):
        raise _unsafe(domain, "disk path", str(disk.path))
    if not _DEVICE.fullmatch(disk.device):
        raise _unsafe(domain, "disk device", disk.device)
    if disk.format not in _FORMATS:
        raise _unsafe(domain, "disk format", disk.format)
    # target comes last: xl takes everything after it as the path
    return f"format={disk.format},vdev={disk.device},access={'r' if disk.read_only else 'w'},target={disk.path}"


def vif_specification(domain: UUID, vif: Vif) -> str:
    """An interface as xl.cfg and ``xl network-attach`` take it, likewise."""
    if not _MAC.fullmatch(vif.mac):
        raise _unsafe(domain, "MAC", vif.mac)
    if not _BRIDGE.fullmatch(vif.bridge):
        raise _unsafe(domain, "bridge", vif.bridge)
    return f"mac={vif.mac},bridge={vif.bridge}"


def pci_specification(domain: UUID, device: Pci) -> str:
    """A PCI device as xl.cfg and ``xl pci-attach`` take it, likewise."""
    if not _PCI.fullmatch(device.address):
        raise _unsafe(domain, "PCI address", device.address)
    return device.address


def usb_port(domain: UUID, device: Usb) -> str:
    """A USB port's name in sysfs, likewise."""
    if not _USB.fullmatch(device.port):
        raise _unsafe(domain, "USB port", device.port)
    return device.port


def usb_specification(bus: int, device: int) -> str:
    """A USB device as xl.cfg takes it: decimal numbers (``xl usb-list`` prints them in hexadecimal)."""
    return f"hostbus={bus},hostaddr={device}"


def _mebibytes(size: int) -> int:
    """xl counts in MiB; round down, so that a domain never gets more than was granted."""
    return size // MIB


def _unsafe(domain: UUID, what: str, value: str) -> HypervisorError:
    return HypervisorError(f"domain {domain}: {what} {value[:200]!r} is not one that may be written to xl.cfg")
