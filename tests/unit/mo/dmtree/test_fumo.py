"""FUMO of a VM: states, result codes and alerts, with images in memory and the VM engine's end as a test wants it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.download import Downloader
from dom0_agent.mo.dmtree.fumo import Fumo, fumo
from dom0_agent.mo.dmtree.fumo_nodes import FUMO
from dom0_agent.mo.dmtree.packages import Packages
from dom0_agent.omadm.node import Format, Value
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.operation import OperationResult
from dom0_agent.vm.model import Rebuild, VmState
from guest_shim.services import make_dispatcher
from tests.unit.guest.loopback import LoopbackGuests
from tests.unit.images.images_testing import serving
from tests.unit.mo.dmtree.guests_testing import SERVER, GuestDevice, handler, status_of
from tests.unit.mo.engines import MemoryImages

URI = "./VirMO/a/DMTree/FUMO"


class UpdatableDevice(GuestDevice):
    """With FUMO at ``./VirMO/a/DMTree/FUMO``."""

    def __init__(self, root: Path) -> None:
        self.images = MemoryImages()
        guests = LoopbackGuests()
        downloader = Downloader(ImagesConfig(reserve=0, retries=0))
        packages = Packages(root / "packages", downloader, guests, max_size=1 << 20, reserve=0)
        super().__init__(root, kinds={FUMO: fumo(self.images, packages, 42.0)}, guests=guests)
        self.add_object("FUMO", FUMO)

    def do(self, operation: str) -> tuple[str, str, str]:
        """Exec it and let it end: (the alert's type without the prefix, its result, State)."""
        before = len(self.alerts())
        assert self.execute(f"{URI}/{operation}", "c2") == 202
        self.settle()
        (alert,) = self.alerts()[before:]
        assert (alert.source_uri, alert.correlator, alert.format) == (URI, "c2", "int")
        return alert.alert_type.rpartition(".")[2], alert.data, self.get(f"{URI}/State")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[UpdatableDevice]:
    made = UpdatableDevice(tmp_path)
    yield made
    made.close()


def test_download_then_update(device: UpdatableDevice) -> None:
    """HLF-14: 10, 50, 100; always 202 and an alert; the package goes when it is used."""
    assert device.get(f"{URI}/State") == "10"
    assert status_of(device.execute, f"{URI}/Update") == 405
    assert status_of(device.execute, f"{URI}/Download") == 412
    device.replace(f"{URI}/Download/PkgURL", "https://example.org/new.tar.zst")
    assert device.do("Download") == ("download", "200", "50")
    assert device.images.downloads[0][0] == "https://example.org/new.tar.zst"
    (image,) = device.images.records
    assert device.get(f"{URI}/Ext/ImgID") == image
    assert device.do("Update") == ("update", "200", "100")
    assert device.vms.rebuilt == [(Rebuild.REPLACE_SYSTEM, image, 42.0)]
    assert device.images.records == {}
    assert status_of(device.execute, f"{URI}/Update") == 405


def test_download_and_update_in_one(device: UpdatableDevice) -> None:
    device.replace(f"{URI}/DownloadAndUpdate/PkgURL", "https://example.org/new.tar.zst")
    assert device.do("DownloadAndUpdate") == ("downloadandupdate", "200", "100")


@pytest.mark.parametrize(
    ("status", "code"), [(420, "501"), (424, "402"), (415, "403"), (403, "404"), (412, "411"), (500, "503")]
)
def test_a_download_that_fails(device: UpdatableDevice, status: int, code: str) -> None:
    device.images.result = OperationResult(status, "so it is")
    device.replace(f"{URI}/Download/PkgURL", "https://example.org/new.tar.zst")
    assert device.do("Download") == ("download", code, "20")
    assert device.get(f"{URI}/Ext/LastError") == "so it is"
    assert device.images.records == {}
    device.images.result = OperationResult(200)
    assert device.do("Download") == ("download", "200", "50")


@pytest.mark.parametrize(("status", "code"), [(500, "410"), (420, "502")])
def test_an_update_that_is_taken_back_keeps_the_package(device: UpdatableDevice, status: int, code: str) -> None:
    """70: the old system runs again, the package can be tried again."""
    device.replace(f"{URI}/Download/PkgURL", "https://example.org/new.tar.zst")
    device.do("Download")
    device.vms.result = OperationResult(status, "the new system's shim did not come up")
    assert device.do("Update") == ("update", code, "70")
    assert "shim" in device.get(f"{URI}/Ext/LastError")
    device.vms.result = OperationResult(200)
    assert device.do("Update") == ("update", "200", "100")


def test_what_the_vm_must_be(device: UpdatableDevice) -> None:
    """A-41."""
    device.replace(f"{URI}/Download/PkgURL", "https://example.org/new.tar.zst")
    device.replace(f"{URI}/DownloadAndUpdate/PkgURL", "https://example.org/new.tar.zst")
    device.set_state(device.vmid, VmState.POWERED_OFF)
    assert device.do("Download") == ("download", "200", "50")
    assert status_of(device.execute, f"{URI}/Update") == 403
    assert status_of(device.execute, f"{URI}/DownloadAndUpdate") == 403


def test_nothing_changes_under_a_running_download(device: UpdatableDevice) -> None:
    device.images.result = None  # it never ends
    device.replace(f"{URI}/Download/PkgURL", "https://example.org/new.tar.zst")
    assert device.execute(f"{URI}/Download") == 202
    assert device.get(f"{URI}/State") == "30"
    assert status_of(device.replace, f"{URI}/Download/PkgURL", "x") == 403
    assert status_of(device.tree.delete, SERVER, URI) == 403
    assert status_of(device.execute, f"{URI}/Download") == 417
    device.images.result = OperationResult(200)


def test_a_guest_that_updates_itself_is_given_the_package(device: UpdatableDevice, tmp_path: Path) -> None:
    """The shim announces an updater: dom0 hands the package over, and takes its word for the end."""
    seen = tmp_path / "seen"
    handler(device.places(), "fumo", "update", f'cp "$1" {seen}')
    device.connect(make_dispatcher(device.places()))
    with serving(lambda request: request.answer(200, b"firmware")) as server:
        device.replace(f"{URI}/Download/PkgURL", f"{server.url}/fw")
        assert device.do("Download") == ("download", "200", "50")
    assert device.do("Update") == ("update", "200", "100")
    assert seen.read_bytes() == b"firmware"
    assert device.vms.rebuilt == []
    handler(device.places(), "fumo", "update", "echo wrong board; exit 1")
    with serving(lambda request: request.answer(200, b"firmware")) as server:
        device.replace(f"{URI}/Download/PkgURL", f"{server.url}/fw")
        device.do("Download")
    assert device.do("Update") == ("update", "410", "70")
    assert "wrong board" in device.get(f"{URI}/Ext/LastError")


def test_an_object_in_the_middle_of_something_after_a_restart(device: UpdatableDevice) -> None:
    device.tree.device_set(("VirMO", "a", "DMTree", "FUMO", "State"), Value("60", Format.INT))
    device.start()
    (item,) = device.objects()
    assert isinstance(item, Fumo)
    item.recovered()
    assert device.get(f"{URI}/State") == "70"


def test_pkg_data_over_dm_is_not_offered(device: UpdatableDevice) -> None:
    """Systems are larger than a DM object: PkgURL is the way (FUMO lets either)."""
    assert status_of(device.tree.add, SERVER, f"{URI}/Update/PkgData", ItemValue("x")) == 405
