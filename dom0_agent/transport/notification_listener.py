"""Takes notifications (package 0) that a server posts to the agent, and hands their octets on.

Answers 202 to whatever it takes, whether it is believed later or not: a stranger learns nothing. Reads no more than a
notification can have, and holds no more than a few of them. Knows no account and no session.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dom0_agent.omadm.notification import MAX_NOTIFICATION_BYTES

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/vnd.syncml.notification"
REQUEST_TIMEOUT = 5.0  #: seconds that a connection may take for its one small request
MAX_CONNECTIONS = 8  #: at the same time; a server needs one

Deliver = Callable[[bytes], bool]  #: takes the untrusted octets; False: too many are waiting


class NotificationListener:
    """Listens on ``host``:``port`` (0: any free one) until closed."""

    def __init__(self, host: str, port: int, deliver: Deliver) -> None:
        self._server = _Server((host, port), deliver)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="notifications", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_TIMEOUT)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], deliver: Deliver) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.deliver = deliver
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Request)

    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread of its own, if there is a place for one."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's work; gives the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that goes away in the middle is no event worth a traceback."""
        log.debug("event=notification_connection_failed", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT
    server_version = "virmo-agent"
    sys_version = ""

    def do_POST(self) -> None:
        """The only thing that can be done here."""
        untrusted_type = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        untrusted_length = self.headers.get("Content-Length", "")
        if untrusted_type != MEDIA_TYPE:
            self._answer(415)
        elif not (untrusted_length.isascii() and untrusted_length.isdigit() and len(untrusted_length) < 8):
            self._answer(411)
        elif int(untrusted_length) > MAX_NOTIFICATION_BYTES:
            self._answer(413)
        else:
            untrusted_octets = self.rfile.read(int(untrusted_length))
            self._answer(202 if self.server.deliver(untrusted_octets) else 503)

    def _answer(self, status: int) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are the session log's business."""
