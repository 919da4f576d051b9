"""DevInfo and DevDetail as a server sees them (OMA-TS-DM-StdObj 5.3)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dom0_agent.mo.devdetail import DeviceDetail, devdetail
from dom0_agent.mo.devinfo import DeviceIdentity, devinfo
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.uri import UriLimits

LIMITS = UriLimits(max_depth=12, max_total_length=200, max_segment_length=40)


@pytest.fixture
def tree() -> ManagementTree:
    tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 8, 1, tzinfo=UTC), limits=LIMITS)
    tree.mount(devinfo(DeviceIdentity("urn:uuid:1", "Maker", "Board", "1.2", "de-AT")))
    tree.mount(devdetail(DeviceDetail("Host", "Oem", "fw1", "sw2", "hw3"), LIMITS))
    tree.device_set_acl((), "Add=*&Delete=*&Exec=*&Get=*&Replace=*")
    return tree


def get(tree: ManagementTree, uri: str) -> ItemValue:
    (result,) = tree.get("s", uri)
    return result.value


def test_devinfo_leaves(tree: ManagementTree) -> None:
    assert get(tree, "./DevInfo").data == "DevId/DmV/Lang/Man/Mod"
    assert [get(tree, f"./DevInfo/{name}").data for name in ("DevId", "Man", "Mod", "DmV", "Lang")] == [
        "urn:uuid:1",
        "Maker",
        "Board",
        "1.2",
        "de-AT",
    ]
    assert get(tree, "./DevInfo?prop=Type").data == "urn:oma:mo:oma-dm-devinfo:1.0"


def test_devdetail_announces_the_limits_of_the_tree(tree: ManagementTree) -> None:
    assert [get(tree, f"./DevDetail/URI/{name}").data for name in ("MaxDepth", "MaxTotLen", "MaxSegLen")] == [
        "12",
        "200",
        "40",
    ]
    assert get(tree, "./DevDetail/LrgObj") == ItemValue("true", Format.BOOL, "text/plain")
    assert [get(tree, f"./DevDetail/{name}").data for name in ("DevTyp", "OEM", "FwV", "SwV", "HwV")] == [
        "Host",
        "Oem",
        "fw1",
        "sw2",
        "hw3",
    ]
    with pytest.raises(DMError) as caught:
        tree.get("s", "./DevDetail/" + "x" * 41)
    assert caught.value.status == Status.URI_TOO_LONG


@pytest.mark.parametrize("uri", ["./DevInfo/DevId", "./DevInfo", "./DevDetail/URI", "./DevDetail/SwV"])
def test_nothing_can_be_changed(tree: ManagementTree, uri: str) -> None:
    for attempt in (
        lambda: tree.replace("s", uri, ItemValue("x")),
        lambda: tree.delete("s", uri),
        lambda: tree.execute("s", uri),
        lambda: tree.replace("s", f"{uri}?prop=Name", ItemValue("x")),
    ):
        with pytest.raises(DMError) as caught:
            attempt()
        assert caught.value.status == Status.NOT_ALLOWED
