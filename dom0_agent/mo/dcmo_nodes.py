"""The node table of DCMO 1.0, device capabilities, for a VM (HLF-06): one node for each device that it can have."""

from __future__ import annotations

from dom0_agent.mo.dmtree.nodes import GuestObject, chosen, entries, interior, operation, root, told
from dom0_agent.omadm.node import Format

MOID = "urn:oma:mo:oma-dcmo:1.0"
ALERT = "urn:oma:at:dcmo:1.0:OperationComplete"

#: result codes
SUCCESS, CLIENT_ERROR = 1200, 1400
AT_NEXT_START = 1250  #: our own: it is so from the VM's next start on
ENABLE_FAILED, DISABLE_FAILED = 1402, 1403

DCMO = GuestObject(
    root(
        "DCMO",
        MOID,
        "Device capabilities",
        entries(
            told("Property", "The device as dom0 knows it: vif0, xvdb, usb:3-1.4, pci:0000:03:00.0, display, console."),
            told("Group", "Hardware, Input/Output, Connectivity, Software or Service."),
            told("Description", "For people."),
            told("Attached", "Whether the device is in the VM's domain now.", Format.BOOL, default="false"),
            told("Enabled", "Whether the VM may have it.", Format.BOOL, default="true"),
            interior(
                "DCMOConfig",
                chosen("DenyUserEnable", "true: only a server enables it again.", Format.BOOL, default="true"),
                chosen("NotifyUser", "Whether the guest's user is told.", Format.BOOL, default="false"),
            ),
            interior(
                "Operations",
                operation("Enable", "Gives the device back to the VM."),
                operation("Disable", "Takes the device away from the VM, whatever its guest does."),
            ),
            interior(
                "Ext",
                told(
                    "AttachedDevice", "What the VM's domain has of it now: disk, MAC, address or port; empty: nothing."
                ),
                told(
                    "AtNextStart",
                    "true: Attached is not yet as Enabled says, and will be when the VM starts next.",
                    Format.BOOL,
                    default="false",
                ),
            ),
            description="One device of the VM.",
        ),
        description="What devices the VM has, and which of them it may use.",
    ),
    live=(
        ("*", "Property"),
        ("*", "Group"),
        ("*", "Description"),
        ("*", "Attached"),
        ("*", "Enabled"),
        ("*", "Ext", "AttachedDevice"),
        ("*", "Ext", "AtNextStart"),
    ),
    # what the guest's shim is told, which is told only
    configuration=(("*", "Property"), ("*", "Enabled"), ("*", "DCMOConfig", "NotifyUser")),
    client_error=CLIENT_ERROR,
    alert_type=ALERT,
)
