"""A board with two system slots in QEMU, the server that manages it, and systems to update it with.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from image.board import BoardImage, pack_slot
from image.board_qemu import BoardDom0
from image.cache import Cache
from image.story.nested_board import CA_FILE, CONFIG, SERVER_HOST
from image.story.server import Server, free_port
from image.story.steps import DEV_ID, DEVICE, agent_yaml
from image.system_bundle import Signer, write_system_bundle
from tests.nested.conftest import eventually

CLOCK = "/var/lib/systemd/timesync/clock"
FIRMWARE_CA = "/etc/virmo-agent/firmware-ca.pem"
RECORD = "/var/lib/virmo-agent/firmware/update.json"
NODE = "./FUMO/DownloadAndUpdate"
ALERTS = "org.openmobilealliance.dm.firmwareupdate."
#: Seconds for starts under emulation, on a machine that may be busy with something else.
START = 900.0
ORDER = 300.0
_TOOL = 300.0


class Desk:
    """The operator's side: a server, a web server, and a board that both know."""

    def __init__(self, dom0: BoardDom0, image: BoardImage, server: Server, web: Path, port: int) -> None:
        self.dom0 = dom0
        self.server = server
        self._image = image
        self._web = web
        self._url = f"http://{SERVER_HOST}:{port}"
        self._earlier = len(self._starts())

    def register(self, trusted: Signer, tries: int = 1) -> None:
        """The board gets its configuration, as an owner's would, and has a first session."""
        snippet = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--agent-config")
        config = yaml.safe_load(agent_yaml(snippet))
        config["firmware"] = {"environment": "/boot/virmo/grubenv", "signature_ca_file": FIRMWARE_CA, "tries": tries}
        self.dom0.write(CA_FILE, self.server.ca_file.read_bytes())
        self.dom0.write(FIRMWARE_CA, trusted.certificate.read_bytes())
        self.dom0.write(CONFIG, yaml.safe_dump(config))
        self.dom0.run(["chmod", "0600", CONFIG])
        # A board without a clock (QEMU's for Arm) goes on from the time that timesyncd has heard last. The harness has
        # told the kernel, so nobody has told timesyncd; before 2026 no certificate would be valid.
        self.dom0.run(["touch", CLOCK])
        self.dom0.run(["sync"])
        self.dom0.run(["systemctl", "restart", "virmo-agent"], timeout=120)
        eventually(lambda: self._device()["last_seen_at"] is not None, "the board has come to the server", START)

    def update(self, slot: Path, signer: Signer) -> str:
        """Signs a system, offers it, and has the update begun; the id of the order that waits for its end."""
        name = f"{slot.stem}.tar"
        write_system_bundle(self._web / name, self._image.arch, slot, self._image.hypervisor, signer)
        placed = self.server.virmo_json("node", "replace", DEVICE, f"{NODE}/PkgURL", f"{self._url}/{name}")
        self._session()
        assert self.order(placed["id"])["state"] == "done"
        return self.execute(NODE)

    def execute(self, node: str) -> str:
        """Has an operation of ./FUMO begun; the id of the order that waits for its end."""
        placed = self.server.virmo_json("node", "exec", DEVICE, node)
        self._session()
        begun = self.order(placed["id"])
        assert (begun["state"], begun["dm_status"]) == ("accepted", 202), begun
        return str(placed["id"])

    def order(self, order_id: str | int) -> dict[str, Any]:
        """What the server knows of an order."""
        shown: dict[str, Any] = self.server.virmo_json("order", "show", str(order_id))
        return shown

    def results(self) -> list[str]:
        """FUMO's result codes that have arrived at the server, in order of their arrival."""
        alerts = self.server.virmo_json("device", "alerts", DEVICE)
        found = [alert for alert in alerts if alert["type"].startswith(ALERTS)]
        return [str(alert["data"]) for alert in sorted(found, key=lambda alert: int(alert["id"]))]

    def hears(self, *codes: str, timeout: float = 2 * START) -> None:
        """Lets the board run, over its restarts, until the server has heard just these results."""
        self.dom0.live_until(lambda: len(self.results()) >= len(codes), f"results {codes}", timeout)
        assert self.results() == list(codes)
        self.dom0.reconnect(START)

    def stage(self) -> str:
        """How far the agent says that the update is, by what it keeps on the disk."""
        return self.dom0.run(["cat", RECORD], check=False).stdout.partition('"stage": "')[2].partition('"')[0]

    def slot(self) -> str:
        """The slot that dom0 runs from, by the kernel's command line."""
        words = self.dom0.read("/proc/cmdline").split()
        return next(word.partition("=")[2] for word in words if word.startswith("virmo.slot="))

    def started(self) -> str:
        """The slots that GRUB has started since the desk was opened, in order."""
        return self._starts()[self._earlier :]

    def environment(self) -> dict[str, str]:
        """The boot loader's variables."""
        lines = self.dom0.read("/boot/virmo/grubenv").splitlines()
        return dict(line.partition("=")[::2] for line in lines if "=" in line)

    def _starts(self) -> str:
        log = self.dom0.serial_log
        said = log.read_text(errors="replace").split("virmo: starting slot ") if log.exists() else [""]
        return "".join(part[:1] for part in said[1:])

    def _session(self) -> None:
        self.dom0.run(["virmoctl", "session"], timeout=ORDER, check=False)

    def _device(self) -> dict[str, Any]:
        devices: list[dict[str, Any]] = self.server.virmo_json("device", "list")
        return next(device for device in devices if device["name"] == DEVICE)


@contextmanager
def open_desk(image: BoardImage, cache: Cache, folder: Path) -> Iterator[Desk]:
    """A board that runs (from its saved state) and is not registered yet; all is ended at the end."""
    web = folder / "web"
    web.mkdir()
    handler = functools.partial(_Quiet, directory=str(web))
    server = Server(folder / "server", SERVER_HOST)
    try:
        server.start()
        with (
            http.server.ThreadingHTTPServer(("0.0.0.0", free_port()), handler) as httpd,  # noqa: S104 - QEMU's guests
            BoardDom0(image, cache, log=folder / "serial.log", say=print) as dom0,
        ):
            threading.Thread(target=httpd.serve_forever, daemon=True).start()
            dom0.restore()
            yield Desk(dom0, image, server, web, httpd.server_port)
            httpd.shutdown()
    finally:
        server.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
        pass


# Systems --------------------------------------------------------------------------------------------------------------


def empty_system(folder: Path) -> Path:
    """A slot in which the boot loader finds nothing to start."""
    (folder / "empty/etc").mkdir(parents=True)
    (folder / "empty/etc/virmo-release").write_text("VERSION=empty\n")
    return _packed(folder, "empty")


def system_without_init(image: BoardImage, folder: Path) -> Path:
    """A slot with Xen, a kernel and a RAM disk, and nothing else: dom0's kernel panics."""
    _unpack(image, folder / "panics", "usr/lib/virmo/system")
    for name in ("dev", "var", "etc"):
        (folder / "panics" / name).mkdir()
    return _packed(folder, "panics")


def changed_system(image: BoardImage, folder: Path, name: str, edit: Callable[[Path], None]) -> Path:
    """The board's own system after `edit` of its files."""
    _unpack(image, folder / name)
    edit(folder / name)
    return _packed(folder, name)


def _unpack(image: BoardImage, target: Path, *inside: str) -> None:
    argv = ["unsquashfs", "-no-progress", "-quiet", "-d", str(target), str(image.slot), *inside]
    subprocess.run(argv, check=True, timeout=_TOOL, capture_output=True)


def _packed(folder: Path, name: str) -> Path:
    pack_slot(folder / name, folder / f"{name}.squashfs")
    return folder / f"{name}.squashfs"
