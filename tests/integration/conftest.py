"""The real C xenstored, without Xen (see ``no_xen.c``)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

XENSTORED = Path("/usr/lib/xen-4.17/bin/xenstored")
#: Seconds in which xenstored must be up.
STARTS = 10.0


class Daemon:
    """A xenstored that can be stopped and started again, as an upgrade or a crash would."""

    def __init__(self, directory: Path, stub: Path) -> None:
        self._directory = directory
        self._stub = stub
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = directory / "socket"
        (directory / "xsd_kva").write_bytes(bytes(4096))
        (directory / "xsd_port").write_text("5")

    def start(self) -> None:
        """Start it, with an empty database, and wait until it answers."""
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self._stub),
            "XENSTORED_RUNDIR": str(self._directory),
            "XENSTORED_ROOTDIR": str(self._directory),
        }
        self._process = subprocess.Popen([str(XENSTORED), "-N"], env=environment)
        end = time.monotonic() + STARTS
        while not self._answers():
            assert self._process.poll() is None, f"xenstored ended with {self._process.returncode}"
            assert time.monotonic() < end, "xenstored does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """Let it hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(self.socket)) == 0


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``no_xen.c``, built."""
    library = tmp_path_factory.mktemp("stub") / "no_xen.so"
    source = Path(__file__).with_name("no_xen.c")
    subprocess.run(["tcc", "-shared", "-o", str(library), str(source)], check=True, timeout=60)
    return library


@pytest.fixture
def xenstored(tmp_path: Path, stub: Path) -> Iterator[Daemon]:
    """A running xenstored with an empty database."""
    daemon = Daemon(tmp_path, stub)
    daemon.start()
    yield daemon
    daemon.stop()
