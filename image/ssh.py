"""Commands and files over one ssh connection to a dom0 in QEMU: a master connection, everything else multiplexed on it.

Under emulation the key exchange of a connection costs seconds; a command over the standing one costs a tenth of that.
"""

from __future__ import annotations

import io
import shlex
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from image.cache import Cache
from image.errors import ImageError
from image.host import Argv, run_tool
from image.transfer import HOST, Channel

#: One attempt to get the server's greeting: a loaded emulator answers within a second or two.
_GREETING_TIMEOUT = 5.0
_MASTER_TIMEOUT = 60.0
_POLL = 0.5
#: What a command may take beyond its own deadline, which dom0's `timeout` enforces first.
_GRACE = 15.0
#: dom0 kills what does not end at its deadline.
_KILL_AFTER = 5
#: `timeout` reports this exit status for a command it had to end.
_TIMED_OUT = 124
#: ssh's own failures, as opposed to the remote command's.
_SSH_FAILED = 255
_UNPACK = "mkdir -p {target} && tar --extract --no-overwrite-dir --directory {target}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command in dom0 did."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str


class CommandError(ImageError):
    """A command in dom0 failed or ran out of time."""

    def __init__(self, result: Result, why: str) -> None:
        self.result = result
        said = "\n".join(part.rstrip() for part in (result.stdout, result.stderr) if part.strip())
        super().__init__(f"in dom0: {shlex.join(result.argv)}: {why}", detail=said)


def harness_key(cache: Cache) -> Path:
    """The key pair that test machines of this user are opened with; made once."""
    key = cache.root / "ssh" / "id_ed25519"
    with cache.lock("ssh"):
        if not key.exists():
            argv: Argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "virmo-harness", "-f", key]
            run_tool(argv, what="making the harness's ssh key", timeout=30)
    return key


class Ssh:
    """The connection. Made by `connect`; good until `close` or the machine's end."""

    def __init__(self, port: int, key: Path, folder: Path) -> None:
        self.port = port
        self._control = folder / "ssh"
        self._master: subprocess.Popen[bytes] | None = None
        self._options = [
            *("-F", "none", "-i", str(key), "-o", f"ControlPath={self._control}"),
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=30"),
            # The machine lives behind a loopback port for minutes: there is no host key to know beforehand.
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
        ]

    def greeting(self) -> bool:
        """Whether the server answers yet."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), _GREETING_TIMEOUT) as probe:
                probe.settimeout(_GREETING_TIMEOUT)
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False

    def connect(self) -> None:
        """Opens the master connection."""
        argv: Argv = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            *self.command("-M", "-N", "-o", "ServerAliveInterval=20", "-o", "ServerAliveCountMax=15"),
        ]
        self._master = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + _MASTER_TIMEOUT
        while not self._control.exists():
            if self._master.poll() is not None:
                assert self._master.stderr is not None
                said = self._master.stderr.read().decode(errors="replace").strip()
                self.close()
                raise ImageError("ssh could not log in to dom0", detail=said)
            if time.monotonic() > deadline:
                self.close()
                raise ImageError(f"ssh did not log in to dom0 within {_MASTER_TIMEOUT:.0f} s")
            time.sleep(_POLL / 10)

    def command(self, *options: str) -> list[str]:
        """The ssh command line up to the host, for those who start ssh themselves."""
        return ["ssh", *self._options, "-p", str(self.port), *options, "root@127.0.0.1"]

    def run(
        self, argv: Sequence[str | Path], *, timeout: float = 60.0, data: bytes | None = None, check: bool = True
    ) -> Result:
        """Runs a command to its end. With `check`, a status other than 0 is an error; a missed deadline always is."""
        words = tuple(str(word) for word in argv)
        remote = ["timeout", "-k", str(_KILL_AFTER), f"{timeout:g}", *words]
        try:
            done = subprocess.run(
                [*self.command("-o", "ControlMaster=no"), shlex.join(remote)],
                input=b"" if data is None else data,
                capture_output=True,
                timeout=timeout + _GRACE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            lost = Result(words, _SSH_FAILED, (error.stdout or b"").decode(errors="replace"), "")
            raise CommandError(lost, f"no answer within {timeout + _GRACE:.0f} s (is dom0 alive?)") from None
        result = Result(
            words, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if result.rc == _TIMED_OUT:
            raise CommandError(result, f"not finished within {timeout:g} s")
        if result.rc == _SSH_FAILED and not self.alive():
            raise CommandError(result, "the connection to dom0 is gone")
        if check and result.rc != 0:
            raise CommandError(result, f"exit status {result.rc}")
        return result

    def start(self, argv: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        """Starts a command and hands over its streams; the caller ends it."""
        words = ["setpriv", "--pdeathsig", "KILL", *self.command("-o", "ControlMaster=no")]
        remote = shlex.join(str(word) for word in argv)
        pipe = subprocess.PIPE
        return subprocess.Popen([*words, remote], stdin=pipe, stdout=pipe, stderr=pipe)

    def put(self, source: Path, target: str, timeout: float) -> None:
        """Copies a file, or a folder with what is in it, into dom0; `target` is the copy's own path."""
        if source.is_dir():
            self.put_tar(pack_folder(source), target, timeout)
        else:
            with source.open("rb") as stream:
                self._fetch(stream, f"cat >{shlex.quote(target)}", timeout)
            mode = f"{source.stat().st_mode & 0o777:o}"
            self.run(["chmod", mode, target])

    def put_tar(self, packed: bytes, target: str, timeout: float) -> None:
        """Unpacks a tar archive in dom0's folder `target`; files there that it names are replaced."""
        self._fetch(io.BytesIO(packed), _UNPACK.format(target=shlex.quote(target)), timeout)

    def get(self, source: str, target: Path, timeout: float) -> None:
        """Copies a file out of dom0."""
        with target.open("wb") as stream, Channel(timeout).receiving(stream) as channel:
            self._dial(f"cat {shlex.quote(source)} >/dev/tcp/{HOST}/{channel.port}", timeout)

    def _fetch(self, source: BinaryIO, reader: str, timeout: float) -> None:
        with Channel(timeout).sending(source) as channel:
            self._dial(f"{reader} </dev/tcp/{HOST}/{channel.port}", timeout)

    def _dial(self, line: str, timeout: float) -> None:
        """Runs a line of bash, which can open TCP connections as files."""
        self.run(["bash", "-c", f"set -e; {line}"], timeout=timeout)

    def alive(self) -> bool:
        """Whether the master connection still stands."""
        return self._master is not None and self._master.poll() is None

    def close(self) -> None:
        """Ends the connection at once, and whatever still runs over it."""
        if self._master is not None:
            self._master.kill()
            self._master.wait()
            if self._master.stderr is not None:
                self._master.stderr.close()
            self._master = None
        self._control.unlink(missing_ok=True)


def pack_folder(folder: Path) -> bytes:
    """A tar of what is in the folder, owned by root."""
    argv: Argv = ["tar", "--create", "--owner=0", "--group=0", "--directory", folder, "."]
    return subprocess.run(argv, capture_output=True, check=True).stdout
