"""Brings the management tree in step with what happened to VMs and images while it was not looking.

Sub-trees and engines are tied by VMID and ImgID. An operation that ended after its Exec was answered 202, or a crash
between the two stores, can leave one without the other; here the engines are right, and the tree follows.
Runs in the thread that owns the tree.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator
from typing import Protocol
from uuid import UUID

from dom0_agent.images.model import ImageService
from dom0_agent.mo import virmo, vmimgmo
from dom0_agent.mo.virmo_nodes import DEVICE_RESOURCES, OPERATIONS
from dom0_agent.omadm.mo import Path
from dom0_agent.vm.model import VmService, VmState

log = logging.getLogger(__name__)


class DeviceTree(Protocol):
    """What is needed of the tree's device side."""

    def children(self, path: Path) -> tuple[str, ...]:
        """Names of the children."""

    def stored_value(self, path: Path) -> str | None:
        """A stored leaf's text."""

    def device_delete(self, path: Path) -> None:
        """Remove a node with all below it."""

    def device_changed(self, path: Path) -> None:
        """A live leaf has a new value."""


def vm_nodes(tree: DeviceTree) -> Iterator[tuple[Path, UUID]]:
    """The sub-trees below ``./VirMO`` with their VMIDs."""
    for name in tree.children(virmo.MOUNT):
        vmid = None if name in (OPERATIONS, DEVICE_RESOURCES) else tree.stored_value((*virmo.MOUNT, name, "VMID"))
        if vmid:
            yield (*virmo.MOUNT, name), UUID(vmid)


def image_nodes(tree: DeviceTree) -> Iterator[tuple[Path, str]]:
    """The sub-trees below ``./VMImgMO`` with their ImgIDs."""
    for name in tree.children(vmimgmo.MOUNT):
        img_id = tree.stored_value((*vmimgmo.MOUNT, name, "ImgID"))
        if img_id:
            yield (*vmimgmo.MOUNT, name), img_id


def vm_node(tree: DeviceTree, vmid: UUID) -> Path | None:
    """The sub-tree of a VM."""
    return next((path for path, known in vm_nodes(tree) if known == vmid), None)


def image_node(tree: DeviceTree, img_id: str) -> Path | None:
    """The sub-tree of an image."""
    return next((path for path, known in image_nodes(tree) if known == img_id), None)


def settle_all(tree: DeviceTree, vms: VmService, images: ImageService, kept: Container[str] = ()) -> None:
    """At start: sub-trees whose VM or image is gone go, entries that never got their sub-tree are forgotten.

    Images ``kept`` need none: updates of VMs hold them.
    """
    with_node = {vmid: path for path, vmid in vm_nodes(tree)}
    for vmid, path in with_node.items():
        if vms.get(vmid) is None:
            log.info("event=subtree_removed node=./%s reason='its VM is gone'", "/".join(path))
            tree.device_delete(path)
    for record in vms.list():
        if record.vmid not in with_node and record.state is VmState.NOT_CREATED:
            vms.forget(record.vmid)
        elif record.vmid not in with_node:
            log.error("event=vm_without_subtree vm=%s state=%s", record.vmid, record.state.name)
    with_image = {img_id: path for path, img_id in image_nodes(tree)}
    for img_id, path in with_image.items():
        if images.get(img_id) is None:
            log.info("event=subtree_removed node=./%s reason='its image is gone'", "/".join(path))
            tree.device_delete(path)
    for image in images.list():
        if image.img_id not in with_image and image.img_id not in kept:
            images.delete(image.img_id)


def vm_changed(tree: DeviceTree, vms: VmService, vmid: UUID) -> None:
    """A VM's record changed: its live leaves have new values, or its sub-tree goes with it (R-125)."""
    path = vm_node(tree, vmid)
    if path is None:
        return
    if vms.get(vmid) is None:
        tree.device_delete(path)
    else:
        tree.device_changed((*path, "State"))


def image_changed(tree: DeviceTree, images: ImageService, img_id: str) -> None:
    """An image's record changed."""
    path = image_node(tree, img_id)
    if path is None:
        return
    if images.get(img_id) is None:
        tree.device_delete(path)
    else:
        tree.device_changed((*path, "State"))
