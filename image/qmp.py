"""Talks to QEMU's control socket (QMP): one command, one answer. Events are read past."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from image.errors import ImageError

_CONNECT_TIMEOUT = 20.0
_ANSWER_TIMEOUT = 30.0
_POLL = 0.1


class Qmp:
    """A connection to one QEMU."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_ANSWER_TIMEOUT)
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        while True:
            try:
                self._socket.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    self._socket.close()
                    raise ImageError(f"QEMU did not open its control socket within {_CONNECT_TIMEOUT:.0f} s") from None
                time.sleep(_POLL)
            else:
                break
        self._file = self._socket.makefile("rb")
        self._read()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, fd: int | None = None) -> Any:
        """Runs a command and returns its answer; `fd` is a file handed over with it."""
        message = json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n"
        try:
            if fd is None:
                self._socket.sendall(message)
            else:
                socket.send_fds(self._socket, [message], [fd])
            while True:
                answer = self._read()
                if "error" in answer:
                    raise ImageError(f"QEMU refused {command}: {answer['error'].get('desc')}")
                if "return" in answer:
                    return answer["return"]
        except OSError as error:
            raise ImageError(f"QEMU's control socket failed at {command}: {error}") from error

    def monitor(self, line: str) -> str:
        """Runs a line of the human monitor, for the few things QMP has no command for."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    def save_state(self, target: Path, timeout: float) -> None:
        """Stops the machine and writes its memory and devices to a file; it does not run on afterwards."""
        self.execute("stop")
        self.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        with target.open("wb") as file:
            self.execute("getfd", {"fdname": "state"}, fd=file.fileno())
            self.execute("migrate", {"uri": "fd:state"})
            deadline = time.monotonic() + timeout
            while (status := self.execute("query-migrate").get("status")) != "completed":
                if status in {"failed", "cancelled"}:
                    raise ImageError(f"QEMU could not save the machine's state: {status}")
                if time.monotonic() > deadline:
                    raise ImageError(f"QEMU did not save the machine's state within {timeout:.0f} s")
                time.sleep(_POLL)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise ImageError("QEMU closed its control socket")
        answer = json.loads(line)
        return answer if isinstance(answer, dict) else {}
