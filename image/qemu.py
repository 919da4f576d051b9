"""A Xen dom0 in QEMU, as an object: boot, run commands, copy files, cut the power, boot again.

    with open_dom0(scheduler="credit") as dom0:
        print(dom0.run(["xl", "info"]).stdout)

The image in the cache is never written to: every run has its own overlay. The first start of an image boots it and
keeps the machine's state after the boot; later starts go on from there, in seconds. Not thread-safe, and QEMU ends with
the thread that started it (the kernel's parent-death signal): start it from a thread that outlives the run.
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from image.agent import agent_tree
from image.arch import Arch, arch_named
from image.cache import Cache, Entry
from image.dom0 import ALL_STEPS, Dom0Image, build_dom0
from image.errors import ImageError
from image.host import ensure_packages
from image.machine import Hardware, Machine, board_args, make_overlay, qemu_version
from image.progress import Progress
from image.ssh import CommandError, Result, Ssh, harness_key, pack_folder

__all__ = ["CommandError", "Dom0", "Hardware", "Result", "open_dom0"]

#: A cold boot under emulation takes 35-60 s alone, and longer on a machine that is busy with something else.
BOOT_TIMEOUT = 300.0
RESTORE_TIMEOUT = 120.0
SAVE_TIMEOUT = 120.0
SHUTDOWN_TIMEOUT = 120.0
COPY_TIMEOUT = 300.0
_POLL = 0.5
_ENTROPY_BYTES = 64
#: systemd's names for a system that is not up yet.
_STARTING = {"initializing", "starting"}
#: Run in dom0 after a restore: the clock stands where it was saved, and so does the random generator, which would
#: repeat itself in every run. RNDRESEEDCRNG makes the kernel use the fresh bytes now.
_WAKE = """
import fcntl, sys, time
time.clock_settime(time.CLOCK_REALTIME, float(sys.argv[1]))
with open("/dev/urandom", "wb", buffering=0) as pool:
    pool.write(sys.stdin.buffer.read())
    fcntl.ioctl(pool, 0x5207)
"""
_TOOLS: dict[str, Path | str] = {"openssh-client": "ssh", "qemu-utils": "qemu-img", "util-linux": "setpriv"}


def open_dom0(
    arch: str | Arch = "x86_64",
    *,
    hardware: Hardware | None = None,
    scheduler: str | None = None,
    snapshot: bool = True,
    cache: Cache | None = None,
    log: Path | None = None,
    say: Callable[[str], None] = lambda _message: None,
) -> Dom0:
    """Builds what is missing, and returns a running dom0 with today's agent in it."""
    row = arch_named(arch) if isinstance(arch, str) else arch
    store = Cache(say=say) if cache is None else cache
    wanted = hardware or Hardware()
    if scheduler is not None:
        wanted = replace(wanted, scheduler=scheduler)
    # A saved state holds a dom0 without the agent, and the agent is laid over it: an edit does not cost a boot.
    image = _built(row, store, with_agent=not snapshot)
    dom0 = Dom0(image, wanted, store, log=log, say=say)
    try:
        if snapshot:
            dom0.restore()
            dom0.install_agent()
        else:
            dom0.boot()
    except BaseException:
        dom0.close()
        raise
    return dom0


def prepare_dom0(arch: Arch, hardware: Hardware, cache: Cache) -> None:
    """Does the slow part of `open_dom0` beforehand."""
    with Dom0(_built(arch, cache, with_agent=False), hardware, cache) as dom0:
        dom0.prepare()


def _built(arch: Arch, cache: Cache, *, with_agent: bool) -> Dom0Image:
    progress = Progress(f"dom0 {arch.name}")
    progress.plan(ALL_STEPS)
    image = build_dom0(arch, cache, progress, with_agent=with_agent)
    progress.finish()
    return image


class Bootable(Protocol):
    """What a machine is made of: a disk that is not written to, and how QEMU starts from it."""

    @property
    def arch(self) -> Arch: ...
    @property
    def entry(self) -> Entry: ...
    @property
    def base(self) -> Entry: ...
    @property
    def disk(self) -> Path: ...
    def boot_args(self, xen_args: str, kernel_args: str) -> list[str]: ...


class Dom0:
    """One machine, from its disk overlay to its end. `boot` or `restore` starts it; `close` always ends it."""

    #: the cache's kind of entry for saved states
    _STATES = "state"

    def __init__(
        self,
        image: Bootable,
        hardware: Hardware,
        cache: Cache,
        *,
        log: Path | None = None,
        say: Callable[[str], None] = lambda _message: None,
    ) -> None:
        ensure_packages({**_TOOLS, image.arch.qemu_package: image.arch.qemu})
        self.image = image
        self._cache = cache
        self._say = say
        self._key = harness_key(cache)
        public = base64.b64encode(self._key.with_suffix(".pub").read_bytes()).decode()
        opening = f"virmo.authorized_key={public}"
        self.hardware = replace(hardware, kernel_extra=f"{hardware.kernel_extra} {opening}".strip())
        self._machine: Machine | None = None
        self._ssh: Ssh | None = None
        self._held = ExitStack()
        for entry in (image.entry, image.base):
            self._held.enter_context(entry.lease())
        self.folder = _run_folder(cache, self._held)
        # Socket paths are limited to 108 bytes: they cannot live below a deep cache folder.
        self._sockets = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="virmo-")))
        self.serial_log = log if log is not None else self.folder / "serial.log"
        self._disk = self.folder / "disk.qcow2"
        atexit.register(self.close)

    # --- life -----------------------------------------------------------------------------------------------------

    def boot(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Switches the machine on and waits until dom0's services are up. The disk keeps what earlier boots wrote."""
        self._expect_off()
        if not self._disk.exists():
            make_overlay(self.image.disk, self._disk)
        self._start(self._disk, None)
        self._await_ready(time.monotonic() + timeout)

    def prepare(self) -> Entry:
        """Makes sure that there is a saved state to go on from: boots once and saves it, if there is none."""
        self._expect_off()
        return self._saved_state()

    def restore(self) -> None:
        """Goes on from the state saved after an earlier boot; boots and saves it first when there is none."""
        saved = self.prepare()
        self._held.enter_context(saved.lease())
        make_overlay(saved.path / "disk.qcow2", self._disk)
        machine = self._start(self._disk, saved.path / "state")
        machine.resume(RESTORE_TIMEOUT)
        self._connect(time.monotonic() + RESTORE_TIMEOUT)
        self.run(["python3", "-c", _WAKE, f"{time.time():.3f}"], data=os.urandom(_ENTROPY_BYTES))

    def power_cut(self) -> None:
        """Takes the power away, now. What dom0 had synced to its disk is there at the next `boot`."""
        if self._ssh is not None:
            self._ssh.close()
            self._ssh = None
        if self._machine is not None:
            self._machine.kill()
            self._machine = None

    def power_off(self, timeout: float = SHUTDOWN_TIMEOUT) -> None:
        """Shuts dom0 down in order and waits for the machine's end."""
        self._leave("poweroff", timeout)

    def reboot(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Shuts dom0 down in order and boots it again from the same disk."""
        self._leave("reboot", SHUTDOWN_TIMEOUT)
        self.boot(timeout)

    def close(self) -> None:
        """Ends everything and removes the run's files. May be called any number of times."""
        atexit.unregister(self.close)
        self.power_cut()
        self._held.close()

    @property
    def running(self) -> bool:
        """Whether the machine is on."""
        return self._machine is not None and self._machine.process.poll() is None

    # --- use ------------------------------------------------------------------------------------------------------

    def run(
        self, argv: Sequence[str | Path], *, timeout: float = 60.0, data: bytes | None = None, check: bool = True
    ) -> Result:
        """Runs a command in dom0 (`data` is its input). A failed one raises CommandError unless `check` is off."""
        return self._connection().run(argv, timeout=timeout, data=data, check=check)

    def start(self, argv: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        """Starts a command in dom0 that runs beside; the caller ends it."""
        return self._connection().start(argv)

    def put(self, source: Path, target: str, *, timeout: float = COPY_TIMEOUT) -> None:
        """Copies a file, or a folder with what is in it, to `target` in dom0."""
        self._connection().put(source, target, timeout)

    def get(self, source: str, target: Path, *, timeout: float = COPY_TIMEOUT) -> None:
        """Copies a file out of dom0."""
        self._connection().get(source, target, timeout)

    def write(self, target: str, data: bytes | str) -> None:
        """Writes a file in dom0."""
        body = data.encode() if isinstance(data, str) else data
        self.run(["dd", f"of={target}", "status=none"], data=body)

    def read(self, source: str) -> str:
        """Reads a text file of dom0."""
        return self.run(["cat", source]).stdout

    def forward(self, port: int) -> int:
        """Makes a TCP port of dom0 reachable here; returns the loopback port. The other way, dom0 calls 10.0.2.2."""
        if self._machine is None:
            raise ImageError("dom0 is switched off")
        return self._machine.forward(port)

    def ssh_command(self) -> list[str]:
        """The command line of an interactive ssh over the standing connection."""
        return self._connection().command()

    def install_agent(self) -> None:
        """Lays today's agent over dom0's files, as an image with the agent in it has them."""
        self._connection().put_tar(pack_folder(agent_tree(self._cache)), "/", COPY_TIMEOUT)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _expect_off(self) -> None:
        if self.running:
            raise ImageError("the machine is already on")

    def _connection(self) -> Ssh:
        if self._ssh is None:
            raise ImageError("dom0 is switched off")
        return self._ssh

    def _start(self, disk: Path, state: Path | None) -> Machine:
        arch = self.image.arch
        boot = self.image.boot_args(self.hardware.xen_args(arch), self.hardware.kernel_args(arch))
        self._machine = Machine(
            arch, self.hardware, boot=boot, disk=disk, log=self.serial_log, folder=self._sockets, state=state
        )
        return self._machine

    def _await_ready(self, deadline: float) -> None:
        """Waits for ssh, then for systemd to have started everything; a service that failed fails the boot."""
        self._connect(deadline)
        while (state := self._system_state()) in _STARTING:
            if time.monotonic() > deadline:
                raise ImageError("dom0's services did not all start in time", detail=self._systemctl("list-jobs"))
            time.sleep(_POLL)
        if state != "running":
            raise ImageError(f"dom0 booted, but its services are {state}", detail=self._systemctl("--failed"))

    def _system_state(self) -> str:
        return self.run(["systemctl", "is-system-running"], check=False).stdout.strip()

    def _systemctl(self, word: str) -> str:
        return self.run(["systemctl", word, "--no-legend", "--plain"], check=False).stdout.rstrip()

    def _connect(self, deadline: float) -> None:
        assert self._machine is not None
        ssh = Ssh(self._machine.forward(22), self._key, self._sockets)
        while not ssh.greeting():
            self._machine.check_alive()
            if time.monotonic() > deadline:
                raise self._machine.failure("dom0 did not answer on ssh in time")
            time.sleep(_POLL)
        try:
            ssh.connect()
        except ImageError as error:
            raise self._machine.failure(str(error)) from error
        self._ssh = ssh

    def _leave(self, verb: str, timeout: float) -> None:
        if self._machine is None:
            return
        self.run(["systemctl", verb, "--no-block"])
        if not self._machine.wait_end(timeout):
            raise self._machine.failure(f"dom0 did not {verb} within {timeout:.0f} s")
        self.power_cut()

    def _saved_state(self) -> Entry:
        arch = self.image.arch
        inputs = {
            "image": self.image.entry.key,
            "base": self.image.base.key,
            "qemu": qemu_version(arch),
            "board": json.dumps(board_args(arch, self.hardware)),
            "xen": self.hardware.xen_args(arch),
            "kernel": self.hardware.kernel_args(arch),
        }

        def build(folder: Path) -> None:
            self._say("booting dom0 once; later starts will go on from here")
            make_overlay(self.image.disk, folder / "disk.qcow2")
            machine = self._start(folder / "disk.qcow2", None)
            try:
                self._await_ready(time.monotonic() + BOOT_TIMEOUT)
                self.run(["sync"])
                self._connection().close()
                machine.qmp.save_state(folder / "state", SAVE_TIMEOUT)
            finally:
                self.power_cut()

        return self._cache.get_or_build(f"{self._STATES}-{arch.name}", inputs, build)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run_folder(cache: Cache, held: ExitStack) -> Path:
    """A folder for one run's disk and log, removed at its end; what killed runs left behind goes now."""
    runs = cache.root / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with cache.lock("runs"):
        for old in runs.iterdir():
            with (old / "lock").open("a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(old)
        folder = Path(tempfile.mkdtemp(dir=runs))
        mark = held.enter_context((folder / "lock").open("a"))
        fcntl.flock(mark, fcntl.LOCK_SH)
    held.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder
