"""QEMU as a process: its command line, start, deadlines and death. Knows nothing of ssh or of what boots in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from image.arch import Arch
from image.errors import ImageError
from image.host import Argv, run_tool
from image.qmp import Qmp

#: How much of the serial log a failed boot shows.
LOG_TAIL_LINES = 30
#: Xen's schedulers that virtual machines can be shared out on; credit2 is its default.
SCHEDULERS = ("credit2", "credit")
#: QEMU's ways to run a guest's code: by the processor, or translated.
KVM, TCG = "kvm", "tcg"
_EXIT_TIMEOUT = 20.0
_POLL = 0.1
#: What a hypervisor or kernel says when nothing more will come.
_LAST_WORDS = ("Panic on CPU", "Kernel panic", "initramfs: the root disk")


@dataclass(frozen=True, slots=True)
class Hardware:
    """The emulated board, and the boot parameters of what runs on it."""

    scheduler: str = "credit2"
    memory_mib: int = 4096
    dom0_memory_mib: int = 1024
    cpus: int = 2
    xen_extra: str = ""
    kernel_extra: str = ""

    def xen_args(self, arch: Arch) -> str:
        """Xen's command line."""
        memory = f"dom0_mem={self.dom0_memory_mib}M,max:{self.dom0_memory_mib}M"
        emulated = arch.emulated_xen_args if accelerator(arch) == TCG else ""
        return _words(arch.xen_console, memory, f"sched={self.scheduler}", emulated, self.xen_extra)

    def kernel_args(self, arch: Arch) -> str:
        """dom0's kernel command line."""
        emulated = arch.emulated_kernel_args if accelerator(arch) == TCG else ""
        return _words("root=/dev/vda rw console=hvc0 net.ifnames=0 quiet", emulated, self.kernel_extra)


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def accelerator(arch: Arch, device: Path = Path("/dev/kvm")) -> str:
    """kvm where this machine can nest virtualisation; tcg, QEMU's emulation, everywhere else.

    That /dev/kvm opens is not enough: Xen's PVH and HVM guests need the nested processor feature too.
    """
    flags = Path("/proc/cpuinfo").read_text().split()
    nested = [path.read_text().strip() in {"1", "Y"} for path in arch.kvm_nested if path.exists()]
    able = any(flag in flags for flag in arch.kvm_flags) and any(nested)
    return KVM if able and os.access(device, os.R_OK | os.W_OK) else TCG


def qemu_version(arch: Arch) -> str:
    """The first line of --version: a saved state belongs to one QEMU."""
    return run_tool([arch.qemu, "--version"], what="asking QEMU its version", timeout=30).splitlines()[0]


def board_args(arch: Arch, hardware: Hardware) -> list[str]:
    """The part of the command line that a saved state depends on."""
    block, network, random = arch.devices
    accel = {
        TCG: ["-accel", "tcg,thread=multi", "-cpu", arch.tcg_cpu],
        KVM: ["-accel", "kvm", "-cpu", arch.kvm_cpu],
    }
    return [
        *("-machine", arch.machine, *accel[accelerator(arch)]),
        *("-smp", str(hardware.cpus), "-m", str(hardware.memory_mib)),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-device", f"{block},drive=disk"),
        *("-netdev", "user,id=net", "-device", f"{network},netdev=net,romfile="),
        *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", f"{random},rng=rng"),
    ]


class Machine:
    """One running QEMU."""

    def __init__(
        self,
        arch: Arch,
        hardware: Hardware,
        *,
        boot: Sequence[str],
        disk: Path,
        log: Path,
        folder: Path,
        state: Path | None,
    ) -> None:
        """Starts QEMU on `disk` as `boot` says; from the saved `state` if there is one. `folder`: for sockets."""
        self.log = log
        #: where this start begins in the log; what earlier starts said is not this one's
        self._log_start = log.stat().st_size if log.exists() else 0
        self._stderr = folder / "qemu.err"
        control = folder / "qmp"
        control.unlink(missing_ok=True)
        argv = [
            # QEMU dies with the process that started it, even when that is killed.
            *("setpriv", "--pdeathsig", "KILL", arch.qemu, *board_args(arch, hardware)),
            *boot,
            # "unsafe" leaves out the host's own flushes: a killed QEMU loses nothing, only a crash of the host would.
            *("-drive", f"file={disk},if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap"),
            *("-chardev", f"file,id=serial,path={log},append=on", "-serial", "chardev:serial"),
            *("-qmp", f"unix:{control},server=on,wait=off"),
        ]
        with self._stderr.open("wb") as errors:
            if state is None:
                self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
            else:
                with state.open("rb") as source:
                    number = source.fileno()
                    argv += ["-incoming", f"fd:{number}"]
                    self.process = subprocess.Popen(
                        argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, pass_fds=(number,)
                    )
        try:
            self.qmp = Qmp(control)
        except ImageError as error:
            self.kill()
            raise self.failure(f"QEMU did not start: {error}") from error

    def forward(self, guest_port: int) -> int:
        """Makes a port of dom0 reachable at a free loopback port of this machine, and returns that."""
        for _attempt in range(10):
            port = _free_port()
            said = self.qmp.monitor(f"hostfwd_add net tcp:127.0.0.1:{port}-:{guest_port}")
            if not said.strip():
                return port
        raise ImageError(f"no loopback port could be forwarded to dom0: {said.strip()}")

    def resume(self, timeout: float) -> None:
        """Lets a machine started from a saved state run, once that is read."""
        deadline = time.monotonic() + timeout
        while self.qmp.execute("query-status")["status"] == "inmigrate":
            self.check_alive()
            if time.monotonic() > deadline:
                raise self.failure(f"the saved machine was not read within {timeout:.0f} s")
            time.sleep(_POLL)
        # It was stopped to be saved, and so it comes back stopped.
        self.qmp.execute("cont")

    def check_alive(self) -> None:
        """Fails when QEMU has ended or what runs in it has said its last words."""
        if self.process.poll() is not None:
            raise self.failure(f"QEMU ended by itself (exit status {self.process.returncode})")
        tail = self.tail()
        for words in _LAST_WORDS:
            if words in tail:
                raise self.failure(f"the machine stopped: {words}")

    def wait_end(self, timeout: float) -> bool:
        """Waits for QEMU's end; whether it came."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Ends QEMU at once, as if the power were cut."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(_EXIT_TIMEOUT)
        if hasattr(self, "qmp"):
            self.qmp.close()

    def tail(self) -> str:
        """The end of the serial log, as far as it is of this start."""
        return end_of_log(self.log, self._log_start)

    def failure(self, what: str) -> ImageError:
        """An error that shows what QEMU and the machine said last."""
        said = self._stderr.read_text(errors="replace").strip()
        detail = "\n".join(part for part in (said, f"The serial log ({self.log}) ends:", self.tail()) if part)
        return ImageError(what, detail=detail)


def end_of_log(log: Path, start: int) -> str:
    """The last lines that a serial log has from byte `start` on."""
    if not log.exists():
        return ""
    text = log.read_bytes()[start:][-64 * 1024 :].decode(errors="replace").replace("\r", "")
    return "\n".join(f"    {line}" for line in text.splitlines()[-LOG_TAIL_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_overlay(backing: Path, overlay: Path) -> None:
    """A disk that reads as `backing` and keeps its own writes."""
    argv: Argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, overlay]
    run_tool(argv, what="making the machine's disk", timeout=60)
