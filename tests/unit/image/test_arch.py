"""The table of architectures: what each row says, and that only the table knows them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import image
from image.arch import ARCHES, Arch, BootFiles, arch_named
from image.build_cli import main
from image.errors import ImageError

FILES = BootFiles(Path("/c/xen"), Path("/c/vmlinuz"), Path("/c/initrd.img"))


@pytest.mark.parametrize(("name", "debian"), [("x86_64", "amd64"), ("arm64", "arm64")])
def test_each_row_has_debians_name(name: str, debian: str) -> None:
    assert arch_named(name).debian == debian


def test_an_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(ImageError, match="no such architecture: mips") as caught:
        arch_named("mips")
    assert "x86_64" in caught.value.todo


def test_the_command_line_ends_with_that_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--arch", "mips"]) == 1
    assert "no such architecture: mips" in capsys.readouterr().err


@pytest.mark.parametrize("arch", ARCHES.values())
def test_every_row_loads_all_three_files(arch: Arch) -> None:
    words = " ".join(arch.boot_loader(FILES, "sched=credit", "root=/dev/vda rw"))
    for part in ("/c/xen", "/c/vmlinuz", "/c/initrd.img", "sched=credit", "root=/dev/vda rw"):
        assert part in words


@pytest.mark.parametrize("arch", ARCHES.values())
def test_a_comma_in_the_kernel_arguments_is_refused(arch: Arch) -> None:
    with pytest.raises(ImageError, match="comma"):
        arch.boot_loader(FILES, "", "console=ttyS0,115200")


def test_no_other_module_names_an_architecture() -> None:
    """A module that compares names would be a second place to change when an architecture is added."""
    asks = re.compile(r"""[=!]=\s*["'](x86_64|arm64|amd64|aarch64)["']|arch\.name\s*[=!]=""")
    folder = Path(str(image.__file__)).parent
    assert [path.name for path in folder.glob("*.py") if asks.search(path.read_text())] == []
