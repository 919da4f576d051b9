"""vm.yaml: what is valid, and how what is not is named."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.images.manifest import (
    MAX_MANIFEST,
    Disk,
    File,
    Manifest,
    ManifestError,
    parse_manifest,
    render_manifest,
)
from tests.unit.images.images_testing import manifest_document

DIGEST = "0123456789abcdef" * 4
DISK = {"file": "root.img", "sha256": DIGEST, "size": 512, "format": "raw", "device": "xvda"}
VALID = manifest_document(b"k", b"r")


def parse(document: object) -> Manifest:
    return parse_manifest(yaml.safe_dump(document, sort_keys=False).encode())


def test_valid_manifest() -> None:
    manifest = parse(VALID | {"disks": [DISK]})
    assert manifest.name == "sample-guest"
    assert manifest.kernel is not None and manifest.kernel.size == 1
    assert manifest.disks == (Disk("root.img", DIGEST, 512, "raw", "xvda"),)
    assert manifest.unpacked_size == 1 + 1 + 512


def test_the_documented_form() -> None:
    """As the README shows it, comments and flow style included."""
    text = f"""
format: 1
name: sample-guest
arch: x86_64            # x86_64 | arm64
type: pv                # pv | pvh | hvm
vcpus: 1
memory: 134217728       # bytes
cmdline: "console=hvc0"
kernel: {{file: vmlinux, sha256: {DIGEST}, size: 7}}
ramdisk: {{file: initramfs.gz, sha256: {DIGEST}, size: 8}}
disks: []
"""
    manifest = parse_manifest(text.encode())
    assert manifest.kernel == File("vmlinux", DIGEST, 7) and manifest.ramdisk == File("initramfs.gz", DIGEST, 8)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 2}, "format: expected 1, found '2'"),
        ({"extra": 1}, "extra: unknown key"),
        ({"kernel": VALID["kernel"] | {"mode": 7}}, "kernel.mode: unknown key"),  # type: ignore[operator]
        ({"disks": [DISK | {"bus": "ide"}]}, r"disks\[0\].bus: unknown key"),
        ({"name": ""}, "name: expected 1 to 64 printable"),
        ({"name": "a\nb"}, "name: expected"),
        ({"name": 5}, "name: expected"),
        ({"arch": "mips"}, "arch: expected one of x86_64, arm64, found 'mips'"),
        ({"arch": ["x86_64"]}, "arch: expected one of .* found a list of 1"),
        ({"type": "lxc"}, "type: expected one of pv, pvh, hvm"),
        ({"type": "hvm", "arch": "arm64"}, "type: hvm is not possible on arm64"),
        ({"vcpus": 0}, "vcpus: expected a number from 1 to 512"),
        ({"vcpus": True}, "vcpus: expected a number"),
        ({"vcpus": "1"}, "vcpus: expected a number"),
        ({"vcpus": 1.0}, "vcpus: expected a number"),
        ({"memory": 1000}, "memory: expected a number from 1048576"),
        ({"cmdline": "a\nb"}, "cmdline: expected printable ASCII"),
        ({"cmdline": "x" * 1025}, "cmdline: longer than 1024"),
        ({"kernel": None}, "kernel: missing; a pv guest needs one"),
        ({"kernel": "vmlinux"}, "kernel: expected a mapping, found str"),
        ({"kernel": {"file": "vmlinux"}}, "kernel.sha256: expected 64 .* found nothing"),
        ({"kernel": None, "type": "hvm"}, "ramdisk: of no use without a kernel"),
        ({"kernel": None, "ramdisk": None, "type": "hvm"}, "disks: an hvm guest needs a kernel or a disk"),
        ({"disks": {}}, "disks: expected a list of at most 8"),
        ({"disks": [dict(DISK) for _ in range(9)]}, "disks: expected a list of at most 8"),
        ({"disks": [DISK, dict(DISK)]}, "two members have the same file name"),
        ({"disks": [DISK, DISK | {"file": "b"}]}, "two disks have the same device"),
        ({"disks": [DISK | {"device": "sda"}]}, r"disks\[0\].device: expected xvda to xvdz"),
        ({"disks": [DISK | {"format": "vmdk"}]}, r"disks\[0\].format: expected one of raw, qcow2"),
        ({"disks": [DISK | {"file": "vm.yaml"}]}, "vm.yaml and its signature are not members"),
        ({"disks": [DISK | {"size": 0}]}, r"disks\[0\].size: expected a number from 1"),
        ({"disks": [DISK | {"sha256": DIGEST.upper()}]}, r"disks\[0\].sha256: expected 64 lower-case"),
    ],
)
def test_invalid_manifest_is_named_by_path(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ManifestError, match=complaint) as refused:
        parse(VALID | change)
    assert refused.value.status == 415


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", ".", "..", ".hidden", "-x", "a b", "ä", "", "x" * 101, "a\0", "a\\b"]
)
def test_only_plain_file_names(name: str) -> None:
    with pytest.raises(ManifestError, match=r"disks\[0\].file: expected a plain file name"):
        parse(VALID | {"disks": [DISK | {"file": name}]})


@pytest.mark.parametrize("key", ["format", "name", "arch", "type", "vcpus", "memory"])
def test_missing_key(key: str) -> None:
    with pytest.raises(ManifestError, match=f"^{key}: expected"):
        parse({k: v for k, v in VALID.items() if k != key})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"- a",
        b"just text",
        b"\xff\xfe",
        b"a: b: c",
        b"a: [",
        b"a: 1\na: 2",
        b"? [a]\n: b",
        b"a: &x 1\nb: *x",
        b"a: &x [1]",
        b"a: !!python/object/apply:os.system [ls]",
        b"a: !!binary '!'",
        b"a: !!int ''",
        b"--- 1\n--- 2",
        b"a: " + b"[" * 5000,
        b"a: [" + b"1," * 2000 + b"]",
        b"{{{{{{1}}}}}}",
        b"a: \x00",
        b"x" * (MAX_MANIFEST + 1),
        b"a: " + b"9" * 6000,
        b"format: 1\nname: 2001-01-01\n",
    ],
)
def test_text_that_is_no_manifest(text: bytes) -> None:
    """Nothing in it expands, recurses, becomes an object, or escapes as another error."""
    with pytest.raises(ManifestError):
        parse_manifest(text)


def test_words_that_yaml_loves_stay_text() -> None:
    assert parse(VALID | {"name": "on"}).name == "on"
    assert parse_manifest(yaml.safe_dump(VALID).replace("sample-guest", "2001-01-01").encode()).name == "2001-01-01"


def test_written_manifest_reads_back() -> None:
    manifest = Manifest(
        "n", "x86_64", "hvm", 2, 1 << 30, "a=b 'c' #d", File("k", DIGEST, 5), File("r", DIGEST, 6),
        (Disk("d", DIGEST, 512, "qcow2", "xvdb"),),
    )  # fmt: skip
    assert parse_manifest(render_manifest(manifest)) == manifest


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Only the package's own error comes out."""
    with pytest.raises(ManifestError):
        parse_manifest(data)


@given(
    st.dictionaries(
        st.sampled_from([*VALID, "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.floats(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=8,
        ),
    )
)
def test_any_document(changes: dict[str, object]) -> None:
    """Valid or refused with the package's own error, never anything else."""
    try:
        manifest = parse(VALID | changes)
    except ManifestError:
        return
    assert parse_manifest(render_manifest(manifest)) == manifest
