"""A board's disk: where its partitions are, and that boot loader, RAM disk and agent mean the same names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dom0_agent.firmware import grubenv
from dom0_agent.firmware.health import DEADLINE
from dom0_agent.firmware.slots import NAMES
from image import board
from image.arch import ARCHES, Arch
from image.errors import ImageError

FILES = Path(board.__file__).parent / "files"
GRUB = (FILES / "board-grub.cfg").read_text()
INIT = (FILES / "board-initramfs/init").read_text()


def test_partitions_are_in_order_aligned_and_do_not_overlap() -> None:
    end = board.FIRST_BYTE
    for _name, _kind, first, size in board.layout():
        assert first >= end
        assert first % board.MIB == size % board.MIB == 0
        end = first + size
    assert end <= board.DISK_BYTES - board.MIB, "the partition table's copy is at the disk's end"


def test_there_is_a_partition_for_each_slot_and_grub_finds_it() -> None:
    """GRUB counts partitions from 1; the agent and the RAM disk go by their names."""
    names = [name for name, *_rest in board.layout()]
    for slot in NAMES:
        number = names.index(f"virmo-root-{slot}") + 1
        assert re.search(rf"set part={number}\b", GRUB), slot
    assert "virmo-root-$slot" in INIT
    assert "virmo-state" in INIT


def test_the_environment_block_is_one_that_the_agent_reads() -> None:
    block = board.environment({"slot": "a", "try": "", "tries": "0"})
    assert grubenv.parse(block) == {"slot": "a", "try": "", "tries": "0"}
    assert board.ENVIRONMENT in GRUB


@pytest.mark.parametrize("arch", ARCHES.values())
def test_every_row_starts_xen_from_a_slot(arch: Arch) -> None:
    for part in ("$system/xen", "$system/vmlinuz", "$system/initrd.img", "$arguments", "$xen_args"):
        assert part in arch.grub_xen


def test_secrets_of_the_boot_partition_are_moved_where_the_links_lead() -> None:
    provision = (FILES / "board/usr/lib/virmo/provision").read_text()
    folders = (FILES / "board/etc/tmpfiles.d/virmo-board.conf").read_text()
    for target in ("/var/lib/virmo-config", "/var/lib/virmo-ssh"):
        assert target in provision
        assert re.search(rf"^d {target} 0700 ", folders, re.MULTILINE)


def test_a_system_larger_than_a_slot_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(bytes(range(256)) * 64)
    monkeypatch.setattr(board, "SLOT_BYTES", 1024)
    monkeypatch.setattr(board, "run_tool", lambda *_args, **_kwargs: (tmp_path / "out").write_bytes(b"x" * 4096))
    with pytest.raises(ImageError, match="a slot only"):
        board.pack_slot(tmp_path / "root", tmp_path / "out")


def test_the_agent_may_write_the_boot_loaders_environment_and_nothing_else_there() -> None:
    """ProtectSystem=full has /boot read-only. For the same path systemd takes the stricter word: name one below it."""
    unit = (FILES / "board/etc/systemd/system/virmo-agent.service.d/board.conf").read_text().splitlines()
    settings = dict(line.partition("=")[::2] for line in unit if "=" in line and not line.startswith("#"))
    assert settings["ProtectSystem"] == "full"
    assert settings["ReadWritePaths"] == f"-/boot/{Path(board.ENVIRONMENT).parent}"
    assert Path("/boot", board.ENVIRONMENT).parent not in (Path("/boot"), Path("/efi"), Path("/etc"), Path("/usr"))


def test_a_slot_that_nobody_judges_is_left() -> None:
    """The judge itself may be broken: then a timer restarts the board, only on trial, and later than any verdict."""
    timer = (FILES / "board/etc/systemd/system/virmo-trial.timer").read_text()
    assert "ConditionKernelCommandLine=virmo.trial\n" in timer
    assert 'set trial="virmo.trial"' in GRUB
    after = re.search(r"^OnBootSec=(\d+)$", timer, re.MULTILINE)
    assert after is not None
    assert int(after[1]) > 2 * DEADLINE
    assert "virmo-slot-good.service" in (FILES / "board/etc/systemd/system/virmo-trial.service").read_text()
    assert "RemainAfterExit=yes" in (FILES / "board/etc/systemd/system/virmo-slot-good.service").read_text()


def test_every_unit_of_a_board_is_started_by_something() -> None:
    units = {path.name for path in (FILES / "board/etc/systemd/system").iterdir() if path.is_file()}
    enabled = {unit for _target, unit in board.ENABLED}
    others = {"virmo-ssh-hostkey.service": "ssh.service.d", "virmo-trial.service": "virmo-trial.timer"}
    assert enabled <= units
    assert units - enabled == set(others)
