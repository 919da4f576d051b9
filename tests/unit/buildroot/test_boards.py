"""Each defconfig leads to files that are there and to boot arguments that fit them; build scripts are run for real."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from buildroot.scripts.dotconfig import read
from dom0_agent.firmware import grubenv
from dom0_agent.images.manifest import parse_manifest
from image.board import layout

REPOSITORY = Path(__file__).parents[3]
TREE = REPOSITORY / "buildroot"
BOARDS = TREE / "board/virmo"
FILES = REPOSITORY / "image/files"
PREFIX = "$(BR2_EXTERNAL_VIRMO_PATH)/"
DEFCONFIGS = sorted((TREE / "configs").iterdir())
DOM0S = [path for path in DEFCONFIGS if "_dom0_" in path.name]
DISK_BOARDS = sorted(path.parent for path in BOARDS.glob("*/genimage.cfg") if not path.parent.name.startswith("qemu-"))

#: option → what depends on it; a dom0 without one of these boots and then fails at the first VM
DOM0_KERNEL = {
    "CONFIG_XEN_DOM0": "y",
    "CONFIG_XEN_BLKDEV_BACKEND": "y",
    "CONFIG_XEN_NETDEV_BACKEND": "y",
    "CONFIG_XEN_DEV_EVTCHN": "y",
    "CONFIG_XEN_GNTDEV": "y",
    "CONFIG_XEN_GRANT_DEV_ALLOC": "y",
    "CONFIG_BLK_DEV_LOOP": "y",
    "CONFIG_BRIDGE": "y",
    "CONFIG_NET_SCH_HTB": "y",
    "CONFIG_NET_SCH_INGRESS": "y",
    "CONFIG_IFB": "m",
    "CONFIG_NET_ACT_MIRRED": "y",
    "CONFIG_NET_ACT_POLICE": "y",
    "CONFIG_NET_CLS_U32": "y",
    "CONFIG_NET_CLS_MATCHALL": "y",
    "CONFIG_SQUASHFS": "y",
    "CONFIG_XEN_WDT": "y",
    "CONFIG_OVERLAY_FS": "y",
    "CONFIG_EXT4_FS": "y",
}
GUEST_KERNEL = {"CONFIG_XEN_BLKDEV_FRONTEND": "y", "CONFIG_XEN_NETDEV_FRONTEND": "y", "CONFIG_XENFS": "y"}


def options(file: Path) -> dict[str, str]:
    return {request.symbol: request.value.strip('"') for request in read(file)}


def fragments(defconfig: Path) -> list[Path]:
    asked = options(defconfig)
    names = ("BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE", "BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES")
    words = " ".join(asked.get(name, "") for name in names).split()
    return [TREE / word.removeprefix(PREFIX) for word in words]


def test_the_issue_s_defconfigs_are_there() -> None:
    names = {path.name.removesuffix("_defconfig") for path in DEFCONFIGS}
    assert names == {
        "virmo_qemu_x86_64_dom0",
        "virmo_qemu_aarch64_dom0",
        "virmo_raspberrypi4_dom0",
        "virmo_kria_kv260_dom0",
        "virmo_pc_x86_64_dom0",
        "virmo_guest_x86_64",
        "virmo_guest_aarch64",
    }


@pytest.mark.parametrize("defconfig", DEFCONFIGS, ids=lambda path: path.name)
def test_defconfig(defconfig: Path) -> None:
    asked = options(defconfig)
    role = "AGENT" if defconfig in DOM0S else "GUEST_SHIM"
    assert asked[f"BR2_PACKAGE_VIRMO_{role}"] == "y"
    assert asked["BR2_DOWNLOAD_FORCE_CHECK_HASHES"] == "y"
    assert asked["BR2_TARGET_ENABLE_ROOT_LOGIN"] == "n", "an image must not have a password, not even an empty one"
    assert asked["BR2_TARGET_GENERIC_REMOUNT_ROOTFS_RW"] == "n"
    assert asked["BR2_TARGET_ROOTFS_SQUASHFS"] == "y"
    paths = [word for value in asked.values() for word in value.split() if word.startswith(PREFIX)]
    assert paths
    assert [path for path in paths if not (TREE / path.removeprefix(PREFIX)).exists()] == []
    version = asked["BR2_LINUX_KERNEL_CUSTOM_VERSION_VALUE"]
    assert f"  linux-{version}.tar.xz\n" in (TREE / "patches/linux/linux.hash").read_text()
    for symbol in ("BR2_TARGET_UBOOT", "BR2_TARGET_ARM_TRUSTED_FIRMWARE"):
        location = asked.get(f"{symbol}_CUSTOM_TARBALL_LOCATION")
        if location:
            folder = {"BR2_TARGET_UBOOT": "uboot"}.get(symbol, "arm-trusted-firmware")
            assert f"  {location.rpartition('/')[2]}\n" in (TREE / f"patches/{folder}/{folder}.hash").read_text()


@pytest.mark.parametrize("defconfig", DEFCONFIGS, ids=lambda path: path.name)
def test_kernel_fragments_ask_for_what_the_agent_needs(defconfig: Path) -> None:
    asked: dict[str, str] = {}
    for file in fragments(defconfig):
        assert options(file), file
        repeated = asked.keys() & options(file).keys()
        assert not repeated, f"{file} repeats {repeated}"
        asked |= options(file)
    needed = DOM0_KERNEL if defconfig in DOM0S else GUEST_KERNEL
    assert {symbol: asked.get(symbol) for symbol in needed} == needed


@pytest.mark.parametrize("defconfig", DOM0S, ids=lambda path: path.name)
def test_dom0_runs_the_common_scripts_with_its_own_board(defconfig: Path) -> None:
    asked = options(defconfig)
    board = TREE / asked["BR2_ROOTFS_POST_SCRIPT_ARGS"].removeprefix(PREFIX)
    assert asked["BR2_ROOTFS_POST_BUILD_SCRIPT"] == PREFIX + "board/virmo/common/post-build.sh"
    assert asked["BR2_ROOTFS_POST_IMAGE_SCRIPT"] == PREFIX + "board/virmo/common/post-image.sh"
    assert asked["BR2_ROOTFS_OVERLAY"] == PREFIX + "board/virmo/common/rootfs-overlay"
    assert board.name.replace("-", "_") in defconfig.name
    assert (board / "genimage.cfg").is_file()


def boot_file(board: Path) -> Path:
    """What tells the board's boot loader how to start Xen."""
    (found,) = [file for name in ("grub-xen.cfg", "boot-vars.cmd") if (file := board / name).is_file()]
    return found


def partitions(board: Path) -> list[str]:
    return re.findall(r"^\tpartition ([\w-]+)", (board / "genimage.cfg").read_text(), re.MULTILINE)


@pytest.mark.parametrize("board", DISK_BOARDS, ids=lambda path: path.name)
def test_kernel_finds_its_root_on_the_disk_that_genimage_makes(board: Path) -> None:
    layout = (board / "genimage.cfg").read_text()
    roots = re.findall(r"root=(\S+)", boot_file(board).read_text())
    signature = re.search(r"disk-signature = 0x([0-9a-f]{8})", layout)
    if signature:
        assert roots == [f"PARTUUID={signature[1]}-{partitions(board).index('root') + 1:02x}"]
    else:
        assert roots == ["PARTLABEL=virmo-root-$chosen"]
        assert {"virmo-root-a", "virmo-root-b"} <= set(partitions(board))
    assert partitions(board)[-1] in ("state", "virmo-state"), "grow-state needs the state partition to be the last"
    assert 'label = "virmo-state"' in layout
    assert 'label = "VIRMO-BOOT"' in layout


def test_a_board_with_two_slots_is_laid_out_as_the_debian_image_s() -> None:
    """Boot loader, agent and health check are the same; so must be what they look for."""
    boards = [board for board in DISK_BOARDS if "virmo-root-a" in partitions(board)]
    assert [board.name for board in boards] == ["pc-x86_64"]
    assert [partitions(board) for board in boards] == [[name for name, *_rest in layout()]]
    asked = options(TREE / "configs/virmo_pc_x86_64_dom0_defconfig")
    modules = asked["BR2_TARGET_GRUB2_BUILTIN_MODULES_EFI"].split()
    assert {"loadenv", "search_fs_file", "regexp", "squash4", "part_gpt", "fat", "reboot", "sleep"} <= set(modules)
    assert "BR2_TARGET_ROOTFS_SQUASHFS4_ZSTD" not in asked, "GRUB reads a squashfs packed with gzip, not with zstd"


@pytest.mark.parametrize("board", DISK_BOARDS, ids=lambda path: path.name)
def test_dom0_s_memory_is_fixed(board: Path) -> None:
    """With autoballoon off, dom0 must not begin with all of the machine's memory."""
    memory = re.findall(r"dom0_mem=(\S+?)[\s\"]", boot_file(board).read_text())
    assert memory
    for value in memory:
        low, _, high = value.partition(",max:")
        assert re.fullmatch(r"\d+M", low)
        assert high in ("", low)
        assert high or (board / "boot-vars.cmd").is_file(), "x86 needs max: too"


def test_units_find_the_labels_that_genimage_sets() -> None:
    units = BOARDS / "common/rootfs-overlay/usr/lib/systemd/system"
    assert "What=/dev/disk/by-label/virmo-state\n" in (units / "var.mount.d/50-virmo-state.conf").read_text()
    assert "What=/dev/disk/by-label/VIRMO-BOOT\n" in (units / "boot.mount").read_text()


def post_build(target: Path, board: str) -> None:
    images = target.parent / "images"
    images.mkdir(exist_ok=True)
    for name in ("xen", "bzImage"):
        (images / name).write_text(name)
    env = {**os.environ, "BINARIES_DIR": str(images)}
    subprocess.run([BOARDS / "common/post-build.sh", target, BOARDS / board], check=True, timeout=30, env=env)


def test_post_build_shares_the_debian_image_s_settings(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "etc/xen").mkdir(parents=True)
    (target / "etc/xen/xl.conf").write_text("# what Xen's own package installs\n")
    (target / "etc/dropbear").symlink_to("/var/run/dropbear")
    for _ in range(2):  # Buildroot runs it again at each "make"
        post_build(target, "raspberrypi4")
    installed = [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(installed) >= 15
    for path in installed:
        inside = path.relative_to(target)
        same = [FILES / kind / inside for kind in ("dom0", "board") if (FILES / kind / inside).exists()]
        assert path.read_bytes() in [file.read_bytes() for file in same]
        for program in re.findall(r"^ExecStart=(/usr/lib/virmo/\S+)", path.read_text(), re.MULTILINE):
            assert os.access(target / program.lstrip("/"), os.X_OK), f"{inside}: {program}"
    tmpfiles = (BOARDS / "common/rootfs-overlay/usr/lib/tmpfiles.d/virmo.conf").read_text()
    links = {
        path.relative_to(target).as_posix(): str(path.readlink()) for path in target.rglob("*") if path.is_symlink()
    }
    assert links == {
        "etc/virmo-agent": "/var/lib/virmo-config",
        "etc/dropbear": "/var/lib/dropbear",
        "root/.ssh": "/var/lib/virmo-ssh",
    }
    for folder in links.values():
        assert f"\nd {folder} 0700 root root -\n" in tmpfiles


def test_a_slot_has_xen_and_kernel_in_it(tmp_path: Path) -> None:
    """They change, and go back, together with the rest of the system."""
    target = tmp_path / "target"
    target.mkdir()
    post_build(target, "pc-x86_64")
    loaded = re.findall(r"\$system/(\S+)", boot_file(BOARDS / "pc-x86_64").read_text())
    assert loaded == ["xen", "bzImage"]
    for name in loaded:
        assert (target / "usr/lib/virmo/system" / name).read_text() == name


def _fake_tool(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("board", sorted(path.parent for path in BOARDS.glob("*/genimage.cfg")), ids=lambda p: p.name)
def test_post_image_prepares_what_genimage_wants(board: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    _fake_tool(tmp_path / "host/bin/mkimage", 'for last; do :; done; cp "$BINARIES_DIR/boot.cmd" "$last"')
    _fake_tool(tmp_path / "support/scripts/genimage.sh", 'echo "$2" >"$BINARIES_DIR/asked"')
    env = {**os.environ, "BINARIES_DIR": str(images), "HOST_DIR": str(tmp_path / "host")}
    subprocess.run([BOARDS / "common/post-image.sh", images, board], check=True, cwd=tmp_path, env=env, timeout=30)
    assert (images / "asked").read_text().strip() == str(board / "genimage.cfg")
    layout = (board / "genimage.cfg").read_text()
    assert ('"boot.scr"' in layout) == (images / "boot.scr").exists()
    if (board / "boot-vars.cmd").exists():
        script = (images / "boot.scr").read_text()
        used = set(re.findall(r"\$\{(\w+)\}", script))
        given = set(re.findall(r"^setenv (\w+)", script, re.MULTILINE))
        by_uboot = {"devtype", "devnum", "distro_bootpart", "fdt_addr", "filesize"}
        assert used - given == by_uboot
        assert int(re.findall(r"xen_addr (0x\w+)", script)[-1], 16) % (2 << 20) == 0
        dtb = re.findall(r"^setenv dtb (\S+)", script, re.MULTILINE)
        assert all(f'"{name}"' in layout for name in dtb)
    if (board / "grub-xen.cfg").exists():
        grub = (images / "efi-part/EFI/BOOT/grub.cfg").read_text()
        common = (FILES / "board-grub.cfg").read_text()
        assert grub == common.replace("@XEN@\n", (board / "grub-xen.cfg").read_text())
        assert grubenv.read(images / "virmo/grubenv") == {"slot": "a", "try": "", "tries": "0"}


@pytest.mark.parametrize(("arch", "kernel"), [("x86_64", "vmlinux"), ("arm64", "Image")])
def test_guest_build_ends_in_a_bundle_that_the_agent_accepts(arch: str, kernel: str, tmp_path: Path) -> None:
    defconfig = next(path for path in DEFCONFIGS if path.name.startswith("virmo_guest") and kernel in path.read_text())
    assert options(defconfig)["BR2_ROOTFS_POST_SCRIPT_ARGS"] == f"{arch} {kernel}"
    (tmp_path / kernel).write_bytes(b"\x7fELF" + b"k" * 5000)
    (tmp_path / "rootfs.squashfs").write_bytes(b"hsqs" + b"r" * 8188)
    env = {**os.environ, "BINARIES_DIR": str(tmp_path)}
    subprocess.run([BOARDS / "guest/post-image.sh", tmp_path, arch, kernel], check=True, env=env, timeout=30)
    with tarfile.open(tmp_path / f"virmo-guest-{arch}.tar.gz") as bundle:
        names = bundle.getnames()
        content = {name: member.read() for name in names if (member := bundle.extractfile(name))}
    assert names[0] == "vm.yaml"
    manifest = parse_manifest(content.pop("vm.yaml"))
    assert manifest.arch == arch
    assert {file.file: (file.size, file.sha256) for file in manifest.files()} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in content.items()
    }
    assert manifest.disks[0].device == "xvda"
    assert "root=/dev/xvda " in manifest.cmdline
