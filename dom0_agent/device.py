"""The device's own management tree: which objects it has, who may use them, and what the device says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from dom0_agent.config import AgentConfig
from dom0_agent.firmware.release import release_version
from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.images.model import ImageService
from dom0_agent.mo.apply_changes import ApplyChangesNode
from dom0_agent.mo.devdetail import DeviceDetail, devdetail
from dom0_agent.mo.devinfo import DeviceIdentity, devinfo
from dom0_agent.mo.dmacc import DMAcc
from dom0_agent.mo.fumo import MOUNT as FUMO_MOUNT
from dom0_agent.mo.inbox import Inbox
from dom0_agent.mo.virmo import Interact, VirMO
from dom0_agent.mo.vmimgmo import VMImgMO
from dom0_agent.omadm.acl import Acl, parse_acl
from dom0_agent.omadm.node import Command
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.uri import format_path
from dom0_agent.resources.picture import Device
from dom0_agent.resources.service import ResourceService
from dom0_agent.vm.model import VmService


def device_resources(device: Callable[[], Device]) -> tuple[int, int]:
    """RAM and Storage in bytes that VMs can have of this device (R-064 to R-066)."""
    try:
        found = device()
    except HypervisorError as error:
        raise DMError(Status.COMMAND_FAILED, f"the hypervisor does not answer: {error}") from error
    return found.ram, found.storage


def mount_objects(
    tree: ManagementTree,
    config: AgentConfig,
    vms: VmService,
    images: ImageService,
    resources: ResourceService,
    *,
    interact: Interact,
) -> None:
    """Put all management objects of the device where they belong."""
    device, answer_limit = config.device, config.dm.answer_limit
    identity = DeviceIdentity(device.id, device.manufacturer, device.model, lang=device.language)
    detail = DeviceDetail(
        device.type,
        oem=device.oem,
        firmware_version=device.firmware_version or release_version(),
        software_version=agent_version(),
        hardware_version=device.hardware_version,
    )
    tree.mount(devinfo(identity))
    tree.mount(devdetail(detail, tree.limits))
    tree.mount(DMAcc(lambda: None))  # sessions read accounts when they begin: nobody has to be told
    tree.mount(Inbox())
    apply = ApplyChangesNode(tree, resources.apply, answer_limit)
    capacity = partial(device_resources, resources.device)
    tree.mount(VirMO(vms, tree.stored_value, capacity, answer_limit, interact, apply_changes=apply.execute))
    tree.mount(VMImgMO(images, tree.stored_value, answer_limit))


def grant(tree: ManagementTree, server_ids: Iterable[str]) -> None:
    """These servers manage VMs and images. An ACL that knows all of them already stays as a server may have made it."""
    servers = frozenset(server_ids)
    for mount in (VirMO.mount, VMImgMO.mount, FUMO_MOUNT):
        node = tree.node(mount)
        if mount == FUMO_MOUNT and node is None:
            continue
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
