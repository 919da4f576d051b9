"""The agent's local control socket: one JSON line asks, one JSON line answers. ``virmoctl`` is its client.

Root only (mode 0600). Knows no calls itself: a table of handlers is passed in; each call is answered on a thread of
its own, so a slow one holds up nobody.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dom0_agent.control_client import ControlError

log = logging.getLogger(__name__)

MAX_REQUEST = 64 << 10  #: bytes of one request line
IDLE_TIMEOUT = 30.0  #: seconds a connected client may stay silent

Handler = Callable[[Mapping[str, Any]], Any]


class ControlServer:
    """Serves ``handlers`` (call name → function of its parameters) on a Unix socket until closed."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._server = _Server(str(path), handlers)
        path.chmod(0o600)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        self.path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self.handlers = handlers
        mask = os.umask(0o177)
        try:
            super().__init__(path, _Connection)
        finally:
            os.umask(mask)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("event=control_failed")


class _Connection(socketserver.StreamRequestHandler):
    timeout = IDLE_TIMEOUT
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            line = self.rfile.readline(MAX_REQUEST + 1)
            if line:
                answer = json.dumps(self._answer(line)).encode() + b"\n"
                self.wfile.write(answer)

    def _answer(self, untrusted_line: bytes) -> dict[str, Any]:
        if len(untrusted_line) > MAX_REQUEST:
            return {"error": f"a request has at most {MAX_REQUEST} bytes"}
        try:
            request = json.loads(untrusted_line)
        except ValueError as error:
            return {"error": f"not JSON: {error}"}
        if not isinstance(request, dict) or not isinstance(request.get("call"), str):
            return {"error": 'a request is {"call": name, …}'}
        handler = self.server.handlers.get(request.pop("call"))
        if handler is None:
            return {"error": f"no such call; known are {', '.join(sorted(self.server.handlers))}"}
        try:
            return {"result": handler(request)}
        except ControlError as error:
            return {"error": str(error)}
