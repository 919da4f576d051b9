"""Kernel modules: what a module needs is loaded before it, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from image.errors import ImageError
from image.modules import builtin, closure, kernel_version, named, read_dependencies

VERSION = "6.1.0-1-amd64"
DEPENDENCIES = """\
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/fs/mbcache.ko:
kernel/lib/crc16.ko:
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "lib/modules" / VERSION
    (folder / "kernel").mkdir(parents=True)
    (folder / "modules.dep").write_text(DEPENDENCIES)
    (folder / "modules.builtin").write_text("kernel/drivers/tty/hvc_console.ko\nkernel/fs/xen_fs.ko\n")
    return tmp_path


def test_needed_modules_come_first_and_once(root: Path) -> None:
    dependencies = read_dependencies(root, VERSION)
    wanted = named(["virtio-blk", "ext4"], dependencies)
    order = [Path(path).name for path in closure(wanted, dependencies)]
    assert len(order) == len(set(order)) == 7
    assert order.index("virtio.ko") < order.index("virtio_ring.ko") < order.index("virtio_blk.ko")
    assert {"jbd2.ko", "mbcache.ko", "crc16.ko"} == set(order[3:6])
    assert order[6] == "ext4.ko"


def test_built_in_names_have_one_spelling(root: Path) -> None:
    assert builtin(root, VERSION) == {"hvc-console", "xen-fs"}


def test_the_version_of_the_one_kernel(root: Path) -> None:
    assert kernel_version(root) == VERSION


def test_two_kernels_are_refused(root: Path) -> None:
    (root / "lib/modules/6.2/kernel").mkdir(parents=True)
    with pytest.raises(ImageError, match="one kernel"):
        kernel_version(root)
