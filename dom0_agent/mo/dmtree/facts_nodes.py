"""DevInfo and DevDetail of a guest as objects below DMTree: every leaf is live, read from the guest.

The MOIDs are those of the device's own objects; the nodes are the standard's, and what an operator asks first in Ext.
"""

from __future__ import annotations

from dom0_agent.mo import devdetail, devinfo
from dom0_agent.mo.dmtree.nodes import GuestObject, entries, interior, root, told
from dom0_agent.omadm.node import Format

DEVINFO = GuestObject(
    root(
        "GuestDevInfo",
        devinfo.MOID,
        "Guest information",
        told("DevId", "The VM's UUID as a URN."),
        told("Man", "Maker of the guest's operating system."),
        told("Mod", "Its name."),
        told("DmV", "Version of the shim."),
        told("Lang", "Language, RFC 1766."),
        description="Who the guest is.",
    ),
    live=(("DevId",), ("Man",), ("Mod",), ("DmV",), ("Lang",)),
)

DEVDETAIL = GuestObject(
    root(
        "GuestDevDetail",
        devdetail.MOID,
        "Guest details",
        told("DevTyp", "Kind of machine."),
        told("OEM", "Maker of the platform below."),
        told("FwV", "Kernel."),
        told("SwV", "Operating system with its version."),
        told("HwV", "Architecture."),
        told("LrgObj", "Whether large objects can be given to the guest.", Format.BOOL, default="true"),
        interior(
            "Ext",
            told("Hostname", "As the guest calls itself."),
            told("Memory", "Bytes that the guest sees."),
            told("MemoryAvailable", "Bytes that its programs could have."),
            told("Uptime", "Seconds since it booted."),
            interior(
                "Addresses",
                entries(
                    told("MAC", "Of the interface."),
                    told("Interface", "Its name in the guest."),
                    told("Address", "IP addresses, separated by spaces."),
                    description="One network interface.",
                ),
            ),
        ),
        description="What the guest is made of.",
    ),
    live=(
        *((name,) for name in ("DevTyp", "OEM", "FwV", "SwV", "HwV", "LrgObj")),
        *(("Ext", name) for name in ("Hostname", "Memory", "MemoryAvailable", "Uptime")),
        *(("Ext", "Addresses", "*", name) for name in ("MAC", "Interface", "Address")),
    ),
)
