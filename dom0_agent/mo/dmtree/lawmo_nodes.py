"""The node table of LAWMO 1.0, lock and wipe, for a VM (HLF-12, HLF-13)."""

from __future__ import annotations

from dom0_agent.mo.dmtree.nodes import GuestObject, chosen, entries, interior, operation, root, told
from dom0_agent.omadm.node import Format

MOID = "urn:oma:mo:oma-lawmo:1.0"
ALERT = "urn:oma:at:lawmo:1.0:OperationComplete"

#: State
FULLY_LOCKED, PARTIALLY_LOCKED, UNLOCKED = 10, 20, 30

#: result codes
SUCCESS, CLIENT_ERROR = 1200, 1400
FULLY_LOCK_FAILED, PARTIALLY_LOCK_FAILED, UNLOCK_FAILED, WIPE_FAILED = 1402, 1403, 1404, 1405

FACTORY_RESET = ("Operations", "FactoryReset")
FULLY_LOCK = ("Operations", "FullyLock")
PARTIALLY_LOCK = ("Operations", "PartiallyLock")
UNLOCK = ("Operations", "UnLock")

LAWMO = GuestObject(
    root(
        "LAWMO",
        MOID,
        "Lock and wipe",
        told("State", "10 fully locked, 20 partially locked, 30 unlocked.", Format.INT, default=str(UNLOCKED)),
        interior(
            "AvailableWipeList",
            entries(
                told("ListItemName", "What would be wiped."),
                chosen("ToBeWiped", "Whether Wipe erases it.", Format.BOOL, default="false"),
                description="Something that Wipe can erase, as the guest offers it.",
            ),
            description="What can be erased in the guest.",
        ),
        interior(
            "LAWMOConfig",
            chosen("NotifyUser", "Whether the guest's user is told of locks and wipes.", Format.BOOL, default="true"),
        ),
        interior(
            "Operations",
            operation("FullyLock", "No log-in, no session, no network service until UnLock, across reboots."),
            operation("PartiallyLock", "No log-in and no session until UnLock; services go on."),
            operation("UnLock", "Ends a lock."),
            operation("FactoryReset", "Makes the VM's disks anew from its image."),
            operation("Wipe", "Erases what is marked ToBeWiped."),
        ),
        description="Locks, unlocks and wipes what runs in the VM.",
    ),
    live=(("State",), ("AvailableWipeList", "*", "ListItemName")),
    configuration=(("AvailableWipeList", "*", "ToBeWiped"), ("LAWMOConfig", "NotifyUser")),
    forwarded={
        FULLY_LOCK: FULLY_LOCK_FAILED,
        PARTIALLY_LOCK: PARTIALLY_LOCK_FAILED,
        UNLOCK: UNLOCK_FAILED,
        ("Operations", "Wipe"): WIPE_FAILED,
    },
    client_error=CLIENT_ERROR,
    alert_type=ALERT,
)
