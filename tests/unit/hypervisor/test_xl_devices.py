"""What xl's pci and usb commands are asked, and what is made of what they print (as xl 4.17 to 4.20 print it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0_agent.hypervisor import xl_devices
from dom0_agent.hypervisor.interface import Fixture, HypervisorError, Pci, Usb
from dom0_agent.hypervisor.xl_devices import GuestPort, parse_pci_list, parse_usb_list
from dom0_agent.hypervisor.xl_resources import XlResources
from tests.unit.hypervisor.test_xl_resources import DOMAIN, Store, Tools

PCI_LIST = "Vdev Device\n00.0 0000:03:00.0\n01.0 0000:04:1f.7\n"
#: two controllers, as main_usblist of xl_usb.c formats them; bus and device in hexadecimal
USB_LIST = (
    "Devid  Type         BE  state usb-ver ports\n"
    "0      pv           0   4     2       4    \n"
    "  Port 1:\n"
    "  Port 2: Bus 003 Device 01a\n"
    "  Port 3:\n"
    "  Port 4:\n"
    "Devid  Type         BE  state usb-ver ports\n"
    "1      devicemodel  0   -1    3       2    \n"
    "  Port 1: Bus 001 Device 002\n"
    "  Port 2:\n"
)
STICK, CAMERA = Usb("3-1.4"), Pci("0000:03:00.0")


@pytest.fixture
def tools() -> Tools:
    tools = Tools()
    tools.answers |= {"pci-list": PCI_LIST, "usb-list": USB_LIST}
    return tools


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def resources(store: Store, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> XlResources:
    """A dom0 with a device in one USB port, whose number is 26, and a PCI device that can be assigned."""
    monkeypatch.setattr(xl_devices, "USB_DEVICES", tmp_path / "usb")
    monkeypatch.setattr(xl_devices, "ASSIGNABLE", tmp_path / "pciback")
    plug(tmp_path, "3-1.4", 3, 26)
    (tmp_path / "usb" / "3-1.4:1.0").mkdir()  # an interface has no numbers
    (tmp_path / "pciback" / "0000:03:00.0").mkdir(parents=True)
    return XlResources(store, tools, lambda: "credit2", lambda: None)


def plug(root: Path, port: str, bus: int, device: int) -> None:
    """Put something into a port."""
    directory = root / "usb" / port
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "busnum").write_text(f"{bus}\n")
    (directory / "devnum").write_text(f"{device}\n")


def test_lists_are_read_as_xl_prints_them() -> None:
    assert parse_pci_list(PCI_LIST) == ("0000:03:00.0", "0000:04:1f.7")
    assert parse_usb_list(USB_LIST) == (GuestPort(0, 2, 3, 26), GuestPort(1, 1, 1, 2))
    assert parse_pci_list("") == ()
    assert parse_usb_list("") == ()


@pytest.mark.parametrize("line", ["00.0", "0000:03:00.0", "zz.0 0000:03:00.0", "00.0 0000:03:00.0; reboot", "\x00"])
def test_a_line_that_is_none_is_left_out(line: str, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_pci_list(f"Vdev Device\n{line}\n00.0 0000:03:00.0\n") == ("0000:03:00.0",)
    assert parse_usb_list(f"{USB_LIST}{line}\n") == parse_usb_list(USB_LIST)
    assert "not_understood" in caplog.text


def test_a_port_without_its_controller_is_nobodys() -> None:
    assert parse_usb_list("  Port 1: Bus 001 Device 002\n") == ()


def test_only_a_domain_that_has_some_costs_calls(resources: XlResources, store: Store, tools: Tools) -> None:
    assert resources.attached(DOMAIN) == frozenset()
    assert tools.calls == []
    store["/libxl/7/device/pci/0"] = b""
    assert resources.attached(DOMAIN) == {"pci:0000:03:00.0", "pci:0000:04:1f.7"}
    store["/libxl/7/device/vusb/0"] = b""
    assert "usb:3-1.4" in resources.attached(DOMAIN)
    assert tools.calls == [["xl", "pci-list", "7"]] * 2 + [["xl", "usb-list", "7"]]


@pytest.mark.parametrize("node", ["/libxl/7/device/vfb/0/frontend", "/local/domain/7/console/vnc-port"])
def test_a_display_is_seen(node: str, resources: XlResources, store: Store) -> None:
    """A paravirtual one, and that of an emulated machine."""
    store[node] = b"5900"
    assert resources.attached(DOMAIN) == {"display"}


def test_a_usb_device_is_found_by_its_port_whatever_its_number(
    resources: XlResources, tools: Tools, tmp_path: Path
) -> None:
    """hostbus and hostaddr are decimal, though xl prints hexadecimal."""
    resources.attach(DOMAIN, STICK)
    plug(tmp_path, "3-1.4", 3, 27)
    resources.attach(DOMAIN, STICK)
    assert tools.calls == [["xl", "usbdev-attach", "7", "hostbus=3", f"hostaddr={number}"] for number in (26, 27)]


def test_it_is_taken_out_of_the_guests_port_that_it_is_in(resources: XlResources, tools: Tools, tmp_path: Path) -> None:
    resources.detach(DOMAIN, STICK, force=False)
    assert tools.calls[-1] == ["xl", "usbdev-detach", "7", "0", "2"]
    plug(tmp_path, "1-1", 1, 2)
    resources.detach(DOMAIN, Usb("1-1"), force=True)
    assert tools.calls[-1] == ["xl", "usbdev-detach", "7", "1", "1"]


def test_a_pci_device_comes_and_goes(resources: XlResources, tools: Tools) -> None:
    resources.attach(DOMAIN, CAMERA)
    resources.detach(DOMAIN, CAMERA, force=False)
    resources.detach(DOMAIN, CAMERA, force=True)
    assert tools.calls == [
        ["xl", "pci-attach", "7", "0000:03:00.0"],
        ["xl", "pci-detach", "7", "0000:03:00.0"],
        ["xl", "pci-detach", "-f", "7", "0000:03:00.0"],
    ]


def test_what_dom0_has_not_cannot_be_given(resources: XlResources, tools: Tools) -> None:
    there = {device: resources.present(device) for device in (STICK, CAMERA, Usb("1-1"), Pci("0000:05:00.0"))}
    assert list(there.values()) == [True, True, False, False]
    assert resources.present(Fixture("display"))
    with pytest.raises(HypervisorError, match="nothing is plugged in"):
        resources.attach(DOMAIN, Usb("1-1"))
    assert tools.calls == []


@pytest.mark.parametrize("device", [Usb("1-1,reboot"), Usb("../x"), Pci("03:00.0"), Pci("0000:03:00.0,permissive=1")])
def test_what_is_no_address_never_reaches_xl(device: Usb | Pci, resources: XlResources, tools: Tools) -> None:
    with pytest.raises(HypervisorError, match="is not one that may be written"):
        resources.attach(DOMAIN, device)
    assert tools.calls == []
