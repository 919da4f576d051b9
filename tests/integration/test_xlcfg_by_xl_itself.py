"""What we write for ``xl`` is read back by xl's own parser (libxlutil): nothing that a server supplied breaks out.

The unit tests read by rules that we believe in; here the library that xl uses reads the file, and every setting that it
finds is listed. ``name``, ``disk``… are tried with hostile text too: it is refused, or it is what it was.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dom0_agent.hypervisor.interface import Disk, DomainConfig, DomainInfo, DomainType, HypervisorError, Pci, Usb, Vif
from dom0_agent.hypervisor.readback import ReadBackHypervisor
from dom0_agent.hypervisor.xlcfg import pci_specification, render
from dom0_agent.images.model import ImageDisk, VerifiedImage
from dom0_agent.images.unpack import Rules, disk_name, identify_file, unpack_disk
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from tests.contract.support import Rig, SimBackend
from tests.unit.images.images_testing import mbr_disk, sha256

MIB = 1 << 20
CONFIG = DomainConfig(
    uuid=UUID("11111111-2222-4333-8444-555555555555"),
    name="virmo-11111111-2222-4333-8444-555555555555",
    type=DomainType.PVH,
    memory=256 * MIB,
    max_memory=512 * MIB,
    vcpus=1,
    max_vcpus=2,
    kernel=Path("/var/lib/virmo-agent/vms/x/kernel"),
    ramdisk=Path("/var/lib/virmo-agent/vms/x/ramdisk"),
    cmdline="console=hvc0 root=/dev/xvda",
    disks=(Disk(Path("/var/lib/virmo-agent/vms/x/xvda.raw"), "xvda"),),
    vifs=(Vif("00:16:3e:01:02:03", "xenbr0"),),
)
#: Pieces that mean something to the parser, or to what reads a value after it.
HOSTILE = (
    *(
        '"',
        "'",
        '"""',
        "\\",
        '\\"',
        "\\\\",
        "\\x22",
        "\\042",
        "\n",
        "\r",
        "\t",
        "\0",
        "#",
        ";",
        "=",
        "+=",
        "[",
        "]",
        ",",
    ),
    *("(", "memory=9999", '"\nmemory=9999\n#', '", "x', "script=/bin/sh", ",script=evil", "target=/etc/shadow"),
    *("äöü", "\u2028"),
)
TEXT = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8), st.sampled_from(["a", "xvda", "/d/x", "br0"])), max_size=8
).map("".join)


class _Setting(ctypes.Structure):
    """libxlu_cfg_i.h: struct XLU_ConfigSetting."""


_Setting._fields_ = [("next", ctypes.POINTER(_Setting)), ("name", ctypes.c_char_p)]


class _Config(ctypes.Structure):
    """libxlu_internal.h: struct XLU_Config."""

    _fields_ = [("settings", ctypes.POINTER(_Setting))]


class _Pci(ctypes.Structure):
    """libxl_types.idl: the beginning of libxl_device_pci, and room for the rest."""

    _fields_ = [
        ("func", ctypes.c_uint8),
        ("dev", ctypes.c_uint8),
        ("bus", ctypes.c_uint8),
        ("domain", ctypes.c_int),
        ("rest", ctypes.c_uint8 * 256),
    ]


class XlParser:
    """xl's reading of a configuration file."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libxlutil.so.4.17")
        self._lib.xlu_cfg_init.restype = ctypes.POINTER(_Config)
        self._lib.xlu_cfg_get_listitem.restype = ctypes.c_char_p
        self._libc = ctypes.CDLL(None)
        self._libc.fopen.restype = ctypes.c_void_p
        self._report = ctypes.c_void_p(self._libc.fopen(b"/dev/null", b"w"))

    def read(self, text: str) -> dict[str, str | list[str]]:
        """All settings of a file. A value that is a number is text, as in the file."""
        config = self._lib.xlu_cfg_init(self._report, b"test")
        try:
            data = text.encode()
            error = self._lib.xlu_cfg_readdata(config, data, len(data))
            assert error == 0, f"xl cannot read it ({error}): {text!r}"
            names = list(self._names(config))
            assert len(names) == len(set(names)), f"a setting comes twice: {names}"
            return {name: self._value(config, name) for name in names}
        finally:
            self._lib.xlu_cfg_destroy(config)

    def read_pci(self, text: str) -> tuple[int, int, int, int]:
        """Segment, bus, device and function of a PCI address, as ``xl pci-attach`` reads it."""
        config = self._lib.xlu_cfg_init(self._report, b"test")
        device = _Pci()
        error = self._lib.xlu_pci_parse_bdf(config, ctypes.byref(device), text.encode())
        self._lib.xlu_cfg_destroy(config)
        assert error == 0, f"xl cannot read it ({error}): {text!r}"
        return device.domain, device.bus, device.dev, device.func

    def _names(self, config: ctypes._Pointer[_Config]) -> Iterator[str]:
        setting = config.contents.settings
        while setting:
            yield setting.contents.name.decode()
            setting = setting.contents.next

    def _value(self, config: ctypes._Pointer[_Config], name: str) -> str | list[str]:
        entries, items, value = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_char_p()
        if self._lib.xlu_cfg_get_string(config, name.encode(), ctypes.byref(value), 1) == 0:
            assert value.value is not None
            return value.value.decode()
        found = self._lib.xlu_cfg_get_list(config, name.encode(), ctypes.byref(items), ctypes.byref(entries), 1)
        assert found == 0, f"{name} is neither a string nor a list"
        return [self._lib.xlu_cfg_get_listitem(items, index).decode() for index in range(entries.value)]


@functools.cache
def xl() -> XlParser:
    """The parser."""
    return XlParser()


def expected(config: DomainConfig) -> dict[str, str | list[str]]:
    """What xl must find, and nothing else."""
    found: dict[str, str | list[str]] = {
        "name": config.name,
        "uuid": str(config.uuid),
        "type": config.type.value,
        "memory": str(config.memory // MIB),
        "maxmem": str(config.max_memory // MIB),
        "vcpus": str(config.vcpus),
        "maxvcpus": str(config.max_vcpus),
        **dict.fromkeys(("on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset"), "preserve"),
        "kernel": str(config.kernel),
        "ramdisk": str(config.ramdisk),
        "disk": [
            f"format={d.format},vdev={d.device},access={'r' if d.read_only else 'w'},target={d.path}"
            for d in config.disks
        ],
        "vif": [f"mac={vif.mac},bridge={vif.bridge}" for vif in config.vifs],
    }
    return {**found, **({"cmdline": config.cmdline} if config.cmdline else {})}


def test_xl_reads_what_we_meant() -> None:
    assert xl().read(render(CONFIG)) == expected(CONFIG)


@pytest.mark.parametrize("kind", list(DomainType))
def test_each_type_is_read(kind: DomainType) -> None:
    found = xl().read(render(dataclasses.replace(CONFIG, type=kind)))
    assert found["type"] == kind.value
    assert found.keys() - expected(CONFIG).keys() == (
        {"serial", "vga", "vnc", "sdl", "hdtype"} if kind is DomainType.HVM else set()
    )


def test_devices_of_the_machine_are_read_as_we_meant() -> None:
    """HLF-06: what xl is told of USB and PCI devices and of a display; an address means what it says."""
    device = Pci("00a1:1f:0b.7")
    given = dataclasses.replace(CONFIG, pci=(device,), usb=(Usb("3-1.4"), Usb("1-2")), display=True)
    assert xl().read(render(given, {"3-1.4": (3, 26), "1-2": (1, 5)})) == expected(CONFIG) | {
        "pci": ["00a1:1f:0b.7"],
        "usbdev": ["hostbus=3,hostaddr=26", "hostbus=1,hostaddr=5"],
        "vfb": ["vnc=1,vnclisten=127.0.0.1,vncunused=1"],
    }
    later = dataclasses.replace(CONFIG, later_pci=True)
    assert xl().read(render(later)) == expected(CONFIG) | {"passthrough": "enabled"}
    assert xl().read_pci(pci_specification(CONFIG.uuid, device)) == (0xA1, 0x1F, 0x0B, 7)


def test_the_parser_would_tell_of_an_injection() -> None:
    """The test sees what it is to see."""
    assert "memory" in xl().read('cmdline = "x"\nmemory=9999\n#"\n')


@settings(max_examples=400, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200) | TEXT)
@example('" \nmemory=9999')
@example("\\")
@example('\\"')
@example("'\"'\"")
def test_no_command_line_breaks_out(cmdline: str) -> None:
    """The one text of an image that xl is given as it is."""
    check(dataclasses.replace(CONFIG, cmdline=cmdline))


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(
        ["name", "disk path", "disk device", "disk format", "mac", "bridge", "kernel", "ramdisk", "pci", "usb"]
    ),
    TEXT,
)
def test_no_other_text_does(what: str, text: str) -> None:
    """These are the agent's own; they are checked all the same."""
    check(with_text(what, text))


def with_text(what: str, text: str) -> DomainConfig:
    """The configuration with hostile text in one place."""
    changes: dict[str, object] = {
        "name": {"name": text},
        "disk path": {"disks": (Disk(Path(text), "xvda"),)},
        "disk device": {"disks": (Disk(Path("/d/x"), text),)},
        "disk format": {"disks": (Disk(Path("/d/x"), "xvda", text),)},
        "mac": {"vifs": (Vif(text, "xenbr0"),)},
        "bridge": {"vifs": (Vif("00:16:3e:01:02:03", text),)},
        "kernel": {"kernel": Path(text)},
        "pci": {"pci": (Pci(text),)},
        "usb": {"usb": (Usb(text),)},
        "ramdisk": {"ramdisk": Path(text)},
    }
    return dataclasses.replace(CONFIG, **changes[what])  # type: ignore[arg-type]


def check(config: DomainConfig) -> None:
    """Refused, or read as it was meant."""
    try:
        text = render(config)
    except HypervisorError:
        return
    assert xl().read(text) == expected(config)


def test_a_bare_disk_becomes_a_domain_that_xl_reads(tmp_path: Path) -> None:
    """From the file that was delivered to what xl finds in its configuration: hvm, that disk, and no kernel."""
    body, folder = tmp_path / "body", tmp_path / "content"
    folder.mkdir()
    data = mbr_disk()
    body.write_bytes(data)
    rules = Rules("x86_64", 1 << 30, 512 * MIB, lambda manifest, signature: None)
    content = unpack_disk(body, identify_file(body, rules), sha256(data), folder, rules, lambda _: None)
    backend = SimBackend(tmp_path)
    (disk,) = content.manifest.disks
    image = VerifiedImage(
        img_id="img-1",
        name=content.manifest.name,
        arch=content.manifest.arch,
        type=content.manifest.type,
        vcpus=content.manifest.vcpus,
        memory=content.manifest.memory,
        cmdline=content.manifest.cmdline,
        kernel=None,
        ramdisk=None,
        disks=(ImageDisk(folder / disk_name(0, disk), disk.device, disk.format, disk.size),),
    )
    backend.image = image
    rig = Rig(backend, backend.hypervisor, Database(tmp_path / "agent.db"), VmConfig(storage_reserve=0), tmp_path)
    built: list[DomainConfig] = []
    assert isinstance(backend.hypervisor, ReadBackHypervisor)
    create = backend.hypervisor.create

    def note(config: DomainConfig) -> DomainInfo:
        built.append(config)
        return create(config)

    backend.hypervisor.create = note  # type: ignore[method-assign]
    rig.engine.start()
    try:
        vmid = rig.running()
        (config,) = built
        found = xl().read(render(config))
        assert (found["type"], found["memory"], found["uuid"]) == ("hvm", "512", str(vmid))
        assert "kernel" not in found
        own = tmp_path / "vms" / str(vmid) / "xvda.raw"
        assert found["disk"] == [f"format=raw,vdev=xvda,access=w,target={own}"]
        assert own.read_bytes() == data
    finally:
        rig.stop()
        backend.close()
