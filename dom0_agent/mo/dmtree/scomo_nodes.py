"""The node table of SCOMO 1.0, software components, for a VM (HLF-07)."""

from __future__ import annotations

from dom0_agent.mo.dmtree.nodes import GIVE, GuestObject, chosen, entries, interior, operation, root, told
from dom0_agent.omadm.node import Format, NodeDef

MOID = "urn:oma:mo:oma-scomo:1.0"
ALERT = "urn:oma:at:scomo:1.0:OperationComplete"

#: bytes of a package that a server puts into Data; larger ones go by PkgURL
MAX_DATA = 4 << 20

#: result codes (SCOMO 8.7)
SUCCESS, CLIENT_ERROR, DOWNLOAD_FAILED, NO_MEMORY = 1200, 1400, 1402, 1404
INSTALL_FAILED, VALIDATION_FAILED, REMOVE_FAILED = 1405, 1407, 1408
ACTIVATE_FAILED, DEACTIVATE_FAILED, SERVER_UNAVAILABLE = 1409, 1410, 1501

#: Download/<x>/Status
IDLE, DOWNLOAD_FAILED_STATUS, DOWNLOADING = 10, 20, 30
#: Delivered/<x>/Status
INSTALLING, INSTALL_FAILED_STATUS = 40, 50
#: Delivered/<x>/State
DELIVERED, INSTALLED = 10, 20

_PACKAGE = (
    chosen("PkgID", "Identifies the package."),
    chosen("Name", "For people."),
    chosen("Description", "For people."),
    chosen("PkgType", "deb, apk, ipk or tar (tar.gz, tar.xz); empty: what the guest's own package manager takes."),
    chosen("InstallParams", "Given to the installer as they are."),
    chosen("EnvType", "Environment that the package is for."),
)

_DEPLOYED = tuple(
    ("Inventory", "Deployed", "*", leaf) for leaf in ("ID", "Name", "Version", "Description", "State", "Status")
)
_ON_DEPLOYED = ("Inventory", "Deployed", "*", "Operations")

SCOMO = GuestObject(
    root(
        "SCOMO",
        MOID,
        "Software components",
        interior(
            "Download",
            entries(
                *_PACKAGE,
                chosen("PkgURL", "Where the package is (http or https); dom0 gets it, the guest needs no network."),
                chosen("SHA256", "What the package must be, in hexadecimal; empty: anything."),
                told("Status", "10 idle, 20 failed, 30 downloading, 40 complete, 50 installing, 60 install failed.",
                     Format.INT, default="10"),
                interior(
                    "Operations",
                    operation("Download", "Gets the package; it becomes an entry of Delivered."),
                    operation("DownloadInstall", "Gets, installs and activates it."),
                    operation("DownloadInstallInactive", "Gets and installs it; it stays inactive."),
                ),
                description="A package to get.",
                writable=True,
            ),
        ),
        interior(
            "Inventory",
            interior(
                "Delivered",
                entries(
                    *_PACKAGE,
                    NodeDef("Data", Format.BIN, GIVE, "ZeroOrOne", types=("application/octet-stream",),
                            description="The package itself, when no PkgURL was used.", max_size=MAX_DATA),
                    told("Status", "10 idle, 20 and 30 removing, 40 installing, 50 install failed.",
                         Format.INT, default="10"),
                    told("State", "10 delivered, 20 installed.", Format.INT, default="10"),
                    interior(
                        "Operations",
                        operation("Install", "Installs and activates the package in the guest."),
                        operation("InstallInactive", "Installs it; it stays inactive."),
                        operation("Remove", "Forgets the package; what was installed from it stays."),
                    ),
                    description="A package that is in dom0.",
                    writable=True,
                ),
            ),
            interior(
                "Deployed",
                entries(
                    told("ID", "Identifies the component in the guest."),
                    told("Name", "For people."),
                    told("Version", "As the guest's package manager has it."),
                    told("Description", "For people.", occurrence="ZeroOrOne"),
                    told("Status", "10 idle, 20 to 70: what went on or failed.", Format.INT, default="10"),
                    told("State", "10 inactive, 20 active.", Format.INT, default="20"),
                    interior(
                        "Operations",
                        operation("Activate", "Lets the component's services run."),
                        operation("Deactivate", "Stops them, also after reboots."),
                        operation("Remove", "Removes the component from the guest."),
                    ),
                    description="A component that is installed in the guest.",
                ),
            ),
        ),
        description="Software in the VM.",
    ),
    live=_DEPLOYED,
    forwarded={
        (*_ON_DEPLOYED, "Activate"): ACTIVATE_FAILED,
        (*_ON_DEPLOYED, "Deactivate"): DEACTIVATE_FAILED,
        (*_ON_DEPLOYED, "Remove"): REMOVE_FAILED,
    },
    client_error=CLIENT_ERROR,
    alert_type=ALERT,
)  # fmt: skip
