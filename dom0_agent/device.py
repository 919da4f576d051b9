"""The device's own management tree: which objects it has, who may use them, and what the device says of itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from dom0_agent.config import AgentConfig
from dom0_agent.hypervisor.interface import Hypervisor, HypervisorError
from dom0_agent.images.model import ImageService
from dom0_agent.mo.devdetail import DeviceDetail, devdetail
from dom0_agent.mo.devinfo import DeviceIdentity, devinfo
from dom0_agent.mo.dmacc import DMAcc
from dom0_agent.mo.inbox import Inbox
from dom0_agent.mo.virmo import Interact, VirMO
from dom0_agent.mo.vmimgmo import VMImgMO
from dom0_agent.omadm.acl import Acl, parse_acl
from dom0_agent.omadm.node import Command
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.uri import format_path
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.model import VmService

BLOCK = 512  #: what st_blocks counts in, whatever the file system's block size is


class DeviceResources:
    """What VMs can have of this device (R-064 to R-066): called, it gives RAM and Storage in bytes."""

    def __init__(self, hypervisor: Hypervisor, vms: VmTable, config: AgentConfig) -> None:
        self._hypervisor = hypervisor
        self._vms = vms
        self._config = config

    def __call__(self) -> tuple[int, int]:
        """Both as they are now: what is free, and what VMs have already."""
        try:
            given = sum(domain.memory for domain in self._hypervisor.domains())
            ram = self._hypervisor.host().free_memory + given
        except HypervisorError as error:
            raise DMError(Status.COMMAND_FAILED, f"the hypervisor does not answer: {error}") from error
        disks = [Path(disk.path) for vm in self._vms.list() for disk in vm.disks]
        held = sum(path.stat().st_blocks * BLOCK for path in disks if path.exists())
        free = shutil.disk_usage(self._config.state_dir).free
        return ram, max(0, free + held - self._config.vm.storage_reserve)


def mount_objects(
    tree: ManagementTree,
    config: AgentConfig,
    vms: VmService,
    images: ImageService,
    resources: DeviceResources,
    *,
    interact: Interact,
) -> None:
    """Put all management objects of the device where they belong."""
    device, answer_limit = config.device, config.dm.answer_limit
    identity = DeviceIdentity(device.id, device.manufacturer, device.model, lang=device.language)
    detail = DeviceDetail(
        device.type,
        oem=device.oem,
        firmware_version=device.firmware_version,
        software_version=agent_version(),
        hardware_version=device.hardware_version,
    )
    tree.mount(devinfo(identity))
    tree.mount(devdetail(detail, tree.limits))
    tree.mount(DMAcc(lambda: None))  # sessions read accounts when they begin: nobody has to be told
    tree.mount(Inbox())
    tree.mount(VirMO(vms, tree.stored_value, resources, answer_limit, interact))
    tree.mount(VMImgMO(images, tree.stored_value, answer_limit))


def grant(tree: ManagementTree, server_ids: Iterable[str]) -> None:
    """These servers manage VMs and images. An ACL that knows all of them already stays as a server may have made it."""
    servers = frozenset(server_ids)
    for mount in (VirMO.mount, VMImgMO.mount):
        node = tree.node(mount)
        known = parse_acl(node.acl) if node is not None and node.acl else None
        if known is not None and all(any(known.grants(c, s) for c in Command) for s in servers):
            continue
        acl = Acl({command: servers for command in Command if command is not Command.COPY})
        tree.device_set_acl(mount, str(acl) if servers else "")


def device_info(tree: ManagementTree) -> Mapping[str, str]:
    """The DevInfo leaves, as package 1 carries them."""
    paths = [("DevInfo", name) for name in tree.children(("DevInfo",))]
    return {format_path(path): tree.value(path) or "" for path in paths}


def agent_version() -> str:
    """Version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("virmo-agent")
    except PackageNotFoundError:  # run from a source tree
        return "0+source"
