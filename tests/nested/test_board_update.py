"""A board with two system slots updates its own system through ./FUMO, ordered by a real server: kept, or given up.

The normal run sees one system given up (the boot loader finds nothing to start in it); what takes longer, systems that
are kept, panic or never become healthy, and power cuts, is in the long form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.arch import ARCHES, Arch
from image.board import DISK_BYTES, BoardImage
from image.board_qemu import BoardDom0, board_image
from image.cache import Cache
from image.system_bundle import Signer, make_signer
from tests.nested.board_desk import (
    RECORD,
    START,
    Desk,
    changed_system,
    empty_system,
    open_desk,
    system_without_init,
)
from tests.nested.conftest import eventually

pytestmark = [pytest.mark.nested, pytest.mark.timeout(5400)]

#: What Xen says when it begins to start dom0.
STARTS_DOM0 = {"x86_64": "mapping kernel into physical memory", "arm64": "Loading zImage"}


@pytest.fixture(
    scope="module",
    params=[ARCHES["x86_64"], pytest.param(ARCHES["arm64"], marks=pytest.mark.long)],
    ids=lambda arch: arch.name,
)
def arch(request: pytest.FixtureRequest) -> Arch:
    """The board's architecture."""
    chosen: Arch = request.param
    return chosen


@pytest.fixture(scope="module")
def cache() -> Cache:
    return Cache(say=print)


@pytest.fixture(scope="module")
def image(arch: Arch, cache: Cache) -> BoardImage:
    return board_image(arch, cache)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture
def desk(image: BoardImage, cache: Cache, signer: Signer, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(image, cache, tmp_path) as opened:
        opened.register(signer)
        yield opened


def test_a_system_that_cannot_be_started_is_given_up(desk: Desk, signer: Signer, tmp_path: Path) -> None:
    """FUMO 1.0, result 410: written, tried as often as it may, and the old system is back by itself and says so."""
    assert desk.slot() == "a"
    order = desk.update(empty_system(tmp_path), signer)
    desk.hears("410")
    assert desk.started() == "ba", "the new system was tried once, then the old one came back"
    assert desk.slot() == "a"
    assert desk.environment()["slot"] == "a"
    assert desk.environment()["try"] == ""
    ended = desk.order(order)
    assert ended["state"] == "failed", ended


@pytest.mark.long
def test_updates_are_kept_or_given_up(desk: Desk, image: BoardImage, signer: Signer, tmp_path: Path) -> None:
    """200 for a system that is healthy; 410 for one that panics, and for one that never becomes healthy."""
    order = desk.update(image.slot, signer)
    desk.hears("200")
    assert (desk.started(), desk.slot()) == ("b", "b")
    watched = desk.dom0.run(["systemctl", "show", "virmo-agent", "-p", "WatchdogUSec,NRestarts"]).stdout
    assert set(watched.split()) == {"WatchdogUSec=2min", "NRestarts=0"}, "systemd watches the agent, which answers"
    assert (desk.environment()["slot"], desk.environment()["try"]) == ("b", "")
    assert desk.order(order)["state"] == "done"
    assert desk.stage() == "updated"

    desk.update(system_without_init(image, tmp_path), signer)
    desk.hears("200", "410")
    assert (desk.started(), desk.slot()) == ("bab", "b")

    desk.update(changed_system(image, tmp_path, "ill", _fall_ill), signer)
    desk.hears("200", "410", "410")
    assert (desk.started(), desk.slot()) == ("babab", "b")
    assert "did not become healthy" in desk.dom0.read(RECORD)


def _fall_ill(root: Path) -> None:
    """All starts but for what the doctor asks of Xen; and the judge does not wait as long as on a real board."""
    (root / "usr/sbin/xl").unlink(missing_ok=True)
    unit = root / "etc/systemd/system/virmo-slot-good.service"
    unit.write_text(re.sub(r"(?m)^(ExecStart=.*)$", r"\1 --deadline 30", unit.read_text()))


@pytest.mark.long
def test_a_system_that_nobody_trusts_is_not_taken(desk: Desk, tmp_path: Path) -> None:
    """404: the signature is another's. Nothing is written, nothing is restarted."""
    (tmp_path / "other").mkdir()
    before = desk.environment()
    desk.update(empty_system(tmp_path), make_signer(tmp_path / "other"))
    desk.hears("404")
    assert (desk.started(), desk.slot(), desk.environment()) == ("", "a", before)
    zeros = desk.dom0.run(["sh", "-c", "head -c 1048576 /dev/disk/by-partlabel/virmo-root-b | tr -d '\\0' | wc -c"])
    assert zeros.stdout.strip() == "0"


@pytest.mark.long
def test_power_cuts_while_a_slot_is_written_and_on_trial(desk: Desk, image: BoardImage, signer: Signer) -> None:
    """The record on the state partition says where to go on; an incomplete slot is never started."""
    dom0 = desk.dom0
    desk.update(image.slot, signer)
    eventually(lambda: desk.stage() == "writing", "it writes", START)
    dom0.power_cut()
    dom0.live_until(lambda: desk.started() == "ab", "the old system goes on writing, and starts the new one", 2 * START)
    # The new system is on trial now. Nobody has judged it yet: its only try is used up.
    dom0.live_until(lambda: STARTS_DOM0[image.arch.name] in dom0.said(), "Xen starts its dom0", START)
    dom0.power_cut()
    desk.hears("410")
    assert (desk.started(), desk.slot()) == ("aba", "a")
    assert desk.stage() == "failed"

    # The package is still there.
    desk.execute("./FUMO/Update")
    desk.hears("410", "200")
    assert (desk.started(), desk.slot()) == ("abab", "b")


@pytest.mark.long
def test_a_board_is_what_it_should_be(image: BoardImage, cache: Cache, tmp_path: Path) -> None:
    """Read-only root, state that grows to the disk, own keys and id, no passwords, watchdogs, time, limited logs."""
    with BoardDom0(image, cache, disk_bytes=2 * DISK_BYTES, log=tmp_path / "serial.log", say=print) as dom0:
        dom0.boot_through(START)
        roots = [line.split() for line in dom0.read("/proc/mounts").splitlines()]
        assert [(kind, options[:2]) for _what, target, kind, options, *_ in roots if target == "/"] == [
            ("squashfs", "ro")
        ]
        assert dom0.run(["touch", "/usr/written"], check=False).rc != 0
        size = int(dom0.run(["df", "--output=size", "-B1", "/var"]).stdout.split()[-1])
        assert size > DISK_BYTES * 1.5, "the state partition has all of the disk"

        fields = [line.split(":")[1] for line in dom0.read("/etc/shadow").splitlines()]
        assert all(re.fullmatch(r"[!*]+", field) for field in fields), "no account has a password"
        sshd = dom0.run(["sshd", "-T"]).stdout
        assert "passwordauthentication no" in sshd
        assert "permitrootlogin without-password" in sshd
        machine, key = dom0.read("/etc/machine-id"), dom0.read("/var/lib/virmo-ssh-host/ssh_host_ed25519_key.pub")

        hardening = dom0.run(["systemctl", "show", "virmo-agent", "-p", "NoNewPrivileges,ProtectSystem"]).stdout
        assert set(hardening.split()) == {"NoNewPrivileges=yes", "ProtectSystem=full"}
        assert dom0.read("/sys/class/watchdog/watchdog0/identity") == "xen_wdt\n"
        kept = dom0.run(["systemctl", "show", "-p", "WatchdogDevice,RuntimeWatchdogUSec"]).stdout
        assert set(kept.split()) == {"WatchdogDevice=/dev/watchdog0", "RuntimeWatchdogUSec=1min"}
        assert dom0.run(["systemctl", "is-active", "systemd-timesyncd"]).stdout.strip() == "active"
        assert "SystemMaxUse=32M" in dom0.run(["systemd-analyze", "cat-config", "systemd/journald.conf"]).stdout
        assert image.arch.xen_console.split()[0] in dom0.run(["xl", "info"]).stdout

        # A dom0 whose init hangs is restarted by Xen; what the first start has made is still there.
        dom0.run(["sync"])
        dom0.run(["kill", "-SEGV", "1"])
        dom0.restart(START)
        assert (dom0.read("/etc/machine-id"), dom0.read("/var/lib/virmo-ssh-host/ssh_host_ed25519_key.pub")) == (
            machine,
            key,
        )
        listed = dom0.run(["ls", "/var/log/journal"]).stdout.split()
        assert listed == [machine.strip()], "the logs of all starts are in one place, under one limit"
