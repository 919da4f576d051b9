"""LAWMO of a VM with the real shim and its real handlers, on a guest's file system that is a directory here."""

from __future__ import annotations

import os
import pty
import select
import threading
import time
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import DomainInfo, DomainState
from dom0_agent.mo.dmtree.lawmo_nodes import LAWMO
from dom0_agent.operation import OperationResult
from dom0_agent.vm.model import Rebuild, VmState
from guest_shim.lawmo import LISTED
from guest_shim.services import make_dispatcher
from tests.unit.mo.dmtree.guests_testing import GuestDevice, handler, status_of

URI = "./VirMO/a/DMTree/LAWMO"
OPERATIONS = f"{URI}/Operations"
INITTAB = """::sysinit:/etc/init.d/rcS
::respawn:/usr/lib/virmo/shim
hvc0::respawn:-/bin/sh
tty1::askfirst:/bin/login
::shutdown:/bin/sync
"""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[GuestDevice]:
    made = GuestDevice(tmp_path)
    places = made.places()
    (places.root / "etc/inittab").write_text(INITTAB)
    made.connect(make_dispatcher(places))
    made.add_object("LAWMO", LAWMO)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The handlers' tools, noted instead of done: they would reach this machine's init and network."""
    tools = tmp_path / "tools"
    tools.mkdir()
    log = tools / "log"
    log.touch()
    for name in ("ip", "nft", "systemctl", "loginctl"):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\necho {name} "$@" >>{log}\n' + ("exit 1\n" if name == "nft" else "exit 0\n"))
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return log


def test_a_lock_takes_log_ins_away_and_unlock_gives_them_back(device: GuestDevice, no_signals: Path) -> None:
    """HLF-12, HLF-13: busybox's init has no terminal lines, nologin is there, interfaces are down."""
    root = device.places().root
    interface = root / "sys/class/net/eth0"
    interface.mkdir(parents=True)
    (interface / "flags").write_text("0x1003")
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    assert device.get(f"{URI}/State") == "10"
    table = (root / "etc/inittab").read_text()
    assert "\n#virmo-locked#hvc0::respawn:-/bin/sh\n#virmo-locked#tty1::askfirst:/bin/login\n" in table
    assert table.startswith("::sysinit:/etc/init.d/rcS\n::respawn:/usr/lib/virmo/shim\n")
    assert (root / "etc/nologin").exists()
    assert "ip link set eth0 down" in no_signals.read_text()
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    assert (root / "etc/inittab").read_text() == table
    assert device.execute(f"{OPERATIONS}/UnLock") == 1200
    assert device.get(f"{URI}/State") == "30"
    assert (root / "etc/inittab").read_text() == INITTAB
    assert not (root / "etc/nologin").exists()
    assert "ip link set eth0 up" in no_signals.read_text()


def test_the_person_at_the_guest_is_told_unless_the_server_does_not_want_it(device: GuestDevice) -> None:
    """LAWMOConfig/NotifyUser."""
    console = device.places().root / "dev/console"
    console.touch()
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    assert "locked by its owner" in console.read_text()
    device.replace(f"{URI}/LAWMOConfig/NotifyUser", "false")
    device.settle()
    console.write_text("")
    assert device.execute(f"{OPERATIONS}/UnLock") == 1200
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    assert console.read_text() == ""


def test_what_was_typed_while_it_was_locked_is_forgotten(device: GuestDevice) -> None:
    """Nobody prepares commands for the shell that starts with UnLock."""
    keyboard, terminal = pty.openpty()
    tty.setraw(terminal)
    (device.places().root / "dev/hvc0").symlink_to(os.ttyname(terminal))
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    os.write(keyboard, b"rm -rf /")
    assert select.select([terminal], [], [], 5)[0]
    assert device.execute(f"{OPERATIONS}/UnLock") == 1200
    assert not select.select([terminal], [], [], 0.1)[0]
    os.close(keyboard)
    os.close(terminal)


def test_a_partial_lock_leaves_the_network(device: GuestDevice, no_signals: Path) -> None:
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    assert device.execute(f"{OPERATIONS}/PartiallyLock") == 1200
    assert device.get(f"{URI}/State") == "20"
    assert (device.places().root / "etc/nologin").exists()
    assert "link" not in no_signals.read_text()


def test_systemd_units_are_barred_stopped_and_come_back(device: GuestDevice, no_signals: Path) -> None:
    """With real systemd: ``tests/integration/test_debian_guest.py``."""
    root = device.places().root
    (root / "run/systemd/system").mkdir(parents=True)
    mine = root / "etc/systemd/system/ssh.service.d/mine.conf"
    mine.parent.mkdir(parents=True)
    mine.touch()
    tool = no_signals.parent / "systemctl"
    listing = "case $1 in list-units) printf 'getty@tty1.service x\\nssh.service y\\n';; esac"
    tool.write_text(f'#!/bin/sh\necho systemctl "$@" >>{no_signals}\n{listing}\n')
    assert device.execute(f"{OPERATIONS}/PartiallyLock") == 1200
    barred = root / "etc/systemd/system/getty@.service.d/virmo-lock.conf"
    assert "ConditionPathExists=!/etc/nologin" in barred.read_text()
    assert device.execute(f"{OPERATIONS}/UnLock") == 1200
    said = no_signals.read_text()
    for line in ("stop getty@tty1.service ssh.service", "start getty@tty1.service ssh.service"):
        assert f"systemctl {line}\n" in said
    assert list(root.glob("etc/systemd/system/*.d/*")) == [mine]
    assert not barred.parent.exists()


def test_a_lock_is_made_again_after_a_reboot(device: GuestDevice) -> None:
    """The guest's file system came back without the lock (a RAM disk, an overlay): the shim's state makes it again."""
    places = device.places()
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    (places.root / "etc/inittab").write_text(INITTAB)
    (places.root / "etc/nologin").unlink()
    device.guests.lose(device.vmid)
    device.connect(make_dispatcher(places))
    assert (places.root / "etc/nologin").exists()
    assert device.get(f"{URI}/State") == "10"


def test_a_guest_that_forgot_its_lock_is_locked_by_dom0(device: GuestDevice) -> None:
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    device.guests.lose(device.vmid)
    fresh = device.places("fresh")
    device.connect(make_dispatcher(fresh))
    assert (fresh.root / "etc/nologin").exists()
    assert device.get(f"{URI}/State") == "10"


def test_an_integrators_handler_is_used_and_its_failure_told(device: GuestDevice) -> None:
    places = device.places()
    handler(places, "lawmo", "lock", "echo no way; exit 3")
    assert status_of(device.execute, f"{OPERATIONS}/FullyLock") == 1402
    assert status_of(device.execute, f"{OPERATIONS}/PartiallyLock") == 1403
    handler(places, "lawmo", "unlock", "exit 1")
    assert status_of(device.execute, f"{OPERATIONS}/UnLock") == 1404
    assert device.get(f"{URI}/State") == "30"


def test_what_is_marked_is_wiped_and_nothing_else(device: GuestDevice) -> None:
    """Wipe with AvailableWipeList: 1406 nothing marked, 1202 done, 1405 failed."""
    root = device.places().root
    for name in ("home/ann/letter", "data/keep", "root/.profile"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    time.sleep(LISTED)  # what there was before is told so long
    device.settle()
    assert device.children(f"{URI}/AvailableWipeList") == {"home", "data"}
    assert status_of(device.execute, f"{OPERATIONS}/Wipe") == 1406
    device.replace(f"{URI}/AvailableWipeList/home/ToBeWiped", "true")
    assert device.execute(f"{OPERATIONS}/Wipe") == 1202
    assert list((root / "home").iterdir()) == list((root / "root").iterdir()) == []
    assert (root / "data/keep").exists()
    handler(device.places(), "lawmo", "wipe", "exit 1")
    assert status_of(device.execute, f"{OPERATIONS}/Wipe") == 1405


def test_an_integrators_wipe_list_replaces_ours_and_never_means_everything(device: GuestDevice) -> None:
    places = device.places()
    folder = places.settings / "wipe.d"
    folder.mkdir()
    (folder / "keys").write_text("name = Keys\npath = /etc/keys\n")
    (folder / "all").write_text("name = All\npath = /\n")
    (folder / "broken").write_bytes(b"\xff")
    (places.root / "etc/keys").write_text("secret")
    time.sleep(LISTED)
    device.settle()
    assert device.children(f"{URI}/AvailableWipeList") == {"keys", "all"}
    device.replace(f"{URI}/AvailableWipeList/keys/ToBeWiped", "true")
    assert device.execute(f"{OPERATIONS}/Wipe") == 1202
    assert not (places.root / "etc/keys").exists()
    device.replace(f"{URI}/AvailableWipeList/all/ToBeWiped", "true")
    assert status_of(device.execute, f"{OPERATIONS}/Wipe") == 1405
    assert (places.root / "etc").exists()


def test_a_factory_reset_is_dom0s(device: GuestDevice) -> None:
    """LAWMO FactoryReset: also of a guest that does not answer; a locked VM comes back unlocked."""
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    device.guests.lose(device.vmid)
    assert device.execute(f"{OPERATIONS}/FactoryReset") == 1200
    assert device.vms.rebuilt == [(Rebuild.FACTORY_RESET, "img-1", 0.0)]
    assert device.get(f"{URI}/State") == "30"
    device.vms.result = OperationResult(420, "no room")
    assert status_of(device.execute, f"{OPERATIONS}/FactoryReset") == 1400


class Holder:
    """A hypervisor with one domain."""

    def __init__(self) -> None:
        self.state = DomainState.RUNNING
        self.calls: list[str] = []

    def find(self, uuid: UUID) -> DomainInfo | None:
        return DomainInfo(uuid, 1, "a", self.state, 1, 1, 0.0)

    def pause(self, uuid: UUID) -> None:
        self.calls.append("pause")
        self.state = DomainState.PAUSED

    def unpause(self, uuid: UUID) -> None:
        self.calls.append("unpause")
        self.state = DomainState.RUNNING


def test_the_hypervisor_holds_a_full_lock(tmp_path: Path) -> None:
    """lawmo.enforce: hypervisor. The VM's State stays Running, LAWMO's is locked, and nobody asks a paused guest."""
    (tmp_path / "one").mkdir()
    holder = Holder()
    device = GuestDevice(tmp_path / "one", holder=holder)
    (device.places().root / "etc/inittab").write_text(INITTAB)
    device.connect(make_dispatcher(device.places()))
    device.add_object("LAWMO", LAWMO)
    assert device.execute(f"{OPERATIONS}/PartiallyLock") == 1200
    assert holder.calls == []
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    device.settle()
    assert holder.calls[0] == "pause"
    before = len(device.guests.requests)
    assert device.get(f"{URI}/State") == "10"
    assert device.get("./VirMO/a/State") == str(int(VmState.RUNNING))
    assert len(device.guests.requests) == before
    assert device.execute(f"{OPERATIONS}/UnLock") == 1200
    assert holder.state is DomainState.RUNNING
    assert device.get(f"{URI}/State") == "30"
    device.close()


def test_a_held_guest_whose_channel_was_given_up_can_be_unlocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused guest says nothing, so its channel ends after a while; UnLock waits for it to come back."""
    (tmp_path / "one").mkdir()
    holder = Holder()
    device = GuestDevice(tmp_path / "one", holder=holder)
    (device.places().root / "etc/inittab").write_text(INITTAB)
    shim = make_dispatcher(device.places())
    device.connect(shim)
    device.add_object("LAWMO", LAWMO)
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    device.settle()
    device.guests.lose(device.vmid)
    back = threading.Timer(0.5, lambda: device.guests.connect(device.vmid, shim))
    back.start()
    assert device.execute(f"{OPERATIONS}/UnLock") == 1200
    device.settle()
    assert holder.state is DomainState.RUNNING
    assert device.get(f"{URI}/State") == "30"
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    device.settle()
    device.guests.lose(device.vmid)
    monkeypatch.setattr("dom0_agent.mo.dmtree.lawmo.WAKE", 0.1)
    assert status_of(device.execute, f"{OPERATIONS}/UnLock") == 1404
    device.close()


def test_a_locked_guest_that_was_started_anew_is_held_again(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    holder = Holder()
    device = GuestDevice(tmp_path / "one", holder=holder)
    (device.places().root / "etc/inittab").write_text(INITTAB)
    device.connect(make_dispatcher(device.places()))
    device.add_object("LAWMO", LAWMO)
    assert device.execute(f"{OPERATIONS}/FullyLock") == 1200
    device.settle()
    device.guests.lose(device.vmid)
    holder.state = DomainState.RUNNING
    device.connect(make_dispatcher(device.places()))
    device.settle()
    assert holder.state is DomainState.PAUSED
    device.close()


def test_vms_without_an_image_cannot_be_reset(device: GuestDevice) -> None:
    record = device.vms.records[device.vmid]
    device.vms.records[device.vmid] = replace(record, img_id=None)
    assert status_of(device.execute, f"{OPERATIONS}/FactoryReset") == 405
