"""What runs inside a VM, managed over OMA DM on real Xen: the effect is seen in the guest, over its console.

The sample guest, its real shim and handlers, over vchan and XenStore; the console is read and typed on as
``xl console`` does it, not through the shim.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from image.guest import build_guest
from image.story.nested_board import NestedBoard
from image.story.server import Server
from image.story.steps import DEV_ID, DEVICE, agent_yaml
from tests.nested.conftest import eventually
from tests.nested.guest_console import Console

pytestmark = pytest.mark.nested

MEDIA_TYPE = "application/vnd.virmo.bundle+tar"
VM = "web"
#: Seconds for an order on a busy machine under emulation.
PATIENCE = 300.0


class Site:
    """A server, a board on nested Xen, and on it a running VM with somebody at its console."""

    def __init__(self, folder: Path, guest_type: str, transport: str) -> None:
        self.folder = folder
        self.bundle = build_guest("x86_64", guest_type=guest_type)
        self.board = NestedBoard(self.bundle, "x86_64", "credit2", lambda _line: None)
        self.server = Server(folder / "server", self.board.server_host)
        self.server.start()
        url = self.board.notification_url
        added = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
        self._config: dict[str, Any] = yaml.safe_load(agent_yaml(added))
        self._config["vm"] = {**self._config.get("vm", {}), "default_storage": 1 << 20, "shutdown_wait": 30}
        self._config["fumo"] = {"health_timeout": 120}
        self.use(transport)
        deliver = ("image", "deliver", DEVICE, "--name", "sample", "--file", str(self.bundle))
        assert self.order(*deliver, "--media-type", MEDIA_TYPE)["state"] == "done"
        created = self.order("vm", "create", DEVICE, VM, "--image", "sample")
        assert created["state"] == "done", created
        self.vmid = UUID(self.server.virmo_json("vm", "list", DEVICE)[0]["vmid"])
        self.console = Console(self.board.dom0, self.vmid)
        self.greeted(transport)

    def use(self, transport: str) -> None:
        """(Re)start the agent with this kind of channel."""
        self._config["guest"] = {"transport": transport}
        self.board.start_agent(yaml.safe_dump(self._config), self.server.ca_file)

    def greeted(self, transport: str) -> None:
        """Wait until the guest's shim is connected over that channel."""

        def is_connected() -> bool:
            shown = self.board.dom0.run(["virmoctl", "guest", "info", str(self.vmid), "--json"], check=False)
            return shown.rc == 0 and json.loads(shown.stdout).get("transport") == transport

        eventually(is_connected, f"the shim is connected over {transport}")

    def vm(self, verb: str, *words: str) -> dict[str, Any]:
        """``virmo vm VERB board-1 web …``: how the order ended."""
        return self.order("vm", verb, DEVICE, VM, *words)

    def place(self, *words: str) -> int:
        """Give an order and have the board come for it."""
        placed = self.server.virmo_json(*words)
        assert self.board.agent("session").rc == 0
        return int(placed["id"])

    def ended(self, order: int) -> dict[str, Any]:
        shown: dict[str, Any] = self.server.virmo_json(
            "order", "show", str(order), "--wait", "--timeout", str(PATIENCE)
        )
        return shown

    def order(self, *words: str) -> dict[str, Any]:
        return self.ended(self.place(*words))

    def close(self) -> None:
        self.server.close()
        self.board.close()


def component() -> bytes:
    """A component that speaks up on the guest's console when it is installed and removed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text, mode in (
            ("component.json", json.dumps({"name": "greeter", "version": "1.0"}), 0o644),
            ("hooks/activate", "#!/bin/sh\necho greeter-is-active >/dev/console\n", 0o755),
            ("hooks/deactivate", "#!/bin/sh\necho greeter-is-inactive >/dev/console\n", 0o755),
        ):
            info = tarfile.TarInfo(name)
            data = text.encode()
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def a_shell_answers(site: Site) -> None:
    site.console.enter("echo alive-$((6*7))")
    site.console.shows("alive-42")


def lock_and_unlock(site: Site) -> None:
    """HLF-12, HLF-13: nobody gets a shell while it is locked, and the interfaces are down."""
    a_shell_answers(site)
    locked = site.vm("lock")
    assert (locked["state"], locked["message"]) == ("done", "fully locked"), locked
    site.console.shows("this machine is locked by its owner")
    site.console.enter("echo alive-$((6*7))")
    site.console.keeps_silent("alive-42", 6.0)
    unlocked = site.vm("unlock")
    assert unlocked["message"] == "unlocked", unlocked
    site.console.shows("this machine is unlocked")
    a_shell_answers(site)


def ask_the_person(site: Site) -> None:
    """R-148 to R-158: 200, 304, 214, 408 and what was entered, typed at the console."""
    for words, keys, status, message in (
        (("confirm", "Restart at noon?"), "yes\r", 200, "answered"),
        (("confirm", "Restart at noon?"), "no\r", 304, "no"),
        (("text", "Asset number?", "--input", "N"), "4711\r", 200, "answered: 4711"),
        (("choice", "Which?", "--choice", "red", "--choice", "blue"), "\x03", 214, "cancelled"),
        (("confirm", "Anybody there?", "--max", "3"), "", 408, "nobody answered in time"),
    ):
        site.console.type("")
        order = site.place("vm", "ask", DEVICE, VM, *words)
        site.console.shows("(Ctrl-C cancels)")
        assert words[1] in site.console.text()
        if keys:
            site.console.type(keys)
        ended = site.ended(order)
        assert (ended["state"], ended["dm_status"], ended["message"]) == ("done", status, message), ended
    a_shell_answers(site)


def install_and_remove(site: Site) -> None:
    """HLF-07: a package of the server's library gets into a guest that has no network."""
    package = site.folder / "greeter.tar.gz"
    package.write_bytes(component())
    site.console.type("")
    installed = site.vm("install", "--file", str(package), "--id", "org.example.greeter", "--type", "tar.gz")
    assert (installed["state"], installed["dm_status"]) == ("done", 1200), installed
    site.console.shows("greeter-is-active")
    assert "greeter 1.0 (active" in site.vm("packages")["message"]
    removed = site.vm("remove", "greeter")
    assert removed["dm_status"] == 1200, removed
    site.console.shows("greeter-is-inactive")


def wipe(site: Site) -> None:
    """What is marked is gone from the guest's file system."""
    site.console.enter("echo secret >/root/letter; ls /root")
    site.console.shows("letter")
    wiped = site.vm("wipe", "--item", "home")
    assert wiped["dm_status"] == 1202, wiped
    site.console.enter("ls -A /root | wc -l; echo counted")
    site.console.shows("counted")
    assert "letter" not in site.console.text().rpartition("wc -l")[2]


def tell(site: Site) -> None:
    """DevInfo and DevDetail: the kernel is the one that the guest names at its console."""
    told = site.vm("info")
    assert told["state"] == "done", told
    facts = dict(line.split(": ", 1) for line in told["message"].splitlines() if ": " in line)
    site.console.enter("uname -r")
    site.console.shows(facts["FwV"].split()[-1])
    assert facts["DevId"] == f"urn:uuid:{site.vmid}"
    assert int(facts["Ext/Memory"]) > 64 << 20


def the_whole_table(folder: Path, guest_type: str, first: str, second: str) -> None:
    """All operations over one kind of channel, then the agent is switched to the other one."""
    site = Site(folder, guest_type, first)
    try:
        for operation in (tell, lock_and_unlock, ask_the_person, install_and_remove, wipe):
            operation(site)
        site.use(second)
        site.greeted(second)
        for operation in (lock_and_unlock, install_and_remove):
            operation(site)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{site.board.agent_log()}\n{site.console.text()[-2000:]}") from error
    finally:
        site.close()


def test_a_pv_guest_over_vchan_and_xenstore(tmp_path: Path) -> None:
    """R-130, R-138 to R-158, HLF-07, HLF-12, HLF-13."""
    the_whole_table(tmp_path, "pv", "vchan", "xenstore")


@pytest.mark.long
def test_a_pvh_guest_over_xenstore_and_vchan(tmp_path: Path) -> None:
    """Likewise."""
    the_whole_table(tmp_path, "pvh", "xenstore", "vchan")


@pytest.mark.long
@pytest.mark.parametrize("guest_type", ["pv", "pvh"])
def test_a_system_is_replaced_and_a_broken_one_taken_back(tmp_path: Path, guest_type: str) -> None:
    """HLF-14, HLF-08: a kernel that panics, a shim that never comes; the data disk is intact every time."""
    site = Site(tmp_path, guest_type, "xenstore")
    try:
        data = f"/var/lib/virmo-agent/vms/{site.vmid}"
        disk = site.board.dom0.run(["sh", "-c", f"ls {data}/*.raw"]).stdout.split()[0]
        site.board.dom0.run(["sh", "-c", f"printf precious | dd of={disk} conv=notrunc"])
        good = site.vm("update", "--file", str(changed(site, "good", "virmo.update=good")))
        assert (good["state"], good["message"]) == ("done", "the new system runs"), good
        console = Console(site.board.dom0, site.vmid)
        console.enter("cat /proc/cmdline")
        console.shows("virmo.update=good")
        for name, words in (("panics", "rdinit=/nonsense panic=-1"), ("mute", "rdinit=/bin/sh")):
            broken = site.vm("update", "--file", str(changed(site, name, words)))
            assert (broken["state"], broken["dm_status"]) == ("failed", 410), broken
            console = Console(site.board.dom0, site.vmid)
            console.enter("cat /proc/cmdline")
            console.shows("virmo.update=good")
            head = site.board.dom0.run(["head", "-c", "8", disk]).stdout
            assert head == "precious"
        assert site.server.virmo_json("vm", "list", DEVICE)[0]["state"] == 2
    finally:
        site.close()


def changed(site: Site, name: str, words: str) -> Path:
    """The sample guest with other words on its kernel's command line."""
    target = site.folder / f"{name}.tar"
    folder = site.folder / name
    folder.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", str(site.bundle), "-C", str(folder)], check=True, timeout=120)
    about = yaml.safe_load((folder / "vm.yaml").read_text())
    about["cmdline"] = f"{about['cmdline']} {words}"
    (folder / "vm.yaml").write_text(yaml.safe_dump(about))
    members = ["vm.yaml", *(path.name for path in sorted(folder.iterdir()) if path.name != "vm.yaml")]
    subprocess.run(["tar", "--format=ustar", "-cf", str(target), "-C", str(folder), *members], check=True, timeout=120)
    return target
