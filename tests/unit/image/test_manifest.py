"""vm.yaml: what it says, read back by a YAML parser, whatever characters its values hold."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from image.manifest import Disk, Manifest, Member

KERNEL = Member.of("vmlinux", [b"ker", b"nel"])
RAMDISK = Member("initramfs", "0" * 64, 7)


def manifest(cmdline: str = "console=hvc0 quiet", disks: tuple[Disk, ...] = ()) -> Manifest:
    return Manifest(
        name="sample-guest",
        arch="x86_64",
        type="pvh",
        vcpus=1,
        memory=134217728,
        cmdline=cmdline,
        kernel=KERNEL,
        ramdisk=RAMDISK,
        disks=disks,
    )


def test_a_member_is_measured_over_its_pieces() -> None:
    assert Member("vmlinux", hashlib.sha256(b"kernel").hexdigest(), 6) == KERNEL


def test_it_reads_back_as_written() -> None:
    disk = Disk(Member("root.qcow2", "1" * 64, 4096), format="qcow2", device="xvda")
    assert yaml.safe_load(manifest(disks=(disk,)).text()) == {
        "format": 1,
        "name": "sample-guest",
        "arch": "x86_64",
        "type": "pvh",
        "vcpus": 1,
        "memory": 134217728,
        "cmdline": "console=hvc0 quiet",
        "kernel": {"file": "vmlinux", "sha256": KERNEL.sha256, "size": 6},
        "ramdisk": {"file": "initramfs", "sha256": "0" * 64, "size": 7},
        "disks": [{"file": "root.qcow2", "sha256": "1" * 64, "size": 4096, "format": "qcow2", "device": "xvda"}],
    }


def test_without_disks_the_list_is_empty() -> None:
    assert yaml.safe_load(manifest().text())["disks"] == []


@pytest.mark.parametrize("cmdline", ["", 'a="b: c" # d', "- x", "ü", "back\\slash", "yes", "1e3", "{a: b}"])
def test_any_command_line_survives(cmdline: str) -> None:
    assert yaml.safe_load(manifest(cmdline).text())["cmdline"] == cmdline
