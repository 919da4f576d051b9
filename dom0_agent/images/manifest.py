"""``vm.yaml``, the manifest of a VM image bundle: strict reading of untrusted text, and writing.

Knows the format only, no files, archives or digest computing. Everything is refused that is not understood: an image
that asks for something this agent does not know must not run without it.

The YAML subset is deliberately small (no tags, anchors, aliases, floats or dates): nothing in it can expand, recurse or
become an object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from dom0_agent.images.errors import Unsupported

MANIFEST_NAME = "vm.yaml"
SIGNATURE_NAME = "vm.yaml.p7s"
FORMAT = 1

#: A manifest with every disk there can be needs about 3 KiB.
MAX_MANIFEST = 64 * 1024
#: document, disks, a disk, its value
MAX_DEPTH = 4
MAX_NODES = 1000
#: xvda…xvdh; more disks than that in one *image* is a mistake or an attack
MAX_DISKS = 8
MAX_VCPUS = 512
MIN_MEMORY = 1024 * 1024
MAX_MEMORY = 1 << 44
MAX_FILE = 1 << 44
#: Xen's own limit for a PV guest's command line
MAX_CMDLINE = 1024

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DEVICE = re.compile(r"xvd[a-z]", re.ASCII)
_NAME = re.compile(r"[ -~]{1,64}", re.ASCII)
_CMDLINE = re.compile(r"[ -~]*", re.ASCII)


class ManifestError(Unsupported):
    """The manifest is not one this agent can follow. The message begins with the path of the key."""


@dataclass(frozen=True, slots=True)
class File:
    """A member of the bundle and what it must be."""

    file: str
    sha256: str
    size: int  #: bytes


@dataclass(frozen=True, slots=True)
class Disk(File):
    """A disk of the guest."""

    format: str  #: raw or qcow2
    device: str  #: xvda, xvdb…


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid manifest."""

    name: str
    arch: str  #: x86_64 or arm64
    type: str  #: pv, pvh or hvm
    vcpus: int
    memory: int  #: bytes
    cmdline: str = ""
    kernel: File | None = None
    ramdisk: File | None = None
    disks: tuple[Disk, ...] = ()

    def files(self) -> tuple[File, ...]:
        """All members that the bundle must have beside the manifest."""
        return tuple(file for file in (self.kernel, self.ramdisk, *self.disks) if file is not None)

    @property
    def unpacked_size(self) -> int:
        """Bytes that the members take together."""
        return sum(file.size for file in self.files())


class _Loader(yaml.SafeLoader):
    """Plain mappings, sequences and scalars; integers, booleans and null recognised, all else is text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's interface

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: anchors and aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: tags are not allowed")
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: too many or too deeply nested values")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(node.value):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a key must be plain text")
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: key {key!r} is there more than once")
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|false", re.ASCII), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"(?:0|[1-9][0-9]{0,18})$"), list("0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|)$"), ["~", "n", ""])


def parse_manifest(untrusted_bytes: bytes) -> Manifest:
    """The manifest in ``untrusted_bytes``.

    :raises ManifestError: it is not UTF-8 YAML, or some key is missing, unknown or wrong (named by its path)
    """
    if len(untrusted_bytes) > MAX_MANIFEST:
        raise ManifestError(f"{MANIFEST_NAME} is larger than {MAX_MANIFEST} bytes")
    try:
        loader = _Loader(untrusted_bytes.decode("utf-8"))
        untrusted_document = loader.get_single_data()
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ManifestError(f"{MANIFEST_NAME} is not valid YAML: {reason[:300]}") from error
    return _manifest(_Section("", untrusted_document))


class _Section:
    """One mapping of the document: hands out checked values, and complains about what nobody asked for."""

    def __init__(self, path: str, untrusted_value: object) -> None:
        if not isinstance(untrusted_value, Mapping):
            raise ManifestError(f"{path or MANIFEST_NAME}: expected a mapping, found {_kind(untrusted_value)}")
        self._path = path
        self._values: Mapping[str, object] = untrusted_value
        self._known: set[str] = set()

    def path(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def get(self, key: str) -> object:
        """The value of ``key``; a null counts as absent."""
        self._known.add(key)
        return self._values.get(key)

    def text(self, key: str, pattern: re.Pattern[str], expected: str, default: str | None = None) -> str:
        value = self.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ManifestError(f"{self.path(key)}: expected {expected}, found {_show(value)}")
        return value

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.get(key)
        if not isinstance(value, str) or value not in choices:
            raise ManifestError(f"{self.path(key)}: expected one of {', '.join(choices)}, found {_show(value)}")
        return value

    def number(self, key: str, low: int, high: int) -> int:
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ManifestError(f"{self.path(key)}: expected a number from {low} to {high}, found {_show(value)}")
        return value

    def section(self, key: str) -> _Section | None:
        value = self.get(key)
        return None if value is None else _Section(self.path(key), value)

    def sections(self, key: str, most: int) -> list[_Section]:
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most:
            raise ManifestError(f"{self.path(key)}: expected a list of at most {most}, found {_show(value)}")
        return [_Section(f"{self.path(key)}[{index}]", item) for index, item in enumerate(value)]

    def end(self) -> None:
        """All keys have been asked for; another one is a mistake."""
        for key in self._values:
            if key not in self._known:
                raise ManifestError(f"{self.path(_plain(key))}: unknown key (known: {', '.join(sorted(self._known))})")


def _manifest(section: _Section) -> Manifest:
    if section.get("format") != FORMAT:
        raise ManifestError(f"format: expected {FORMAT}, found {_show(section.get('format'))}: made for another agent?")
    kernel, ramdisk = section.section("kernel"), section.section("ramdisk")
    manifest = Manifest(
        name=section.text("name", _NAME, "1 to 64 printable ASCII characters"),
        arch=section.one_of("arch", ("x86_64", "arm64")),
        type=section.one_of("type", ("pv", "pvh", "hvm")),
        vcpus=section.number("vcpus", 1, MAX_VCPUS),
        memory=section.number("memory", MIN_MEMORY, MAX_MEMORY),
        cmdline=section.text("cmdline", _CMDLINE, "printable ASCII on one line", default=""),
        kernel=_file(kernel) if kernel else None,
        ramdisk=_file(ramdisk) if ramdisk else None,
        disks=tuple(_disk(disk) for disk in section.sections("disks", MAX_DISKS)),
    )
    section.end()
    _check_whole(manifest)
    return manifest


def _file(section: _Section) -> File:
    file = File(**_file_fields(section))
    section.end()
    return file


def _disk(section: _Section) -> Disk:
    disk = Disk(
        **_file_fields(section),
        format=section.one_of("format", ("raw", "qcow2")),
        device=section.text("device", _DEVICE, "xvda to xvdz"),
    )
    section.end()
    return disk


def _file_fields(section: _Section) -> dict[str, Any]:
    return {
        "file": section.text("file", _FILE_NAME, "a plain file name of letters, digits, dot, dash, underscore"),
        "sha256": section.text("sha256", _SHA256, "64 lower-case hexadecimal digits"),
        "size": section.number("size", 1, MAX_FILE),
    }


def _check_whole(manifest: Manifest) -> None:
    """Rules that concern more than one key."""
    names = [file.file for file in manifest.files()]
    devices = [disk.device for disk in manifest.disks]
    rules = (
        (len(manifest.cmdline) <= MAX_CMDLINE, f"cmdline: longer than {MAX_CMDLINE} characters"),
        (len(set(names)) == len(names), "file: two members have the same file name"),
        (not {MANIFEST_NAME, SIGNATURE_NAME} & set(names), f"file: {MANIFEST_NAME} and its signature are not members"),
        (len(set(devices)) == len(devices), "disks: two disks have the same device"),
        (manifest.type == "hvm" or manifest.kernel is not None, f"kernel: missing; a {manifest.type} guest needs one"),
        (manifest.kernel is not None or manifest.ramdisk is None, "ramdisk: of no use without a kernel"),
        (manifest.kernel is not None or bool(manifest.disks), "disks: an hvm guest needs a kernel or a disk"),
        (manifest.arch == "x86_64" or manifest.type != "hvm", f"type: hvm is not possible on {manifest.arch}"),
    )
    for fits, complaint in rules:
        if not fits:
            raise ManifestError(complaint)


def render_manifest(manifest: Manifest) -> bytes:
    """The text of ``manifest``: for content that came without one (bare disks), and for tests and builders."""
    document: dict[str, object] = {
        "format": FORMAT,
        "name": manifest.name,
        "arch": manifest.arch,
        "type": manifest.type,
        "vcpus": manifest.vcpus,
        "memory": manifest.memory,
        "cmdline": manifest.cmdline,
    }
    for key, file in (("kernel", manifest.kernel), ("ramdisk", manifest.ramdisk)):
        if file is not None:
            document[key] = {"file": file.file, "sha256": file.sha256, "size": file.size}
    document["disks"] = [
        {"file": disk.file, "sha256": disk.sha256, "size": disk.size, "format": disk.format, "device": disk.device}
        for disk in manifest.disks
    ]
    return yaml.safe_dump(document, sort_keys=False, width=10_000).encode("utf-8")


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _plain(untrusted_text: object) -> str:
    """Foreign text made safe and short enough for a log line."""
    return "".join(char if char.isprintable() else "?" for char in str(untrusted_text))[:60]


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list | Mapping):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(_plain(value))
