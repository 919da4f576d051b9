"""The VirMO Server of the story: started as its operator would, and used through its command line."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from image.errors import ImageError
from virmo_server.cli.main import main as virmo

INIT_TIMEOUT = 60.0
START_TIMEOUT = 120.0  # seconds; it takes two on an idle machine
STOP_TIMEOUT = 20.0


class Server:
    """A server with its state below ``folder``, listening on all addresses of this machine, reached as ``host``."""

    def __init__(self, folder: Path, host: str) -> None:
        self.folder = folder
        self._port = free_port()
        self.ca_file = folder / "tls" / "ca.pem"
        self._log = folder.parent / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        init = [sys.executable, "-m", "virmo_server.main", "init", str(folder)]
        hosts = ["--host", host, "--port", str(self._port)]
        done = subprocess.run([*init, *hosts], capture_output=True, text=True, timeout=INIT_TIMEOUT, check=False)
        if done.returncode != 0:
            raise ImageError("virmo-server init failed", detail=done.stdout + done.stderr)

    def start(self) -> None:
        """Serve; returns when the server answers."""
        serve = [sys.executable, "-m", "virmo_server.main", "--config", str(self.folder / "virmo-server.yaml"), "serve"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(serve, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1.0).close()
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ImageError("virmo-server did not start", detail=self.log()) from error
                time.sleep(0.1)

    def virmo(self, *words: str) -> str:
        """``virmo`` as an operator runs it; what it printed."""
        status, printed, complaint = self._command(words)
        if status != 0:
            raise ImageError(f"virmo {' '.join(words)} failed", detail=printed + complaint)
        return printed

    def virmo_json(self, *words: str) -> Any:
        """The same with ``--json``, read; a failed order is an answer, too."""
        _, printed, complaint = self._command((*words, "--json"))
        try:
            return json.loads(printed)
        except ValueError as error:
            raise ImageError(f"virmo {' '.join(words)} failed", detail=printed + complaint) from error

    def log(self) -> str:
        """The end of the server's log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:]) if self._log.exists() else ""

    def close(self) -> None:
        """Stop serving."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _command(self, words: tuple[str, ...]) -> tuple[int, str, str]:
        """The command line's own entry point, without the start of a process for each of its thirty uses."""
        printed, complaint = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaint):
            status = virmo(["--config", str(self.folder / "virmo.yaml"), *words])
        return status, printed.getvalue(), complaint.getvalue()


def free_port() -> int:
    """A TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
