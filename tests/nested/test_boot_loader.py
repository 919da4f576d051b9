"""The boot loader of a board, on emulated UEFI: which slot it starts, how it counts, and that it goes back.

Ends when Xen's first line appears, so that it costs seconds for each start. The broken slot is an empty partition.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from dom0_agent.firmware import grubenv
from image.arch import ARCHES, Arch
from image.board import ENVIRONMENT, FIRST_BYTE, BoardImage, environment
from image.board_qemu import board_image
from image.cache import Cache
from image.host import ensure_packages
from image.machine import Hardware, board_args

pytestmark = pytest.mark.nested

#: Seconds from power on to Xen's first line, measured: 14 (x86-64), 25 (arm64).
START = 240.0


class Board:
    """A disk that is started again and again, as far as Xen."""

    def __init__(self, image: BoardImage, folder: Path) -> None:
        self._image = image
        self._log = folder / "serial.log"
        self._disk = folder / "disk.raw"
        self._file = folder / "grubenv"
        ensure_packages({image.arch.firmware_package: image.arch.firmware, image.arch.qemu_package: image.arch.qemu})
        argv = ["qemu-img", "convert", "-O", "raw", str(image.disk), str(self._disk)]
        subprocess.run(argv, check=True, timeout=300)

    @property
    def environment(self) -> dict[str, str]:
        """GRUB's environment block on the disk."""
        self._file.unlink(missing_ok=True)
        self._mtools("mcopy", f"::{ENVIRONMENT}", str(self._file))
        return grubenv.read(self._file)

    @environment.setter
    def environment(self, variables: dict[str, str]) -> None:
        self._file.write_bytes(environment(variables))
        self._mtools("mcopy", "-o", str(self._file), f"::{ENVIRONMENT}")

    def start(self) -> tuple[str, bool]:
        """One start: the slot that GRUB chose, and whether Xen came up from it (else the board has restarted)."""
        self._log.unlink(missing_ok=True)
        arch = self._image.arch
        drive = f"file={self._disk},if=none,id=disk,format=raw,cache=unsafe"
        argv = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            arch.qemu,
            *board_args(arch, Hardware()),
            *self._image.boot_args("", ""),
        ]
        process = subprocess.Popen([*argv, "-drive", drive, "-serial", f"file:{self._log}"])
        deadline = time.monotonic() + START
        try:
            while "(XEN)" not in self._said() and process.poll() is None:
                assert time.monotonic() < deadline, self._said()[-2000:]
                time.sleep(0.5)
        finally:
            process.kill()
            process.wait()
        said = self._said()
        return said.partition("virmo: starting slot ")[2][:1], "(XEN)" in said

    def _said(self) -> str:
        return self._log.read_bytes().decode(errors="replace") if self._log.exists() else ""

    def _mtools(self, program: str, *words: str) -> None:
        subprocess.run([program, "-i", f"{self._disk}@@{FIRST_BYTE}", *words], check=True, timeout=60)


@pytest.mark.parametrize(
    "arch", [ARCHES["x86_64"], pytest.param(ARCHES["arm64"], marks=pytest.mark.long)], ids=lambda arch: arch.name
)
def test_a_slot_on_trial_is_tried_as_often_as_it_may_and_given_up(arch: Arch, tmp_path: Path) -> None:
    board = Board(board_image(arch, Cache(say=print)), tmp_path)
    assert board.environment["slot"] == "a"
    board.environment = {**board.environment, "try": "b", "tries": "2"}
    assert board.start() == ("b", False)
    assert (board.environment["try"], board.environment["tries"]) == ("b", "1"), "counted before the start is made"
    assert board.start() == ("b", False)
    assert board.start() == ("a", True)
    assert (board.environment["slot"], board.environment["try"]) == ("a", "")
