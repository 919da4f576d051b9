"""The configuration file: nothing breaks out of its quotes, whatever it is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.hypervisor.interface import Disk, DomainConfig, DomainType, HypervisorError, Pci, Usb, Vif
from dom0_agent.hypervisor.xlcfg import CMDLINE_CAP, quote, render

MIB = 1 << 20
CONFIG = DomainConfig(
    uuid=UUID("11111111-2222-4333-8444-555555555555"),
    name="virmo-11111111-2222-4333-8444-555555555555",
    type=DomainType.PVH,
    memory=256 * MIB,
    max_memory=512 * MIB,
    vcpus=1,
    max_vcpus=2,
    kernel=Path("/var/lib/virmo/vms/x/kernel"),
    ramdisk=Path("/var/lib/virmo/vms/x/ramdisk"),
    cmdline="console=hvc0 root=/dev/xvda",
    disks=(Disk(Path("/var/lib/virmo/vms/x/xvda.raw"), "xvda"), Disk(Path("/d/q.qcow2"), "xvdb", "qcow2", True)),
    vifs=(Vif("00:16:3e:01:02:03", "xenbr0"),),
)


def dequote(text: str) -> str:
    """A quoted string read by libxlutil's rules: it ends at the first quote mark that no backslash precedes."""
    match = re.fullmatch(r'"((?:[^"\\\n]|\\.)*)"', text)
    assert match, "unterminated, or something comes after the string"
    return re.sub(r"\\(.)", r"\1", match[1])


def settings(text: str) -> dict[str, str]:
    """The file's settings, one a line."""
    return dict(line.split(" = ", 1) for line in text.splitlines())


def test_a_whole_file() -> None:
    assert render(CONFIG) == (
        'name = "virmo-11111111-2222-4333-8444-555555555555"\n'
        'uuid = "11111111-2222-4333-8444-555555555555"\n'
        'type = "pvh"\n'
        "memory = 256\n"
        "maxmem = 512\n"
        "vcpus = 1\n"
        "maxvcpus = 2\n"
        'on_poweroff = "preserve"\n'
        'on_reboot = "preserve"\n'
        'on_watchdog = "preserve"\n'
        'on_crash = "preserve"\n'
        'on_soft_reset = "preserve"\n'
        'kernel = "/var/lib/virmo/vms/x/kernel"\n'
        'ramdisk = "/var/lib/virmo/vms/x/ramdisk"\n'
        'cmdline = "console=hvc0 root=/dev/xvda"\n'
        'disk = ["format=raw,vdev=xvda,access=w,target=/var/lib/virmo/vms/x/xvda.raw", '
        '"format=qcow2,vdev=xvdb,access=r,target=/d/q.qcow2"]\n'
        'vif = ["mac=00:16:3e:01:02:03,bridge=xenbr0"]\n'
    )


def test_devices_of_the_machine() -> None:
    """HLF-06: only what is plugged in, by its number of this moment; a screen that only dom0 can look at."""
    config = dataclasses.replace(CONFIG, pci=(Pci("0000:03:00.0"),), usb=(Usb("3-1.4"), Usb("1-2")), display=True)
    found = settings(render(config, {"3-1.4": (3, 26), "9-9": (9, 9)}))
    assert found["pci"] == '["0000:03:00.0"]'
    assert found["usbdev"] == '["hostbus=3,hostaddr=26"]'
    assert found["vfb"] == '["vnc=1,vnclisten=127.0.0.1,vncunused=1"]'
    assert "passthrough" not in found
    assert not {"pci", "usbdev", "vfb", "passthrough"} & settings(render(CONFIG)).keys()
    later = settings(render(dataclasses.replace(CONFIG, later_pci=True)))
    assert later["passthrough"] == '"enabled"'
    emulated = settings(render(dataclasses.replace(CONFIG, type=DomainType.HVM, display=True)))
    assert (emulated["vga"], emulated["vnclisten"], "vfb" in emulated) == ('"stdvga"', '"127.0.0.1"', False)


@pytest.mark.parametrize("device", [{"pci": (Pci("03:00.0"),)}, {"usb": (Usb('1-1"]'),)}])
def test_devices_that_are_none_are_refused(device: dict[str, tuple[Pci | Usb]]) -> None:
    with pytest.raises(HypervisorError, match="may be written"):
        render(dataclasses.replace(CONFIG, **device))  # type: ignore[arg-type]


def test_hvm_has_no_screen_on_the_network() -> None:
    found = settings(render(dataclasses.replace(CONFIG, type=DomainType.HVM, kernel=None, ramdisk=None, cmdline="")))
    assert (found["vnc"], found["sdl"], found["vga"], found["hdtype"]) == ("0", "0", '"none"', '"ahci"')
    assert "kernel" not in found


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_any_text_stays_one_string(text: str) -> None:
    assert dequote(quote(text)) == text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_any_command_line_changes_no_other_setting(cmdline: str) -> None:
    plain = settings(render(dataclasses.replace(CONFIG, cmdline="x")))
    found = settings(render(dataclasses.replace(CONFIG, cmdline=cmdline)))
    assert dequote(found.pop("cmdline", '""')) == cmdline
    plain.pop("cmdline")
    assert found == plain


@pytest.mark.parametrize("text", ["ä", "a\0b", "\u2028", "a\nmemory=1", "a\tb", "\x7f"])
def test_what_the_file_cannot_carry_is_refused(text: str) -> None:
    with pytest.raises(HypervisorError, match="ASCII"):
        quote(text)


def test_a_command_line_over_the_cap_is_refused() -> None:
    with pytest.raises(HypervisorError, match="2048"):
        render(dataclasses.replace(CONFIG, cmdline="x" * (CMDLINE_CAP + 1)))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "x\nmemory=1"},
        {"disks": (Disk(Path("/a,b"), "xvda"),)},
        {"disks": (Disk(Path("relative"), "xvda"),)},
        {"disks": (Disk(Path('/a"b'), "xvda"),)},
        {"disks": (Disk(Path("/a"), "xvda,script=evil"),)},
        {"disks": (Disk(Path("/a"), "xvda", "vmdk"),)},
        {"vifs": (Vif("00:16:3e:01:02:03,script=evil", "br0"),)},
        {"vifs": (Vif("00:16:3e:01:02:03", "br0,script=evil"),)},
        {"vifs": (Vif("00:16:3e:01:02:03", "a-bridge-name-too-long"),)},
    ],
)
def test_values_that_could_change_their_meaning_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(HypervisorError, match=str(CONFIG.uuid)):
        render(dataclasses.replace(CONFIG, **change))  # type: ignore[arg-type]


def test_on_arm_memory_can_be_set() -> None:
    """Without acpi=0, xl mem-set ends on an assertion there. A PC's guests need their tables."""
    assert settings(render(CONFIG, machine="aarch64"))["acpi"] == "0"
    assert "acpi" not in settings(render(CONFIG, machine="x86_64"))
