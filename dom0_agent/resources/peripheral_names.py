"""What the devices of a board are called: which interface is the Wi-Fi, which disk the camera's. Configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dom0_agent.config_schema import setting
from dom0_agent.hypervisor.interface import PCI_ADDRESS, USB_PORT, Device, Fixture, Pci, Usb
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused

#: The key of CreateParams that gives devices of the board to a VM: names, with commas between them.
PARAMETER = "Devices"
_DEVICE = re.compile(rf"vif[0-9]{{1,3}}|xvd[a-z]|console|display|usb:{USB_PORT}|pci:{PCI_ADDRESS}")


@dataclass(frozen=True, slots=True)
class PeripheralName:
    """What a device is called on this board, where the plain name says too little."""

    device: str = setting(
        "what every VM has: vif0, vif1…, xvdb, console; what only a VM gets whose CreateParams name it "
        "(Devices=Camera,NFC): usb:3-1.4 (a port, as /sys/bus/usb/devices lists them), pci:0000:03:00.0, display"
    )
    name: str = setting("the capability's name, such as Wi-Fi, Bluetooth, NFC or Camera")
    group: Literal["Hardware", "Input/Output", "Connectivity", "Software", "Service"] = setting("its group", "Hardware")

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise ValueError(
                f"device: {self.device!r} is none of vif0, xvdb, console, display, usb:3-1, pci:0000:03:00.0"
            )
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,32}", self.name):
            raise ValueError(f"name: {self.name!r} must be 1 to 32 letters, digits, dots, dashes or underscores")
        if _DEVICE.fullmatch(self.name) and self.name != self.device:
            raise ValueError(f"name: {self.name!r} is what another device is called that has no name")


def passed_device(key: str) -> Pci | Usb | Fixture | None:
    """The device of the board that a key means; ``None`` for what every VM has."""
    kind, _, place = key.partition(":")
    if kind == "pci":
        return Pci(place)
    if kind == "usb":
        return Usb(place)
    return Fixture("display") if key == "display" else None


def is_exclusive(device: Device) -> bool:
    """Whether only one VM can have it."""
    return isinstance(device, Pci | Usb)


def devices_named(vendor: Mapping[str, str], names: Sequence[PeripheralName]) -> tuple[str, ...]:
    """Keys of the devices that a VM's CreateParams name. :class:`OperationRefused` 404 for a name that is none's."""
    offered = {one.name: one.device for one in names if passed_device(one.device) is not None}
    wanted = [name.strip() for name in vendor.get(PARAMETER, "").split(",") if name.strip()]
    for name in wanted:
        if name not in offered:
            known = ", ".join(sorted(offered)) or "none"
            raise OperationRefused(
                Status.NOT_FOUND,
                f"{PARAMETER}: this board gives VMs no {name[:40]!r}; it has {known} (resources.peripherals)",
            )
    return tuple(dict.fromkeys(offered[name] for name in wanted))
