"""What the guest is: DevInfo and DevDetail, read when they are asked for.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from guest_shim.addresses import addresses
from guest_shim.dispatch import ServedObject
from guest_shim.places import Places
from guest_shim.shim import VERSION

DEVINFO = "urn:oma:mo:oma-dm-devinfo:1.0"
DEVDETAIL = "urn:oma:mo:oma-dm-devdetail:1.0"

INFO_SERVED = ServedObject(DEVINFO, live=("DevId", "Man", "Mod", "DmV", "Lang"))
DETAIL_SERVED = ServedObject(
    DEVDETAIL,
    live=(
        *("DevTyp", "OEM", "FwV", "SwV", "HwV", "LrgObj"),
        *("Ext/Hostname", "Ext/Memory", "Ext/MemoryAvailable", "Ext/Uptime"),
        *("Ext/Addresses/*/MAC", "Ext/Addresses/*/Interface", "Ext/Addresses/*/Address"),
    ),
)


class Facts:
    """Reads both objects."""

    def __init__(self, places: Places) -> None:
        self._root = places.root

    def info(self) -> dict[str, str]:
        """DevInfo."""
        system = self._os_release()
        return {
            "DevId": f"urn:uuid:{self._line('sys/hypervisor/uuid')}",
            "Man": system.get("ID_LIKE") or system.get("ID", "unknown"),
            "Mod": system.get("PRETTY_NAME", "Linux"),
            "DmV": VERSION,
            "Lang": os.environ.get("LANG", "en").partition(".")[0].replace("_", "-").replace("C", "en"),
        }

    def detail(self) -> dict[str, str]:
        """DevDetail."""
        system, memory, kernel = self._os_release(), self._memory(), os.uname()
        facts = {
            "DevTyp": "VirtualMachine",
            "OEM": self._line("sys/hypervisor/type") or "unknown",
            "FwV": f"{kernel.sysname} {kernel.release}",
            "SwV": system.get("PRETTY_NAME", "Linux"),
            "HwV": kernel.machine,
            "LrgObj": "true",
            "Ext/Hostname": os.uname().nodename,
            "Ext/Memory": str(memory.get("MemTotal", 0)),
            "Ext/MemoryAvailable": str(memory.get("MemAvailable", memory.get("MemFree", 0))),
            "Ext/Uptime": self._line("proc/uptime").partition(".")[0],
        }
        for interface, mac, known in self._interfaces():
            at = f"Ext/Addresses/{mac.replace(':', '')}"
            facts.update({f"{at}/MAC": mac, f"{at}/Interface": interface, f"{at}/Address": " ".join(known)})
        return facts

    def _line(self, name: str) -> str:
        try:
            return (self._root / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""

    def _os_release(self) -> dict[str, str]:
        for name in ("etc/os-release", "usr/lib/os-release"):
            text = self._line(name)
            if text:
                pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
                return {key: value.strip("\"'") for key, _, value in pairs}
        return {}

    def _memory(self) -> dict[str, int]:
        """``/proc/meminfo`` in bytes."""
        found = {}
        for line in self._line("proc/meminfo").splitlines():
            words = line.replace(":", " ").split()
            if len(words) >= 2 and words[1].isdigit():
                found[words[0]] = int(words[1]) * 1024
        return found

    def _interfaces(self) -> list[tuple[str, str, list[str]]]:
        """(name, MAC, IP addresses) of each network interface but the loopback."""
        folder = Path(self._root / "sys/class/net")
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        known = addresses()
        found = []
        for name in names:
            mac = self._line(f"sys/class/net/{name}/address")
            if mac and mac != "00:00:00:00:00:00" and name != "lo":
                found.append((name, mac, known.get(name, [])))
        return found
