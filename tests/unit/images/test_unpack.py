"""Bundles: what is extracted is exactly what the manifest says, whatever the archive tries."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dom0_agent.images import decompress
from dom0_agent.images.decompress import identify, open_stream
from dom0_agent.images.errors import Corrupt, ImageError, SizeMismatch, TooLarge, Truncated, Unsupported
from dom0_agent.images.manifest import ManifestError
from dom0_agent.images.mediatypes import Compression, Kind
from dom0_agent.images.unpack import Content, Identity, Rules, identify_file, unpack_bundle, unpack_disk
from tests.unit.images.images_testing import PACKERS, bundle, manifest_document, mbr_disk, sha256, tar_of, zstd

MIB = 1024 * 1024
KERNEL, RAMDISK = b"kernel" * 500, b"ramdisk" * 500
MANIFEST = yaml.safe_dump(manifest_document(KERNEL, RAMDISK)).encode()
RULES = Rules("x86_64", 64 * MIB, 512 * MIB, lambda manifest, signature: None)


def unpack(
    folder: Path, data: bytes, rules: Rules = RULES, observer: Callable[[int], None] = lambda _: None
) -> Content:
    """As a delivery does it: identify, then unpack."""
    body, target = folder / "body", folder / "target"
    body.write_bytes(data)
    target.mkdir()
    identity = identify_file(body, rules)
    if identity.kind is not Kind.BUNDLE:
        return unpack_disk(body, identity, sha256(data), target, rules, observer)
    return unpack_bundle(body, identity.compression, target, rules, observer)


def entry(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar with a valid manifest and these entries after it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in (entry("vm.yaml", MANIFEST), *entries):
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


WHOLE = (entry("vmlinux", KERNEL), entry("initramfs.gz", RAMDISK))


@pytest.mark.parametrize("packer", PACKERS)
def test_bundle(tmp_path: Path, packer: str) -> None:
    written: list[int] = []
    content = unpack(tmp_path, PACKERS[packer](bundle(KERNEL, RAMDISK)), observer=written.append)
    target = tmp_path / "target"
    assert {path.name for path in target.iterdir()} == {"vm.yaml", "kernel", "ramdisk"}
    assert (target / "kernel").read_bytes() == KERNEL and (target / "ramdisk").read_bytes() == RAMDISK
    assert sum(written) == len(KERNEL) + len(RAMDISK)
    assert content.size == sum(path.stat().st_size for path in target.iterdir())
    assert all(path.stat().st_mode & 0o111 == 0 for path in target.iterdir())


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tools_write(tmp_path: Path, form: int) -> None:
    """GNU, POSIX and pax archives, with a leading ``./`` and with sub-second times."""
    members = (entry("./vmlinux", KERNEL, mtime=1.5, uname="root"), entry("initramfs.gz", RAMDISK, mtime=2.25))
    unpack(tmp_path, archive(*members, form=form))
    assert (tmp_path / "target" / "kernel").read_bytes() == KERNEL


def test_the_kernel_of_an_hvm_guest_is_a_bzimage(tmp_path: Path) -> None:
    """QEMU refuses an ELF kernel when the VM is created; it is told here, where the image is."""
    bzimage = bytes(0x202) + b"HdrS" + bytes(1000)
    unpack(tmp_path, bundle(bzimage, RAMDISK, type="hvm"))
    for kernel in (b"\x7fELF" + bytes(2000), b"short"):
        folder = tmp_path / str(len(kernel))
        folder.mkdir()
        with pytest.raises(Unsupported, match="vmlinux: the kernel of an hvm guest must be a bzImage"):
            unpack(folder, bundle(kernel, RAMDISK, type="hvm"))
    other = tmp_path / "pvh"
    other.mkdir()
    unpack(other, bundle(b"\x7fELF" + bytes(2000), RAMDISK, type="pvh"))


def test_order_of_members_is_free_after_the_manifest(tmp_path: Path) -> None:
    unpack(tmp_path, archive(*reversed(WHOLE)))
    assert (tmp_path / "target" / "ramdisk").read_bytes() == RAMDISK


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (entry("vmlinux", type=tarfile.SYMTYPE, linkname="/etc/shadow"), "'vmlinux' is a symbolic link"),
        (entry("vmlinux", type=tarfile.LNKTYPE, linkname="vm.yaml"), "a hard link"),
        (entry("vmlinux", type=tarfile.CHRTYPE, devmajor=1, devminor=1), "a character device"),
        (entry("vmlinux", type=tarfile.BLKTYPE), "a block device"),
        (entry("vmlinux", type=tarfile.FIFOTYPE), "a fifo"),
        (entry("dir", type=tarfile.DIRTYPE), "a directory"),
        (entry("vmlinux", type=b"S"), "a sparse file"),
        (entry("vmlinux", type=b"Z"), "of unknown type"),
        (entry("d" * 90 + "/" + "vmlinux" * 12, b"x"), "below a directory"),
    ],
)
def test_only_plain_files(tmp_path: Path, extra: tuple[tarfile.TarInfo, bytes], reason: str) -> None:
    """Links, devices, directories: refused by kind, wherever they point."""
    with pytest.raises(Unsupported, match=reason):
        unpack(tmp_path, archive(extra, *WHOLE))


@pytest.mark.parametrize("name", ["../vmlinux", "/vmlinux", "a/vmlinux", "x/../vmlinux", "other", "", "vm.yaml", "\n"])
def test_names_that_the_manifest_does_not_know(tmp_path: Path, name: str) -> None:
    """No path can escape, because no name of the archive is ever used as one."""
    with pytest.raises(Corrupt, match="does not name"):
        unpack(tmp_path, archive(entry(name, b"x"), *WHOLE))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["body", "target"]


def test_long_names(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="a long name"):
        unpack(tmp_path, archive(entry("n" * 300, b"x"), form=tarfile.GNU_FORMAT))


def test_member_twice(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="vmlinux"):
        unpack(tmp_path, archive(WHOLE[0], WHOLE[0], WHOLE[1]))


def test_member_missing(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=r"lacks initramfs.gz"):
        unpack(tmp_path, archive(WHOLE[0]))


@pytest.mark.parametrize("size", [len(KERNEL) - 1, len(KERNEL) + 1])
def test_member_of_another_size(tmp_path: Path, size: int) -> None:
    with pytest.raises(SizeMismatch, match=f"has {size} bytes, vm.yaml says {len(KERNEL)}"):
        unpack(tmp_path, archive(entry("vmlinux", bytes(size)), WHOLE[1]))


def test_manifest_must_come_first(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"first member of a bundle must be vm.yaml"):
        unpack(tmp_path, tar_of({"vmlinux": KERNEL, "vm.yaml": MANIFEST}))


def test_manifest_may_not_be_large(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="at most 65536 are taken"):
        unpack(tmp_path, tar_of({"vm.yaml": b"#" * 100_000}))


def test_too_many_entries(tmp_path: Path) -> None:
    headers = [entry("vmlinux", KERNEL, pax_headers={"comment": str(index)}) for index in range(70)]
    with pytest.raises(ImageError):
        unpack(tmp_path, archive(*headers, form=tarfile.PAX_FORMAT))


def test_huge_extended_header_is_not_read(tmp_path: Path) -> None:
    """A pax header of a gigabyte would be held in memory by a reader that believes it."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    first = tar_of({"vm.yaml": MANIFEST})[: 512 + -(-len(MANIFEST) // 512) * 512]
    with pytest.raises(Unsupported, match="extended header of 1073741824 bytes"):
        unpack(tmp_path, first + info.tobuf() + bytes(MIB))


def test_sparse_by_pax_header(tmp_path: Path) -> None:
    sparse = entry("vmlinux", KERNEL, pax_headers={"GNU.sparse.realsize": "9999999999"})
    with pytest.raises(Unsupported, match="sparse"):
        unpack(tmp_path, archive(sparse, form=tarfile.PAX_FORMAT))


@pytest.mark.parametrize("packer", ["gzip", "xz", "zstd"])
def test_bomb_stops_at_the_declared_size(tmp_path: Path, packer: str) -> None:
    """A member that does not end is cut at its tar size; one larger than allowed is refused by its manifest."""
    huge = manifest_document(KERNEL, RAMDISK) | {"ramdisk": {"file": "r", "sha256": "0" * 64, "size": 1 << 40}}
    with pytest.raises(TooLarge, match=r"images.max_size"):
        unpack(tmp_path, PACKERS[packer](tar_of({"vm.yaml": yaml.safe_dump(huge).encode()})))


def test_bomb_of_a_bare_disk_stops_at_the_limit_with_flat_memory(tmp_path: Path) -> None:
    """A gibibyte of zeros in a megabyte: refused at max_size, and never held in memory."""
    bomb = gzip.compress(mbr_disk(80 * MIB), 9)
    assert len(bomb) < 200_000
    tracemalloc.start()
    with pytest.raises(TooLarge):
        unpack(tmp_path, bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MIB


@pytest.mark.parametrize("packer", PACKERS)
def test_cut_at_any_place_is_noticed(tmp_path: Path, packer: str) -> None:
    whole = PACKERS[packer](bundle(KERNEL, RAMDISK))
    end = len(whole) if packer != "plain" else len(bundle(KERNEL, RAMDISK).rstrip(b"\0"))
    for index, cut in enumerate(sorted({0, 1, 10, 600, end // 2, end - 1})):
        if cut < end:
            folder = tmp_path / str(index)
            folder.mkdir()
            with pytest.raises(ImageError):
                unpack(folder, whole[:cut])


def test_disk_with_holes_stays_small(tmp_path: Path) -> None:
    disk = mbr_disk(32 * MIB)
    unpack(tmp_path, gzip.compress(disk))
    target = tmp_path / "target" / "disk-0.raw"
    assert target.read_bytes() == disk
    assert target.stat().st_blocks * 512 < 4 * MIB


def test_raw_disk_must_be_whole_sectors(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="whole number"):
        unpack(tmp_path, mbr_disk(MIB) + b"x")


def test_bare_disk_needs_an_architecture_that_boots_it(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="deliver a bundle"):
        unpack(tmp_path, mbr_disk(), Rules("arm64", 64 * MIB, 512 * MIB, lambda manifest, signature: None))


def test_disk_of_a_bundle_is_checked(tmp_path: Path) -> None:
    """A qcow2 that points into dom0 is refused although its digest is right."""
    evil = b"QFI\xfb" + (2).to_bytes(4, "big") + (512).to_bytes(8, "big") + bytes(72 - 16) + b"/etc/shadow"
    disk = {"file": "d", "sha256": sha256(evil), "size": len(evil), "format": "qcow2", "device": "xvda"}
    document = manifest_document(KERNEL, RAMDISK, disks=[disk])
    members = {"vm.yaml": yaml.safe_dump(document).encode(), "vmlinux": KERNEL, "initramfs.gz": RAMDISK, "d": evil}
    with pytest.raises(Unsupported, match="backing file"):
        unpack(tmp_path, tar_of(members))


def test_equal_content_has_an_equal_digest(tmp_path: Path) -> None:
    digests = set()
    for packer, pack in PACKERS.items():
        (tmp_path / packer).mkdir()
        digests.add(unpack(tmp_path / packer, pack(bundle(KERNEL, RAMDISK))).digest)
    assert len(digests) == 1


# Streams --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstd])
def test_members_after_each_other_are_one_stream(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """As ``cat a.gz b.gz`` makes them; and padding of gzip and xz on block devices."""
    data = pack(b"one" * 1000) + pack(b"two" * 1000)
    (tmp_path / "f").write_bytes(data + (b"" if pack is zstd else bytes(512)))
    with open_stream(tmp_path / "f", identify(data)) as stream:
        parts = []
        while part := stream.read(100):
            assert len(part) <= 100
            parts.append(part)
    assert b"".join(parts) == b"one" * 1000 + b"two" * 1000


def test_garbage_after_the_end_is_damage(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(gzip.compress(b"x") + b"garbage")
    with open_stream(tmp_path / "f", Compression.GZIP) as stream, pytest.raises(Corrupt):
        while stream.read(10):
            pass


def test_dictionary_that_eats_the_memory_is_refused(tmp_path: Path) -> None:
    """zstd --long=30 wants a gibibyte of a small dom0, xz with a huge dictionary as well."""
    data = tar_of({"vm.yaml": MANIFEST})
    command = ["zstd", "-q", "-c", "--ultra", "--long=30", "-1"]
    greedy = {
        Compression.ZSTD: subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout,
        Compression.XZ: lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 * MIB}]),
    }
    for compression, packed in greedy.items():
        (tmp_path / "f").write_bytes(packed)
        assert identify(packed) is compression
        with pytest.raises(Unsupported, match="of memory"):
            identify_file(tmp_path / "f", RULES)


def test_what_high_levels_need_is_there(tmp_path: Path) -> None:
    """xz -9 and zstd -19 are in use."""
    data = tar_of({"vm.yaml": MANIFEST})
    strong = subprocess.run(["zstd", "-q", "-c", "-19"], input=data, capture_output=True, check=True, timeout=60).stdout
    for packed in (strong, lzma.compress(data, preset=9)):
        (tmp_path / "f").write_bytes(packed)
        assert identify_file(tmp_path / "f", RULES).kind is Kind.BUNDLE


def test_missing_zstd_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(zstd(b"x"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="the zstd program is needed"):
        open_stream(tmp_path / "f", Compression.ZSTD)


def test_zstd_is_ended_when_its_reader_stops(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(zstd(os.urandom(4 * MIB)))
    with open_stream(tmp_path / "f", Compression.ZSTD) as stream:
        assert isinstance(stream, decompress._Zstd)
        assert stream.read(10)
    assert stream._process.returncode is not None


def test_identify_wants_more_when_there_is_too_little(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(gzip.compress(bundle(KERNEL, RAMDISK))[:20])
    with pytest.raises(Truncated):
        identify_file(tmp_path / "f", RULES)


# Anything at all ------------------------------------------------------------------------------------------------------

_PACKED = {name: pack(bundle(b"k" * 700, b"r" * 700)) for name, pack in PACKERS.items() if name != "zstd"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
def test_random_damage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is changed: the right content, or the package's own error; never a file outside, or a wrong one."""
    whole = bytearray(_PACKED[data.draw(st.sampled_from(sorted(_PACKED)))])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert", "zero"])):
            case "change":
                whole[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del whole[at : at + data.draw(st.integers(1, 600))]
            case "insert":
                whole[at:at] = data.draw(st.binary(min_size=1, max_size=64))
            case _:
                whole[at : at + 32] = bytes(len(whole[at : at + 32]))
        if not whole:
            whole = bytearray(b"\0")
    folder = tmp_path_factory.mktemp("damage")
    try:
        content = unpack(folder, bytes(whole))
    except ImageError:
        names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        assert names <= {"body", "target"} | {f"target/{n}" for n in ("kernel", "ramdisk", "disk-0.raw", "vm.yaml")}
        return
    if content.manifest.kernel is not None:
        assert sha256((folder / "target" / "kernel").read_bytes()) == content.manifest.kernel.sha256


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=2000))
def test_any_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "f").write_bytes(data)
    try:
        assert isinstance(identify_file(folder / "f", RULES), Identity)
    except ImageError:
        return
