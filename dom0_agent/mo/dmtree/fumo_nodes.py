"""The node table of FUMO 1.0, firmware update, for a VM (HLF-08, HLF-14).

``Update/PkgData`` is left out, as FUMO lets a client (Occurrence ZeroOrOne, "at least one download mechanism"): a VM's
system has hundreds of megabytes, an object of DM at most ``MaxObjSize``; PkgURL resumes and is verified.
"""

from __future__ import annotations

from dom0_agent.mo.dmtree.nodes import EXEC, GET, GuestObject, chosen, root, told
from dom0_agent.omadm.node import Format, NodeDef

MOID = "urn:oma:mo:oma-fumo:1.0"
ALERTS = "org.openmobilealliance.dm.firmwareupdate."  #: with download, update or downloadandupdate

#: State
IDLE, DOWNLOAD_FAILED, DOWNLOADING, DOWNLOADED, READY = 10, 20, 30, 40, 50
UPDATING, FAILED_WITH_DATA, FAILED, UPDATED_WITH_DATA, UPDATED = 60, 70, 80, 90, 100

#: result codes
SUCCESS, CLIENT_ERROR, CORRUPTED, MISMATCH, VALIDATION_FAILED, NOT_ACCEPTABLE = 200, 400, 402, 403, 404, 405
UPDATE_FAILED, BAD_URL, NO_MEMORY_DOWNLOAD, NO_MEMORY_UPDATE, NO_NETWORK = 410, 411, 501, 502, 503

DOWNLOAD, UPDATE, DOWNLOAD_AND_UPDATE = ("Download",), ("Update",), ("DownloadAndUpdate",)


def _executable(name: str, description: str, *children: NodeDef) -> NodeDef:
    return NodeDef(name, Format.NODE, GET | EXEC, types=(), description=description, children=children)


_PKG_URL = chosen("PkgURL", "Where the new system is: a bundle with vm.yaml, or what the guest's updater takes.")

FUMO = GuestObject(
    root(
        "FUMO",
        MOID,
        "Firmware update",
        chosen("PkgName", "For people."),
        chosen("PkgVersion", "For people."),
        _executable("Download", "Exec gets the package.", _PKG_URL),
        _executable("Update", "Exec replaces the VM's system; its data disk stays."),
        _executable("DownloadAndUpdate", "Exec does both.", _PKG_URL),
        told("State", "10 idle, 20 download failed, 30 downloading, 40 complete, 50 ready, 60 updating, 70 and 80 "
             "update failed (with, without data), 90 and 100 updated.", Format.INT, default="10"),
        NodeDef("Ext", Format.NODE, GET, types=(), children=(
            told("ImgID", "The downloaded package in dom0.", occurrence="ZeroOrOne"),
            told("LastError", "Why the last operation failed.", occurrence="ZeroOrOne"),
        )),
        description="Replaces the VM's system by another one, and goes back by itself if that does not come up.",
    ),
    client_error=CLIENT_ERROR,
    alert_type=ALERTS,
)  # fmt: skip
