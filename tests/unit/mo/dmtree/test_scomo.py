"""SCOMO of a VM: from a web server through dom0 into a guest that has no network, and out of it again."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.download import Downloader
from dom0_agent.mo.dmtree.packages import CHUNK, Packages
from dom0_agent.mo.dmtree.scomo import scomo
from dom0_agent.mo.dmtree.scomo_nodes import SCOMO
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.vm.model import VmState
from guest_shim.backends import Apk, Component, Dpkg, Opkg
from guest_shim.places import Places, Result, run
from guest_shim.services import make_dispatcher
from tests.unit.guest.loopback import LoopbackGuests
from tests.unit.images.images_testing import Handler, serving
from tests.unit.mo.dmtree.guests_testing import SERVER, GuestDevice, status_of

URI = "./VirMO/a/DMTree/SCOMO"
DOWNLOAD = f"{URI}/Download"
DELIVERED = f"{URI}/Inventory/Delivered"
DEPLOYED = f"{URI}/Inventory/Deployed"


def archive(name: str = "greeter", version: str = "1.0", **members: str) -> bytes:
    """A component as a plain archive; its hooks write down that they ran."""
    files = {
        "component.json": json.dumps({"name": name, "version": version, "description": "greets"}),
        "hooks/install": "echo install $* >>log",
        "hooks/activate": "echo activate >>log",
        "hooks/deactivate": "echo deactivate >>log",
        "hooks/remove": "echo removed >>../../removed",
        **members,
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            data = text.encode()
            info.size, info.mode = len(data), 0o755 if path.startswith("hooks/") else 0o644
            data = b"#!/bin/sh\n" + data if path.startswith("hooks/") else data
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Shop:
    """A web server with one package."""

    def __init__(self) -> None:
        self.package = archive()
        self.status = 200

    def __call__(self, handler: Handler) -> None:
        handler.answer(self.status, self.package if self.status == 200 else b"")


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def url(shop: Shop) -> Iterator[str]:
    with serving(shop) as server:
        yield f"{server.url}/package"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuestDevice]:
    monkeypatch.setattr("guest_shim.backends.MANAGERS", ())
    config = ImagesConfig(reserve=0, retries=0, backoff_first=0.01, backoff_max=0.01)
    guests = LoopbackGuests()
    packages = Packages(tmp_path / "packages", Downloader(config), guests, max_size=32 << 20, reserve=0)
    made = GuestDevice(tmp_path, kinds={SCOMO: scomo(packages)}, answer_limit=30.0, guests=guests)
    made.connect(make_dispatcher(made.places()))
    made.add_object("SCOMO", SCOMO)
    yield made
    made.close()


def order(device: GuestDevice, url: str, name: str = "p", **leaves: str) -> None:
    device.add(f"{DOWNLOAD}/{name}")
    for leaf, value in {"PkgID": "org.example.greeter", "PkgURL": url, "PkgType": "tar.gz", **leaves}.items():
        device.replace(f"{DOWNLOAD}/{name}/{leaf}", value)


def components(device: GuestDevice) -> Path:
    return device.places().state / "components"


def test_download_deliver_install_activate_update_remove(device: GuestDevice, shop: Shop, url: str) -> None:
    """HLF-07: the whole life of a component, R-145."""
    order(device, url)
    assert device.execute(f"{DOWNLOAD}/p/Operations/Download") == 1200
    assert device.children(DOWNLOAD) == set()
    assert device.get(f"{DELIVERED}/p/PkgID") == "org.example.greeter"
    assert (device.get(f"{DELIVERED}/p/State"), device.get(DEPLOYED)) == ("10", "")
    assert device.execute(f"{DELIVERED}/p/Operations/InstallInactive") == 1200
    assert device.get(f"{DELIVERED}/p/State") == "20"
    (component,) = device.children(DEPLOYED)
    at = f"{DEPLOYED}/{component}"
    assert [device.get(f"{at}/{leaf}") for leaf in ("ID", "Name", "Version", "Description", "State")] == [
        *("archive:greeter", "greeter", "1.0", "greets", "10"),
    ]
    assert device.execute(f"{at}/Operations/Activate") == 1200
    assert device.get(f"{at}/State") == "20"
    assert device.execute(f"{at}/Operations/Deactivate") == 1200
    assert device.get(f"{at}/State") == "10"
    log = (components(device) / "greeter/files/log").read_text().split()
    assert log == ["install", "activate", "deactivate", "activate", "deactivate"]
    shop.package = archive(version="2.0")
    order(device, url, "q", InstallParams="--fast")
    assert device.execute(f"{DOWNLOAD}/q/Operations/DownloadInstall") == 1200
    assert (device.get(f"{at}/Version"), device.get(f"{at}/State")) == ("2.0", "20")
    assert "install --fast" in (components(device) / "greeter/files/log").read_text()
    assert device.execute(f"{at}/Operations/Remove") == 1200
    assert device.children(DEPLOYED) == set()
    assert device.execute(f"{DELIVERED}/p/Operations/Remove") == 1200
    assert device.children(DELIVERED) == {"q"}
    device.tree.delete(SERVER, f"{DELIVERED}/q")
    assert [path for path in (device.root / "packages").rglob("*") if path.is_file()] == []
    assert list((device.places().state / "packages").iterdir()) == []


def test_a_package_can_come_over_dm(device: GuestDevice) -> None:
    """Delivered/<x>/Data: a large object, no web server at all."""
    device.add(f"{DELIVERED}/d")
    device.add(f"{DELIVERED}/d/Data", ItemValue(archive("direct"), Format.BIN, "application/octet-stream"))
    device.replace(f"{DELIVERED}/d/PkgID", "direct")
    assert status_of(device.get, f"{DELIVERED}/d/Data") == 405
    assert device.execute(f"{DELIVERED}/d/Operations/Install") == 1200
    assert device.children(DEPLOYED) == {"archive.direct"}


def test_a_late_end_is_an_alert_with_result_and_component(tmp_path: Path, device: GuestDevice, url: str) -> None:
    """R-147, A-43: SCOMO's fragment of XML, the full path, the correlator."""
    order(device, url)
    assert device.dmtree is not None
    object.__setattr__(device.dmtree.around, "answer_limit", 0.0)
    assert device.execute(f"{DOWNLOAD}/p/Operations/DownloadInstall", "c4") == 202
    device.settle()
    (alert,) = device.alerts()
    assert alert.alert_type == "urn:oma:at:scomo:1.0:OperationComplete"
    assert (alert.format, alert.correlator) == ("xml", "c4")
    assert alert.source_uri == f"{DOWNLOAD}/p/Operations/DownloadInstall"
    assert alert.data == "<ResultCode>1200</ResultCode><Identifier>archive:greeter</Identifier>"


@pytest.mark.parametrize(
    ("status", "leaves", "code"),
    [
        (404, {}, 1402),
        (200, {"SHA256": "0" * 64}, 1407),
        (200, {"PkgURL": ""}, 412),
        (200, {"PkgURL": "ftp://x/y"}, 1402),
    ],
)
def test_a_package_that_cannot_be_had(
    device: GuestDevice, shop: Shop, url: str, status: int, leaves: dict[str, str], code: int
) -> None:
    shop.status = status
    order(device, url, **leaves)
    assert status_of(device.execute, f"{DOWNLOAD}/p/Operations/DownloadInstall") == code
    assert device.get(f"{DOWNLOAD}/p/Status") == ("20" if code != 412 else "10")
    assert device.children(DELIVERED) == set()


def test_the_right_digest_is_accepted(device: GuestDevice, shop: Shop, url: str) -> None:
    order(device, url, SHA256=hashlib.sha256(shop.package).hexdigest().upper())
    assert device.execute(f"{DOWNLOAD}/p/Operations/Download") == 1200


@pytest.mark.parametrize(
    ("package", "leaves", "code"),
    [
        (b"no archive", {}, 1405),
        (archive("../evil"), {}, 1405),
        (archive("evil", **{"../../escaped": "x"}), {}, 1405),
        (archive("failing", **{"hooks/install": "exit 4"}), {}, 1405),
        (archive(), {"PkgType": "rpm"}, 1413),
    ],
)
def test_a_package_that_cannot_be_installed_leaves_nothing(
    device: GuestDevice, shop: Shop, url: str, package: bytes, leaves: dict[str, str], code: int
) -> None:
    shop.package = package
    order(device, url, **leaves)
    assert status_of(device.execute, f"{DOWNLOAD}/p/Operations/DownloadInstall") == code
    assert (device.get(f"{DELIVERED}/p/Status"), device.get(f"{DELIVERED}/p/State")) == ("50", "10")
    assert device.children(DEPLOYED) == set()
    assert not list(device.root.rglob("escaped"))


def test_a_failed_update_brings_the_old_version_back(device: GuestDevice, shop: Shop, url: str) -> None:
    order(device, url)
    assert device.execute(f"{DOWNLOAD}/p/Operations/DownloadInstall") == 1200
    shop.package = archive(version="2.0", **{"hooks/activate": "exit 1"})
    order(device, url, "q")
    assert status_of(device.execute, f"{DOWNLOAD}/q/Operations/DownloadInstall") == 1405
    assert device.get(f"{DEPLOYED}/archive.greeter/Version") == "1.0"


def test_a_large_package_travels_in_parts_and_survives_a_lost_channel(
    device: GuestDevice, shop: Shop, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 MiB; the guest goes away in the middle, and comes back: success, and nothing is left behind."""
    shop.package = archive("large", **{"data": "".join(map(str, range(400_000)))}) + bytes(10 * CHUNK)
    order(device, url)
    shim = make_dispatcher(device.places())
    lost: list[bool] = []
    device.connect(shim)
    request = device.guests.request

    def breaking(vmid, question, **how):  # type: ignore[no-untyped-def]
        if question.verb == "package" and question.fields["offset"] >= 4 * CHUNK and not lost:
            lost.append(True)
            device.guests.lose(vmid)
            try:
                return request(vmid, question, **how)
            finally:
                device.guests.connect(vmid, shim)
        return request(vmid, question, **how)

    monkeypatch.setattr(device.guests, "request", breaking)
    assert device.execute(f"{DOWNLOAD}/p/Operations/DownloadInstall") == 1200
    assert lost
    assert device.children(DEPLOYED) == {"archive.large"}
    assert list((device.places().state / "packages").iterdir()) == []


def test_downloads_need_no_guest_and_installs_do(device: GuestDevice, url: str) -> None:
    """A-41."""
    device.set_state(device.vmid, VmState.POWERED_OFF)
    order(device, url)
    assert status_of(device.execute, f"{DOWNLOAD}/p/Operations/DownloadInstall") == 403
    assert device.execute(f"{DOWNLOAD}/p/Operations/Download") == 1200
    assert status_of(device.execute, f"{DELIVERED}/p/Operations/Install") == 403
    device.set_state(device.vmid, VmState.RUNNING)
    assert device.execute(f"{DELIVERED}/p/Operations/Install") == 1200


def test_a_delivered_entry_without_a_package_cannot_be_installed(device: GuestDevice) -> None:
    device.add(f"{DELIVERED}/empty")
    assert status_of(device.execute, f"{DELIVERED}/empty/Operations/Install") == 405


def test_dpkg_installs_a_real_package(tmp_path: Path) -> None:
    """Debian's own tools, on a root of its own."""
    if shutil.which("dpkg-deb") is None:
        subprocess.run(["apt-get", "install", "-y", "dpkg"], check=True, timeout=300)
    root, build = tmp_path / "root", tmp_path / "build"
    for folder in ("var/lib/dpkg/updates", "var/lib/dpkg/info"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (build / "DEBIAN").mkdir(parents=True)
    (build / "etc").mkdir()
    (build / "etc/greeting").write_text("hello")
    control = "Package: greeter\nVersion: 1.2-3\nArchitecture: all\nMaintainer: M <m@x.org>\nDescription: greets\n"
    (build / "DEBIAN/control").write_text(control)
    package = tmp_path / "package"
    subprocess.run(["dpkg-deb", "--build", str(build), str(package)], check=True, capture_output=True, timeout=60)
    backend = Dpkg(Places(tmp_path / "state", root=root))
    assert backend.components() == []
    assert backend.install(package, "", "").code == 0
    (component,) = backend.components()
    assert (component.id, component.version, component.description) == ("dpkg:greeter", "1.2-3", "greets")
    assert (root / "etc/greeting").read_text() == "hello"
    assert backend.activate(component).code == 127, "it has no services"
    assert backend.remove(component).code == 0
    assert backend.components() == []
    (tmp_path / "bad").write_bytes(b"!<arch>\nnonsense")
    assert backend.install(tmp_path / "bad", "", "").code != 0


class Noted:
    """Notes the calls of a package manager that this machine does not have, and says what it would say."""

    def __init__(self, **says: str) -> None:
        self.calls: list[list[str]] = []
        self._says = says

    def __call__(self, argv: list[str], **_: object) -> Result:
        self.calls.append(argv)
        return Result(0, next((text for word, text in self._says.items() if word.replace("_", "-") in argv), ""))


def test_opkg_and_apk_are_called_as_they_want_it(tmp_path: Path) -> None:
    """What their manuals say of lists and options; both install from a file that must have its suffix."""
    places = Places(tmp_path / "state", root=tmp_path)
    noted = Noted(list_installed="base-files - 1.5\nnano - 7.2-1 - editor\n", files="/etc/init.d/nanod\n")
    opkg = Opkg(places, noted)
    assert opkg.components()[1] == Component("opkg:nano", "nano", "7.2-1", "editor")
    package = tmp_path / "package"
    package.touch()
    assert opkg.install(package, "", "--force-reinstall").code == 0
    assert noted.calls[-1] == [
        "opkg",
        "--offline-root",
        str(tmp_path),
        "install",
        "--force-reinstall",
        f"{package}.ipk",
    ]
    opkg.deactivate(opkg.components()[1])
    assert noted.calls[-1] == [f"{tmp_path}/etc/init.d/nanod", "stop"]
    (tmp_path / "etc/apk").mkdir(parents=True)
    (tmp_path / "etc/apk/world").write_text("busybox\nnano>7\n")
    (tmp_path / "lib/apk/db").mkdir(parents=True)
    (tmp_path / "lib/apk/db/installed").write_text(
        "P:musl\nV:1.2\n\nP:nano\nV:7.2-r1\nT:an editor\n\nP:busybox\nV:1.36\n"
    )
    noted = Noted()
    apk = Apk(places, noted)
    assert {(c.name, c.version) for c in apk.components()} == {("nano", "7.2-r1"), ("busybox", "1.36")}
    package.touch()
    apk.install(package, "", "")
    apk.remove(Component("apk:nano", "nano"))
    assert [call[3] for call in noted.calls] == ["add", "del"]
    assert "--no-network" in noted.calls[0]


def test_a_program_that_hangs_or_is_not_there_is_a_result() -> None:
    assert run(["sleep", "5"], deadline=0.2).code == 124
    assert run(["/no/such/program"]).code == 127
