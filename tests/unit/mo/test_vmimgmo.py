"""The VM Image MO on the real tree (OMA-ER-VirMO 9, 10.1)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dom0_agent.images.model import ImageState
from dom0_agent.mo.vmimgmo import VMImgMO
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError
from dom0_agent.omadm.tnds import XML_TYPE, TndsNode, encode_tnds
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.operation import OperationResult, Origin
from tests.unit.mo.engines import MemoryImages

SERVER = "srv"
URI = "https://images.example/a.tar"


class Device:
    """A tree with VMImgMO on an image store in memory."""

    def __init__(self) -> None:
        self.images = MemoryImages()
        self.tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.tree.mount(VMImgMO(self.images, self.tree.stored_value, answer_limit=0.0))
        self.tree.device_set_acl(("VMImgMO",), "Add=*&Get=*&Delete=*&Exec=*&Replace=*")

    def get(self, uri: str) -> str:
        (result,) = self.tree.get(SERVER, uri)
        assert isinstance(result.value.data, str)
        return result.value.data

    def set(self, uri: str, text: str) -> None:
        self.tree.replace(SERVER, uri, ItemValue(text))

    def execute(self, uri: str, correlator: str | None = None) -> int:
        return self.tree.execute(SERVER, uri, "", correlator)

    def described(self) -> None:
        self.tree.add(SERVER, "./VMImgMO/a", ItemValue(format=Format.NODE))
        self.set("./VMImgMO/a/Name", "sample")
        self.set("./VMImgMO/a/MediaType", "application/x-tar")
        self.set("./VMImgMO/a/DownloadURI", URI)


@pytest.fixture
def device() -> Device:
    made = Device()
    made.described()
    return made


def status_of(call: object, *arguments: object) -> int:
    assert callable(call)
    with pytest.raises(DMError) as caught:
        call(*arguments)
    return caught.value.status


def test_the_root_carries_its_moid(device: Device) -> None:
    """R-080."""
    assert device.get("./VMImgMO?prop=Type") == "urn:oma:mo:oma-vmimgmo:1.0"


def test_a_new_entry_has_its_required_nodes(device: Device) -> None:
    """R-100 to R-103, R-081, A-23, A-37."""
    assert set(device.get("./VMImgMO/a").split("/")) == {
        "ImgID", "Name", "DownloadURI", "State", "MediaType", "Operations", "Ext",
    }  # fmt: skip
    assert device.get("./VMImgMO/a/State") == "0"
    assert device.get("./VMImgMO/a/ImgID") in device.images.records
    assert status_of(device.get, "./VMImgMO/a/DownloadedLocation") == 404


def test_a_download_ends_in_downloaded_with_its_location(device: Device) -> None:
    """R-091, R-092, R-106 to R-109, VirMO-C-011."""
    assert device.execute("./VMImgMO/a/Operations/Download") == 200
    assert device.images.downloads == [
        (URI, "application/x-tar", Origin(SERVER, "./VMImgMO/a/Operations/Download", None))
    ]
    assert device.get("./VMImgMO/a/State") == "2"
    assert device.get("./VMImgMO/a/DownloadedLocation").startswith("/images/")


def test_a_failed_download_is_state_3(device: Device) -> None:
    """R-088."""
    device.images.result = OperationResult(415, "wrong content")
    assert status_of(device.execute, "./VMImgMO/a/Operations/Download") == 415
    assert device.get("./VMImgMO/a/State") == "3"


def test_a_long_download_is_answered_202(device: Device) -> None:
    """R-111."""
    device.images.result = None
    assert device.execute("./VMImgMO/a/Operations/Download", "c") == 202
    assert device.get("./VMImgMO/a/State") == "1"


@pytest.mark.parametrize("leaf", ["DownloadURI", "MediaType"])
def test_what_is_being_downloaded_cannot_be_redirected(device: Device, leaf: str) -> None:
    """A-35."""
    device.images.result = None
    device.execute("./VMImgMO/a/Operations/Download")
    assert status_of(device.set, f"./VMImgMO/a/{leaf}", "x") == 403


def test_an_empty_uri_is_412(device: Device) -> None:
    """A-34."""
    device.set("./VMImgMO/a/DownloadURI", "")
    assert status_of(device.execute, "./VMImgMO/a/Operations/Download") == 412


@pytest.mark.parametrize("leaf", ["ImgID", "State"])
def test_client_owned_leaves_cannot_be_replaced(device: Device, leaf: str) -> None:
    """R-081, R-085, R-087, A-05."""
    assert status_of(device.set, f"./VMImgMO/a/{leaf}", "2") == 405


def test_operations_delete_removes_data_and_sub_tree(device: Device) -> None:
    """R-094, R-095, A-36, VirMO-C-012."""
    assert device.execute("./VMImgMO/a/Operations/Delete") == 200
    assert status_of(device.get, "./VMImgMO/a") == 404
    assert device.images.records == {}


def test_dm_delete_does_the_same(device: Device) -> None:
    """R-122, A-36."""
    device.tree.delete(SERVER, "./VMImgMO/a")
    assert device.images.records == {}


def test_a_rolled_back_delete_keeps_the_data(device: Device) -> None:
    with device.tree.atomic() as atomic:
        device.tree.delete(SERVER, "./VMImgMO/a")
        atomic.rollback()
    assert len(device.images.records) == 1
    assert device.get("./VMImgMO/a/Name") == "sample"


def test_a_rolled_back_add_leaves_no_image(device: Device) -> None:
    with device.tree.atomic() as atomic:
        device.tree.add(SERVER, "./VMImgMO/b", ItemValue(format=Format.NODE))
        atomic.rollback()
    assert len(device.images.records) == 1


def test_operation_nodes_answer_get_with_an_empty_value(device: Device) -> None:
    """A-04: Get is their printed minimum access."""
    assert device.get("./VMImgMO/a/Operations/Download") == ""


def test_progress_and_the_last_error_are_told(device: Device) -> None:
    img_id = device.get("./VMImgMO/a/ImgID")
    assert status_of(device.get, "./VMImgMO/a/Ext/LastError") == 404
    record = replace(device.images.records[img_id], state=ImageState.DOWNLOADING, progress=40, last_error="lost")
    device.images.records[img_id] = record
    assert device.get("./VMImgMO/a/Ext/Progress") == "40"
    assert device.get("./VMImgMO/a/Ext/LastError") == "lost"


def test_a_whole_entry_comes_as_one_document(device: Device) -> None:
    """A-23, R-100 to R-103: TNDS; ImgID and State are the client's."""
    leaves = {
        "ImgID": "chosen by the server",
        "Name": "other",
        "DownloadURI": URI,
        "MediaType": "application/x-tar",
        "DownloadedLocation": "/etc/shadow",
    }
    nodes = [TndsNode(name, Format.CHR, "text/plain", value) for name, value in leaves.items()]
    document = TndsNode("b", Format.NODE, children=(*nodes, TndsNode("State", Format.INT, "text/plain", "2")))
    device.tree.add(SERVER, "./VMImgMO", ItemValue(encode_tnds([document]), Format.XML, XML_TYPE))
    assert device.get("./VMImgMO/b/ImgID") in device.images.records
    assert device.get("./VMImgMO/b/State") == "0"
    assert status_of(device.get, "./VMImgMO/b/DownloadedLocation") == 404
    assert device.execute("./VMImgMO/b/Operations/Download") == 200
    assert device.get("./VMImgMO/b/State") == "2"
