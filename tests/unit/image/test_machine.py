"""QEMU's command line, and whether KVM can be used; without QEMU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from image.arch import ARCHES, Arch
from image.machine import Hardware, accelerator, board_args, end_of_log

X86 = ARCHES["x86_64"]
EMULATED = replace(X86, kvm_flags=())


def test_scheduler_and_memory_reach_xen() -> None:
    args = Hardware(scheduler="credit", dom0_memory_mib=768, xen_extra="loglvl=all").xen_args(EMULATED)
    assert args == "console=com1 dom0_mem=768M,max:768M sched=credit spec-ctrl=no loglvl=all"


def test_the_kernel_gets_its_root_and_what_is_added() -> None:
    args = Hardware(kernel_extra="x=1").kernel_args(EMULATED)
    assert args == "root=/dev/vda rw console=hvc0 net.ifnames=0 quiet mitigations=off x=1"


@pytest.mark.parametrize("arch", ARCHES.values())
def test_what_a_saved_state_depends_on_is_the_same_in_every_run(arch: Arch) -> None:
    """No port, folder or process id may be in it, or no run would find the state that another saved."""
    words = " ".join(board_args(arch, Hardware()))
    assert words == " ".join(board_args(arch, Hardware()))
    assert not {"hostfwd", "unix:", "file="} & set(words.replace(",", " ").split())


@pytest.mark.parametrize(("nested", "chosen"), [("Y\n", True), ("1\n", True), ("N\n", False), (None, False)])
def test_kvm_only_with_nested_virtualisation(tmp_path: Path, nested: str | None, chosen: bool) -> None:
    parameter = tmp_path / "nested"
    if nested is not None:
        parameter.write_text(nested)
    kvm = tmp_path / "kvm"
    kvm.touch()
    row = replace(X86, kvm_flags=("fpu", "fp"), kvm_nested=(parameter,))
    assert accelerator(row, kvm) == ("kvm" if chosen else "tcg")


def test_no_kvm_without_its_device(tmp_path: Path) -> None:
    (tmp_path / "nested").write_text("Y")
    row = replace(X86, kvm_flags=("fpu", "fp"), kvm_nested=(tmp_path / "nested",))
    assert accelerator(row, tmp_path / "no-such-device") == "tcg"


def test_no_kvm_without_the_processor_feature(tmp_path: Path) -> None:
    (tmp_path / "nested").write_text("Y")
    row = replace(X86, kvm_flags=("no-such-flag",), kvm_nested=(tmp_path / "nested",))
    assert accelerator(row, tmp_path / "nested") == "tcg"


def test_the_last_words_of_an_earlier_start_are_not_this_ones(tmp_path: Path) -> None:
    """A board that has come back from a panic lives, although the panic still stands in its serial log."""
    log = tmp_path / "serial.log"
    assert end_of_log(log, 0) == ""
    log.write_text("Kernel panic - not syncing\n")
    begin = log.stat().st_size
    assert end_of_log(log, begin) == ""
    log.write_text("Kernel panic - not syncing\r\nanother\r\n")
    assert end_of_log(log, begin + 1).strip() == "another"
