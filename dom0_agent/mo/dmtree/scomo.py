"""SCOMO of a VM: dom0 gets packages (Download) and keeps them (Delivered), the guest installs and runs them (Deployed).

Downloads need no guest; Install brings the package through the channel. Deployed is live, all else is the tree's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from dom0_agent.guest.interface import GuestError, GuestRequest
from dom0_agent.images.errors import Corrupt, ImageError, NoSpace, SizeMismatch, TooLarge
from dom0_agent.mo.dmtree.forwarded import OPERATION_DEADLINE, ForwardedObject, Surroundings, ended
from dom0_agent.mo.dmtree.nodes import GuestObject
from dom0_agent.mo.dmtree.packages import Packages, TransferFailed
from dom0_agent.mo.dmtree.scomo_nodes import (
    CLIENT_ERROR,
    DELIVERED,
    DOWNLOAD_FAILED,
    DOWNLOAD_FAILED_STATUS,
    DOWNLOADING,
    IDLE,
    INSTALL_FAILED,
    INSTALL_FAILED_STATUS,
    INSTALLED,
    INSTALLING,
    NO_MEMORY,
    SUCCESS,
    VALIDATION_FAILED,
)
from dom0_agent.mo.dmtree.work import Ended, Report
from dom0_agent.omadm.mo import Change, ExecRequest, Path
from dom0_agent.omadm.node import Command, Format, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.operation import OperationHandle, OperationRefused, Origin
from dom0_agent.vm.model import VmRecord, VmState

log = logging.getLogger(__name__)

DOWNLOADS: Path = ("Download",)
PACKAGES: Path = ("Inventory", "Delivered")
#: leaves that an entry of Download hands on to Delivered
KEPT = ("PkgID", "Name", "Description", "PkgType", "InstallParams", "EnvType")
#: the shim's name for installing what it received; no node has it
INSTALL: Path = ("Install",)


@dataclass(frozen=True, slots=True)
class Package:
    """What is known of a package when an operation begins."""

    name: str  #: of its node in Delivered, and so of its file
    leaves: dict[str, str]

    @property
    def identifier(self) -> str:
        """What alerts call it."""
        return self.leaves.get("PkgID") or self.name


class Scomo(ForwardedObject):
    """ManagementObject for the SCOMO of one VM."""

    def __init__(self, kind: GuestObject, mount: Path, surroundings: Surroundings, packages: Packages) -> None:
        super().__init__(kind, mount, surroundings)
        self._packages = packages

    def begin(self, record: VmRecord, path: Path, request: ExecRequest, origin: Origin) -> OperationHandle:
        """An operation of Download, Delivered or (the guest's) Deployed."""
        entry, operation = path[:-2], path[-1]
        if entry[:-1] == DOWNLOADS:
            return self._begin_download(record, entry[-1], operation, request, origin)
        if entry[:-1] == PACKAGES:
            package = Package(entry[-1], self._leaves(entry))
            if operation == "Remove":
                return self.run(record.vmid, origin, lambda: self._remove(record.vmid, package))
            self.need_guest(record, INSTALL, request.uri)
            active = operation == "Install"
            self._keep_data(record.vmid, package)
            return self.run(record.vmid, origin, lambda: self._install(record.vmid, package, active=active))
        return super().begin(record, path, request, origin)

    def report(self, origin: Origin) -> Report:
        """SCOMO tells the result and the component as a fragment of XML."""
        return Report(self.kind.alert_type, origin.uri, self.kind.client_error, as_xml=True)

    def committed(self, changes: Sequence[Change]) -> None:
        """A package goes with its node."""
        super().committed(changes)
        record = self.record()
        depth = len(self.mount) + len(PACKAGES)
        for change in changes:
            gone = change.command is Command.DELETE and change.path[len(self.mount) : depth] == PACKAGES
            if gone and len(change.path) == depth + 1 and record is not None:
                self._packages.drop(record.vmid, change.path[-1])

    def packages(self) -> list[str]:
        """Names of the packages that are to be kept, also those half downloaded."""
        tree = self.around.tree
        return [*tree.children((*self.mount, *PACKAGES)), *tree.children((*self.mount, *DOWNLOADS))]

    # -- in the tree's thread --------------------------------------------------------------------------------------

    def _begin_download(
        self, record: VmRecord, name: str, operation: str, request: ExecRequest, origin: Origin
    ) -> OperationHandle:
        if record.state is VmState.NOT_CREATED:
            raise DMError(Status.FORBIDDEN, f"{request.uri} needs a VM that was created")
        leaves = self._leaves((*DOWNLOADS, name))
        if not leaves.get("PkgURL", "").strip():
            raise DMError(Status.INCOMPLETE, f"{request.uri}: PkgURL is empty: set it first")
        install = operation != "Download"
        if install:
            self.need_guest(record, INSTALL, request.uri)
        taken = self.around.tree.children((*self.mount, *PACKAGES))
        free = next(n for n in (name, *(f"{name}-{i}" for i in range(2, 1000))) if n not in taken)
        package = Package(free, leaves)
        active = operation == "DownloadInstall"

        def job() -> Ended:
            result = self._download(record.vmid, name, package)
            return self._install(record.vmid, package, active=active) if result.ok and install else result

        return self.run(record.vmid, origin, job)

    def _leaves(self, entry: Path) -> dict[str, str]:
        names = (*KEPT, "PkgURL", "SHA256")
        found = {name: self.around.tree.stored_value((*self.mount, *entry, name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def _keep_data(self, vmid: UUID, package: Package) -> None:
        """A package that came over DM (Data) lies in the tree: make it a file like the others."""
        node = self.around.tree.node((*self.mount, *PACKAGES, package.name, "Data"))
        if node is not None and isinstance(node.data, bytes):
            try:
                self._packages.put(vmid, package.name, node.data)
            except OSError as error:
                raise OperationRefused(Status.DEVICE_FULL, f"the package cannot be kept: {error}") from error
        elif not self._packages.path(vmid, package.name).is_file():
            raise OperationRefused(
                Status.NOT_ALLOWED, f"there is no package behind {package.name}: download it, or add its Data"
            )

    def _set(self, path: Path, number: int) -> None:
        """In a worker: have the tree's thread set an integer leaf, if its parent is still there."""

        def task() -> None:
            if self.around.tree.exists((*self.mount, *path[:-1])):
                self.around.tree.device_set((*self.mount, *path), Value(str(number), Format.INT))

        self.around.tasks.post(task)

    def _deliver(self, name: str, package: Package) -> None:
        """The entry of Download becomes one of Delivered."""
        tree, entry = self.around.tree, (*self.mount, *PACKAGES, package.name)
        if not tree.exists(self.mount):
            return
        if tree.exists((*self.mount, *DOWNLOADS, name)):
            tree.device_delete((*self.mount, *DOWNLOADS, name))
        tree.device_add(entry)
        for leaf in KEPT:
            if package.leaves.get(leaf):
                tree.device_set((*entry, leaf), Value(package.leaves[leaf]))

    def _forget(self, package: Package) -> None:
        entry = (*self.mount, *PACKAGES, package.name)
        if self.around.tree.exists(entry):
            self.around.tree.device_delete(entry)

    # -- in a worker -----------------------------------------------------------------------------------------------

    def _download(self, vmid: UUID, name: str, package: Package) -> Ended:
        status = (*DOWNLOADS, name, "Status")
        self._set(status, DOWNLOADING)
        try:
            self._packages.get(vmid, package.name, package.leaves["PkgURL"], package.leaves.get("SHA256", ""))
        except ImageError as error:
            self._set(status, DOWNLOAD_FAILED_STATUS)
            return Ended(_download_code(error), str(error), package.identifier)
        self.around.tasks.post(lambda: self._deliver(name, package))
        return Ended(SUCCESS, "", package.identifier)

    def _install(self, vmid: UUID, package: Package, *, active: bool) -> Ended:
        entry = (*PACKAGES, package.name)
        self._set((*entry, "Status"), INSTALLING)
        result = self._bring_and_install(vmid, package, active=active)
        self._set((*entry, "Status"), IDLE if result.ok else INSTALL_FAILED_STATUS)
        self._set((*entry, "State"), INSTALLED if result.ok else DELIVERED)
        self.look(vmid)
        return result

    def _bring_and_install(self, vmid: UUID, package: Package, *, active: bool) -> Ended:
        try:
            identifier = self._packages.bring(vmid, package.name)
            question = GuestRequest(
                "exec",
                {
                    "moid": self.moid,
                    "node": INSTALL[0],
                    "package": identifier,
                    "name": package.leaves.get("Name") or package.identifier,
                    "type": package.leaves.get("PkgType", ""),
                    "params": package.leaves.get("InstallParams", ""),
                    "active": active,
                },
            )
            answer = self.around.guests.request(vmid, question, deadline=OPERATION_DEADLINE)
        except TransferFailed as error:
            return Ended(error.code if error.code >= 1000 else INSTALL_FAILED, str(error), package.identifier)
        except (GuestError, OSError) as error:
            return Ended(INSTALL_FAILED, str(error), package.identifier)
        result = ended(answer, INSTALL_FAILED)
        return Ended(result.code, result.message, result.identifier or package.identifier)

    def _remove(self, vmid: UUID, package: Package) -> Ended:
        self._packages.drop(vmid, package.name)
        self.around.tasks.post(lambda: self._forget(package))
        return Ended(SUCCESS, "", package.identifier)


def _download_code(error: ImageError) -> int:
    if isinstance(error, (NoSpace, TooLarge)):
        return NO_MEMORY
    if isinstance(error, (Corrupt, SizeMismatch)):
        return VALIDATION_FAILED
    return DOWNLOAD_FAILED if error.status != Status.DATA_STORE_FAILURE else CLIENT_ERROR


def scomo(packages: Packages) -> Callable[[GuestObject, Path, Surroundings], Scomo]:
    """Makes the SCOMOs of VMs."""
    return lambda kind, mount, surroundings: Scomo(kind, mount, surroundings, packages)
