"""Runs the toolstack's programs: argument lists only, a deadline on each, and a kill that reaches their children.

Knows processes; must not know what any program does. What a program prints is foreign text (a guest's name, an error
that quotes a path): it is capped here and stays ``untrusted_`` until somebody parses it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dom0_agent.hypervisor.interface import HypervisorError, HypervisorTimeout

#: Bytes kept of each output stream. ``xl list`` has about 130 bytes a domain; a thousand domains fit eight times.
OUTPUT_CAP = 1 << 20
#: Seconds a killed process group gets to be gone; a process in uninterruptible sleep is left to the kernel after it.
KILL_GRACE = 5.0
#: Characters of a tool's complaint that go into an error message.
COMPLAINT_CAP = 600
#: Marks our tools' environment, so that the next agent finds the tools that a killed agent left running.
MARKER = "VIRMO_AGENT_TOOL"

_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class ToolResult:
    """How a program ended. Both outputs are foreign text, cut at :data:`OUTPUT_CAP`."""

    argv: tuple[str, ...]
    returncode: int
    untrusted_stdout: str
    untrusted_stderr: str

    @property
    def untrusted_complaint(self) -> str:
        """What it said of its failure, on one line, short enough for a message to a person."""
        said = self.untrusted_stderr.strip() or self.untrusted_stdout.strip() or "it printed nothing"
        line = "; ".join(part.strip() for part in said.splitlines() if part.strip())
        printable = "".join(c if c.isprintable() else "?" for c in line)
        return printable if len(printable) <= COMPLAINT_CAP else "… " + printable[-COMPLAINT_CAP:]


#: Runs a program: ``(argv, deadline in seconds) → ToolResult``. Tests pass another one.
ToolRunner = Callable[[Sequence[str], float], ToolResult]


def run_tool(argv: Sequence[str], deadline: float) -> ToolResult:
    """Run ``argv`` for at most ``deadline`` seconds, with no input, in a process group of its own.

    Ends as soon as the program itself has ended, also when a daemon that it started keeps its output open.
    :class:`HypervisorError` when it cannot be started; :class:`HypervisorTimeout` when it was killed.
    """
    environment = {**os.environ, "LC_ALL": "C", MARKER: "1"}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        raise HypervisorError(
            f"cannot start {argv[0]}: {error.strerror}; is it installed and in PATH? `virmo-agent doctor` tells"
        ) from error
    try:
        outputs = _collect(process, time.monotonic() + deadline)
        if outputs is None:
            raise HypervisorTimeout(f"{' '.join(argv[:3])} did not end within {deadline:g} s and was killed")
        return ToolResult(tuple(argv), process.wait(), outputs[0], outputs[1])
    finally:
        _kill_group(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _collect(process: subprocess.Popen[bytes], end: float) -> tuple[str, str] | None:
    """Both outputs at the program's end; ``None`` when the time is over first."""
    assert process.stdout is not None
    assert process.stderr is not None
    outputs = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    pidfd = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            for descriptor in outputs:
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            ended = False
            while not ended:
                remaining = end - time.monotonic()
                if remaining <= 0:
                    return None
                ready = {key.fd for key, _ in selector.select(remaining)}
                ended = pidfd in ready  # read once more below: what it wrote last is in the pipe
                for descriptor in outputs.keys() & ready:
                    if not _drain(descriptor, outputs[descriptor]):
                        selector.unregister(descriptor)
    finally:
        os.close(pidfd)
    for descriptor, output in outputs.items():
        _drain(descriptor, output)
    stdout, stderr = (bytes(output[:OUTPUT_CAP]).decode("utf-8", "replace") for output in outputs.values())
    return stdout, stderr


def _drain(descriptor: int, output: bytearray) -> bool:
    """Read what is there now; ``False`` at its end. Over the cap it is read and dropped: a full pipe blocks a tool."""
    while True:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        if len(output) < OUTPUT_CAP:
            output += chunk


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs of it. A tool that ended by itself may rightly have left a daemon: that one is spared."""
    if process.poll() is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        process.wait(KILL_GRACE)
    except subprocess.TimeoutExpired:  # uninterruptible in the kernel: it goes when the kernel lets it
        return


def await_orphans(program: str, deadline: float, proc: Path = Path("/proc")) -> int:
    """Wait until no ``program`` that an earlier agent started runs any more; kill what is left at the deadline.

    A killed agent leaves its ``xl save`` running; what that did can only be judged after its end. Returns how many
    were found.
    """
    found = orphans = _marked(program, proc)
    end = time.monotonic() + deadline
    while orphans and (remaining := end - time.monotonic()) > 0:
        _wait_for_exit(orphans[0], remaining)
        orphans = _marked(program, proc)
    for pid in orphans:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        _wait_for_exit(pid, KILL_GRACE)
    return len(found)


def _wait_for_exit(pid: int, seconds: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            selector.select(seconds)
    finally:
        os.close(pidfd)


def _marked(program: str, proc: Path) -> list[int]:
    """Processes named ``program`` that carry our mark, and are no children of this process."""
    pids = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
            name, _, rest = stat[stat.index("(") + 1 :].rpartition(")")
            state, parent = rest.split()[:2]
            if name != program or state == "Z" or int(parent) == os.getpid():
                continue
            environment = (entry / "environ").read_bytes()
        except (OSError, ValueError):  # it has just ended, or is not ours to read
            continue
        if f"{MARKER}=1".encode() in environment.split(b"\0"):
            pids.append(int(entry.name))
    return pids
