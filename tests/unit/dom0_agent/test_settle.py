"""The tree follows VMs and images, whatever a crash left of the one without the other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from dom0_agent import settle
from dom0_agent.mo.virmo import VirMO
from dom0_agent.mo.vmimgmo import VMImgMO
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.vm.model import VmState
from tests.unit.mo.engines import MemoryImages, MemoryVms


class Device:
    def __init__(self) -> None:
        self.vms, self.images = MemoryVms(), MemoryImages()
        self.tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.tree.mount(VirMO(self.vms, self.tree.stored_value, lambda: (1, 1), 0.0))
        self.tree.mount(VMImgMO(self.images, self.tree.stored_value, 0.0))
        for mount in ("VirMO", "VMImgMO"):
            self.tree.device_set_acl((mount,), "Add=*&Get=*&Delete=*&Exec=*&Replace=*")
            self.tree.add("srv", f"./{mount}/a", ItemValue(format=Format.NODE))

    @property
    def vmid(self) -> UUID:
        return UUID(self.tree.stored_value(("VirMO", "a", "VMID")))

    @property
    def img_id(self) -> str:
        return self.tree.stored_value(("VMImgMO", "a", "ImgID")) or ""

    def settle(self) -> None:
        settle.settle_all(self.tree, self.vms, self.images)


@pytest.fixture
def device() -> Device:
    return Device()


def test_what_fits_together_is_left_alone(device: Device) -> None:
    before = (device.tree.children(("VirMO",)), device.tree.children(("VMImgMO",)))
    device.settle()
    assert (device.tree.children(("VirMO",)), device.tree.children(("VMImgMO",))) == before
    assert len(device.vms.records) == len(device.images.records) == 1


def test_sub_trees_go_with_their_vm_and_image(device: Device) -> None:
    """R-125, R-095: the operation ended after the session, or the agent died in between."""
    device.vms.records.clear()
    device.images.records.clear()
    device.settle()
    assert not device.tree.exists(("VirMO", "a"))
    assert not device.tree.exists(("VMImgMO", "a"))


def test_entries_that_never_got_their_sub_tree_are_forgotten(device: Device) -> None:
    device.vms.add()
    device.images.add()
    device.settle()
    assert len(device.vms.records) == len(device.images.records) == 1


def test_a_created_vm_without_sub_tree_is_kept_and_reported(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    """Losing a node must never lose a VM."""
    vmid = device.vms.add()
    device.vms.records[vmid] = replace(device.vms.records[vmid], state=VmState.RUNNING)
    device.settle()
    assert vmid in device.vms.records
    assert "vm_without_subtree" in caplog.text


def test_a_vm_that_went_away_takes_its_sub_tree_along(device: Device) -> None:
    vmid = device.vmid
    del device.vms.records[vmid]
    settle.vm_changed(device.tree, device.vms, vmid)
    assert not device.tree.exists(("VirMO", "a"))


def test_an_image_that_went_away_takes_its_sub_tree_along(device: Device) -> None:
    img_id = device.img_id
    device.images.delete(img_id)
    settle.image_changed(device.tree, device.images, img_id)
    assert not device.tree.exists(("VMImgMO", "a"))


def test_changes_of_unknown_vms_and_images_are_nothing(device: Device) -> None:
    settle.vm_changed(device.tree, device.vms, UUID(int=0))
    settle.image_changed(device.tree, device.images, "none")
    assert device.tree.exists(("VirMO", "a"))


def test_a_new_state_counts_as_a_change_of_the_node(device: Device) -> None:
    """A-53."""
    (before,) = device.tree.get("srv", "./VirMO/a/State?prop=VerNo")
    settle.vm_changed(device.tree, device.vms, device.vmid)
    (after,) = device.tree.get("srv", "./VirMO/a/State?prop=VerNo")
    assert after.value.data != before.value.data
