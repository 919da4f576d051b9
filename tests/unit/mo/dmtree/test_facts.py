"""DevInfo and DevDetail of a guest as live nodes below DMTree."""

from __future__ import annotations

from pathlib import Path

from dom0_agent.mo.dmtree.facts_nodes import DEVDETAIL, DEVINFO
from dom0_agent.vm.model import VmState
from guest_shim.services import make_dispatcher
from tests.unit.mo.dmtree.guests_testing import GuestDevice, status_of


def test_facts_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    """R-140, A-41, A-42."""
    device = GuestDevice(tmp_path)
    places = device.places()
    root = places.root
    (root / "etc/os-release").write_text('ID=tiny\nPRETTY_NAME="Tiny 1.0"\n')
    (root / "proc/meminfo").write_text("MemTotal:   131072 kB\nMemAvailable: 4 kB\n")
    (root / "proc/uptime").write_text("12.34 5.6\n")
    (root / "sys/hypervisor").mkdir()
    (root / "sys/hypervisor/uuid").write_text("0-1\n")
    interface = root / "sys/class/net/eth9"
    interface.mkdir()
    (interface / "address").write_text("00:16:3e:00:00:01\n")
    device.connect(make_dispatcher(places))
    info, detail = device.add_object("DevInfo", DEVINFO), device.add_object("DevDetail", DEVDETAIL)
    assert (device.get(f"{info}/DevId"), device.get(f"{info}/Mod")) == ("urn:uuid:0-1", "Tiny 1.0")
    assert device.get(f"{detail}/Ext/Memory") == str(131072 * 1024)
    assert device.get(f"{detail}/Ext/Uptime") == "12"
    at = f"{detail}/Ext/Addresses/00163e000001"
    assert (device.get(f"{at}/MAC"), device.get(f"{at}/Interface")) == ("00:16:3e:00:00:01", "eth9")
    (root / "proc/uptime").write_text("99.0 5.6\n")
    (interface / "address").unlink()
    device.settle()
    assert device.get(f"{detail}/Ext/Uptime") == "99"
    assert device.children(f"{detail}/Ext/Addresses") == set()
    device.set_state(device.vmid, VmState.SUSPENDED)
    (root / "proc/uptime").write_text("100.0 5.6\n")
    device.settle()
    assert device.get(f"{detail}/Ext/Uptime") == "99"
    assert status_of(device.replace, f"{info}/Mod", "x") == 405
    device.close()
