"""A board with two system slots updates its own system through ./FUMO, ordered by a real server: kept, or rolled back.

this machine: VirMO Server, web server with signed systems
    │ DM session, HTTP
QEMU: UEFI ─ GRUB ─┬─ slot a: Xen, dom0, agent
                   └─ slot b: what the update wrote
"""

from __future__ import annotations

import functools
import http.server
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from image.arch import ARCHES
from image.board import BoardImage, pack_slot
from image.board_qemu import BoardDom0, board_image
from image.cache import Cache
from image.errors import ImageError
from image.story.nested_board import CA_FILE, CONFIG, SERVER_HOST
from image.story.server import Server, free_port
from image.story.steps import DEV_ID, DEVICE, agent_yaml
from image.system_bundle import Signer, make_signer, write_system_bundle

pytestmark = [pytest.mark.nested, pytest.mark.timeout(3000)]

ARCH = ARCHES["x86_64"]
FIRMWARE_CA = "/etc/virmo-agent/firmware-ca.pem"
NODE = "./FUMO/DownloadAndUpdate"
ALERT = "org.openmobilealliance.dm.firmwareupdate.downloadandupdate"
#: Seconds for starts under emulation, on a machine that may be busy with something else.
START = 900.0
ORDER = 300.0


@pytest.fixture(scope="module")
def image() -> BoardImage:
    return board_image(ARCH, Cache(say=print))


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("signer"))


class Desk:
    """The operator's side: a server, a web server, and a board that both know."""

    def __init__(self, dom0: BoardDom0, server: Server, web: Path, port: int, signer: Signer) -> None:
        self.dom0 = dom0
        self.server = server
        self.web = web
        self._url = f"http://{SERVER_HOST}:{port}"
        self._signer = signer

    def register(self) -> None:
        """The board gets its configuration, as an owner's would, and has a first session."""
        snippet = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--agent-config")
        config = yaml.safe_load(agent_yaml(snippet))
        config["firmware"] = {"environment": "/boot/virmo/grubenv", "signature_ca_file": FIRMWARE_CA, "tries": 1}
        self.dom0.write(CA_FILE, self.server.ca_file.read_bytes())
        self.dom0.write(FIRMWARE_CA, self._signer.certificate.read_bytes())
        self.dom0.write(CONFIG, yaml.safe_dump(config))
        self.dom0.run(["chmod", "0600", CONFIG])
        self.dom0.run(["systemctl", "restart", "virmo-agent"], timeout=120)
        eventually(lambda: self.dom0.run(["virmoctl", "status"], check=False).rc == 0, "the agent answers", 180.0)

    def offer(self, name: str, image: BoardImage, slot: Path) -> str:
        """Puts a signed system onto the web server; its URL."""
        write_system_bundle(self.web / name, ARCH, slot, image.hypervisor, self._signer)
        return f"{self._url}/{name}"

    def order(self, *words: str) -> dict[str, Any]:
        """An order, and a session in which the board comes for it."""
        placed = self.server.virmo_json("node", *words)
        self.dom0.run(["virmoctl", "session"], timeout=ORDER, check=False)
        done: dict[str, Any] = self.server.virmo_json(
            "order", "show", str(placed["id"]), "--wait", "--timeout", str(ORDER)
        )
        return done

    def update(self, url: str) -> None:
        """Has the update begun."""
        assert self.order("replace", DEVICE, f"{NODE}/PkgURL", url)["state"] == "done"
        placed = self.server.virmo_json("node", "exec", DEVICE, NODE)
        self.dom0.run(["virmoctl", "session"], timeout=ORDER, check=False)
        assert "id" in placed

    def results(self) -> list[str]:
        """FUMO's result codes that have arrived at the server, in order of their arrival."""
        alerts = self.server.virmo_json("device", "alerts", DEVICE)
        found = [alert for alert in alerts if alert["type"] == ALERT]
        return [str(alert["data"]) for alert in sorted(found, key=lambda alert: int(alert["id"]))]

    def slot(self) -> str:
        """The slot that dom0 runs from, by the kernel's command line."""
        words = self.dom0.read("/proc/cmdline").split()
        return next(word.partition("=")[2] for word in words if word.startswith("virmo.slot="))

    def started(self) -> list[str]:
        """The slots that GRUB has started, in order."""
        lines = self.dom0.serial_log.read_text(errors="replace").splitlines()
        return [line.split("starting slot ")[1].strip()[:1] for line in lines if "virmo: starting slot " in line]


@pytest.fixture
def desk(image: BoardImage, signer: Signer, tmp_path: Path) -> Iterator[Desk]:
    web = tmp_path / "web"
    web.mkdir()
    handler = functools.partial(_Quiet, directory=str(web))
    with http.server.ThreadingHTTPServer(("0.0.0.0", free_port()), handler) as httpd:  # noqa: S104 - QEMU's guests
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        server = Server(tmp_path / "server", SERVER_HOST)
        server.start()
        try:
            with BoardDom0(image, Cache(say=print), log=tmp_path / "serial.log", say=print) as dom0:
                dom0.boot_through(START)
                made = Desk(dom0, server, web, httpd.server_port, signer)
                made.register()
                yield made
        finally:
            server.close()
            httpd.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
        pass


def eventually(truth: Callable[[], bool], what: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not truth():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(2.0)


def without_init(image: BoardImage, folder: Path) -> Path:
    """A system that starts, and whose dom0 panics: its slot has Xen, a kernel and a RAM disk, and nothing else."""
    unpacked = folder / "broken"
    argv = ["unsquashfs", "-no-progress", "-quiet", "-d", str(unpacked), str(image.slot), "usr/lib/virmo/system"]
    subprocess.run(argv, check=True, timeout=300, capture_output=True)
    (unpacked / "var").mkdir()
    (unpacked / "dev").mkdir()
    pack_slot(unpacked, folder / "broken.squashfs")
    return folder / "broken.squashfs"


def test_a_board_is_what_it_should_be_and_updates_with_rollback(desk: Desk, image: BoardImage, tmp_path: Path) -> None:
    """FUMO 1.0: 410 and the old system when the new one does not start; 200 and the new one when it is healthy."""
    dom0 = desk.dom0
    assert desk.slot() == "a"
    mounts = [line.split()[1:4] for line in dom0.read("/proc/mounts").splitlines()]
    root = next(options for target, _kind, options in mounts if target == "/")
    assert root.startswith("ro")
    assert dom0.run(["touch", "/usr/written"], check=False).rc != 0
    shadow = [line.split(":")[1] for line in dom0.read("/etc/shadow").splitlines()]
    assert all(set(field) <= set("!*") for field in shadow), "no account has a password"
    unit = dom0.run(["systemctl", "show", "virmo-agent", "-p", "WatchdogUSec,NoNewPrivileges,ProtectSystem"]).stdout
    assert {"WatchdogUSec=2min", "NoNewPrivileges=yes", "ProtectSystem=full"} <= set(unit.split())
    assert dom0.run(["systemctl", "is-enabled", "systemd-timesyncd"]).stdout.strip() == "enabled"

    desk.update(desk.offer("broken.tar", image, without_init(image, tmp_path)))
    dom0.restart(START)
    assert desk.started()[-2:] == ["b", "a"], "the new system was tried once, then the old one came back"
    assert desk.slot() == "a"
    eventually(lambda: desk.results() == ["410"], "the server hears that it failed", ORDER)

    desk.update(desk.offer("good.tar", image, image.slot))
    dom0.restart(START)
    assert desk.slot() == "b"
    eventually(lambda: desk.results() == ["410", "200"], "the server hears that it is healthy", START)
    assert "slot=b\ntry=\n" in dom0.read("/boot/virmo/grubenv")


@pytest.mark.long
def test_power_cuts_while_a_slot_is_written_and_on_trial(desk: Desk, image: BoardImage) -> None:
    """The record on the state partition says where to go on; an incomplete slot is never started."""
    dom0 = desk.dom0
    desk.update(desk.offer("good.tar", image, image.slot))
    record = "/var/lib/virmo-agent/firmware/update.json"
    eventually(lambda: '"stage": "writing"' in dom0.run(["cat", record], check=False).stdout, "it writes", ORDER)
    dom0.power_cut()
    dom0.boot_through(START)
    assert desk.started()[-1] == "a"
    dom0.restart(START)
    assert desk.slot() == "b"
    eventually(lambda: desk.results() == ["200"], "the server hears that it is healthy", START)


@pytest.mark.long
def test_a_system_that_nobody_trusts_is_not_taken(desk: Desk, image: BoardImage, tmp_path: Path) -> None:
    """404: the signature is another's. Nothing is written."""
    (tmp_path / "other").mkdir()
    foreign = Desk(desk.dom0, desk.server, desk.web, 0, make_signer(tmp_path / "other"))
    url = desk.offer("x.tar", image, image.slot)
    foreign.offer("x.tar", image, image.slot)
    desk.update(url)
    eventually(lambda: desk.results() == ["404"], "the server hears that the signature is not good", ORDER)
    with pytest.raises(ImageError, match="did not restart"):
        desk.dom0.restart(5.0)
