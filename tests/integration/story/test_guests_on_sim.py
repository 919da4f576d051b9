"""What runs inside a VM, from the operator's command line into a simulated guest with the real shim, and back.

A real server, a real agent, OMA DM between them; the guest's file system and console show what happened in it.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from image.story.server import Server
from image.story.sim_board import SimBoard, make_bundle
from image.story.steps import DEV_ID, DEVICE, agent_yaml

MEDIA_TYPE = "application/vnd.virmo.bundle+tar"
MIB = 1 << 20
VM = "web"
#: what a DM client inside the VM would be bootstrapped with; a password is in it
PROFILE = b"\x03\x01\x6a\x00hush-hush" + bytes(range(256))


def eventually(truth: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class World:
    """A server, and a board on which VM ``web`` runs."""

    def __init__(
        self,
        folder: Path,
        *,
        more: Mapping[str, Any] | None = None,
        create: tuple[str, ...] = (),
        machine: Mapping[str, Any] | None = None,
    ) -> None:
        """``more`` of the agent's configuration, more words for ``virmo vm create``, settings of the simulated
        ``machine``."""
        self.folder = folder
        self.board = SimBoard(folder / "board")
        self.server = Server(folder / "server", self.board.server_host)
        self.server.start()
        url = self.board.notification_url
        added = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
        config: dict[str, Any] = yaml.safe_load(agent_yaml(added))
        config["vm"] = {"default_storage": MIB, "shutdown_wait": 5}
        config["fumo"] = {"health_timeout": 8}
        config["dm"]["answer_limit"] = 1.0
        config |= more or {}
        host = self.board.state_dir / "sim" / "host.json"
        host.write_text(json.dumps(json.loads(host.read_text()) | dict(machine or {})))
        self.board.start_agent(yaml.safe_dump(config), self.server.ca_file)
        bundle = str(self.board.bundle)
        deliver = ("image", "deliver", DEVICE, "--name", "sample", "--file", bundle, "--media-type", MEDIA_TYPE)
        assert self._wait(*deliver)["state"] == "done"
        profile = folder / "profile"
        profile.write_bytes(PROFILE)
        created = self._wait("vm", "create", DEVICE, VM, "--image", "sample", "--bootstrap", str(profile), *create)
        assert created["state"] == "done"

    def vm(self, verb: str, *words: str) -> dict[str, Any]:
        """``virmo vm VERB board-1 web … --wait --json``: how the order ended."""
        return self._wait("vm", verb, DEVICE, VM, *words)

    def _wait(self, *words: str) -> dict[str, Any]:
        placed = self.server.virmo_json(*words)
        assert self.board.agent("session").returncode == 0  # the server notifies a device only 8 times a minute
        shown: dict[str, Any] = placed

        def ended() -> bool:
            shown.update(self.server.virmo_json("order", "show", str(placed["id"])))
            return shown["state"] in ("done", "failed", "expired")

        eventually(ended, f"{words} ends: {shown}", 60)
        return shown

    def guest(self) -> Path:
        """The guest's directory: ``root``, ``state``, ``settings`` …"""
        (home,) = self.board.state_dir.glob("sim/**/guest")
        return home

    def console(self) -> str:
        return (self.guest().parent / "console.txt").read_text(errors="replace")

    def type(self, keys: str) -> None:
        with (self.guest().parent / "console.in").open("w") as console:
            console.write(keys)

    def close(self) -> None:
        self.server.close()
        self.board.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("guests"))
    yield made
    made.close()


def test_the_guest_tells_what_it_is(world: World) -> None:
    """R-143 to R-146: DevInfo and DevDetail are added below DMTree and read from the guest."""
    told = world.vm("info")
    assert told["state"] == "done", told
    lines = dict(line.split(": ", 1) for line in told["message"].splitlines())
    assert lines["DmV"] == "0.1.0"
    assert int(lines["Ext/Memory"]) > 0
    assert lines["Ext/Hostname"]


def test_a_profile_given_at_create_reaches_the_guests_own_dm_client(world: World) -> None:
    """R-137: from ``virmo vm create --bootstrap`` to the file that the guest's client is handed; nobody is shown it."""
    profile = world.guest() / "settings/bootstrap"
    eventually(profile.exists, "the guest has its profile")
    assert profile.read_bytes() == PROFILE
    assert profile.stat().st_mode & 0o077 == 0
    (vm,) = world.server.virmo_json("vm", "list", DEVICE)
    assert vm["create_params"].endswith("&Bootstrap=...")
    (order,) = [o for o in world.server.virmo_json("order", "list", DEVICE) if o["kind"] == "create-vm"]
    assert world.server.virmo_json("order", "show", str(order["id"]))["params"]["bootstrap"] == "..."


def test_a_vm_is_locked_and_unlocked(world: World) -> None:
    """HLF-12, HLF-13: the effect is in the guest, the state is read back."""
    table = world.guest() / "root/etc/inittab"
    table.write_text("::respawn:/usr/lib/virmo/shim\nhvc0::respawn:-/bin/sh\n")
    assert world.vm("lock")["message"] == "fully locked"
    assert "#virmo-locked#hvc0::respawn:-/bin/sh" in table.read_text()
    assert (world.guest() / "root/etc/nologin").exists()
    eventually(lambda: "locked by its owner" in world.console(), "the console says so")
    assert world.vm("lock", "--partial")["message"] == "partially locked"
    assert world.vm("unlock")["message"] == "unlocked"
    assert "virmo-locked" not in table.read_text()
    assert not (world.guest() / "root/etc/nologin").exists()


def test_what_the_guest_offers_is_wiped(world: World) -> None:
    letter = world.guest() / "root/home/letter"
    letter.write_text("dear")
    refused = world.vm("wipe", "--item", "nonsense")
    assert (refused["state"], refused["dm_status"]) == ("failed", 404)
    assert "home (Home directories)" in refused["message"]
    assert letter.exists()
    assert world.vm("wipe", "--item", "home")["dm_status"] == 1202
    assert not letter.exists()


def component(version: str) -> bytes:
    out = io.BytesIO()
    hook = b"#!/bin/sh\nsleep ${1:-0}\necho activated >activated\n"
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data, mode in (
            ("component.json", json.dumps({"name": "greeter", "version": version}).encode(), 0o644),
            ("hooks/install", hook, 0o755),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_software_is_installed_updated_and_removed(world: World) -> None:
    """HLF-07: out of the server's library through dom0 into a guest without network; synchronously and as an alert."""
    package = world.folder / "greeter.tar.gz"
    package.write_bytes(component("1.0"))
    words = ("--file", str(package), "--id", "org.example.greeter", "--type", "tar.gz")
    assert world.vm("install", *words)["state"] == "done"
    listed = world.vm("packages")["message"]
    assert "greeter 1.0 (active, archive:greeter)" in listed
    assert (world.guest() / "state/components/greeter/files/activated").exists()
    package.write_bytes(component("2.0"))
    slow = world.vm("install", *words, "--params", "2")
    assert (slow["state"], slow["dm_status"]) == ("done", 1200)
    assert any("accepted" in event["text"] for event in slow["events"]), "answered 202, ended by the alert"
    assert "greeter 2.0" in world.vm("packages")["message"]
    assert world.vm("remove", "nothing")["state"] == "failed"
    assert world.vm("remove", "greeter")["dm_status"] == 1200
    assert "greeter 2.0" not in world.vm("packages")["message"]


@pytest.mark.parametrize(
    ("words", "keys", "status", "message"),
    [
        (("confirm", "Restart now?"), "yes\r", 200, "answered"),
        (("confirm", "Restart now?"), "no\r", 304, "no"),
        (("confirm", "Restart now?"), "\x03", 214, "cancelled"),
        (("confirm", "Anybody there?", "--max", "1"), "", 408, "nobody answered in time"),
        (("text", "Asset number?", "--input", "N", "--length", "6"), "4711\r", 200, "answered: 4711"),
        (("choice", "Which?", "--choice", "red", "--choice", "blue"), "2\r", 200, "answered: blue"),
    ],
)
def test_the_user_is_asked(world: World, words: tuple[str, ...], keys: str, status: int, message: str) -> None:
    """R-148 to R-158: the prompt appears on the guest's console, a person types there, UI/Result carries it."""
    shown = len(world.console())
    placed = world.server.virmo_json("vm", "ask", DEVICE, VM, *words)
    assert world.board.agent("session").returncode == 0
    eventually(lambda: "): " in world.console()[shown:] or "]: " in world.console()[shown:], "the prompt appears")
    assert words[1] in world.console()[shown:]
    world.type(keys)
    ended: dict[str, Any] = {}

    def is_done() -> bool:
        ended.update(world.server.virmo_json("order", "show", str(placed["id"])))
        return ended["state"] in ("done", "failed")

    eventually(is_done, "the order ends")
    assert (ended["state"], ended["dm_status"], ended["message"]) == ("done", status, message)


def test_a_good_system_replaces_the_old_one_and_a_broken_one_does_not(world: World) -> None:
    """HLF-14: data intact both times, the right codes; after the broken one the old system runs again."""
    (data,) = world.board.state_dir.glob("vms/*/xvd*.raw")
    data.write_bytes(b"precious")
    before = world.server.virmo_json("vm", "list", DEVICE)[0]
    bundle = world.folder / "new.tar"
    make_bundle(bundle)
    updated = world.vm("update", "--file", str(bundle))
    assert (updated["state"], updated["message"]) == ("done", "the new system runs")
    assert data.read_bytes()[:8] == b"precious"
    (kernel,) = world.board.state_dir.glob("vms/*/system-*/kernel")
    broken = world.folder / "broken.tar"
    make_bundle(broken, cmdline="sim.guest=panic")
    failed = world.vm("update", "--file", str(broken))
    assert (failed["state"], failed["dm_status"]) == ("failed", 410)
    assert "old system runs" in failed["message"]
    assert data.read_bytes()[:8] == b"precious"
    assert list(world.board.state_dir.glob("vms/*/system-*/kernel")) == [kernel]
    after = world.server.virmo_json("vm", "list", DEVICE)[0]
    assert (after["vmid"], after["state"]) == (before["vmid"], 2)
    eventually(lambda: world.vm("info")["state"] == "done", "the old system's shim is there", 30)


def test_a_reset_vm_is_as_from_the_factory(world: World) -> None:
    """LAWMO FactoryReset: all disks anew, by dom0."""
    assert world.vm("reset")["dm_status"] == 1200
    assert not any(path.read_bytes()[:8] == b"precious" for path in world.board.state_dir.glob("vms/*/*/xvd*.raw"))
    assert world.server.virmo_json("vm", "list", DEVICE)[0]["state"] == 2


def test_a_vm_that_does_not_run_cannot_be_locked(world: World) -> None:
    """A-41: 403, and what is known stays readable."""
    assert world._wait("vm", "poweroff", DEVICE, VM)["state"] == "done"
    refused = world.vm("lock")
    assert (refused["state"], refused["dm_status"]) == ("failed", 403)
    assert world.vm("info")["state"] == "done"
