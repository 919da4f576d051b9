"""A board in QEMU: UEFI, GRUB and a disk with two system slots, so that restarts choose a slot as on a real board.

QEMU ends at each reset (`-no-reboot`), and is started again on the same disk: what was not on the disk is gone, as
after a power cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from image.arch import Arch
from image.board import ALL_STEPS, BoardImage, build_board
from image.cache import Cache
from image.errors import ImageError
from image.host import Argv, ensure_packages, run_tool
from image.machine import TCG, Hardware, accelerator, make_overlay
from image.progress import Progress
from image.qemu import Dom0
from image.ssh import harness_key

#: Starts in a row without a system at their end: a slot's tries, and the slot that is good.
MOST_STARTS = 6
_POLL = 0.5


def board_image(arch: Arch, cache: Cache, *, version: str = "") -> BoardImage:
    """A board's disk that the harness can log in to."""
    progress = Progress(f"board {arch.name}")
    progress.plan(ALL_STEPS)
    emulated = accelerator(arch) == TCG
    arguments = {
        "xen_args": arch.emulated_xen_args if emulated else "",
        "kernel_args": arch.emulated_kernel_args if emulated else "",
    }
    key = harness_key(cache).with_suffix(".pub").read_text()
    image = build_board(arch, cache, progress, authorized_key=key, version=version, arguments=arguments)
    progress.finish()
    return image


class BoardDom0(Dom0):
    """A board. `boot` is one start; `boot_through` and `live_until` go on over starts that end in another one."""

    _STATES = "state-board"

    def __init__(
        self,
        image: BoardImage,
        cache: Cache,
        *,
        disk_bytes: int = 0,
        hardware: Hardware | None = None,
        log: Path | None = None,
        say: Callable[[str], None] = lambda _message: None,
    ) -> None:
        ensure_packages({image.arch.firmware_package: image.arch.firmware})
        super().__init__(image, hardware or Hardware(), cache, log=log, say=say)
        if disk_bytes:
            make_overlay(image.disk, self._disk)
            argv: Argv = ["qemu-img", "resize", "-q", self._disk, str(disk_bytes)]
            run_tool(argv, what="making the board's disk larger than its image", timeout=60)

    def boot_through(self, timeout: float) -> int:
        """Starts the board again and again until a system is up; returns how many starts that took."""
        deadline = time.monotonic() + timeout
        for attempt in range(1, MOST_STARTS + 1):
            try:
                self.boot(max(1.0, deadline - time.monotonic()))
            except ImageError:
                if not self._restarted(deadline):
                    raise
                self.power_cut()
            else:
                return attempt
        raise ImageError(f"the board started {MOST_STARTS} times without a system at the end")

    def live_until(self, done: Callable[[], bool], what: str, timeout: float) -> None:
        """Lets the board run, over as many restarts as it makes, until `done`; `what` names that in an error.

        There is no connection to dom0 afterwards if it has restarted: see `reconnect`.
        """
        deadline = time.monotonic() + timeout
        while not done():
            if not self.running:
                self.power_cut()
                self._start(self._drive(), None)
            if time.monotonic() > deadline:
                assert self._machine is not None
                raise self._machine.failure(f"not within {timeout:.0f} s: {what}")
            time.sleep(_POLL)

    def restart(self, timeout: float) -> int:
        """Waits for the restart that something in dom0 has begun, then as `boot_through`."""
        assert self._machine is not None
        if not self._machine.wait_end(timeout):
            raise self._machine.failure(f"the board did not restart within {timeout:.0f} s")
        self.power_cut()
        return self.boot_through(timeout)

    def said(self) -> str:
        """The end of what this start has said on the serial port."""
        return "" if self._machine is None else self._machine.tail()

    def reconnect(self, timeout: float) -> None:
        """A connection to the dom0 that runs now: the standing one, if it has not restarted since."""
        if self._ssh is None:
            self._connect(time.monotonic() + timeout)

    def _restarted(self, deadline: float) -> bool:
        """Whether a start that came to nothing ends in another one: a kernel that panics needs a few seconds for it."""
        assert self._machine is not None
        return self._machine.wait_end(max(0.0, min(60.0, deadline - time.monotonic())))
